"""BigBird's attention (Zaheer et al., *Big Bird: Transformers for Longer Sequences*, 2020).

The paper replaces the row of n keys, block by block of tokens, by three sets (section 2 and appendix D): the window of
a block and its neighbours, global blocks that see all and are seen by all (here the first and the last, the paper's
internal construction), and a few random blocks, which make the graph of who sees whom an expander. The paper's decoder
keeps dense attention: there is no causal form.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, register
from linocut.ops.joint_attention import Blocks, Piece, Span, joint_attention


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch does not annotate it
def random_blocks(blocks: int, count: int, heads: int, seed: int) -> Tensor:
    """Which blocks each inner block sees at random: drawn without repetition from those it does not see already.

    Args:
        blocks: blocks of the sequence, > count + 4.
        count: how many to draw.
        heads: every head draws its own.
        seed: the same seed gives the same graph.

    Returns:
        (heads, blocks - 2, count), for the blocks 1 to blocks - 2.
    """
    generator = torch.Generator().manual_seed(seed)
    own = torch.arange(1, blocks - 1)
    low, high = (own - 1).clamp_min(1), (own + 1).clamp_max(blocks - 2)
    width = high - low + 1
    others = blocks - 2 - width
    chosen = torch.empty(heads, blocks - 2, count, dtype=torch.long)
    for rank in range(count):  # Floyd's algorithm: a repetition becomes the newest number
        newest = others - count + rank
        draw = torch.rand(heads, blocks - 2, generator=generator, dtype=torch.float64)
        number = (draw * (newest + 1)).long().minimum(newest)
        repeated = (chosen[..., :rank] == number[..., None]).any(dim=-1)
        chosen[..., rank] = torch.where(repeated, newest, number)
    chosen += 1
    return chosen + torch.where(chosen >= low[:, None], width[:, None], 0)


@register(
    Info(
        name="bigbird",
        paper="Zaheer et al., Big Bird: Transformers for Longer Sequences, 2020",
        url="https://arxiv.org/abs/2007.14062",
        causal=False,
        cost="n (5 + random) block d",
        state="none",
    )
)
class BigBird(Attention):
    """Attention through a window of blocks, global blocks and random blocks.

    Sequences of up to ``random + 5`` blocks have no blocks to leave out and are attended to densely.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        block: tokens of a block, >= 1.
        random: random blocks that each block sees, >= 0.
        seed: of the random graph, which depends on the number of blocks and on nothing else.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(self, d_model: int, *, heads: int = 4, block: int = 64, random: int = 3, seed: int = 0) -> None:
        super().__init__(d_model, heads=heads)
        if block < 1 or random < 0:
            raise ValueError(f"block must be >= 1 and random >= 0, got block={block} and random={random}")
        self.block, self.random, self.seed = block, random, seed

    def _window(self, k: Tensor, v: Tensor) -> Piece:
        """Each inner block with its neighbours; what the last block lacks is hidden."""
        size, blocks = self.block, -(-k.shape[0] // self.block)
        missing = blocks * size - k.shape[0]
        k, v = (functional.pad(x, (0, 0, 0, 0, 0, missing)).unfold(0, 3 * size, size).transpose(-1, -2) for x in (k, v))
        spans = (Span(0, blocks - 3, 3 * size), Span(blocks - 3, blocks - 2, 3 * size - missing))
        return Piece(Blocks(size), k, v, spans)

    def _globals(self, k: Tensor, v: Tensor) -> Piece:
        """The first and the last block, but for inner blocks that have them as neighbours."""
        size, blocks = self.block, -(-k.shape[0] // self.block)
        k, v = (torch.cat([x[:size], x[(blocks - 1) * size :]]).transpose(0, 1)[None] for x in (k, v))
        keys = k.shape[2]
        last_only = torch.arange(keys, device=k.device)[None] >= size
        spans = (Span(0, 1, keys, last_only), Span(1, blocks - 3, keys), Span(blocks - 3, blocks - 2, size))
        return Piece(Blocks(size), k, v, spans)

    def _random(self, k: Tensor, v: Tensor, chosen: Tensor) -> Piece:
        """The blocks drawn for each inner block and head."""
        blocks, order = -(-k.shape[0] // self.block), Blocks(self.block)
        # a block of a head as one row, which is copied at once
        at = (chosen + torch.arange(self.heads, device=k.device)[:, None, None] * blocks).flatten()
        rows = (order.fold(x).transpose(0, 1).reshape(self.heads * blocks, -1).index_select(0, at) for x in (k, v))
        keys = self.random * self.block
        k, v = (x.view(self.heads, blocks - 2, keys, -1).transpose(0, 1) for x in rows)
        return Piece(order, k, v, (Span(0, blocks - 2, keys),))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query; all are (batch, length, heads, dim)."""
        length, size = q.shape[1], self.block
        blocks = -(-length // size)
        queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))
        if blocks <= self.random + 5:
            return functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2)
        chosen: Tensor = random_blocks(blocks, self.random, self.heads, self.seed).to(q.device)
        end = (blocks - 1) * size
        inner = []
        for q_, k_, v_ in zip(q, k, v, strict=True):
            pieces = [self._window(k_, v_), self._globals(k_, v_)]
            pieces += [self._random(k_, v_, chosen)] if self.random else []
            inner.append(joint_attention(q_[size:end], pieces))
        first, last = (
            functional.scaled_dot_product_attention(rows, keys, values).transpose(1, 2)
            for rows in (queries[:, :, :size], queries[:, :, end:])
        )
        return torch.cat([first, torch.stack(inner), last], dim=1)
