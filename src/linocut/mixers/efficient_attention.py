"""Efficient Attention (Shen et al., *Efficient Attention: Attention with Linear Complexities*, WACV 2021).

The paper swaps the order of the products by normalising queries and keys apart: a key channel becomes a map over the
positions, and its sum of values a global context vector, of which every query mixes a few.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, SetMixer, register
from linocut.ops import efficient_attention as ops


@register(
    Info(
        name="efficient_attention",
        paper="Shen et al., Efficient Attention, 2021",
        url="https://arxiv.org/abs/1812.01243",
        causal=False,
        cost="n d²/h",
        state="d²/h + 2d",
    )
)
class EfficientAttention(SetMixer):
    """Multi-head Efficient Attention.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``.
    """

    def __init__(self, d_model: int, *, heads: int = 4) -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        super().__init__(d_model)
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> ops.Summary:
        """The global context vectors of a piece, as sums of exponentials."""
        self.check(x)
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return ops.summarize(k, v)

    def merge(self, a: ops.Summary, b: ops.Summary) -> ops.Summary:
        """Add two summaries under the larger maximum."""
        return ops.merge(a, b)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: ops.Summary
    ) -> Float[Tensor, "batch length d_model"]:
        """Answer this piece's queries."""
        self.check(x)
        q = self.query(x).unflatten(-1, (self.heads, -1))
        out: Tensor = self.out(ops.read(q, summary).flatten(2))
        return out
