"""Dilated convolutions: torch's own with other padding, so torch is the oracle."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from linocut.vision.dilation import DilatedConv1d, DilatedConv2d, DilatedConv3d, padding_of

CLASSES = {1: DilatedConv1d, 2: DilatedConv2d, 3: DilatedConv3d}
TORCH = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def by_definition(x: Tensor, conv: nn.Conv2d, pads: tuple[tuple[int, int], ...]) -> Tensor:
    """y[p] = b + Σ w[k] x[s p + d k − ℓ] in two dimensions, tap by tap."""
    (top, bottom), (left, right) = pads
    padded = functional.pad(x, (left, right, top, bottom))
    (down, across), (apart_y, apart_x) = conv.stride, conv.dilation
    height = (padded.shape[2] - apart_y * (conv.kernel_size[0] - 1) - 1) // down + 1
    width = (padded.shape[3] - apart_x * (conv.kernel_size[1] - 1) - 1) // across + 1
    y = torch.zeros(x.shape[0], conv.out_channels, height, width, dtype=x.dtype)
    for i, j in product(*map(range, conv.kernel_size)):
        seen = padded[:, :, apart_y * i :: down, apart_x * j :: across][:, :, :height, :width]
        y += torch.einsum("bchw,oc->bohw", seen, conv.weight[:, :, i, j])
    return y if conv.bias is None else y + conv.bias[:, None, None]


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    bias=st.booleans(),
)
def test_same_padding_is_the_definition_and_keeps_the_size(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int], bias: bool
) -> None:
    conv = DilatedConv2d(2, 3, kernel, stride, dilation=dilation, bias=bias).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    y = conv(x)
    assert y.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    torch.testing.assert_close(y, by_definition(x, conv, conv.pads))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "dilation": 2, "padding": "same"},
        {"kernel_size": 2, "dilation": 3, "padding": "same", "groups": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
        {"kernel_size": 3, "dilation": 2, "padding": "valid"},
        {"kernel_size": 3, "padding": 0, "groups": 4},
    ],
    ids=str,
)
def test_weights_go_to_and_from_torch(axes: int, mode: Any, options: dict[str, Any]) -> None:
    ours, theirs = CLASSES[axes](4, 8, padding_mode=mode, **options), TORCH[axes](4, 8, padding_mode=mode, **options)
    assert isinstance(ours, TORCH[axes])
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, *(7, 8, 9)[:axes])
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))


def test_a_causal_convolution_sees_nothing_ahead() -> None:
    conv, x = DilatedConv1d(1, 1, 3, dilation=4, causal=True, bias=False), torch.zeros(1, 1, 30)
    nn.init.ones_(conv.weight)
    x[..., 10] = 1
    assert conv(x).flatten().nonzero().flatten().tolist() == [10, 14, 18]


def test_even_kernels_put_the_larger_half_behind() -> None:
    assert padding_of("same", (2, 4), (3, 1)) == ((1, 2), (1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": 0}, "dilation must be >= 1, got 0"),
        ({"dilation": (1, -2)}, "dilation must be >= 1, got -2"),
        ({"stride": 0}, "stride must be >= 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be >= 1, got 0"),
        ({"padding": -1}, "padding must be >= 0, got -1"),
        ({"padding": "full"}, "padding must be 'same', 'valid' or numbers, got 'full'"),
        ({"dilation": (1, 2, 3)}, r"dilation must be one number or 2, one an axis, got \(1, 2, 3\)"),
    ],
)
def test_bad_sizes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DilatedConv2d(1, 1, **{"kernel_size": 3, **options})


def test_a_dilation_that_is_not_whole_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dilation must be whole, got 1\.5"):
        DilatedConv2d(1, 1, 3, dilation=(1, 1.5))  # type: ignore[arg-type]


def test_causal_padding_is_not_to_be_chosen() -> None:
    with pytest.raises(ValueError, match="leave padding at 'same', got 2"):
        DilatedConv1d(1, 1, 3, padding=2, causal=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dilation", [1, 6])
def test_depthwise_ones_are_torchs_with_and_without_a_kernel(layout: Any, dilation: int, form: str) -> None:
    ours = DilatedConv2d(24, 24, 3, dilation=dilation, groups=24)
    theirs = nn.Conv2d(24, 24, 3, padding="same", dilation=dilation, groups=24)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 24, 20, 30).contiguous(memory_format=layout)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
