"""Nyströmformer against its three matrices written out, and its parts against what they approximate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from linocut import mixers
from linocut.mixers.nystromformer import convolve, pseudo_inverse, segment_means
from mixers.oracle import attention, build, tokens


def dense(mixer: Any, x: Tensor) -> Tensor:
    """Equation 15 with every matrix formed, and the convolution as the paper's code has it."""
    heads, length = mixer.heads, x.shape[1]
    q = mixer.query(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = mixer.key_value(x).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    scale = q.shape[-1] ** -0.5
    size = -(-length // mixer.landmarks)
    few_q, few_k = (torch.stack([part.mean(dim=2) for part in y.split(size, dim=2)], dim=2) for y in (q, k))
    first, second, third = ((scale * a @ b.mT).softmax(dim=-1) for a, b in ((q, few_k), (few_q, few_k), (few_q, k)))
    z = second.mT / second.abs().sum(-2).amax(-1)[..., None, None]  # the rows of a softmax sum to 1
    eye = torch.eye(z.shape[-1], dtype=z.dtype)
    for _ in range(mixer.iterations):
        product = second @ z
        z = 0.25 * z @ (13 * eye - product @ (15 * eye - product @ (7 * eye - product)))
    out = first @ z @ third @ v
    if mixer.residual is not None:
        taps = mixer.residual.shape[1]
        out = out + functional.conv2d(v, mixer.residual[:, None, :, None], padding=(taps // 2, 0), groups=heads)
    return mixer.out(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("taps", [0, 1, 7])
@pytest.mark.parametrize("length", [5, 8, 33, 64, 65, 70])
def test_landmarks_stand_for_their_segments(length: int, taps: int) -> None:
    mixer = build("nystromformer", heads=2, causal=False, landmarks=4, taps=taps)
    x, found = tokens(length), []
    for form in (mixer, lambda x: dense(mixer, x)):
        leaf = x.clone().requires_grad_()
        y = form(leaf)
        found.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()])])
    for actual, expected in zip(*found, strict=True):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("length", [1, 2, 8])
def test_no_more_tokens_than_landmarks_is_exact(length: int) -> None:
    mixer, x = build("nystromformer", heads=2, causal=False, landmarks=8, taps=0), tokens(length)
    torch.testing.assert_close(mixer(x), attention(mixer, x, lambda _head, _i: range(length)), rtol=0, atol=1e-12)


def test_equal_tokens_within_segments_are_attended_to_exactly() -> None:
    """Nyström's approximation has no error where the landmarks span the rows."""
    mixer = build("nystromformer", heads=2, causal=False, landmarks=3, taps=0, iterations=30)
    x = tokens(3).repeat_interleave(5, dim=1)
    torch.testing.assert_close(mixer(x), attention(mixer, x, lambda _head, _i: range(15)), rtol=0, atol=1e-7)


def test_the_iteration_finds_the_inverse() -> None:
    scores = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = (3 * scores).softmax(dim=-1)
    torch.testing.assert_close(pseudo_inverse(a, 40), torch.linalg.pinv(a), rtol=1e-8, atol=1e-8)
    errors = [(a @ pseudo_inverse(a, count) - torch.eye(6)).norm().item() for count in (2, 6, 12)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(("length", "expected"), [(4, [0, 1, 2, 3]), (8, [0.5, 2.5, 4.5, 6.5]), (5, [0.5, 2.5, 4])])
def test_segments(length: int, expected: list[float]) -> None:
    means = segment_means(torch.arange(float(length)).reshape(1, -1, 1, 1), 4)
    assert means.flatten().tolist() == expected


@pytest.mark.parametrize("taps", [1, 3, 33])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_the_band_matrix_is_the_convolution(length: int, taps: int) -> None:
    x = tokens(length, 6).unflatten(-1, (2, 3))
    weight = torch.randn(2, taps, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = functional.conv2d(x.transpose(1, 2), weight[:, None, :, None], padding=(taps // 2, 0), groups=2)
    torch.testing.assert_close(convolve(x, weight), expected.transpose(1, 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"landmarks": 0}, "landmarks and iterations must be >= 1, got landmarks=0 and iterations=6"),
        ({"iterations": 0}, "landmarks and iterations must be >= 1, got landmarks=64 and iterations=0"),
        ({"taps": 4}, "taps must be odd, or 0 for no convolution, got 4"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("nystromformer", 12, causal=False, **options)
