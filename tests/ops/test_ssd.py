"""Mamba-2's recurrence against its loop; the kernel itself is tested with gated linear attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import ssd as ops


def arguments(randn: Callable[..., Tensor], length: int, groups: int = 2) -> list[Tensor]:
    heads, dim, state = 4, 10, 18
    return [
        randn(2, length, heads, dim),
        randn(2, length, heads).exp() / 4,
        -randn(heads).exp(),
        randn(2, length, groups, state) / 4,
        randn(2, length, groups, state) / 4,
        randn(heads),
        randn(2, heads, state, dim),
    ]


def run(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.ssd(x, dt, a, b, c, D=d, state=state, chunk_size=16)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 500])
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int, groups: int) -> None:
    inputs = arguments(randn, length, groups)
    expected = with_gradients(ops.recurrent_reference, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 2e-5)


@pytest.mark.parametrize("length", [0, 1, 65])
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = [x.double() for x in arguments(randn, length)]
    assert_all_close(with_gradients(run, inputs), with_gradients(ops.recurrent_reference, inputs), 1e-12)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 100)
    for which in (0, 1, 3, 4):
        inputs[which] = inputs[which].bfloat16()
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    expected = with_gradients(ops.recurrent_reference, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 3e-2)


def test_without_skip_and_state(form: str, randn: Callable[..., Tensor]) -> None:
    x, dt, a, b, c, d, state = arguments(randn, 40)
    expected = run(x, dt, a, b, c, torch.zeros_like(d), torch.zeros_like(state))
    assert_all_close(ops.ssd(x, dt, a, b, c), expected, 1e-6)


def test_parts_of_one_projection_are_read_where_they_are(isa: str, randn: Callable[..., Tensor]) -> None:
    x, dt, a, b, c, d, state = arguments(randn, 70)
    whole = torch.cat([each.flatten(2) for each in (x, b, c)], dim=-1)
    x_part, b_part, c_part = whole.split([40, 36, 36], dim=-1)
    parts = [
        x_part.unflatten(-1, (4, 10)),
        dt,
        a,
        b_part.unflatten(-1, (2, 18)),
        c_part.unflatten(-1, (2, 18)),
        d,
        state,
    ]
    assert_all_close(with_gradients(run, parts), with_gradients(run, [x, dt, a, b, c, d, state]), 1e-6)


def test_shapes_that_do_not_fit_are_named(randn: Callable[..., Tensor]) -> None:
    x, dt, a, b, c, d, state = arguments(randn, 3)
    with pytest.raises(ValueError, match=r"dt, A and D must be \(2, 3, 4\), \(4,\) and \(4,\), got \(2, 3, 3\)"):
        ops.ssd(x, dt[..., :3], a, b, c)
    with pytest.raises(ValueError, match=r"A and D must be .* got .* and \(3,\)"):
        ops.ssd(x, dt, a, b, c, D=d[:3])
    with pytest.raises(ValueError, match=r"state must be \(2, 4, 18, 10\), got \(2, 4, 10, 18\)"):
        ops.ssd(x, dt, a, b, c, state=state.mT)
