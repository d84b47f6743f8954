"""Linformer against keys and values projected one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from linocut import mixers
from mixers.oracle import answer, build, tokens

RANK, LONGEST = 4, 20


def dense(mixer: Any, x: Tensor) -> Tensor:
    """Equation 7, head by head and query by query, with all keys and values worked out first."""
    dim, length = mixer.d_model // mixer.heads, x.shape[1]
    q, (k, v) = mixer.query(x), mixer.key_value(x).split(mixer.d_model, dim=-1)
    rows = []
    for head in range(mixer.heads):
        part = slice(head * dim, (head + 1) * dim)
        e, f = (m[min(head, m.shape[0] - 1), :, :length] for m in (mixer.projection[0], mixer.projection[-1]))
        for b in range(x.shape[0]):
            few_k, few_v = e @ k[b, :, part], f @ v[b, :, part]
            rows.append(torch.stack([answer(q[b, i, part], few_k, few_v) for i in range(length)]))
    return mixer.out(torch.stack(rows).unflatten(0, (mixer.heads, -1)).permute(1, 2, 0, 3).flatten(2))


@pytest.mark.parametrize("share", ["none", "headwise", "key_value"])
@pytest.mark.parametrize("length", [1, 2, 19, LONGEST])
def test_keys_and_values_are_projected_along_the_length(length: int, share: str) -> None:
    mixer = build("linformer", heads=2, causal=False, rank=RANK, max_length=LONGEST, share=share)
    x, found = tokens(length), []
    for form in (mixer, lambda x: dense(mixer, x)):
        leaf = x.clone().requires_grad_()
        y = form(leaf)
        found.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()])])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("share", "count"), [("none", 2 * 2), ("headwise", 2), ("key_value", 1)])
def test_what_is_shared_is_held_once(share: str, count: int) -> None:
    mixer = build("linformer", heads=2, causal=False, rank=RANK, max_length=LONGEST, share=share)
    assert mixer.projection.numel() == count * RANK * LONGEST


def test_layers_can_share_their_matrices() -> None:
    one, other = (build("linformer", heads=2, causal=False, rank=RANK, max_length=LONGEST) for _ in range(2))
    other.projection = one.projection
    assert len(set(one.parameters()) & set(other.parameters())) == 1


def test_a_sequence_that_is_too_long_is_refused() -> None:
    mixer = build("linformer", heads=2, causal=False, rank=RANK, max_length=LONGEST)
    with pytest.raises(ValueError, match="linformer takes at most max_length=20 tokens, got 21"):
        mixer(tokens(21))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads must be >= 1 and divide d_model, got d_model=12 and heads=5"),
        ({"max_length": 0}, "max_length and rank must be >= 1, got max_length=0 and rank=256"),
        ({"rank": 0}, "max_length and rank must be >= 1, got max_length=4096 and rank=0"),
        ({"share": "layerwise"}, "share must be one of none, headwise, key_value, got 'layerwise'"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("linformer", 12, causal=False, **options)
