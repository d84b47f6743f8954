"""BigBird's three sets of blocks against one query at a time, and its random graph."""

from __future__ import annotations

import pytest
import torch

from linocut import mixers
from linocut.mixers.bigbird import random_blocks
from mixers.oracle import build, check, tokens

BLOCK = 3


@pytest.mark.parametrize("random", [0, 2])
@pytest.mark.parametrize("length", [1, 2, 20, 21, 22, 23, 24, 43, 60])
def test_each_query_sees_its_blocks(length: int, random: int) -> None:
    mixer = build("bigbird", heads=2, causal=False, block=BLOCK, random=random, seed=3)
    blocks = -(-length // BLOCK)
    chosen = random_blocks(blocks, random, 2, 3).tolist() if blocks > random + 5 else None

    def sees(head: int, i: int) -> list[int]:
        own = i // BLOCK
        if chosen is None or own in (0, blocks - 1):
            return list(range(length))
        seen = {own - 1, own, own + 1, 0, blocks - 1, *chosen[head][own - 1]}
        return [j for j in range(length) if j // BLOCK in seen]

    check(mixer, tokens(length), sees)


@pytest.mark.parametrize(("blocks", "count"), [(8, 3), (9, 3), (40, 3), (40, 0), (12, 7)])
def test_random_blocks_are_new_ones(blocks: int, count: int) -> None:
    chosen = random_blocks(blocks, count, heads=4, seed=0)
    assert chosen.shape == (4, blocks - 2, count)
    for row in chosen:
        for own, found in enumerate(row.tolist(), start=1):
            assert len(set(found)) == count
            assert all(1 <= at <= blocks - 2 and abs(at - own) > 1 for at in found)


def test_every_allowed_block_is_drawn_equally_often() -> None:
    """Block 5 of 12 may draw 1, 2, 3, 7, 8, 9 and 10; two of the seven each time."""
    draws = random_blocks(12, 2, heads=4000, seed=1)[:, 4].flatten()
    counts = torch.bincount(draws, minlength=12).double()
    allowed = torch.tensor([1, 2, 3, 7, 8, 9, 10])
    expected = 4000 * 2 / 7
    error = (4000 * 2 / 7 * 5 / 7) ** 0.5
    assert counts.sum() == counts[allowed].sum() == 8000
    assert (counts[allowed] - expected).abs().max() < 4 * error


def test_the_seed_names_the_graph() -> None:
    same, other = random_blocks(30, 3, 2, seed=1), random_blocks(30, 3, 2, seed=2)
    assert torch.equal(random_blocks(30, 3, 2, seed=1), same)
    assert not torch.equal(same, other)
    state = torch.random.get_rng_state()
    random_blocks(30, 3, 2, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bad_arguments_are_named() -> None:
    for options in ({"block": 0, "random": 1}, {"block": 2, "random": -1}):
        message = f"got block={options['block']} and random={options['random']}"
        with pytest.raises(ValueError, match=message):
            mixers.build("bigbird", 12, causal=False, **options)
    with pytest.raises(ValueError, match="'bigbird' exists only with causal=False"):
        mixers.build("bigbird", 12)
