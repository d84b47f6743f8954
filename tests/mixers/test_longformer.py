"""Longformer's windows, dilation and global tokens against one query at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from linocut import mixers
from mixers.oracle import answer, attention, build, check, tokens

LENGTHS = [1, 2, 9, 64, 65, 140]


def local(window: int, dilation: int, i: int, ahead: int, length: int) -> set[int]:
    steps = range(-window, (window if ahead else 0) + 1)
    return {j for j in (i + step * dilation for step in steps) if 0 <= j < length}


@pytest.mark.parametrize("window", [1, 4, 100])
@pytest.mark.parametrize("dilation", [1, 3, (1, 4)], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_causal_window(length: int, window: int, dilation: Any) -> None:
    mixer = build("longformer", heads=2, window=window, dilation=dilation)
    each = (dilation, dilation) if isinstance(dilation, int) else dilation
    check(mixer, tokens(length), lambda head, i: local(window, each[head], i, 0, length))
    assert mixer.reach == (window * max(each), 0)


def with_globals(mixer: Any, x: Tensor) -> Tensor:
    """The oracle: local rows see their window and the global tokens; global rows go through their own projections."""
    length, dim = x.shape[1], mixer.d_model // mixer.heads
    chosen = [at for at in mixer.global_positions if at < length]

    def sees(head: int, i: int) -> set[int]:
        return local(mixer.window, mixer.dilation[head], i, 1, length) | set(chosen)

    plain = torch.linalg.solve(mixer.out.weight, (attention(mixer, x, sees) - mixer.out.bias)[..., None])[..., 0]
    q, (k, v) = mixer.query_global(x), mixer.key_value_global(x).split(mixer.d_model, dim=-1)
    rows = list(plain.unbind(1))
    for at in chosen:
        parts = [slice(head * dim, (head + 1) * dim) for head in range(mixer.heads)]
        rows[at] = torch.stack(
            [torch.cat([answer(q[b, at, p], k[b][:, p], v[b][:, p]) for p in parts]) for b in range(x.shape[0])]
        )
    return mixer.out(torch.stack(rows, dim=1))


@pytest.mark.parametrize("positions", [(), (0,), (0, 1, 70), (139, 3)], ids=str)
@pytest.mark.parametrize("dilation", [1, (1, 4)], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_windows_and_global_tokens(length: int, dilation: Any, positions: tuple[int, ...]) -> None:
    mixer = build("longformer", heads=2, causal=False, window=5, dilation=dilation, global_positions=positions)
    x, found = tokens(length), []
    for form in (mixer, lambda x: with_globals(mixer, x)):
        leaf = x.clone().requires_grad_()
        y = form(leaf)
        grads = torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()], materialize_grads=True)
        found.append([y, *grads])
    for actual, expected in zip(*found, strict=True):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-8 * scale)


def test_the_projections_are_shared_by_name() -> None:
    causal, whole = build("longformer"), build("longformer", causal=False)
    extra = whole.state_dict().keys() - causal.state_dict().keys()
    assert {name.split(".")[0] for name in extra} == {"query_global", "key_value_global"}


@pytest.mark.parametrize(
    ("causal", "options", "message"),
    [
        (True, {"window": 0}, "window must be >= 1, got 0"),
        (True, {"dilation": 0}, "dilation must be one number >= 1, or one for each of 4 heads, got 0"),
        (True, {"dilation": (1, 2)}, r"one for each of 4 heads, got \(1, 2\)"),
        (False, {"global_positions": (0, -1)}, r"global_positions must be >= 0, got \(0, -1\)"),
    ],
)
def test_bad_arguments_are_named(causal: bool, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("longformer", 12, causal=causal, **options)
