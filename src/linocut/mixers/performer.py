"""Performer (Choromanski et al., *Rethinking Attention with Performers*, ICLR 2021).

The paper keeps softmax attention and estimates its weights without bias by positive orthogonal random features
(FAVOR+), so that sums over keys are taken once: any Transformer's weights can be used, at a cost linear in the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, Mixer, OrderedMixer, SetMixer, register
from linocut.ops import favor as ops
from linocut.ops import feature_maps


class _Performer(Mixer):
    """What both forms share: the projections of tokens, and the random one.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        features: random vectors ω; None for d ln d of a head's d channels, as the paper's theorem 4 asks for.
        kind: positive (a feature a vector), hyperbolic or trigonometric (two).
        orthogonal: whether the vectors are orthogonal in blocks, which lowers the variance.
        seed: of the vectors; None to draw them from torch's global generator.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``, or for an unknown kind or fewer than one feature.
    """

    projection: Tensor

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        features: int | None = None,
        kind: str = "positive",
        orthogonal: bool = True,
        seed: int | None = 0,
    ) -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        feature_maps.check_random(kind)
        super().__init__(d_model)
        self.heads, self.kind, self.orthogonal = heads, kind, orthogonal
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        dim = d_model // heads
        count = max(1, round(dim * torch.tensor(dim).log().item())) if features is None else features
        self.register_buffer("projection", self._draw(count, seed).to(torch.get_default_dtype()))

    def _draw(self, features: int, seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        dim = self.d_model // self.heads
        return feature_maps.draw_projection(features, dim, orthogonal=self.orthogonal, generator=generator)

    @torch.no_grad()
    def redraw(self, seed: int | None = None) -> None:
        """Draw other random vectors, as the paper does while it trains: no sequence is then met by bad luck for long.

        Args:
            seed: of the new ones; None to draw them from torch's global generator.
        """
        self.projection.copy_(self._draw(self.projection.shape[0], seed))

    @property
    def _features(self) -> ops.Features:
        return ops.Features(self.projection, self.kind)

    def _queries(self, x: Tensor) -> Tensor:
        q: Tensor = self.query(x).unflatten(-1, (self.heads, -1))
        return q

    def _keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return k, v


@register(
    Info(
        name="performer",
        paper="Choromanski et al., Rethinking Attention with Performers, 2021",
        url="https://arxiv.org/abs/2009.14794",
        causal=False,
        cost="n d m",
        state="d m + 2 h m",
    )
)
class Performer(_Performer, SetMixer):
    """FAVOR+ over a set of tokens, with m features a head; the arguments are those of both forms (`_Performer`)."""

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> ops.Summary:
        """Sums of the features of a piece."""
        self.check(x)
        k, v = self._keys_values(x)
        return ops.summarize(k, v, self._features)

    def merge(self, a: ops.Summary, b: ops.Summary) -> ops.Summary:
        """Add two summaries under the larger maximum."""
        return ops.merge(a, b)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: ops.Summary
    ) -> Float[Tensor, "batch length d_model"]:
        """Answer this piece's queries."""
        self.check(x)
        out: Tensor = self.out(ops.read(self._queries(x), summary, self._features).flatten(2))
        return out


@register(
    Info(
        name="performer",
        paper="Choromanski et al., Rethinking Attention with Performers, 2021",
        url="https://arxiv.org/abs/2009.14794",
        causal=True,
        cost="n d m",
        state="d m + h (m + 1)",
    )
)
class CausalPerformer(_Performer, OrderedMixer):
    """FAVOR+ over the tokens so far, with m features a head; the arguments are those of both forms (`_Performer`)."""

    def init_state(self, batch: int) -> ops.Summary:
        """Sums over no tokens."""
        values = self._zeros(batch, 0, self.heads, self.d_model // self.heads)
        return ops.first_state(values, self._features)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: ops.Summary
    ) -> tuple[Float[Tensor, "batch length d_model"], ops.Summary]:
        """The outputs of a piece and the sums after it."""
        self.check(x)
        y, state = ops.causal_favor_attention(self._queries(x), *self._keys_values(x), self._features, state=state)
        return self.out(y.flatten(2)), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> ops.Summary:
        """Sums of the features of a piece, under one maximum."""
        self.check(x)
        sums = ops.summarize(*self._keys_values(x), self._features)
        m = sums.m.amax(dim=-1, keepdim=True)
        return ops.merge(sums, ops.Summary(torch.zeros_like(sums.kv), torch.zeros_like(sums.z), m))

    def compose(self, first: ops.Summary, second: ops.Summary) -> ops.Summary:
        """Add two summaries under the larger maximum."""
        return ops.merge(first, second)

    def advance(self, state: ops.Summary, summary: ops.Summary) -> ops.Summary:
        """Add a piece's sums to the state."""
        return ops.merge(state, summary)
