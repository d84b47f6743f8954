"""Linear attention by a feature map (Katharopoulos et al., *Transformers are RNNs*, ICML 2020).

The paper replaces exp(qᵀk) by φ(q)ᵀφ(k): the sum over keys no longer depends on the query and is taken once. Taken up
to each token only, it is the state of a recurrence. The paper's φ is elu + 1.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, Mixer, OrderedMixer, SetMixer, register
from linocut.ops import linear_attention as ops
from linocut.ops.feature_maps import mapping


class _Projections(Mixer):
    """Queries, keys and values of several heads, and the way out: the parameters that both forms share."""

    def __init__(self, d_model: int, *, heads: int = 4, feature_map: str = "elu") -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        super().__init__(d_model)
        mapping(feature_map)  # knows the name
        self.heads, self.feature_map = heads, feature_map
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def queries(self, x: Tensor) -> Tensor:
        """Not mapped yet: (batch, length, heads, dim)."""
        queries: Tensor = self.query(x).unflatten(-1, (self.heads, -1))
        return queries

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, not mapped yet, and values: (batch, length, heads, dim)."""
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return k, v


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
class LinearAttention(_Projections, SetMixer):
    """Multi-head linear attention over a set of tokens, O(length) time and an O(1) summary.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        feature_map: φ: elu (elu + 1), relu, exp, or identity.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``, or for an unknown feature map.
    """

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> ops.Summary:
        """Σ φ(k) vᵀ and Σ φ(k) of a piece."""
        self.check(x)
        k, v = self.keys_and_values(x)
        return ops.summarize(k, v, feature_map=self.feature_map)

    def merge(self, a: ops.Summary, b: ops.Summary) -> ops.Summary:
        """Add two summaries."""
        return ops.merge(a, b)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: ops.Summary
    ) -> Float[Tensor, "batch length d_model"]:
        """Answer this piece's queries."""
        self.check(x)
        out: Tensor = self.out(ops.read(self.queries(x), summary, feature_map=self.feature_map).flatten(2))
        return out


@register(
    Info(
        name="linear_attention",
        paper="Katharopoulos et al., Transformers are RNNs, 2020",
        url="https://arxiv.org/abs/2006.16236",
        causal=True,
        cost="n d²/h",
        state="d²/h + d",
    )
)
class CausalLinearAttention(_Projections, OrderedMixer):
    """Multi-head linear attention of every token to those before it and itself; parameters as :class:`LinearAttention`.

    Its state is the summary of what came before, and pieces compose as sets merge: by addition.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        feature_map: φ: elu (elu + 1), relu, exp, or identity.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``, or for an unknown feature map.
    """

    def init_state(self, batch: int) -> ops.Summary:
        """Empty sums."""
        dim = self.d_model // self.heads
        return ops.Summary(self._zeros(batch, self.heads, dim, dim), self._zeros(batch, self.heads, dim))

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: ops.Summary
    ) -> tuple[Float[Tensor, "batch length d_model"], ops.Summary]:
        """The outputs of a piece and the sums after it."""
        self.check(x)
        k, v = self.keys_and_values(x)
        y, state = ops.causal_linear_attention(self.queries(x), k, v, feature_map=self.feature_map, state=state)
        return self.out(y.flatten(2)), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> ops.Summary:
        """Σ φ(k) vᵀ and Σ φ(k) of a piece."""
        self.check(x)
        k, v = self.keys_and_values(x)
        return ops.summarize(k, v, feature_map=self.feature_map)

    def compose(self, first: ops.Summary, second: ops.Summary) -> ops.Summary:
        """Add two summaries."""
        return ops.merge(first, second)

    def advance(self, state: ops.Summary, summary: ops.Summary) -> ops.Summary:
        """Add the piece to the state."""
        return ops.merge(state, summary)
