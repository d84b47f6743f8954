"""The gated linear recurrence: every form against the loop, and what a kernel must stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import linear_recurrence as ops

LENGTHS = (0, 1, 63, 64, 65, 500)


def arguments(randn: Callable[..., Tensor], length: int, channels: int = 37) -> tuple[Tensor, Tensor, Tensor]:
    return randn(2, length, channels).sigmoid(), randn(2, length, channels), randn(2, channels)


def run(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.linear_recurrence(a, b, state=state)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    expected = with_gradients(ops.recurrent_reference, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_doubling_is_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = [x.double() for x in arguments(randn, length)]
    assert_all_close(with_gradients(run, inputs), with_gradients(ops.recurrent_reference, inputs), 1e-12)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    a, b, state = arguments(randn, 100)
    a, b = a.bfloat16(), b.bfloat16()
    h, last = run(a, b, state)
    assert (h.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    expected = with_gradients(ops.recurrent_reference, [a.double(), b.double(), state.double()])
    assert_all_close(with_gradients(run, (a, b, state)), expected, 2e-2)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    a, b, state = arguments(randn, 90)
    whole, last = run(a, b, state)
    first, between = run(a[:, :29], b[:, :29], state)
    second, end = run(a[:, 29:], b[:, 29:], between)
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-6)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 64, 300)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(with_gradients(run, inputs))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor]) -> None:
    a, b, state = arguments(randn, 20)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (a, b)]
    assert not turned[0].is_contiguous()
    for one, two in zip(run(*turned, state), run(a, b, state), strict=True):
        assert torch.equal(one, two)


def test_nan_reaches_what_follows_and_nothing_before(isa: str, randn: Callable[..., Tensor]) -> None:
    a, b, state = arguments(randn, 20)
    b[0, 7, 3] = torch.nan
    h, last = run(a, b, state)
    assert h[0, 7:, 3].isnan().all()
    assert last[0, 3].isnan()
    assert h.isnan().sum() == 13


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 9)]
    torch.library.opcheck(ops._native, tuple(inputs))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"a and b must both be .*got \(1, 2, 3\) and \(1, 2, 4\)"):
        ops.linear_recurrence(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"state must be \(1, 3\), got \(1, 4\)"):
        ops.linear_recurrence(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), state=torch.zeros(1, 4))
