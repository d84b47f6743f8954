"""Gated linear attention with no decay or one of the head: every form against the loop, and what a kernel stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import chunk_kernel
from linocut.ops import gated_linear_attention as ops

LENGTHS = (0, 1, 63, 64, 65, 500)
# groups, heads, dim, value: less than a vector, odd, heads that share their keys, more than one block of columns
SIZES = [(2, 2, 3, 2), (1, 3, 17, 33), (2, 4, 16, 80), (1, 2, 40, 130)]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
decays = pytest.mark.parametrize("decay", ["none", "constant", "token"])
Arguments = list[Tensor]


def arguments(
    randn: Callable[..., Tensor], length: int, decay: str, size: tuple[int, ...] = (1, 3, 17, 33)
) -> Arguments:
    """q, k, v, state and, if there is one, the logarithm of the decay."""
    groups, heads, dim, value = size
    q, k = (randn(2, length, groups, dim) / dim**0.5 for _ in range(2))
    inputs = [q, k, randn(2, length, heads, value), randn(2, heads, dim, value)]
    if decay != "none":
        inputs.append(-randn(*((heads,) if decay == "constant" else (2, length, heads))).exp())
    return inputs


def run(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return ops.gated_linear_attention(q, k, v, log_decay=log_decay, state=state, chunk_size=16)


def loop(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None = None) -> tuple[Tensor, Tensor]:
    decay = v.new_zeros(v.shape[2]) if log_decay is None else log_decay
    return ops.recurrent_reference(q, k, v, decay.expand(v.shape[:3])[..., None], state)


def double(inputs: Arguments) -> Arguments:
    return [x.double() for x in inputs]


@sizes
@decays
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(
    isa: str, randn: Callable[..., Tensor], length: int, decay: str, size: tuple[int, ...]
) -> None:
    inputs = arguments(randn, length, decay, size)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, double(inputs)), 2e-5)


@sizes
@decays
@pytest.mark.parametrize("length", LENGTHS[:-1])
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int, decay: str, size: tuple[int, ...]) -> None:
    inputs = double(arguments(randn, length, decay, size))
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, inputs), 1e-12)


@decays
def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor], decay: str) -> None:
    inputs = arguments(randn, 100, decay)
    inputs[:3] = [x.bfloat16() for x in inputs[:3]]
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, double(inputs)), 3e-2)


@pytest.mark.parametrize("threads", [1, 2, 7])
@decays
def test_threads_and_pieces_are_the_loop(randn: Callable[..., Tensor], threads: int, decay: str) -> None:
    # one head: more threads than heads, so pieces of the sequence
    inputs = [x[:1] if x.dim() > 1 else x for x in arguments(randn, 1000, decay, (1, 1, 8, 8))]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        actual = with_gradients(run, inputs)
    finally:
        torch.set_num_threads(before)
    assert_all_close(actual, with_gradients(loop, double(inputs)), 2e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_heads_of_a_group_may_be_apart(randn: Callable[..., Tensor], threads: int) -> None:
    inputs = [x[:1] for x in arguments(randn, 600, "token", (1, 5, 8, 8))]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        actual = with_gradients(run, inputs)
    finally:
        torch.set_num_threads(before)
    assert_all_close(actual, with_gradients(loop, double(inputs)), 2e-5)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v, state, decay = arguments(randn, 90, "token")
    whole, last = run(q, k, v, state, decay)
    first, between = run(*(x[:, :29] for x in (q, k, v)), state, decay[:, :29])
    second, end = run(*(x[:, 29:] for x in (q, k, v)), between, decay[:, 29:])
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-6)


def test_no_state_is_a_state_of_zeros(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v, state, decay = arguments(randn, 20, "token")
    expected = run(q, k, v, torch.zeros_like(state), decay)
    assert_all_close(ops.gated_linear_attention(q, k, v, log_decay=decay), expected, 1e-6)


def test_small_decays_survive_next_to_large_ones(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 130, "token")
    inputs[4] = torch.where(randn(*inputs[4].shape) > 1, -3e4, -1e-3)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, double(inputs)), 1e-5)


def test_a_decay_to_nothing_is_a_clean_cut(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v, state, decay = arguments(randn, 40, "token")
    decay[:, 20] = -torch.inf
    y, last = run(q, k, v, state, decay)
    alone, end = run(*(x[:, 20:] for x in (q, k, v)), torch.zeros_like(state), decay[:, 20:])
    assert_all_close([y[:, 20:], last], [alone, end], 1e-6)


def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 20, "token")
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    assert_all_close(with_gradients(run, turned), with_gradients(run, inputs), 1e-6)


def test_parts_of_one_projection_are_read_where_they_are(isa: str, randn: Callable[..., Tensor]) -> None:
    qkv = randn(2, 70, 3, 2, 16)
    q, k, v = qkv.unbind(2)
    assert not q.is_contiguous()
    state = randn(2, 2, 16, 16)
    expected = with_gradients(run, [x.contiguous() for x in (q, k, v, state)])
    assert_all_close(with_gradients(run, [q, k, v, state]), expected, 1e-6)


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_reaches_what_follows_and_nothing_before(
    isa: str, randn: Callable[..., Tensor], which: int, dtype: torch.dtype
) -> None:
    inputs = [x.to(dtype) for x in arguments(randn, 50, "token", (2, 2, 17, 33))]
    inputs[which][0, 37, 1, 3] = torch.nan
    y, last = run(*inputs)
    assert y[0, 37, 1].isnan().any()
    assert y[0, 38:, 1].isnan().any(-1).all() == (which > 0)
    assert y[0, :37].isfinite().all()
    assert y[0, :, 0].isfinite().all()
    assert y[1].isfinite().all()
    assert last.isnan().any() == (which > 0)


def test_the_chunked_form_is_differentiated_right(randn: Callable[..., Tensor]) -> None:
    inputs = [x.double().requires_grad_() for x in arguments(randn, 5, "token", (1, 2, 3, 2))]
    assert torch.autograd.gradcheck(run, inputs)


def test_shapes_that_do_not_fit_are_named() -> None:
    q, v = torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 4, 5)
    with pytest.raises(ValueError, match=r"v must be .* heads a multiple of groups, got \(1, 2, 3, 5\)"):
        ops.gated_linear_attention(q, q, v[:, :, :3])
    with pytest.raises(ValueError, match=r"log_decay must be \(4,\), \(1, 2, 4\) or .*got \(1, 2, 2\)"):
        ops.gated_linear_attention(q, q, v, log_decay=torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="chunk_size must be >= 1, got 0"):
        ops.gated_linear_attention(q, q, v, chunk_size=0)
    with pytest.raises(ValueError, match="bonus needs a log_decay of every channel"):
        ops.gated_linear_attention(q, q, v, bonus=torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"q and k must both be .*got \(1, 2, 2, 3\) and \(1, 2, 4, 5\)"):
        ops.check_shapes("op", q, v, v, None)
    with pytest.raises(ValueError, match=r"op: state must be \(1, 4, 3, 5\), got \(1, 4, 5, 3\)"):
        ops.check_shapes("op", q, q, v, torch.zeros(1, 4, 5, 3))


@decays
def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor], decay: str) -> None:
    q, k, v, state, *rest = (x.requires_grad_() for x in arguments(randn, 9, "token"))
    inputs = (q, k, v, rest[0] if decay == "token" else None, None, None, state, None, 0, False, True)
    torch.library.opcheck(chunk_kernel._native, inputs)
