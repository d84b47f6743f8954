"""The short causal convolution: every form against the loop and torch's own, and what a kernel must stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import short_convolution as ops

LENGTHS = (0, 1, 2, 127, 128, 129, 130, 131, 500)


def arguments(randn: Callable[..., Tensor], length: int, width: int = 4, channels: int = 37) -> list[Tensor]:
    return [
        randn(2, length, channels),
        randn(channels, width),
        randn(channels),
        randn(2, width - 1, channels),
    ]


def run(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.short_convolution(x, weight, bias=bias, state=state, activation="silu")


def reference(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return ops.recurrent_reference(x, weight, bias, state, silu=True)


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_is_the_loop(isa: str, randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_every_width(form: str, randn: Callable[..., Tensor], width: int) -> None:
    inputs = arguments(randn, 50, width)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 1e-5)


def test_without_bias_and_activation(isa: str, randn: Callable[..., Tensor]) -> None:
    x, weight, bias, state = arguments(randn, 50)
    actual = with_gradients(lambda *leaves: ops.short_convolution(*leaves[:2], state=leaves[2]), (x, weight, state))
    inputs = wide((x, weight, torch.zeros_like(bias), state))
    expected = with_gradients(ops.recurrent_reference, inputs)
    assert_all_close(actual, [*expected[:4], expected[5]], 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_shifted_sums_are_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = wide(arguments(randn, length))
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, inputs), 1e-12)


def test_it_is_a_depthwise_conv1d(form: str, randn: Callable[..., Tensor]) -> None:
    x, weight, bias, _ = arguments(randn, 40)
    conv = torch.nn.Conv1d(37, 37, 4, groups=37, padding=3)
    with torch.no_grad():
        conv.weight.copy_(weight[:, None])
        conv.bias.copy_(bias)  # type: ignore[union-attr]
        expected = conv(x.transpose(1, 2))[..., :40].transpose(1, 2)
    y, state = ops.short_convolution(x, weight, bias=bias)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    assert torch.equal(state, x[:, -3:])


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    x, weight, bias, state = arguments(randn, 200)
    inputs = [x.bfloat16(), weight.bfloat16(), bias.bfloat16(), state]
    y, last = run(*inputs)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, wide(inputs)), 2e-2)


def test_pieces_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    x, weight, bias, state = arguments(randn, 200)
    whole, last = run(x, weight, bias, state)
    parts = []
    for piece in x.split([1, 2, 130, 0, 67], dim=1):
        y, state = run(piece, weight, bias, state)
        parts.append(y)
    assert_all_close([torch.cat(parts, 1), state], [whole, last], 1e-6)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 500)
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
    x, weight, bias, state = arguments(randn, 50)
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    part = torch.cat([x, x], dim=2)[..., 37:]
    swapped = x.transpose(0, 1).contiguous().transpose(0, 1)
    expected = with_gradients(run, (x, weight, bias, state))
    for other in (turned, part, swapped):
        assert not other.is_contiguous()
        assert_same(with_gradients(run, (other, weight, bias, state)), expected)


def test_nan_reaches_four_tokens(isa: str, randn: Callable[..., Tensor]) -> None:
    x, weight, bias, state = arguments(randn, 20)
    x[0, 7, 3] = torch.nan
    y, last = run(x, weight, bias, state)
    assert y[0, 7:11, 3].isnan().all()
    assert y.isnan().sum() == 4
    assert last.isfinite().all()


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 9)]
    torch.library.opcheck(ops._native, (*inputs, True))
    torch.library.opcheck(ops._native, (inputs[0], inputs[1], None, inputs[3], False))


def test_what_does_not_fit_is_named() -> None:
    x, weight = torch.zeros(1, 2, 3), torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"weight \(channels, width >= 1\), got \(1, 2, 3\) and \(4, 4\)"):
        ops.short_convolution(x, torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"bias must be \(3,\), got \(4,\)"):
        ops.short_convolution(x, weight, bias=torch.zeros(4))
    with pytest.raises(ValueError, match=r"state must be \(1, 3, 3\), got \(1, 4, 3\)"):
        ops.short_convolution(x, weight, state=torch.zeros(1, 4, 3))
    with pytest.raises(ValueError, match="activation must be 'silu' or None, got 'relu'"):
        ops.short_convolution(x, weight, activation="relu")  # type: ignore[arg-type]
