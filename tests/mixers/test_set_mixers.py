"""What every mixer over a set promises; a new one is added to MIXERS and inherits it all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from linocut import mixers

MIXERS: dict[str, dict[str, Any]] = {"linear_attention": {"heads": 2}}
D_MODEL, LENGTH = 12, 63
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}

every_mixer = pytest.mark.parametrize("name", sorted(MIXERS))
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random numbers each time, and no trace of it afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def build(name: str, dtype: torch.dtype = torch.float64) -> mixers.SetMixer:
    with seeded(0):
        return mixers.build(name, D_MODEL, **MIXERS[name]).to(dtype)


def tokens(length: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    with seeded(seed):
        return torch.randn(2, length, D_MODEL, dtype=torch.float64).to(dtype)


def in_pieces(mixer: mixers.SetMixer, x: Tensor, cuts: tuple[int, ...]) -> Tensor:
    """Every piece summarised alone, the summaries merged, every piece read alone."""
    pieces = x.tensor_split(cuts, dim=1)
    summary = mixer.summarize(pieces[0])
    for piece in pieces[1:]:
        summary = mixer.merge(summary, mixer.summarize(piece))
    return torch.cat([mixer.read(piece, summary) for piece in pieces], dim=1)


def test_the_list_is_complete() -> None:
    assert sorted(MIXERS) == mixers.names()


@every_mixer
@dtypes
@pytest.mark.parametrize("cuts", [(1,), (31,), (16, 32, 48), tuple(range(1, LENGTH))], ids=str)
def test_pieces_merged_are_the_whole(name: str, dtype: torch.dtype, cuts: tuple[int, ...]) -> None:
    mixer, x = build(name, dtype), tokens(LENGTH, dtype)
    torch.testing.assert_close(in_pieces(mixer, x, cuts), mixer(x), rtol=0, atol=TOLERANCE[dtype])


@every_mixer
def test_gradients_of_pieces_are_those_of_the_whole(name: str) -> None:
    results = []
    for cuts in ((), (1, 20, 40)):
        mixer, x = build(name), tokens(LENGTH).requires_grad_()
        in_pieces(mixer, x, cuts).square().sum().backward()
        results.append([x.grad, *(p.grad for p in mixer.parameters())])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-9)


@every_mixer
def test_a_permutation_of_the_tokens_permutes_the_outputs(name: str) -> None:
    mixer, x = build(name), tokens(LENGTH)
    with seeded(2):
        order = torch.randperm(LENGTH)
    torch.testing.assert_close(mixer(x[:, order]), mixer(x)[:, order], rtol=0, atol=1e-9)


@every_mixer
def test_every_token_reaches_every_other(name: str) -> None:
    mixer, x = build(name), tokens(LENGTH)
    before = mixer(x)
    x[:, -1] += 1
    assert ((mixer(x) - before).abs().amax(dim=-1) > 1e-9).all()


@every_mixer
def test_one_token(name: str) -> None:
    mixer, x = build(name), tokens(1)
    out = mixer(x)
    assert out.shape == x.shape
    assert out.isfinite().all()


@every_mixer
def test_the_members_of_a_batch_do_not_see_each_other(name: str) -> None:
    mixer, x = build(name), tokens(LENGTH)
    torch.testing.assert_close(mixer(x)[:1], mixer(x[:1]), rtol=0, atol=1e-9)


@every_mixer
def test_the_work_is_linear_in_the_length(name: str) -> None:
    mixer = build(name)
    counts = []
    for length in (1000, 2000, 4000):
        with FlopCounterMode(display=False) as counter:
            mixer(tokens(length))
        counts.append(counter.get_total_flops())
    assert counts[0] > 0
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


@pytest.mark.parametrize(("d_model", "heads"), [(12, 5), (12, 0), (0, 1), (12, -1)])
def test_heads_must_divide_the_channels(d_model: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"got d_model={d_model} and heads={heads}"):
        mixers.build("linear_attention", d_model, heads=heads)
