"""Depthwise convolution: the native kernels beside torch's own, in both memory formats, outputs and all gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from gradients import assert_all_close, with_gradients
from linocut import native
from linocut.ops.depthwise_conv import depthwise_conv

FORMATS = {"planes": torch.contiguous_format, "pixels": torch.channels_last}


def torchs(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, pads: Sequence[tuple[int, int]], dilation: Any
) -> Tensor:
    """The same in float64."""
    around = [each for pair in reversed(pads) for each in pair]
    operator = functional.conv1d if x.dim() == 3 else functional.conv2d
    padded = functional.pad(x.double(), around)
    return operator(padded, weight.double(), None if bias is None else bias.double(), stride, 0, dilation, x.shape[1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data(), channels=st.sampled_from([1, 3, 4, 16, 17, 24, 40, 67]))
@pytest.mark.parametrize("layout", FORMATS)
def test_every_option_in_every_build(layout: str, isa: str, data: st.DataObject, channels: int) -> None:
    def pair(low: int, high: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    taps, stride, dilation = pair(1, 5), pair(1, 3), pair(1, 9)
    pads = pair(0, 9), pair(0, 9)
    size = [
        data.draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), 40))
        for k, d, p in zip(taps, dilation, pads, strict=True)
    ]
    torch.manual_seed(data.draw(st.integers(0, 9)))
    x = torch.randn(2, channels, *size).contiguous(memory_format=FORMATS[layout])
    inputs = [x, torch.randn(channels, 1, *taps), torch.randn(channels)]
    ours = with_gradients(
        lambda x, w, b: [depthwise_conv(x, w, b, stride=stride, padding=pads, dilation=dilation)], inputs
    )
    theirs = with_gradients(lambda x, w, b: [torchs(x, w, b, stride, pads, dilation)], inputs)
    assert_all_close(ours, theirs, 3e-5)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dilation", [1, 7, 31, 64])
def test_rows_far_apart(layout: str, dilation: int, isa: str, randn: Callable[..., Tensor]) -> None:
    """Enough columns, channels and dilation that rows are kept in every way the kernels know."""
    for shape in ((1, 2, 70, 2100), (1, 80, 70, 90), (2, 5, 9, 3)):
        x = randn(*shape).contiguous(memory_format=FORMATS[layout])
        pads = ((dilation, dilation),) * 2
        inputs = [x, randn(shape[1], 1, 3, 3)]
        ours = with_gradients(lambda x, w, p=pads: [depthwise_conv(x, w, padding=p, dilation=dilation)], inputs)
        theirs = with_gradients(lambda x, w, p=pads: [torchs(x, w, None, 1, p, dilation)], inputs)
        assert_all_close(ours, theirs, 1e-4)


@pytest.mark.parametrize("layout", ["rows", "pixels"])
def test_sequences(layout: str, form: str, randn: Callable[..., Tensor]) -> None:
    x = randn(2, 18, 50) if layout == "rows" else randn(2, 50, 18).transpose(1, 2)
    inputs = [x, randn(18, 1, 2), randn(18)]
    ours = with_gradients(lambda x, w, b: [depthwise_conv(x, w, b, padding=((16, 0),), dilation=16)], inputs)
    assert_all_close(ours, with_gradients(lambda x, w, b: [torchs(x, w, b, 1, [(16, 0)], 16)], inputs), 1e-5)


@pytest.mark.parametrize("layout", FORMATS)
def test_bfloat16(layout: str, isa: str, randn: Callable[..., Tensor]) -> None:
    x, w = randn(2, 40, 11, 37, dtype=torch.bfloat16), randn(40, 1, 3, 3, dtype=torch.bfloat16)
    inputs = [x.contiguous(memory_format=FORMATS[layout]), w]
    ours = with_gradients(lambda x, w: [depthwise_conv(x, w, stride=2, padding=4, dilation=4)], inputs)
    assert ours[0].abs().max() > 1
    theirs = with_gradients(lambda x, w: [torchs(x, w, None, 2, [(4, 4)] * 2, 4)], inputs)
    assert_all_close(ours, theirs, 2e-2)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_the_receptive_field(layout: str, bad: float, isa: str) -> None:
    x = torch.zeros(1, 20, 40, 70)
    x[0, 3, 20, 30] = bad
    y = depthwise_conv(x.contiguous(memory_format=FORMATS[layout]), torch.ones(20, 1, 3, 3), padding=5, dilation=5)
    wrong = (~y.isfinite()).nonzero().tolist()
    assert wrong == [[0, 3, row, column] for row in (15, 20, 25) for column in (25, 30, 35)]


@pytest.mark.parametrize("layout", FORMATS)
def test_the_memory_format_stays_and_views_are_read_where_they_lie(
    layout: str, form: str, randn: Callable[..., Tensor]
) -> None:
    whole = randn(2, 24, 30, 20).contiguous(memory_format=FORMATS[layout])
    part, w = whole[:, :, 5:20], randn(24, 1, 3, 3)
    y = depthwise_conv(part, w, padding=1)
    assert y.is_contiguous(memory_format=FORMATS[layout])
    torch.testing.assert_close(y, depthwise_conv(part.clone(), w, padding=1))
    turned = whole.transpose(2, 3)
    torch.testing.assert_close(depthwise_conv(turned, w, padding=1), depthwise_conv(turned.clone(), w, padding=1))


@pytest.mark.parametrize("layout", FORMATS)
def test_threads_change_nothing(layout: str, randn: Callable[..., Tensor]) -> None:
    x = randn(1, 40, 70, 90).contiguous(memory_format=FORMATS[layout])
    inputs = [x, randn(40, 1, 3, 3), randn(40)]
    found = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(with_gradients(lambda x, w, b: [depthwise_conv(x, w, b, padding=2, dilation=2)], inputs))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.skipif(native.kernels() is None, reason="the native core is not built")
@pytest.mark.parametrize("layout", FORMATS)
def test_the_operators_keep_torchs_rules(layout: str, randn: Callable[..., Tensor]) -> None:
    x = randn(1, 18, 9, 8).contiguous(memory_format=FORMATS[layout]).requires_grad_()
    w, b = randn(18, 1, 3, 2).requires_grad_(), randn(18).requires_grad_()
    operator = torch.ops.linocut.depthwise_conv.default
    torch.library.opcheck(operator, (x, w, b, [2, 1], [1, 1], [1, 2], [5, 8]))


def test_nothing_in_nothing_out(form: str) -> None:
    assert depthwise_conv(torch.zeros(0, 3, 4, 5), torch.ones(3, 1, 3, 3), padding=1).shape == (0, 3, 4, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": 0}, "dilation must be >= 1, got 0"),
        ({"stride": (1, 0)}, "stride must be >= 1, got 0"),
        ({"padding": -1}, "padding must be >= 0, got -1"),
        ({"padding": ((1, 1), (0, -2))}, "padding must be >= 0, got -2"),
        ({"padding": (1, 2, 3)}, "padding must be one number or 2"),
        ({"dilation": 9}, "a filter that spans 19 does not fit into 5 padded to 5"),
        ({"weight": torch.ones(4, 1, 3, 3)}, r"got \(1, 3, 5, 5\) and \(4, 1, 3, 3\)"),
        ({"weight": torch.ones(3, 3, 3, 3)}, r"weight \(channels, 1, \*taps\)"),
        ({"bias": torch.ones(4)}, r"bias must be \(3,\), got \(4,\)"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.zeros(1, 3, 5, 5), "weight": torch.ones(3, 1, 3, 3), **options}
    with pytest.raises(ValueError, match=message):
        depthwise_conv(**arguments)
