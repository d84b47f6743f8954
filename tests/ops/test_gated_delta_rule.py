"""The gated delta rule: every form against the loop, and what a kernel must stand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import gated_delta_rule as ops

LENGTHS = (0, 1, 63, 64, 65, 500)
SHAPES = [(4, 4, 16, 16), (2, 4, 20, 37), (1, 3, 5, 70)]


def arguments(
    randn: Callable[..., Tensor], length: int, shape: tuple[int, int, int, int] = (2, 4, 20, 37)
) -> tuple[Tensor, ...]:
    groups, heads, dim, value = shape
    return (
        functional.normalize(randn(2, length, groups, dim), dim=-1),
        functional.normalize(randn(2, length, groups, dim), dim=-1),
        randn(2, length, heads, value),
        functional.logsigmoid(randn(2, length, heads) + 2),
        randn(2, length, heads).sigmoid(),
        randn(2, heads, dim, value),
    )


def run(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.gated_delta_rule(q, k, v, log_decay, beta, state=state)


def as_double(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x.double() for x in inputs]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_is_the_loop(
    isa: str, randn: Callable[..., Tensor], length: int, shape: tuple[int, int, int, int]
) -> None:
    inputs = arguments(randn, length, shape)
    expected = with_gradients(ops.recurrent_reference, as_double(inputs))
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("chunk_size", [1, 16, 64])
def test_the_chunked_form_is_the_loop(randn: Callable[..., Tensor], length: int, chunk_size: int) -> None:
    inputs = as_double(arguments(randn, length))
    chunked = with_gradients(lambda *x: ops.chunked(*x, chunk_size), inputs)
    assert_all_close(chunked, with_gradients(ops.recurrent_reference, inputs), 1e-12)


def test_gradients_are_those_of_finite_differences(randn: Callable[..., Tensor]) -> None:
    inputs = as_double(arguments(randn, 5, (1, 2, 3, 2)))
    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in inputs])


def test_it_learns_and_overwrites_what_a_key_holds() -> None:
    q = k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    v = torch.tensor([3.0, 5.0, 7.0]).view(1, 3, 1, 1)
    y, last = ops.gated_delta_rule(q, k, v, None, torch.ones(1, 3, 1))
    assert y.flatten().tolist() == [3.0, 5.0, 7.0]
    assert last.flatten().tolist() == [7.0, 5.0]


def test_no_decay_is_a_decay_of_one(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v, _, beta, state = arguments(randn, 70)
    expected = ops.recurrent_reference(*as_double((q, k, v, torch.zeros_like(beta), beta, state)))
    assert_all_close(ops.gated_delta_rule(q, k, v, None, beta, state=state), expected, 1e-5)


@pytest.mark.parametrize("strength", [50.0, 1e4, 1e30, math.inf])
def test_what_follows_a_token_that_forgets_all_is_exact(
    form: str, randn: Callable[..., Tensor], strength: float
) -> None:
    q, k, v, log_decay, beta, state = arguments(randn, 70)
    log_decay[:, 20] = log_decay[:, 21] = -strength
    inputs = (q, k, v, log_decay, beta, state)
    results = with_gradients(run, inputs)
    # exp(-700) is a number in double precision, and no gradient passes it in single
    expected = with_gradients(ops.recurrent_reference, as_double((q, k, v, log_decay.clamp(min=-700), beta, state)))
    assert_all_close(results, expected, 1e-5)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    *half, log_decay, beta, state = arguments(randn, 100)
    q, k, v = (x.bfloat16() for x in half)
    inputs = (q, k, v, log_decay, beta, state)
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    expected = with_gradients(ops.recurrent_reference, as_double(inputs))
    assert_all_close(with_gradients(run, inputs), expected, 2e-2)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    *tokens, state = arguments(randn, 300)
    whole, last = run(*tokens, state)
    first, between = run(*(x[:, :129] for x in tokens), state)
    second, end = run(*(x[:, 129:] for x in tokens), between)
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-5)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 200)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(with_gradients(run, inputs))
    finally:
        torch.set_num_threads(before)
    assert_same(*results)


def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 40)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    assert not any(x.is_contiguous() for x in turned)
    assert_same(with_gradients(run, turned), with_gradients(run, inputs))


def test_only_the_last_state_may_have_a_gradient(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 40)
    expected = with_gradients(lambda *x: ops.recurrent_reference(*x)[1:], as_double(inputs))
    assert_all_close(with_gradients(lambda *x: run(*x)[1:], inputs), expected, 1e-5)


@pytest.mark.parametrize("rank", range(5), ids=["q", "k", "v", "log_decay", "beta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_reaches_what_follows_and_nothing_before(
    form: str, randn: Callable[..., Tensor], rank: int, dtype: torch.dtype
) -> None:
    inputs = [x.to(dtype) for x in arguments(randn, 90)]
    inputs[rank][0, 47] = torch.nan
    y, last = run(*inputs)
    assert y[0, 47].isnan().all()
    assert y[0, :47].isfinite().all()
    assert y[1].isfinite().all()
    if rank:
        assert y[0, 48:].isnan().all()
        assert last[0].isnan().all()


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 9)]
    torch.library.opcheck(ops._native, (*inputs, True))


def test_shapes_that_do_not_fit_are_named() -> None:
    q, v, beta = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match=r"q and k must be .*got \(1, 2, 2, 3\), \(1, 2, 2, 4\) and \(1, 2, 4, 5\)"):
        ops.gated_delta_rule(q, torch.zeros(1, 2, 2, 4), v, None, beta)
    with pytest.raises(ValueError, match="groups of q and k must divide the heads of v"):
        ops.gated_delta_rule(q, q, v[:, :, :3], None, beta)
    with pytest.raises(ValueError, match=r"beta must be \(1, 2, 4\), got \(1, 2, 3\)"):
        ops.gated_delta_rule(q, q, v, None, beta[..., :3])
    with pytest.raises(ValueError, match=r"state must be \(1, 4, 3, 5\), got \(1, 4, 5, 3\)"):
        ops.gated_delta_rule(q, q, v, None, beta, state=torch.zeros(1, 4, 5, 3))
    with pytest.raises(ValueError, match="chunk_size must be >= 1, got 0"):
        ops.gated_delta_rule(q, q, v, None, beta, chunk_size=0)
