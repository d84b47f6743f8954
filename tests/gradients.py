"""Comparing functions of tensors together with all their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from linocut import native


def with_gradients(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a function of tensors, then the gradients of a fixed curved function of them all, as float64."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    outputs = function(*leaves)
    total = torch.zeros((), dtype=torch.float64)
    for rank, output in enumerate(outputs):
        wide = torch.view_as_real(output) if output.is_complex() else output
        total = total + (wide.double() + 0.3 * (rank + 1)).square().mul(0.5).sum()
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
    return [tensor.detach() for tensor in (*outputs, *found)]


def assert_all_close(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Every tensor within `tolerance` of the largest entry of the one expected."""
    assert len(actual) == len(expected)
    for rank, (a, e) in enumerate(zip(actual, expected, strict=True)):
        wide = torch.complex128 if e.is_complex() else torch.float64
        scale = max(1.0, e.abs().max().item()) if e.numel() else 1.0
        torch.testing.assert_close(
            a.to(wide), e.to(wide), rtol=0, atol=tolerance * scale, msg=lambda text, rank=rank: f"[{rank}] {text}"
        )


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """The same function of the same numbers in another layout or on other threads.

    A kernel adds up in one order whatever they are, so that it gives the same bits. PyTorch chooses the order of its
    sums by them; without the kernels, where its forms answer, results are the same up to that rounding.
    """
    if native.kernels() is None:
        for a, e in zip(actual, expected, strict=True):
            assert_all_close([a], [e], max(2e-6, torch.finfo(e.dtype).eps))
        return
    for rank, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert torch.equal(a, e), f"[{rank}] differs by {(a - e).abs().max().item():.1e}"
