"""Softmax attention to a window (Child et al., *Generating Long Sequences with Sparse Transformers*, 2019, and others).

The simplest way to a linear cost: a token attends to its neighbourhood and to nothing else. With a dilation the window
takes every d-th token and reaches d times as far at the same cost. What a piece must know of the rest are the keys and
values next to it, so the causal form is both kinds of mixer: local by its reach, ordered with those as its state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, LocalMixer, OrderedMixer, register
from linocut.ops.local_attention import local_attention


class Near(NamedTuple):
    """The last keys and values, as many as the next token may see and there are, (batch, tokens, heads, dim).

    It is both the state after a piece and the piece's summary.
    """

    k: Tensor
    v: Tensor


def _info(*, causal: bool) -> Info:
    return Info(
        name="local_attention",
        paper="Child et al., Generating Long Sequences with Sparse Transformers, 2019",
        url="https://arxiv.org/abs/1904.10509",
        causal=causal,
        cost="n window d" if causal else "2 n window d",
        state="2 (window - 1) dilation d" if causal else "none",
    )


class _Local(Attention):
    """A window of keys for every query; `causal` comes with the registration."""

    def __init__(self, d_model: int, *, heads: int = 4, window: int = 256, dilation: int = 1) -> None:
        super().__init__(d_model, heads=heads)
        for name, number in {"window": window, "dilation": dilation}.items():
            if number < 1:
                raise ValueError(f"{name} must be >= 1, got {number}")
        self.window, self.dilation = window, dilation
        behind = (window - 1) * dilation
        self.reach = (behind, 0 if self.info.causal else behind)

    def answer(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every query's window; keys that come ahead of the queries' own are a halo."""
        before = k.shape[1] - q.shape[1]
        return local_attention(
            q, k, v, window=self.window, causal=self.info.causal, dilation=self.dilation, before=before
        )


@register(_info(causal=False))
class LocalAttention(_Local, LocalMixer):
    """Every token sees itself and the ``window - 1`` nearest on either side, ``dilation`` apart.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        window: tokens seen on either side, itself among both, >= 1.
        dilation: their distance, >= 1.

    Raises:
        ValueError: for an argument out of its range.
    """


@register(_info(causal=True))
class CausalLocalAttention(_Local, OrderedMixer, LocalMixer):
    """Every token sees itself and the ``window - 1`` before it, ``dilation`` apart.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        window: tokens seen, itself among them, >= 1.
        dilation: their distance, >= 1.

    Raises:
        ValueError: for an argument out of its range.
    """

    def init_state(self, batch: int) -> Near:
        """Nothing: no keys and no values."""
        blank = self._zeros(batch, 0, self.heads, self.d_model // self.heads, dtype=self.query.weight.dtype)
        return Near(blank, blank)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Near
    ) -> tuple[Float[Tensor, "batch length d_model"], Near]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        q = self.query(x).unflatten(-1, (self.heads, -1))
        seen = self._joined(state, Near(*self._key_value(x)))
        return self.out(self.answer(q, *seen).flatten(2)), self._last(seen)

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Near:
        """The piece's last keys and values."""
        self.check(x)
        return self._last(Near(*self._key_value(x)))

    def compose(self, first: Near, second: Near) -> Near:
        """The last ones of two adjoining pieces."""
        return self._last(self._joined(first, second))

    def advance(self, state: Near, summary: Near) -> Near:
        """The last ones after a piece."""
        return self._last(self._joined(state, summary))

    def _key_value(self, x: Tensor) -> tuple[Tensor, ...]:
        pairs: Tensor = self.key_value(x)
        return pairs.reshape(*x.shape[:2], 2, self.heads, self.d_model // self.heads).unbind(2)

    def _joined(self, first: Near, second: Near) -> Near:
        return Near(torch.cat([first.k, second.k], dim=1), torch.cat([first.v, second.v], dim=1))

    def _last(self, near: Near) -> Near:
        first = max(0, near.k.shape[1] - self.reach[0])
        return Near(near.k[:, first:], near.v[:, first:])
