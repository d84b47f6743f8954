"""The selective scan: every form against the loop, and what a kernel must stand."""

# ruff: noqa: N803, N806  # A, B, C and D are the paper's letters
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import selective_scan as ops

LENGTHS = (0, 1, 63, 64, 65, 500)


def arguments(randn: Callable[..., Tensor], length: int, channels: int = 37, states: int = 16) -> list[Tensor]:
    """x, delta, A, B, C, D, z, delta_bias, state."""
    return [
        randn(2, length, channels),
        randn(2, length, channels) - 1,
        -randn(channels, states).exp(),
        randn(2, length, states),
        randn(2, length, states),
        randn(channels),
        randn(2, length, channels),
        randn(channels),
        randn(2, channels, states),
    ]


def run(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    D, z, bias, state = rest
    return ops.selective_scan(x, delta, A, B, C, D=D, z=z, delta_bias=bias, delta_softplus=True, state=state)


def reference(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    D, z, bias, state = rest
    y, last = ops.recurrent_reference(x, F.softplus(delta + bias), A, B, C, state)
    return (y + D * x) * F.silu(z), last


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 1e-5)


@pytest.mark.parametrize("states", [1, 2, 5, 8, 23, 64])
@pytest.mark.parametrize("channels", [1, 16, 300])
def test_any_number_of_channels_and_states(isa: str, randn: Callable[..., Tensor], channels: int, states: int) -> None:
    inputs = arguments(randn, 70, channels, states)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 2e-5)


def test_all_options_may_be_absent(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 100)[:5]
    inputs[1] = inputs[1].exp()
    zeros = torch.zeros(2, 37, 16)
    actual = with_gradients(ops.selective_scan, inputs)
    expected = with_gradients(lambda *x: ops.recurrent_reference(*x, zeros.double()), wide(inputs))
    assert_all_close(actual, expected, 1e-5)


def test_rates_may_grow_and_steps_may_go_back(isa: str, randn: Callable[..., Tensor]) -> None:
    """Nothing relies on A below zero or delta above."""
    inputs = [x * 0.1 for x in arguments(randn, 100)[:5]]
    inputs[2].neg_()
    zeros = torch.zeros(2, 37, 16, dtype=torch.float64)
    actual = with_gradients(ops.selective_scan, inputs)
    assert_all_close(actual, with_gradients(lambda *x: ops.recurrent_reference(*x, zeros), wide(inputs)), 1e-5)


def test_decays_of_one_lose_nothing(isa: str) -> None:
    """A state that is only carried on comes out as it went in, however long the sequence."""
    state, zeros = torch.rand(1, 5, 4), torch.zeros(1, 5000, 4)
    x = torch.zeros(1, 5000, 5)
    _, last = ops.selective_scan(x, x + 0.5, torch.zeros(5, 4), zeros, zeros, state=state)
    assert torch.equal(last, state)


def test_decays_of_nothing_forget_everything(isa: str) -> None:
    x, maps = torch.zeros(1, 3, 5), torch.zeros(1, 3, 4)
    for step in (1e3, 1e30):
        _, last = ops.selective_scan(x, x + step, -torch.ones(5, 4), maps, maps, state=torch.ones(1, 5, 4))
        assert last.abs().max() < 1e-37


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = wide(arguments(randn, length, 5, 3))
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, inputs), 1e-12)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 100)
    for i in (0, 1, 3, 4, 6):
        inputs[i] = inputs[i].bfloat16()
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 2e-2)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    x, delta, A, B, C, D, z, bias, state = arguments(randn, 150)
    whole, last = run(x, delta, A, B, C, D, z, bias, state)
    parts = []
    for i, j in ((0, 1), (1, 29), (29, 29), (29, 150)):
        tokens = [each[:, i:j] for each in (x, delta, B, C, z)]
        y, state = run(*tokens[:2], A, *tokens[2:4], D, tokens[4], bias, state)
        parts.append(y)
    assert_all_close([torch.cat(parts, 1), state], [whole, last], 1e-6)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 100, 300)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(run, inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same(other, results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides(isa: str, randn: Callable[..., Tensor], dtype: torch.dtype) -> None:
    inputs = arguments(randn, 70)
    for i in (0, 1, 3, 4, 6):
        inputs[i] = inputs[i].to(dtype)
    expected = with_gradients(run, inputs)
    turns: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.cat([x, x], dim=2)[..., x.shape[2] :],
        lambda x: torch.stack([x, x], dim=3)[..., 0],
    ]
    for turn in turns:
        turned = [turn(x) if x.dim() == 3 else x for x in inputs]
        assert not turned[0].is_contiguous()
        assert_same(with_gradients(run, turned), expected)


def test_nan_reaches_what_follows_and_nothing_before(isa: str, randn: Callable[..., Tensor]) -> None:
    for which in (0, 1):
        inputs = arguments(randn, 80)
        inputs[which][0, 70, 3] = torch.nan
        y, last = run(*inputs)
        assert y[0, 70:, 3].isnan().all()
        assert last[0, 3].isnan().all()
        assert y.isnan().sum() == 10


def test_long_sequences_keep_their_precision(isa: str, randn: Callable[..., Tensor]) -> None:
    """Slow decays over many chunks: as near to double precision as the same loop in single is."""
    inputs = arguments(randn, 3000, 3, 4)
    inputs[1] -= 6
    exact = reference(*wide(inputs))
    for a, e in zip(run(*inputs), exact, strict=True):
        assert (a - e).abs().max() < 1e-5 * e.abs().max()


@pytest.mark.parametrize("which", range(9), ids=["x", "delta", "A", "B", "C", "D", "z", "delta_bias", "state"])
def test_one_wide_input_makes_all_the_arithmetic_wide(form: str, randn: Callable[..., Tensor], which: int) -> None:
    exact = wide(arguments(randn, 70, 5, 3))
    mixed = [each if i == which else each.float() for i, each in enumerate(exact)]
    y, last = run(*mixed)
    expected_y, expected_last = run(*wide(mixed))
    assert torch.equal(y, expected_y.to(mixed[0].dtype))
    assert torch.equal(last, expected_last.to(mixed[8].dtype))


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    x, delta, A, B, C, D, z, bias, state = (each.mul_(0.1).requires_grad_() for each in arguments(randn, 9))
    torch.library.opcheck(ops._native, (x, delta, A, B, C, D, z, bias, state, True, True))
    torch.library.opcheck(ops._native, (x, delta, A, B, C, None, None, None, state, False, True))


def test_what_does_not_fit_is_named(randn: Callable[..., Tensor]) -> None:
    x, delta, A, B, C, *_ = arguments(randn, 4, 3, 2)
    with pytest.raises(ValueError, match=r"x and delta must both be .*got \(2, 4, 3\) and \(2, 4, 5\)"):
        ops.selective_scan(x, torch.zeros(2, 4, 5), A, B, C)
    with pytest.raises(ValueError, match=r"A must be \(3, states\), got \(2, 3\)"):
        ops.selective_scan(x, delta, A.t(), B, C)
    for name, tensor in {"D": A, "z": B, "delta_bias": B, "state": x}.items():
        with pytest.raises(ValueError, match=rf"{name} must be \(.*\), got \("):
            ops.selective_scan(x, delta, A, B, C, **{name: tensor})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"B must be \(2, 4, 2\), got \(2, 4, 3\)"):
        ops.selective_scan(x, delta, A, x, C)
