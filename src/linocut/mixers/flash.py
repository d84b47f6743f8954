"""FLASH (Hua, Dai, Liu, Le, *Transformer Quality in Linear Time*, ICML 2022, section 4).

The gated attention unit with mixed chunk attention: quadratic inside a chunk of tokens, where the paper's relu² is fast
and exact, and linear across chunks, where sums do. Two scales and offsets of z for each of the two.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.mixers.gau import GatedUnit
from linocut.mixers.open_block import OpenBlock, Tail, tail_of
from linocut.mixers.positions import rotary
from linocut.ops import mixed_chunk_attention as ops

_PAPER = "Hua et al., Transformer Quality in Linear Time, 2022"
_URL = "https://arxiv.org/abs/2202.10447"


class Sums(NamedTuple):
    """Σ k̂ vᵀ of some tokens, and how many they are."""

    sums: Float[Tensor, "batch size width"]
    length: int


class State(NamedTuple):
    """Σ k̂ vᵀ of the complete chunks, and z and v of the open one."""

    sums: Float[Tensor, "batch size width"]
    block: OpenBlock


class Piece(NamedTuple):
    """Σ k̂ vᵀ of a piece as if it were the first, and its last tokens."""

    sums: Float[Tensor, "batch size width"]
    tail: Tail


class _FLASH(GatedUnit):
    """Projections and chunk.

    Args:
        d_model: channels of a token.
        expansion: u and v are this many times as wide.
        size: channels of queries and keys, a multiple of 2.
        chunk: tokens a chunk, >= 1.

    Raises:
        ValueError: if the expansion or the chunk is below 1 or the size not a positive multiple of 2.
    """

    def __init__(self, d_model: int, *, expansion: int = 2, size: int = 128, chunk: int = 256) -> None:
        if chunk < 1:
            raise ValueError(f"chunk must be >= 1, got {chunk}")
        super().__init__(d_model, expansion=expansion, size=size, pairs=4)
        self.chunk = chunk


@register(Info(name="flash", paper=_PAPER, url=_URL, causal=False, cost="n (c + s) e", state="s e"))
class FLASH(_FLASH):
    """Mixed chunk attention over all tokens; the arguments are those of both forms (`_FLASH`).

    Pieces merge as those of a set, but chunks lie at multiples of `chunk` and positions count: a piece has to start
    where a chunk does, and all but the last to end there.
    """

    def summarize(self, x: Float[Tensor, "batch length d_model"], *, start: int = 0) -> Sums:
        """The sums of a piece whose first token is number `start`.

        Raises:
            ValueError: if that is not where a chunk starts.
        """
        self.check(x)
        self._check_start(start)
        _, v, z = self.project(x)
        (k_far,) = self.turned(z, (3,), start)
        return Sums(ops.outer_sum(k_far, v), x.shape[1])

    def merge(self, a: Sums, b: Sums) -> Sums:
        """Add two summaries."""
        return Sums(a.sums + b.sums, a.length + b.length)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: Sums, *, start: int = 0
    ) -> Float[Tensor, "batch length d_model"]:
        """The outputs of a piece whose first token is number `start`.

        Raises:
            ValueError: if that is not where a chunk starts.
        """
        self.check(x)
        self._check_start(start)
        u, v, z = self.project(x)
        q, k, q_far, k_far = self.turned(z, (0, 1, 2, 3), start)
        tokens = ops.Tokens(q, k, q_far, k_far, v)
        return self.gated(u, ops.read(tokens, *summary, chunk=self.chunk))

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        u, v, z = self.project(x)
        q, k, q_far, k_far = self.turned(z, (0, 1, 2, 3))
        tokens, sums = ops.Tokens(q, k, q_far, k_far, v), ops.outer_sum(k_far, v)
        return self.gated(u, ops.read(tokens, sums, x.shape[1], chunk=self.chunk))

    def _check_start(self, start: int) -> None:
        if start < 0 or start % self.chunk:
            raise ValueError(f"a piece must start at a multiple of {self.chunk} tokens, a chunk, got start={start}")


@register(Info(name="flash", paper=_PAPER, url=_URL, causal=True, cost="n (c + s) e", state="(c + s) e + c s"))
class CausalFLASH(_FLASH, OrderedMixer):
    """Mixed chunk attention over the tokens so far; the arguments are those of both forms (`_FLASH`).

    Pieces may be cut anywhere: the state has z and v of the tokens whose chunk is not complete.
    """

    def init_state(self, batch: int) -> State:
        """Nothing summed, no token open."""
        dtype = self.out.weight.dtype
        tokens = tuple(self._zeros(batch, self.chunk, width, dtype=dtype) for width in (self.size, self.width))
        position = torch.zeros(batch, dtype=torch.int64, device=self.out.weight.device)
        return State(self._zeros(batch, self.size, self.width), OpenBlock(tokens, position))

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: State
    ) -> tuple[Float[Tensor, "batch length d_model"], State]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        u, v, z = self.project(x)
        block = state.block
        seen = block.at() - block.number()
        all_z, all_v = (torch.cat(pair, dim=1) for pair in zip(block.opened(), (z, v), strict=True))
        y, sums = self._attend(z, block.at(), all_z, all_v, state.sums, seen)
        return self.gated(u, y), State(sums, block.then((z, v), x.shape[1]))

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once; no position is read from a state, so that it is one graph for a compiler."""
        self.check(x)
        u, v, z = self.project(x)
        return self.gated(u, self._attend(z, 0, z, v, self._zeros(x.shape[0], self.size, self.width), 0)[0])

    def _attend(
        self, z: Tensor, at: int, all_z: Tensor, all_v: Tensor, sums: Tensor, seen: int
    ) -> tuple[Tensor, Tensor]:
        """What the tokens from `at` on make of those from `seen` on, and the sums of the chunks complete by then."""
        q, q_far = self.turned(z, (0, 2), at)
        k, k_far = self.turned(all_z, (1, 3), seen)
        return ops.causal(ops.Tokens(q, k, q_far, k_far, all_v), sums, seen, chunk=self.chunk)

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Piece:
        """The sums of a piece, its positions counted from its first token, and its last tokens."""
        self.check(x)
        _, v, z = self.project(x)
        (k_far,) = self.turned(z, (3,))
        return Piece(ops.outer_sum(k_far, v), tail_of((z, v), self.chunk))

    def compose(self, first: Piece, second: Piece) -> Piece:
        """The second piece's sums, turned to where it lies, added to the first's."""
        moved = _moved(second.sums, first.tail.number())
        return Piece(first.sums + moved, first.tail.then(second.tail, self.chunk))

    def advance(self, state: State, summary: Piece) -> State:
        """Add a piece's sums; what its end leaves open is taken out again."""
        block = state.block.then(summary.tail.tokens, summary.tail.length)
        sums = state.sums + self._open_sums(state.block) + _moved(summary.sums, state.block.at())
        return State(sums - self._open_sums(block), block)

    def _open_sums(self, block: OpenBlock) -> Tensor:
        z, v = block.opened()
        (k_far,) = self.turned(z, (3,), block.at() - block.number())
        return ops.outer_sum(k_far, v)


def _moved(sums: Tensor, by: int) -> Tensor:
    """Σ k̂ vᵀ with every k̂ turned on by so many positions: rotations are linear, and add up."""
    columns = sums.mT[:, :, None]
    positions = torch.full((columns.shape[1],), by, dtype=torch.float64, device=sums.device)
    return rotary(columns, positions)[:, :, 0].mT
