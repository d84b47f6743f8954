"""Strided (atrous) attention: every token sees every `stride`-th key, from itself on.

One of the two factors of the Sparse Transformer (Child et al., 2019) as a mixer of its own: it reaches as far as dense
attention at a stride-th of the cost, and nothing ever passes from one residue class to another, so it wants a local
mixer beside it.
"""

from __future__ import annotations

from torch import Tensor

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, register
from linocut.ops.strided_attention import strided_attention


def _info(*, causal: bool) -> Info:
    return Info(
        name="strided_attention",
        paper="Child et al., Generating Long Sequences with Sparse Transformers, 2019",
        url="https://arxiv.org/abs/1904.10509",
        causal=causal,
        cost="n² d / stride",
        state="none",
    )


@register(_info(causal=False))
class StridedAttention(Attention):
    """Multi-head attention to the tokens a multiple of the stride away.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        stride: distance of the tokens seen, >= 1.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model`` or the stride is below 1.
    """

    def __init__(self, d_model: int, *, heads: int = 4, stride: int = 8) -> None:
        super().__init__(d_model, heads=heads)
        if stride < 1:
            raise ValueError(f"stride must be >= 1, got {stride}")
        self.stride = stride

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query; all are (batch, length, heads, dim)."""
        return strided_attention(q, k, v, stride=self.stride, causal=self.info.causal)


@register(_info(causal=True))
class CausalStridedAttention(StridedAttention):
    """The same, with every token seeing itself and those before it."""
