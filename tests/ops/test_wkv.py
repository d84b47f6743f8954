"""RWKV-4's average: every form against the loop, and exponents of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import wkv as ops

LENGTHS = (0, 1, 16, 17, 63, 64, 65, 500)


def arguments(randn: Callable[..., Tensor], length: int, channels: int = 37) -> list[Tensor]:
    """k, v, w, u and a state that something was read into."""
    keys, values, decay = randn(2, length, channels), randn(2, length, channels), 0.3 * randn(channels).exp()
    return [keys, values, decay, randn(channels), randn(2, channels), randn(2, channels).exp(), randn(2, channels)]


def run(k: Tensor, v: Tensor, w: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
    y, last = ops.wkv(k, v, w, u, state=ops.State(*state))
    return y, *last


def loop(k: Tensor, v: Tensor, w: Tensor, u: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
    y, last = ops.recurrent_reference(k, v, w, u, ops.State(*state))
    return y, *last


def doubles(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() for x in inputs]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = doubles(arguments(randn, length))
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, inputs), 1e-11)


@pytest.mark.parametrize("channels", [1, 16, 64, 200])
def test_any_number_of_channels(isa: str, randn: Callable[..., Tensor], channels: int) -> None:
    inputs = arguments(randn, 40, channels)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-5)


def test_the_loop_is_the_formula(randn: Callable[..., Tensor]) -> None:
    k, v, w, u, *_ = doubles(arguments(randn, 9, 3))
    y, last = ops.recurrent_reference(k, v, w, u, ops.empty_state(k))
    for t in range(9):
        distance = t - 1 - torch.arange(t, dtype=torch.float64)[:, None]
        weights = torch.cat([torch.exp(k[:, :t] - distance * w), torch.exp(k[:, t : t + 1] + u)], dim=1)
        torch.testing.assert_close(y[:, t], (weights * v[:, : t + 1]).sum(1) / weights.sum(1))
    faded = torch.exp(k - (8 - torch.arange(9, dtype=torch.float64))[:, None] * w)
    torch.testing.assert_close(last.den * last.max.exp(), faded.sum(1))


def test_gradients_are_those_of_finite_differences(randn: Callable[..., Tensor]) -> None:
    inputs = [x.requires_grad_() for x in doubles(arguments(randn, 5, 2))]
    assert torch.autograd.gradcheck(loop, inputs)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1000.0), (1.0, -1000.0), (300.0, 0.0)])
def test_keys_of_any_size(form: str, randn: Callable[..., Tensor], scale: float, shift: float) -> None:
    k, v, w, u, *_ = arguments(randn, 70)
    k = (k * scale + shift).round()  # whole numbers are float32, so both see the same differences
    state = ops.empty_state(k)
    w = w.mul(8).round() / 8
    u = u.mul(8).round() / 8
    actual, expected = run(k, v, w, u, *state), loop(*doubles([k, v, w, u, *state]))
    assert all(x.isfinite().all() for x in actual)
    assert_all_close(actual[:1], expected[:1], 1e-5)


def test_gradients_of_large_keys_stay_bounded(isa: str, randn: Callable[..., Tensor]) -> None:
    k, v, w, u, *_ = arguments(randn, 70)
    inputs = [(k * 100).round(), v, w.mul(8).round() / 8, u.mul(8).round() / 8, *ops.empty_state(k)]
    inputs[4], inputs[5], inputs[6] = randn(2, 37), randn(2, 37).exp(), randn(2, 37).round()
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-4)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    k, v, *rest = arguments(randn, 100)
    inputs = [k.bfloat16(), v.bfloat16(), *rest]
    y, last, *_ = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 2e-2)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    k, v, w, u, *state = arguments(randn, 90)
    whole = run(k, v, w, u, *state)
    first, *between = run(k[:, :29], v[:, :29], w, u, *state)
    second, *end = run(k[:, 29:], v[:, 29:], w, u, *between)
    assert_all_close([torch.cat([first, second], 1), *end], whole, 1e-6)


def test_a_piece_acts_on_a_state_through_its_own_sums(form: str, randn: Callable[..., Tensor]) -> None:
    k, v, w, u, *state = arguments(randn, 30)
    _, piece = ops.wkv(k, v, w, u)
    assert_all_close(ops.State(*state).then(piece, 30 * w), run(k, v, w, u, *state)[1:], 1e-5)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 64, 300)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 16):
            torch.set_num_threads(threads)
            results.append(with_gradients(run, inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same(other, results[0])


def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor]) -> None:
    k, v, *rest = arguments(randn, 20)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (k, v)]
    assert not turned[0].is_contiguous()
    assert_same(run(*turned, *rest), run(k, v, *rest))


@pytest.mark.parametrize("which", [0, 1], ids=["k", "v"])
def test_nan_reaches_what_follows_and_nothing_before(form: str, randn: Callable[..., Tensor], which: int) -> None:
    inputs = arguments(randn, 20)
    inputs[which][0, 7, 3] = torch.nan
    y, last, *_ = run(*inputs)
    assert y[0, 7:, 3].isnan().all()
    assert last[0, 3].isnan()
    assert y.isnan().sum() == 13


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    torch.library.opcheck(ops._native, tuple(x.requires_grad_() for x in arguments(randn, 40)))


def test_shapes_that_do_not_fit_are_named() -> None:
    x, d = torch.zeros(1, 2, 3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"k and v must both be .*got \(1, 2, 3\) and \(1, 2, 4\)"):
        ops.wkv(x, torch.zeros(1, 2, 4), d, d)
    with pytest.raises(ValueError, match=r"u must be \(3,\), got \(4,\)"):
        ops.wkv(x, x, d, torch.zeros(4))
    state = ops.State(torch.zeros(1, 3), torch.zeros(1, 4), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"state.den must be \(1, 3\), got \(1, 4\)"):
        ops.wkv(x, x, d, d, state=state)
