"""The tokens of a block that is not complete: what causal mixers by blocks remember, in tensors of a fixed size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class OpenBlock(NamedTuple):
    """Tokens of the open block, whatever a mixer keeps of them, and where the sequence is.

    Attributes:
        tokens: (batch, block, …) each; those beyond the open ones are zero.
        position: (batch,) tokens so far, the same for all members of the batch.
    """

    tokens: tuple[Tensor, ...]
    position: Tensor

    def at(self) -> int:
        """The position as a number."""
        return int(self.position[0]) if len(self.position) else 0

    def number(self) -> int:
        """Tokens that are open."""
        return self.at() % self.tokens[0].shape[1]

    def opened(self) -> tuple[Tensor, ...]:
        """The open tokens alone."""
        count = self.number()
        return tuple(x[:, :count] for x in self.tokens)

    def then(self, tail: tuple[Tensor, ...], length: int | Tensor) -> OpenBlock:
        """The open block after `length` more tokens, of which `tail` has the last ones: a block of them or all."""
        block, position = self.tokens[0].shape[1], self.position + length
        count = OpenBlock(self.tokens, position).number()
        kept = []
        for old, new in zip(self.opened(), tail, strict=True):
            both = torch.cat([old, new], dim=1)
            last = both[:, both.shape[1] - count :]
            kept.append(torch.cat([last, last.new_zeros(last.shape[0], block - count, *last.shape[2:])], dim=1))
        return OpenBlock(tuple(kept), position)


class Tail(NamedTuple):
    """What an open block must know of a piece: its last tokens, a block of them or all, and its length.

    Attributes:
        tokens: (batch, at most block, …) each.
        length: (batch,) tokens of the piece.
    """

    tokens: tuple[Tensor, ...]
    length: Tensor

    def number(self) -> int:
        """The length as a number."""
        return int(self.length[0]) if len(self.length) else 0

    def then(self, second: Tail, block: int) -> Tail:
        """This piece, then another."""
        both = [torch.cat(pair, dim=1) for pair in zip(self.tokens, second.tokens, strict=True)]
        return Tail(tuple(x[:, -block:] for x in both), self.length + second.length)


def tail_of(tokens: tuple[Tensor, ...], block: int) -> Tail:
    """The tail of a piece."""
    batch, length = tokens[0].shape[:2]
    lengths = torch.full((batch,), length, device=tokens[0].device)
    return Tail(tuple(x[:, -block:] for x in tokens), lengths)
