"""The theoretical field is what perturbing the input shows, set for set, on random networks."""

from __future__ import annotations

import warnings
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from linocut.vision import (
    FieldError,
    GlobalOperationError,
    ReceptiveField,
    UnknownOperationError,
    efficientnet,
    layers,
    receptive_field,
    register_rule,
)
from linocut.vision.aspp import ASPP
from linocut.vision.dilation import DilatedConv1d, DilatedConv2d
from linocut.vision.efficientnet import TRUNK_CHANNELS, EfficientNetLite0, InvertedResidual
from linocut.vision.encoder import EncoderConfig, ImageEncoder
from linocut.vision.fields import receptive_field as home
from linocut.vision.fields.algebra import IDENTITY, AxisField, Taps
from linocut.vision.layers import GlobalBlock, LocalBlock
from vision.fields.networks import CHANNELS, measured, networks, positive

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def field_in(net: nn.Module, size: tuple[int, ...]) -> tuple[ReceptiveField, list[list[set[int]]]]:
    """A network's field in images of this size, and what perturbing them shows."""
    try:
        shows = measured(net, size)
    except RuntimeError:
        reject()  # the map has become smaller than a kernel, or than what reflection needs
    try:
        return receptive_field(net, (CHANNELS, *size)), shows
    except GlobalOperationError:
        reject()  # pooled to one pixel
    except UnknownOperationError as error:
        if not any(known in str(error) for known in ("leaves out outputs", "from or to one sample")):
            raise
        reject()


@SETTINGS
@given(networks(rank=1, most=6), st.integers(12, 40))
def test_a_random_network_on_a_line(net: nn.Module, length: int) -> None:
    field, shows = field_in(net, (length,))
    assert field.edges is not None
    assert [[set(taps) for taps in edge] for edge in field.edges] == shows


@SETTINGS
@given(networks(rank=2, most=5), st.integers(10, 20), st.integers(10, 20))
def test_a_random_network_on_a_map(net: nn.Module, height: int, width: int) -> None:
    field, shows = field_in(net, (height, width))
    assert field.edges is not None
    assert [[set(taps) for taps in edge] for edge in field.edges] == shows


@settings(SETTINGS, max_examples=20)
@given(networks(rank=3, most=3), st.integers(5, 8))
def test_a_random_network_on_a_volume(net: nn.Module, length: int) -> None:
    field, shows = field_in(net, (length, length + 1, length + 2))
    assert field.edges is not None
    assert [[set(taps) for taps in edge] for edge in field.edges] == shows


@settings(SETTINGS, max_examples=30)
@given(networks(rank=1, most=3))
def test_far_from_the_borders_an_image_is_endless(net: nn.Module) -> None:
    """The field on an endless image, found without a size, is that of an output in the middle of a large one."""
    try:
        endless = receptive_field(net)
    except FieldError:
        reject()  # resized to a given size
    length = 120
    field, shows = field_in(net, (length,))
    (axis,) = endless.axes
    for index in range(len(shows[0])):
        expected = set(axis.at(index))
        if all(40 <= at < length - 40 for at in expected):
            assert shows[0][index] == expected
            assert field.input_range(index) == endless.input_range(index)


@SETTINGS
@given(networks(rank=1, most=4), st.integers(20, 40))
def test_outputs_of_an_input_are_the_other_way_round(net: nn.Module, length: int) -> None:
    field, shows = field_in(net, (length,))
    for index in range(length):
        outputs = [i for i, inputs in enumerate(shows[0]) if index in inputs]
        assert field.output_range(index) == (((outputs[0], outputs[-1]) if outputs else None),)


def test_a_single_pixel_shows_inside_its_outputs_only() -> None:
    """Both axes at once: the outputs that change are a rectangle here, and it is the one said."""
    net = positive(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.MaxPool2d(2, 1)))
    field = receptive_field(net, (CHANNELS, 21, 15))
    x = torch.ones(1, CHANNELS, 21, 15, dtype=torch.float64)
    with torch.no_grad():
        before = net(x)
        x[0, 0, 9, 4] += 1e6
        changed = (net(x) != before)[0].any(0).nonzero()
    (top, bottom), (left, right) = field.output_range((9, 4))
    assert changed.amin(0).tolist() == [top, left]
    assert changed.amax(0).tolist() == [bottom, right]


# Araujo, Norris & Sim 2019, table of receptive fields and effective strides
def conv(c: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(c, c, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(c), nn.ReLU6(inplace=True))


def alexnet() -> nn.Module:
    pool = nn.MaxPool2d(3, 2)
    return nn.Sequential(nn.Conv2d(4, 4, 11, 4), pool, conv(4, 5), pool, conv(4, 3), conv(4, 3), conv(4, 3), pool)


def vgg16() -> nn.Module:
    stages = ([conv(4, 3) for _ in range(count)] for count in (2, 2, 3, 3, 3))
    return nn.Sequential(*(nn.Sequential(*stage, nn.MaxPool2d(2)) for stage in stages))


class Bottleneck(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(4, 1), conv(4, 3, stride), conv(4, 1))
        self.skip = nn.MaxPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet(units: tuple[int, ...], *, last: bool) -> nn.Module:
    """``last``: a stage is halved in its last unit, as the authors' table has it; else in its first, as torchvision."""
    layers: list[nn.Module] = [conv(4, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(units):
        halves = stage < 3 if last else stage > 0
        at = count - 1 if last else 0
        layers += [Bottleneck(2 if halves and unit == at else 1) for unit in range(count)]
    return nn.Sequential(*layers)


def mobilenet() -> nn.Module:
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    return nn.Sequential(conv(4, 3, 2), *(nn.Sequential(conv(4, 3, s, groups=4), conv(4, 1)) for s in strides))


PUBLISHED = {
    "alexnet_v2": (alexnet(), 195, 32),
    "vgg_16": (vgg16(), 212, 32),
    "mobilenet_v1": (mobilenet(), 315, 32),
    "resnet_v1_50": (resnet((3, 4, 6, 3), last=True), 483, 32),
    "resnet_v1_101": (resnet((3, 4, 23, 3), last=True), 1027, 32),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_receptive_fields(name: str) -> None:
    net, size, stride = PUBLISHED[name]
    field = receptive_field(net.eval())
    assert (field.size, field.stride) == ((size, size), (stride, stride))


def test_where_a_resnet_halves_makes_a_difference() -> None:
    assert receptive_field(resnet((3, 4, 6, 3), last=False).eval()).size == (427, 427)


def test_wavenet_looks_back_as_far_as_the_sum_of_its_dilations() -> None:
    """Two taps, dilations 1 to 512: 1024 samples (van den Oord et al. 2016, section 2.1), causal."""
    stack = (DilatedConv1d(2, 2, 2, dilation=2**i, causal=True) for i in range(10))
    field = receptive_field(nn.Sequential(*stack))
    assert field.size == (1024,)
    assert field.input_range(0) == ((-1023, 0),)
    assert field.halo == ((1023, 0),)


@pytest.mark.parametrize(
    ("rates", "read"), [((2, 2, 2), [*range(-6, 7, 2)]), ((1, 2, 5), [*range(-8, 9)]), ((1, 2, 9), None)]
)
def test_gridding_is_seen(rates: tuple[int, ...], read: list[int] | None) -> None:
    """Wang et al., *Understanding Convolution for Semantic Segmentation*, WACV 2018, figure 2 and equation 2."""
    field = receptive_field(nn.Sequential(*(DilatedConv2d(1, 1, 3, dilation=rate) for rate in rates)))
    taps = field.axes[0].at(0)
    assert field.size == (2 * sum(rates) + 1,) * 2
    if read is not None:
        assert taps.indices() == read
    assert (taps.mask.bit_count() == field.size[0]) == (rates == (1, 2, 5))


def test_aspp_reaches_as_far_as_its_largest_rate_unless_it_pools() -> None:
    pooled, local = ASPP(4, 4, rates=(6, 12, 18)).eval(), ASPP(4, 4, rates=(6, 12, 18), pooling=False).eval()
    field = receptive_field(local)
    assert field.axes[0].at(0).indices() == [-18, -12, -6, 0, 6, 12, 18]
    assert field.halo == ((local.halo, local.halo),) * 2
    with pytest.raises(GlobalOperationError, match=r"axis 0"):
        receptive_field(pooled)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1)], r"^1 \(AdaptiveAvgPool2d\) applies aten::mean.*axis 0|axis 1"),
        ([nn.Conv2d(1, 4, 3), nn.AdaptiveMaxPool2d(1)], r"^1 \(AdaptiveMaxPool2d\).* the whole of axis 0"),
        ([nn.GroupNorm(1, 1)], r"^0 \(GroupNorm\).*statistics"),
        ([nn.InstanceNorm2d(1)], r"^0 \(InstanceNorm2d\).*statistics"),
        ([nn.BatchNorm2d(1)], r"^0 \(BatchNorm2d\).*in training"),
        ([nn.LayerNorm((16, 16))], r"^0 \(LayerNorm\).*statistics"),
        ([nn.Flatten(), nn.Linear(256, 3)], r"^1 \(Linear\).*axis 0 and 1"),
        ([nn.Linear(16, 3)], r"^0 \(Linear\).*axis 1"),
        ([nn.Softmax(-1)], r"^0 \(Softmax\).*axis 1"),
        ([nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Flatten(3), nn.Softmax(3))], r"^0\.2 \(Softmax\).*axis 0 and 1"),
    ],
)
def test_what_is_global_names_operation_module_and_axis(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(GlobalOperationError, match=message):
        receptive_field(nn.Sequential(*layers), (1, 16, 16))


def test_attention_is_global() -> None:
    class Across(nn.TransformerEncoderLayer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mT).mT

    with pytest.raises(GlobalOperationError, match=r"self_attn \(MultiheadAttention\).*every position along an axis"):
        receptive_field(Across(8, 2, batch_first=True), (8, 16))

    def attend(x: Tensor) -> Tensor:
        y = x.flatten(2).mT[:, None]
        return nn.functional.scaled_dot_product_attention(y, y, y)

    with pytest.raises(GlobalOperationError, match=r"^the function applies aten::.* (attends|pairs) "):
        receptive_field(attend, (8, 4, 4))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def test_a_global_branch_makes_the_sum_global_and_one_that_is_not_used_does_not() -> None:
    with pytest.raises(GlobalOperationError, match=r"1 \(Gate\) applies aten::mean"):
        receptive_field(nn.Sequential(nn.Conv2d(3, 4, 3), Gate()))

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.body(x)
            return {"map": y, "class": y.mean((2, 3))}

    assert receptive_field(TwoHeads(), output="map").size == (3, 3)
    with pytest.raises(GlobalOperationError):
        receptive_field(TwoHeads(), output="class")
    with pytest.raises(UnknownOperationError, match="returns a dict; say with output="):
        receptive_field(TwoHeads())


def test_what_depends_on_the_size_asks_for_it() -> None:
    pool = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(7))
    with pytest.raises(FieldError, match="depends on the size of the input; give it as input_size"):
        receptive_field(pool)
    assert receptive_field(pool, (3, 14, 28)).size == (2, 4)
    with pytest.raises(FieldError, match="no layer tells"):
        receptive_field(nn.Upsample(scale_factor=2))
    with pytest.raises(FieldError, match=r"cannot run the module on an image of \(1, 3840, 3840\)"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(3, 1)))
    with pytest.raises(ValueError, match=r"input_size must be \(channels, \*spatial\)"):
        receptive_field(pool, (3,))


def test_a_map_resized_to_the_size_of_another_needs_no_size() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + nn.functional.interpolate(self.down(x), size=x.shape[2:], mode="bilinear")

    assert receptive_field(Pyramid()).size == (5, 5)  # two neighbours of the coarse map, 2 apart, of 3 inputs each


class Sorted(nn.Module):
    """An operation that has no rule, though it is local: rows are shifted by an index."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, torch.arange(x.shape[2]).clamp(max=x.shape[2] - 2) + 1]


def test_an_unknown_operation_is_an_error_that_says_what_to_do() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), Sorted())
    with pytest.raises(
        UnknownOperationError, match=r"1 \(Sorted\) applies aten::index, .*register_rule\('aten::index'"
    ):
        receptive_field(net)


def test_a_registered_rule_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "_CUSTOM", {})
    net = nn.Sequential(nn.Conv2d(1, 1, 3), Sorted(), nn.Conv2d(1, 1, 3))
    register_rule(Sorted, lambda _: [AxisField(1, (Taps(1, 1),)), IDENTITY])
    assert receptive_field(net).input_range(0) == ((1, 5), (0, 4))
    home._CUSTOM.clear()
    register_rule("aten::index", lambda **_: [AxisField(1, (Taps(1, 1),)), IDENTITY])
    assert receptive_field(net).input_range(0) == ((1, 5), (0, 4))

    class Other(Sorted):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(2)

    home._CUSTOM.clear()
    register_rule(Sorted, lambda _: [IDENTITY, IDENTITY])
    with pytest.raises(UnknownOperationError, match=r"Other.*turns axis 0 round"):
        receptive_field(Other(), (1, 8, 8))


def test_writing_into_a_slice_is_an_error_and_not_a_wrong_answer() -> None:
    def pasted(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[:, :, 1:] = x[:, :, :-1]
        return out

    with pytest.raises(UnknownOperationError, match="a part was overwritten"):
        receptive_field(pasted, (1, 8, 8))

    def added(x: Tensor) -> Tensor:
        y = x * 2
        y[:, :, :-1] += x[:, :, 1:]
        return y

    with pytest.raises(UnknownOperationError, match="a part was overwritten"):
        receptive_field(added, (1, 8, 8))


def test_branches_of_different_strides_are_an_error() -> None:
    class Uneven(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, ::2] + x[:, :, : -(-x.shape[2] // 2)]

    with pytest.raises(UnknownOperationError, match=r"drift apart along axis 0 .*2 and 1"):
        receptive_field(Uneven(), (1, 8, 8))


def test_the_module_is_left_as_it_was() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.seen = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), None

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return self.norm(self.conv(x)).mean(1, keepdim=True)

    net = Caching()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(GlobalOperationError):
        receptive_field(net)
    assert net.training
    assert net.seen is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert net(torch.zeros(2, 1, 5, 5)).shape == (2, 1, 3, 3)


def test_a_lazy_module_is_asked_to_be_run_first() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the feature is new, says an older PyTorch
        net = nn.Sequential(nn.LazyConv2d(4, 3))
    with pytest.raises(FieldError, match=r"0 \(LazyConv2d\) has no sizes yet"):
        receptive_field(net, (3, 8, 8))


def test_what_does_not_depend_on_the_input_says_so() -> None:
    with pytest.raises(UnknownOperationError, match="does not depend on the input"):
        receptive_field(torch.zeros_like, (1, 8, 8))


def test_indices_that_do_not_fit() -> None:
    field = receptive_field(nn.Conv2d(1, 1, 3), (1, 8, 8))
    with pytest.raises(IndexError, match="indices 0 to 5, got 6"):
        field.input_range(6)
    with pytest.raises(ValueError, match="one index for each of 2 axes"):
        field.input_range((1, 2, 3))


def test_fields_compose_as_modules_do() -> None:
    first, second = nn.Conv2d(2, 2, (3, 5), (2, 1), padding=1), nn.ConvTranspose2d(2, 2, 4, 2, 1)
    whole = receptive_field(nn.Sequential(first, second))
    assert receptive_field(first).then(receptive_field(second)) == whole
    other = receptive_field(nn.Conv2d(2, 2, 3, padding=(3, 0)))
    assert receptive_field(first).then(other) != receptive_field(first)
    with pytest.raises(ValueError, match="one stride"):
        whole.join(receptive_field(first))
    with pytest.raises(ValueError, match="as many axes, got 2 and 1"):
        whole.then(receptive_field(nn.Conv1d(1, 1, 3)))


# The house's own halos


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_halo_of_an_inverted_residual(kernel: int, stride: int) -> None:
    block = InvertedResidual(4, 4, expansion=6, stride=stride, kernel=kernel)
    assert block.halo == in_whole_strides(receptive_field(block), stride)


def test_the_halo_of_a_local_block(monkeypatch: pytest.MonkeyPatch) -> None:
    given = halos(monkeypatch, layers)
    field = receptive_field(LocalBlock(4, kernel=5))
    assert set(given) == {in_whole_strides(field, 1)}


def test_the_halo_of_the_trunk_and_what_each_stride_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = EfficientNetLite0()
    begin = receptive_field(trunk._begin, (3, 64, 64))
    given = halos(monkeypatch, efficientnet)
    sizes = {stride: receptive_field(trunk, output=stride).size for stride in (2, 4, 8, 16, 32)}
    assert given[0] == in_whole_strides(begin, 2) == 4
    assert sizes == {2: (7, 7), 4: (19, 19), 8: (67, 67), 16: (339, 339), 32: (787, 787)}


@pytest.mark.parametrize(("name", "stride", "halo"), [("_join", 16, 2), ("_join", 8, 2), ("_finish", 4, 4)])
def test_the_halos_of_the_pyramid(name: str, stride: int, halo: int) -> None:
    """Of the fine map and of the coarse one, whose pixels are two of the fine map's."""
    encoder = ImageEncoder(EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1))
    part = getattr(encoder, name)
    layer = partial(part, stride) if name == "_join" else part
    fine_channels, coarse_channels = TRUNK_CHANNELS[stride], {16: 32, 8: 24, 4: 16}[stride]
    fine = receptive_field(lambda x: layer(x, torch.zeros(1, coarse_channels, 16, 16)), (fine_channels, 32, 32))
    coarse = receptive_field(lambda x: layer(torch.zeros(1, fine_channels, 32, 32), x), (coarse_channels, 16, 16))
    assert coarse.stride == (Fraction(1, 2),) * 2
    needed = max(*fine.halo[0], *(2 * reach for reach in coarse.halo[0]))
    assert needed <= halo
    assert needed == 2


def in_whole_strides(field: ReceptiveField, stride: int) -> int:
    """What ``in_strips`` asks for: the larger of above and below, in whole strides."""
    return -(-max(field.halo[0]) // stride) * stride


def halos(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """The halos with which a module calls ``in_strips``, as they come."""
    seen, original = [], module.in_strips

    def listening(layer: Any, x: Tensor, *others: Tensor, halo: int, **rest: Any) -> Tensor:
        seen.append(halo)
        return original(layer, x, *others, halo=halo, **rest)

    monkeypatch.setattr(module, "in_strips", listening)
    return seen


def test_the_mixers_of_the_encoder_are_global() -> None:
    with pytest.raises(GlobalOperationError, match=r"mixer \(LinearAttention\)"):
        receptive_field(GlobalBlock(8, mixer="linear_attention", kernel=3), (8, 32, 32))


@pytest.mark.parametrize(
    "module",
    [
        DilatedConv2d(4, 4, 3, groups=4, dilation=3),
        DilatedConv2d(4, 4, (3, 4), groups=4, dilation=(2, 5), stride=2),
        DilatedConv1d(4, 4, 2, groups=4, dilation=8, causal=True),
    ],
)
@pytest.mark.parametrize("size", [None, 70])
def test_our_depthwise_kernel_has_the_field_of_torchs(
    module: nn.Module, size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = 1 if isinstance(module, DilatedConv1d) else 2
    given = None if size is None else (4, *[size] * axes)
    fields = []
    for native in "10":
        monkeypatch.setenv("LINOCUT_NATIVE", native)
        fields.append(receptive_field(module, given))
    assert fields[0] == fields[1]
    assert max(fields[0].size) > 3


def test_an_output_with_its_axes_in_another_order_is_refused() -> None:
    with pytest.raises(UnknownOperationError, match="axes of the image in another order"):
        receptive_field(lambda x: x.transpose(2, 3), (3, 16, 20))


@pytest.mark.parametrize("size", [(8, 32, 32), (3, 32), (3, 1, 32, 32)])
def test_a_size_the_module_does_not_take_is_named(size: tuple[int, ...]) -> None:
    with pytest.raises(FieldError, match=r"cannot run the module on an image of \(.*input_size"):
        receptive_field(nn.Conv2d(3, 4, 3), size)
