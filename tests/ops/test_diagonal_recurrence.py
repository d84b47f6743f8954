"""S4D's and LRU's recurrences: every form against the loop, and what a kernel must stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import diagonal_recurrence as ops

LENGTHS = (0, 1, 63, 64, 65, 128, 129, 500)
Randn = Callable[..., Tensor]


def gates(randn: Randn, *shape: int) -> Tensor:
    """Inside the unit disc, some near its rim."""
    return torch.polar(randn(*shape).sigmoid() ** 0.2, 3 * randn(*shape))


def cplx(randn: Randn, *shape: int) -> Tensor:
    return torch.complex(randn(*shape), randn(*shape))


def arguments(randn: Randn, length: int, channels: int = 37, states: int = 7) -> list[Tensor]:
    pair = (channels, states)
    return [
        randn(2, length, channels),
        gates(randn, *pair),
        cplx(randn, *pair),
        randn(channels),
        cplx(randn, 2, *pair),
    ]


def lru_arguments(randn: Randn, length: int, channels: int = 37) -> list[Tensor]:
    return [gates(randn, channels), cplx(randn, 2, length, channels), cplx(randn, 2, channels)]


def wide(inputs: list[Tensor]) -> list[Tensor]:
    return [x.to(torch.complex128 if x.is_complex() else torch.float64) for x in inputs]


def run(u: Tensor, lam: Tensor, c: Tensor, skip: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.diagonal_ssm(u, lam, c, D=skip, state=state)


def run_lru(lam: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.complex_recurrence(lam, b, state=state)


@pytest.mark.parametrize("states", [1, 2, 7, 8])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Randn, length: int, states: int) -> None:
    inputs = arguments(randn, length, states=states)
    expected = with_gradients(ops.recurrent_reference, wide(inputs))
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_complex_kernel_is_the_loop(isa: str, randn: Randn, length: int) -> None:
    inputs = lru_arguments(randn, length)
    expected = with_gradients(ops.complex_reference, wide(inputs))
    assert_all_close(with_gradients(run_lru, inputs), expected, 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_are_the_loop(randn: Randn, length: int) -> None:
    inputs = wide(arguments(randn, length))
    assert_all_close(with_gradients(run, inputs), with_gradients(ops.recurrent_reference, inputs), 1e-11)
    inputs = wide(lru_arguments(randn, length))
    assert_all_close(with_gradients(run_lru, inputs), with_gradients(ops.complex_reference, inputs), 1e-11)


@pytest.mark.parametrize("length", [0, 7, 300])
def test_chunks_of_an_empty_batch_are_empty(randn: Randn, length: int) -> None:
    u, lam, c, skip, state = wide(arguments(randn, length))
    y, *found = with_gradients(run, [u[:0], lam, c, skip, state[:0]])
    assert y.shape == (0, length, 37)
    assert not any(x.any() for x in found)
    lam, b, state = wide(lru_arguments(randn, length))
    h, *found = with_gradients(run_lru, [lam, b[:0], state[:0]])
    assert h.shape == (0, length, 37)
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64])
def test_one_token_without_gradients_is_the_loop(isa: str, randn: Randn, channels: int) -> None:
    for states in (1, 8, 13):
        inputs = arguments(randn, 1, channels, states)
        with torch.no_grad():
            assert_all_close(run(*inputs), ops.recurrent_reference(*wide(inputs)), 1e-6)


def test_the_recurrence_is_the_published_convolution(form: str, randn: Randn) -> None:
    """S4D, section 3.3: y = u * K with K_l = 2 Re sum_N c lam^l."""
    u, lam, c, skip, _ = wide(arguments(randn, 100))
    lags = torch.arange(100)
    kernel = 2 * (c[..., None] * lam[..., None] ** lags).real.sum(1)
    spectrum = torch.fft.rfft(u, 200, dim=1) * torch.fft.rfft(kernel.T, 200, dim=0)
    expected = torch.fft.irfft(spectrum, 200, dim=1)[:, :100]
    torch.testing.assert_close(ops.diagonal_ssm(u, lam, c)[0], expected, rtol=1e-11, atol=1e-11)
    narrow = ops.diagonal_ssm(u.float(), lam.to(torch.complex64), c.to(torch.complex64), D=skip.float())[0]
    assert_all_close([narrow], [expected + skip * u], 1e-5)


def test_bfloat16_in_and_out(isa: str, randn: Randn) -> None:
    inputs = arguments(randn, 100)
    inputs[0] = inputs[0].bfloat16()
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.complex64)
    expected = with_gradients(ops.recurrent_reference, wide(inputs))
    assert_all_close(with_gradients(run, inputs), expected, 2e-2)


def test_pieces_are_the_whole(form: str, randn: Randn) -> None:
    u, lam, c, skip, state = arguments(randn, 190)
    whole, last = run(u, lam, c, skip, state)
    first, between = run(u[:, :29], lam, c, skip, state)
    second, end = run(u[:, 29:], lam, c, skip, between)
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-5)
    lam, b, state = lru_arguments(randn, 90)
    whole, last = run_lru(lam, b, state)
    first, between = run_lru(lam, b[:, :29], state)
    second, end = run_lru(lam, b[:, 29:], between)
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-5)


def test_what_is_left_out_is_zero(form: str, randn: Randn) -> None:
    u, lam, c, skip, state = arguments(randn, 70)
    zeros = torch.zeros_like(skip), torch.zeros_like(state)
    assert_all_close(ops.diagonal_ssm(u, lam, c), run(u, lam, c, *zeros), 1e-6)
    inputs = [u, lam, c]
    expected = with_gradients(lambda u, lam, c: run(u, lam, c, *zeros), inputs)
    assert_all_close(with_gradients(ops.diagonal_ssm, inputs), expected, 1e-5)


def test_threads_do_not_change_the_result(randn: Randn) -> None:
    before = torch.get_num_threads()
    for function, inputs in ((run, arguments(randn, 130)), (run_lru, lru_arguments(randn, 64, 300))):
        try:
            results = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                results.append(with_gradients(function, inputs))
        finally:
            torch.set_num_threads(before)
        assert_same(*results)


def test_a_gate_of_zero_and_of_one(form: str, randn: Randn) -> None:
    u, lam, c, skip, state = arguments(randn, 70)
    lam = torch.where(torch.arange(7) < 3, 0, torch.where(torch.arange(7) < 5, 1, lam)).contiguous()
    inputs = [u, lam, c, skip, state]
    expected = with_gradients(ops.recurrent_reference, wide(inputs))
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)


def test_inputs_need_be_neither_contiguous_nor_conjugated_in_memory(isa: str, randn: Randn) -> None:
    u, lam, c, skip, state = arguments(randn, 70)
    turned = u.transpose(0, 1).contiguous().transpose(0, 1)
    marked = [x.conj().resolve_conj().conj() for x in (lam, c, state)]
    assert not turned.is_contiguous()
    assert marked[0].is_conj()
    outputs = run(turned, marked[0], marked[1], skip, marked[2])
    assert_same(outputs, run(u, lam, c, skip, state))


@pytest.mark.parametrize("widen", [list, wide], ids=["single", "double"])
def test_nan_reaches_what_follows_and_nothing_before(
    isa: str, randn: Randn, widen: Callable[[list[Tensor]], list[Tensor]]
) -> None:
    u, lam, c, skip, state = widen(arguments(randn, 80))
    u[0, 7, 3] = torch.nan
    y, last = run(u, lam, c, skip, state)
    assert y[0, 7:, 3].isnan().all()
    assert last[0, 3].isnan().all()
    assert y.isnan().sum() == 73
    lam, b, state = widen(lru_arguments(randn, 20))
    b[0, 7, 3] = torch.nan
    h, last = run_lru(lam, b, state)
    assert h.isnan().sum() == 13
    assert h[0, 7:, 3].isnan().all()
    assert last[0, 3].isnan()


def test_the_gradient_keeps_no_more_than_its_inputs_and_chunk_states(randn: Randn) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 640, states=4)]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        run(*inputs)
    if ops.kernel.usable():
        assert sum(x.numel() for x in kept) <= 1.1 * inputs[0].numel()


def test_torch_sees_a_proper_operator(kernels: Any, randn: Randn) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 9)]
    torch.library.opcheck(ops._native, (*inputs, True))
    torch.library.opcheck(ops._native, (*inputs[:3], None, inputs[4], True))
    torch.library.opcheck(ops._complex, tuple(x.requires_grad_() for x in lru_arguments(randn, 9)))


def test_gradients_of_the_chunked_form_are_right(randn: Randn) -> None:
    inputs = [x.requires_grad_() for x in wide(arguments(randn, 5, channels=2, states=2))]
    torch.autograd.gradcheck(lambda *x: ops.chunked(*x, chunk_size=2), inputs)


def test_shapes_that_do_not_fit_are_named(randn: Randn) -> None:
    u, lam, c, skip, state = arguments(randn, 3, 4, 2)
    with pytest.raises(ValueError, match=r"got \(2, 3, 4\), \(3, 2\) and \(4, 2\)"):
        ops.diagonal_ssm(u, lam[:3], c)
    with pytest.raises(ValueError, match=r"D must be \(4,\), got \(3,\)"):
        ops.diagonal_ssm(u, lam, c, D=skip[:3])
    with pytest.raises(ValueError, match=r"state must be \(2, 4, 2\), got \(1, 4, 2\)"):
        ops.diagonal_ssm(u, lam, c, state=state[:1])
    lam, b, state = lru_arguments(randn, 3, 4)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2, 3, 4\)"):
        ops.complex_recurrence(lam[:3], b)
    with pytest.raises(ValueError, match=r"state must be \(2, 4\), got \(1, 4\)"):
        ops.complex_recurrence(lam, b, state=state[:1])
