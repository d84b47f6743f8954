"""Softmax attention (Vaswani et al., *Attention Is All You Need*, 2017): every token sees every other, O(length²).

The yardstick: it has no small summary, and what the linear mixers give up or keep is measured against it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, register


def _info(*, causal: bool) -> Info:
    return Info(
        name="softmax_attention",
        paper="Vaswani et al., Attention Is All You Need, 2017",
        url="https://arxiv.org/abs/1706.03762",
        causal=causal,
        cost="n² d",
        state="none",
    )


@register(_info(causal=False))
class SoftmaxAttention(Attention):
    """Multi-head softmax attention through torch's own kernel; see :class:`Attention` for the arguments."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query; all are (batch, length, heads, dim)."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=self.info.causal).transpose(1, 2)


@register(_info(causal=True))
class CausalSoftmaxAttention(SoftmaxAttention):
    """The same, with every token seeing itself and those before it."""
