"""Mixers that see every token beside the one before it: RWKV's token shift, a convolution of two taps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.mixers.base import OrderedMixer


def previous(x: Float[Tensor, "batch length d_model"], last: Float[Tensor, "batch d_model"]) -> Tensor:
    """Every token's predecessor; the first one's is `last`."""
    first = last[:, None].to(x.dtype)
    return first if x.shape[1] == 1 else torch.cat([first, x], dim=1)[:, :-1]


def ramp(d_model: int) -> Float[Tensor, " d_model"]:
    """0 to 1 over the channels, which RWKV's initial decays and shares rise along."""
    return torch.arange(d_model) / max(d_model - 1, 1)


def check_depth(depth: float) -> None:
    """Refuse a depth that is not from 0, a network's first layer, to 1, its last.

    Raises:
        ValueError: if it is not.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth must be from 0 (first layer) to 1 (last), got {depth}")


class ShiftedPiece(NamedTuple):
    """What a piece is to the state of a mixer with a token shift.

    Attributes:
        last: its last token, (batch, d_model); None if it is empty.
        inner: what it is to the recurrence.
    """

    last: Tensor | None
    inner: Any


class ShiftedMixer(OrderedMixer):
    """An ordered mixer whose state is the last token and the state of a recurrence over pairs of neighbours.

    A subclass gives the recurrence's five functions.
    """

    halo = 1

    def _init_inner(self, batch: int) -> Any:
        raise NotImplementedError

    def _scan_inner(self, x: Tensor, shifted: Tensor, inner: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def _summarize_inner(self, x: Tensor, shifted: Tensor) -> Any:
        raise NotImplementedError

    def _compose_inner(self, first: Any, second: Any) -> Any:
        return first.then(second)

    def _advance_inner(self, inner: Any, piece: Any) -> Any:
        return piece.apply(inner)

    def init_state(self, batch: int) -> tuple[Tensor, Any]:
        """A token of zeros, and the recurrence's state before the first token."""
        return self._zeros(batch, self.d_model, dtype=next(self.parameters()).dtype), self._init_inner(batch)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: tuple[Tensor, Any]
    ) -> tuple[Float[Tensor, "batch length d_model"], tuple[Tensor, Any]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        last, inner = state
        y, inner = self._scan_inner(x, previous(x, last), inner)
        return y, (x[:, -1] if x.shape[1] else last, inner)

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> ShiftedPiece:
        """The piece's last token and its map of the recurrence's state."""
        self.check(x)
        last = x.new_zeros(x.shape[0], self.d_model) if before is None or before.shape[1] == 0 else before[:, -1]
        return ShiftedPiece(x[:, -1] if x.shape[1] else None, self._summarize_inner(x, previous(x, last)))

    def compose(self, first: ShiftedPiece, second: ShiftedPiece) -> ShiftedPiece:
        """Two adjoining pieces as one."""
        last = first.last if second.last is None else second.last
        return ShiftedPiece(last, self._compose_inner(first.inner, second.inner))

    def advance(self, state: tuple[Tensor, Any], summary: ShiftedPiece) -> tuple[Tensor, Any]:
        """The state after a piece."""
        last, inner = state
        return last if summary.last is None else summary.last, self._advance_inner(inner, summary.inner)
