"""The step of a Mamba layer in one native call: every build of the kernel against the formulas in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from torch import Tensor

from linocut.ops import mamba_step as ops

needs_kernels = pytest.mark.usefixtures("kernels")

# d_model, d_inner, d_state, d_conv, dt_rank: whole vectors; less than one; more than a thread's share of rows
SIZES = [
    (32, 64, 16, 4, 4),
    (1, 1, 1, 1, 1),
    (5, 7, 3, 2, 2),
    (24, 48, 40, 4, 7),
    (37, 75, 16, 3, 1),
    (150, 300, 8, 4, 10),
]
Inputs = tuple[Tensor, Tensor, Tensor, list[Any]]


def arguments(randn: Callable[..., Tensor], sizes: Sequence[int], batch: int = 2, *, biases: bool = True) -> Inputs:
    """x, tail, h and the parameters, none of them large."""
    d_model, d, states, width, rank = sizes

    def weight(rows: int, columns: int) -> Tensor:
        return randn(rows, columns) * columns**-0.5

    def bias(size: int) -> Tensor | None:
        return randn(size) if biases else None

    in_proj, conv, x_proj = weight(2 * d, d_model), weight(d, width)[:, None], weight(rank + 2 * states, d)
    parameters = [
        in_proj,
        bias(2 * d),
        conv,
        bias(d),
        x_proj,
        weight(d, rank),
        randn(d) - 1,
        randn(d, states),
        randn(d),
    ]
    return (
        randn(batch, d_model),
        randn(batch, width - 1, d),
        randn(batch, d, states),
        [*parameters, weight(d_model, d), bias(d_model)],
    )


def reference(x: Tensor, tail: Tensor, h: Tensor, parameters: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's parts, in double precision."""
    x, tail, h = x.double(), tail.double(), h.double()
    wide = [None if each is None else each.double() for each in parameters]
    in_proj, in_bias, conv, conv_bias, x_proj, dt_proj, dt_bias, a_log, skip, out_proj, out_bias = wide
    inner, z = F.linear(x, in_proj, in_bias).chunk(2, dim=-1)
    window = torch.cat([tail, inner[:, None]], dim=1)
    convolved = torch.einsum("bwd,dw->bd", window, conv[:, 0])
    inner = F.silu(convolved if conv_bias is None else convolved + conv_bias)
    states = h.shape[2]
    dt, b, c = F.linear(inner, x_proj).split([dt_proj.shape[1], states, states], dim=-1)
    delta = F.softplus(F.linear(dt, dt_proj, dt_bias))[..., None]
    h = torch.exp(-delta * a_log.exp()) * h + delta * b[:, None] * inner[..., None]
    y = (torch.einsum("bdn,bn->bd", h, c) + skip * inner) * F.silu(z)
    return F.linear(y, out_proj, out_bias), window[:, 1:], h


def check(inputs: Inputs) -> None:
    """The kernel answers, answers right, and leaves its inputs alone."""
    before = [each.clone() for each in inputs[:3]]
    found = ops.mamba_step(*inputs)
    assert found is not None
    for one, two in zip(found, reference(*inputs), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=2e-5)
    assert all(torch.equal(one, two) for one, two in zip(before, inputs[:3], strict=True))


@needs_kernels
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("biases", [True, False])
def test_the_kernel_is_the_formulas(isa: str, randn: Callable[..., Tensor], sizes: Sequence[int], biases: bool) -> None:
    check(arguments(randn, sizes, biases=biases))


@needs_kernels
@pytest.mark.parametrize("batch", [0, 1, ops.MAX_BATCH])
def test_any_number_of_sequences_it_takes(isa: str, randn: Callable[..., Tensor], batch: int) -> None:
    check(arguments(randn, SIZES[3], batch))


@needs_kernels
def test_threads_do_not_change_the_result(
    isa: str, randn: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "_LARGE", 1)
    inputs = arguments(randn, SIZES[5])
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(ops.mamba_step(*inputs))
    finally:
        torch.set_num_threads(before)
    one, three = results
    assert one is not None
    assert three is not None
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@needs_kernels
def test_nan_stays_in_its_sequence(isa: str, randn: Callable[..., Tensor]) -> None:
    x, tail, h, parameters = arguments(randn, SIZES[0])
    x[1, 3] = torch.nan
    found = ops.mamba_step(x, tail, h, parameters)
    assert found is not None
    y, next_tail, next_h = found
    assert y[1].isnan().all()
    assert next_tail[1, -1].isnan().all()
    assert next_h[1].isnan().all()
    assert not any(each[0].isnan().any() for each in found)


def test_what_it_cannot_do_is_left_to_the_parts(randn: Callable[..., Tensor]) -> None:
    x, tail, h, parameters = arguments(randn, SIZES[0])
    leaf = x.clone().requires_grad_()
    for inputs in (
        arguments(randn, SIZES[0], ops.MAX_BATCH + 1),
        (leaf, tail, h, parameters),
        (x.double(), tail, h, parameters),
        (x, tail.bfloat16(), h, parameters),
        (x, tail, h.transpose(1, 2).contiguous().transpose(1, 2), parameters),
        (x[:, 1:].contiguous(), tail, h, parameters),
        (x, tail[:, 1:].contiguous(), h, parameters),
        (x, tail, h[:1], parameters),
    ):
        assert ops.mamba_step(*inputs) is None
