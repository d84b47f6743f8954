"""Linear attention with a decay for every channel and token: all forms against the loop, decays of any strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import channel_decay as ops

LENGTHS = (0, 1, 15, 63, 64, 65, 500)
bonuses = pytest.mark.parametrize("bonus", [False, True], ids=["plain", "bonus"])
Shape = tuple[int, int, int]


def arguments(randn: Callable[..., Tensor], length: int, shape: Shape = (2, 20, 37), *, bonus: bool) -> list[Tensor]:
    """q, k, v, log decays, a state, and a bonus if asked for."""
    heads, dim, value = shape
    q, k = 0.5 * randn(2, length, heads, dim), 0.5 * randn(2, length, heads, dim)
    v, decay, state = (
        randn(2, length, heads, value),
        -0.2 * randn(2, length, heads, dim).exp(),
        randn(2, heads, dim, value),
    )
    return [q, k, v, decay, state, *([randn(heads, dim)] if bonus else [])]


def run(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, bonus: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return ops.channel_decay_attention(q, k, v, g, bonus=bonus, state=state)


def loop(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, bonus: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return ops.recurrent_reference(q, k, v, g, bonus, state)


def doubles(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() for x in inputs]


@bonuses
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int, bonus: bool) -> None:
    inputs = arguments(randn, length, bonus=bonus)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-5)


@bonuses
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 16, 64), (1, 64, 64), (1, 72, 24), (5, 8, 130)], ids=str)
def test_any_size_of_head(isa: str, randn: Callable[..., Tensor], shape: Shape, bonus: bool) -> None:
    inputs = arguments(randn, 70, shape, bonus=bonus)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-5)


@bonuses
@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int, bonus: bool) -> None:
    inputs = doubles(arguments(randn, length, bonus=bonus))
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, inputs), 1e-12)


@bonuses
def test_gradients_are_those_of_finite_differences(randn: Callable[..., Tensor], bonus: bool) -> None:
    inputs = [x.requires_grad_() for x in doubles(arguments(randn, 5, (1, 2, 3), bonus=bonus))]
    assert torch.autograd.gradcheck(loop, inputs)


@bonuses
@pytest.mark.parametrize(("scale", "tolerance"), [(0.0, 1e-5), (1e-4, 1e-5), (20.0, 1e-4), (1000.0, 1e-5)])
def test_decays_of_any_strength(
    form: str, randn: Callable[..., Tensor], scale: float, tolerance: float, bonus: bool
) -> None:
    # the gradient of a strong decay is a small difference of large terms, whose rounding depends on the compiler
    inputs = arguments(randn, 150, bonus=bonus)
    inputs[3] = inputs[3] * scale / 0.2
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), tolerance)


def test_decays_that_change_from_none_to_all(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 150, bonus=False)
    inputs[3] = torch.where(inputs[0] > 0, 0.0, -50.0)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 1e-5)


@bonuses
def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor], bonus: bool) -> None:
    q, k, v, *rest = arguments(randn, 100, bonus=bonus)
    inputs = [q.bfloat16(), k.bfloat16(), v.bfloat16(), *rest]
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_all_close(with_gradients(run, inputs), with_gradients(loop, doubles(inputs)), 2e-2)


@bonuses
def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor], bonus: bool) -> None:
    *tokens, state, u = arguments(randn, 90, bonus=True)
    u = u if bonus else None
    whole, last = run(*tokens, state, u)
    first, between = run(*(x[:, :29] for x in tokens), state, u)
    second, end = run(*(x[:, 29:] for x in tokens), between, u)
    assert_all_close([torch.cat([first, second], 1), end], [whole, last], 1e-5)


def test_the_state_is_not_changed_in_place(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 5, bonus=True)
    before = [x.clone() for x in inputs]
    run(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@pytest.mark.parametrize("heads", [1, 3])
def test_threads_do_not_change_the_result(randn: Callable[..., Tensor], heads: int) -> None:
    inputs = arguments(randn, 300, (heads, 40, 70), bonus=True)
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
    inputs = arguments(randn, 20, bonus=True)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    assert not turned[0].is_contiguous()
    assert_same(run(*turned), run(*inputs))


@pytest.mark.parametrize("which", [1, 2, 3], ids=["k", "v", "log_decay"])
def test_nan_reaches_what_follows_and_nothing_before(form: str, randn: Callable[..., Tensor], which: int) -> None:
    inputs = arguments(randn, 20, bonus=False)
    inputs[which][0, 7, 1, 3] = torch.nan
    y, last = run(*inputs)
    assert y[0, 7:, 1].isnan().any(-1).all()
    assert last[0, 1].isnan().any()
    assert not y[0, :7].isnan().any()
    assert not y[:, :, 0].isnan().any()
    assert not y[1].isnan().any()


@bonuses
def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor], bonus: bool) -> None:
    q, k, v, g, state, *u = (x.requires_grad_() for x in arguments(randn, 9, bonus=bonus))
    torch.library.opcheck(ops._native, (q, k, v, g, u[0] if bonus else None, state))


def test_shapes_that_do_not_fit_are_named() -> None:
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"q, k and log_decay must all be .*got \(1, 2, 3, 4\), \(1, 2, 3, 5\) and"):
        ops.channel_decay_attention(x, torch.zeros(1, 2, 3, 5), x, x)
    with pytest.raises(ValueError, match=r"v must be \(1, 2, 3, 'value'\), got \(1, 3, 3, 4\)"):
        ops.channel_decay_attention(x, x, torch.zeros(1, 3, 3, 4), x)
    with pytest.raises(ValueError, match=r"bonus must be \(3, 4\), got \(4, 3\)"):
        ops.channel_decay_attention(x, x, x, x, bonus=torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"state must be \(1, 3, 4, 4\), got \(1, 3, 4, 5\)"):
        ops.channel_decay_attention(x, x, x, x, state=torch.zeros(1, 3, 4, 5))
