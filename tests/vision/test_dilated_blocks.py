"""Blocks of dilated layers, each against what its paper says of it."""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from linocut.mixers.images import ImageMixer
from linocut.vision.aspp import ASPP, SummedASPP
from linocut.vision.atrous_attention import AtrousMixer
from linocut.vision.context import ContextModule
from linocut.vision.dilated_stages import at_output_stride
from linocut.vision.dilation import DilatedConv2d
from linocut.vision.hybrid import HybridDilation, largest_distance, leaves_no_holes, pixels_seen
from linocut.vision.separable import SeparableConv1d, SeparableConv2d, SeparableConv3d
from linocut.vision.wavenet import WaveNetStack


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reached(module: nn.Module, x: Tensor, at: tuple[int, ...]) -> Tensor:
    """Where a change of one input changes the output, over all channels."""
    other = x.clone()
    other[(slice(None), slice(None), *at)] += 1
    return (module(x) != module(other)).any(dim=1)[0]


@pytest.mark.parametrize("form", ["basic", "large"])
def test_the_context_module_starts_as_the_identity(form: str) -> None:
    x = torch.rand(2, 3, 40, 21)
    torch.testing.assert_close(ContextModule(3, form=form)(x), x)


def test_the_context_module_has_the_papers_sizes() -> None:
    basic, large = ContextModule(21), ContextModule(21, form="large")
    assert [layer.out_channels // 21 for layer in large.layers] == [2, 2, 4, 8, 16, 32, 32, 1]
    # about 64 C² in the basic form (section 3)
    assert sum(p.numel() for name, p in basic.named_parameters() if name.endswith("weight")) == 64 * 21**2


def test_the_context_module_sees_67_pixels_and_no_hole() -> None:
    module = ContextModule(1).double()
    for layer in module.layers:
        nn.init.ones_(layer.weight)
    seen = reached(module, torch.rand(1, 1, 101, 101, dtype=torch.float64), (50, 50))
    expected = torch.zeros(101, 101, dtype=torch.bool)
    expected[50 - 33 : 50 + 34, 50 - 33 : 50 + 34] = True
    assert torch.equal(seen, expected)
    assert module.halo == 33


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form must be 'basic' or 'large', got 'huge'"):
        ContextModule(3, form="huge")


def test_branches_of_deeplab_v2_are_added() -> None:
    head, x = SummedASPP(3, 2, hidden=4, rates=(1, 5)), torch.randn(1, 3, 9, 8)
    torch.testing.assert_close(head(x), head.branches[0](x) + head.branches[1](x))
    with pytest.raises(ValueError, match="rates must not be empty"):
        SummedASPP(3, 2, rates=())


@given(st.lists(st.integers(1, 9), max_size=4), st.integers(1, 4))
def test_holes_are_those_of_brute_force(rates: list[int], kernel: int) -> None:
    sums = {sum(r * t for r, t in zip(rates, taps, strict=True)) for taps in product(range(kernel), repeat=len(rates))}
    assert pixels_seen(rates, kernel) == sorted(sums)
    assert leaves_no_holes(rates, kernel) == (sums == set(range((kernel - 1) * sum(rates) + 1)))


def test_the_papers_examples_of_rates() -> None:
    assert (largest_distance((1, 2, 5)), leaves_no_holes((1, 2, 5))) == (2, True)
    assert largest_distance((1, 2, 9)) == 5
    assert not leaves_no_holes((2, 4, 8))


def test_the_papers_rule_and_the_pixels_seen() -> None:
    """They agree where rates start at 1 and grow; elsewhere the rule is neither sufficient nor necessary."""
    for count in (1, 2, 3):
        for others in combinations_with_replacement(range(1, 10), count):
            rates = (1, *others)
            assert (largest_distance(rates) <= 3) == leaves_no_holes(rates), rates
    assert largest_distance((2, 2)) <= 3
    assert not leaves_no_holes((2, 2))
    assert largest_distance((1, 3, 1)) > 3
    assert leaves_no_holes((1, 3, 1))


def test_a_hybrid_stack_reaches_every_pixel_and_others_are_refused() -> None:
    stack = HybridDilation(2, (1, 2, 5), norm=lambda _: nn.Identity()).double()
    for weight in stack.parameters():
        nn.init.ones_(weight)  # nothing is rectified away
    seen = reached(stack, torch.rand(1, 2, 21, 21, dtype=torch.float64), (10, 10))
    assert seen[2:19, 2:19].all()
    assert seen.sum() == 17 * 17
    assert stack.halo == 8
    with pytest.raises(ValueError, match=r"rates \(2, 4, 8\) see 15 of 29 pixels an axis"):
        HybridDilation(2, (2, 4, 8))


def test_wavenet_sees_what_it_says_and_nothing_ahead() -> None:
    stack = WaveNetStack(3, 5, layers=4, cycles=2).double()
    assert stack.receptive_field == 31
    seen = reached(stack, torch.randn(1, 3, 80, dtype=torch.float64), (20,)).nonzero().flatten()
    assert seen.tolist() == list(range(20, 51))
    with pytest.raises(ValueError, match="cycles must be >= 1, got 0"):
        WaveNetStack(3, 5, cycles=0)


@pytest.mark.parametrize(
    ("ours", "size"), [(SeparableConv1d, (30,)), (SeparableConv2d, (9, 30)), (SeparableConv3d, (5, 6, 7))]
)
def test_a_separable_filter_is_a_dense_one_of_rank_one(ours: Any, size: tuple[int, ...]) -> None:
    conv = ours(4, 6, 3, dilation=2, stride=2).double()
    dense = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(size)](4, 6, 3, 2, 2, 2).double()
    with torch.no_grad():
        point = conv.pointwise.weight.flatten(1)
        dense.weight.copy_(torch.einsum("oi,i...->oi...", point, conv.depthwise.weight[:, 0]))
        dense.bias.copy_(conv.pointwise.bias + point @ conv.depthwise.bias)
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    torch.testing.assert_close(conv(x), dense(x))


class Residual(nn.Module):
    """A residual block as in any ResNet."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, stride, 1)
        self.second = DilatedConv2d(channels, channels, 3)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))
        return y


def resnet(*strides: int) -> nn.Sequential:
    """A stem and pooling, then two blocks a stage."""
    stem = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, padding_mode="zeros"), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    stages = (nn.Sequential(Residual(4, stride), Residual(4, 1)) for stride in strides)
    return nn.Sequential(stem, *stages).double()


@pytest.mark.parametrize("output_stride", [2, 4, 8, 16, 32])
def test_dilated_stages_read_at_every_sth_pixel_are_the_strided_ones(output_stride: int) -> None:
    strided = resnet(1, 2, 2, 2)
    dilated = at_output_stride(strided, output_stride=output_stride)
    x = torch.randn(1, 4, 96, 64, dtype=torch.float64)
    fine, step = dilated(x), 32 // output_stride
    assert fine.shape[2:] == (96 // output_stride, 64 // output_stride)
    torch.testing.assert_close(fine[:, :, ::step, ::step], strided(x))
    strided.load_state_dict(dilated.state_dict())
    assert strided[2][0].first.stride == (2, 2)


def test_stages_that_cannot_be_dilated_are_refused() -> None:
    with pytest.raises(ValueError, match="make an output stride of 8, not 16"):
        at_output_stride(resnet(2), output_stride=16)
    with pytest.raises(ValueError, match="must be a multiple of the input stride 4, got 6"):
        at_output_stride(resnet(2), output_stride=6, input_stride=4)
    with pytest.raises(ValueError, match="MaxPool2d would be dilated by 2, but torch pads pooling"):
        at_output_stride(resnet(1), output_stride=1)
    with pytest.raises(ValueError, match="AvgPool2d is strided and cannot be dilated"):
        at_output_stride(nn.Sequential(nn.AvgPool2d(2)), output_stride=1)
    with pytest.raises(ValueError, match="holds layers of different strides"):
        at_output_stride(nn.Sequential(nn.ModuleList([nn.Conv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 3, 3)])), output_stride=1)
    with pytest.raises(ValueError, match="a different stride on each axis"):
        at_output_stride(nn.Sequential(nn.Conv2d(1, 1, 3, (1, 2))), output_stride=1)


@pytest.mark.parametrize("name", ["softmax_attention", "linear_attention"])
def test_atrous_attention_stays_on_its_grid_and_fills_it(name: str) -> None:
    mixer = AtrousMixer(8, rate=(2, 3), mixer=name, heads=2).double()
    seen = reached(mixer, torch.randn(1, 8, 7, 10, dtype=torch.float64), (3, 4))
    expected = torch.zeros(7, 10, dtype=torch.bool)
    expected[1::2, 1::3] = True
    assert torch.equal(seen, expected)


def test_atrous_attention_of_rate_one_is_attention_and_a_large_rate_sees_the_pixel_alone() -> None:
    x = torch.randn(2, 8, 5, 6)
    whole, plain = AtrousMixer(8, rate=1, heads=2), ImageMixer("softmax_attention", 8, heads=2)
    plain.load_state_dict({name.removeprefix("mixer."): value for name, value in whole.state_dict().items()})
    torch.testing.assert_close(whole(x), plain(x))
    lonely = AtrousMixer(8, rate=50, heads=2).double()
    seen = reached(lonely, x.double(), (2, 3))
    assert seen.nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize(
    "layer",
    [nn.AvgPool2d(3, 1, 1), nn.ReflectionPad2d(1), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 3, 3, 1, 1)],
)
def test_a_layer_that_would_see_other_pixels_is_refused(layer: nn.Module) -> None:
    stages = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), layer, nn.Conv2d(3, 3, 3, 1, 1))
    with pytest.raises(ValueError, match=f"{type(layer).__name__} would see other pixels on the finer map"):
        at_output_stride(stages, output_stride=1)


def test_a_block_that_says_how_far_it_sees_is_refused() -> None:
    stages = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), ASPP(3, 3, rates=(1, 2)))
    with pytest.raises(ValueError, match="ASPP says how far it sees"):
        at_output_stride(stages, output_stride=1)
