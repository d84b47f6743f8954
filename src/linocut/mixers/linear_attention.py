"""Linear attention with the elu + 1 feature map (Katharopoulos et al., *Transformers are RNNs*, ICML 2020).

The paper replaces exp(qᵀk) by φ(q)ᵀφ(k): the sum over keys no longer depends on the query and is taken once.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, SetMixer, register
from linocut.ops import linear_attention as ops


@register(
    Info(
        name="linear_attention",
        paper="Katharopoulos et al., Transformers are RNNs, 2020",
        url="https://arxiv.org/abs/2006.16236",
        causal=False,
        cost="n d²/h",
        state="d²/h + d",
    )
)
class LinearAttention(SetMixer):
    """Multi-head linear attention over a set of tokens, O(length) time and an O(1) summary.

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
        """Σ φ(k) vᵀ and Σ φ(k) of a piece."""
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return ops.summarize(k, v, feature_map="elu")

    def merge(self, a: ops.Summary, b: ops.Summary) -> ops.Summary:
        """Add two summaries."""
        return ops.merge(a, b)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: ops.Summary
    ) -> Float[Tensor, "batch length d_model"]:
        """Answer this piece's queries."""
        q = self.query(x).unflatten(-1, (self.heads, -1))
        out: Tensor = self.out(ops.read(q, summary, feature_map="elu").flatten(2))
        return out
