"""What operations that look around do to the lanes of a tensor: convolution, pooling, resizing, padding, norms."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from linocut.vision.fields import algebra
from linocut.vision.fields.algebra import AxisField, Taps
from linocut.vision.fields.calls import Call, Rule
from linocut.vision.fields.errors import FieldError, GlobalOperationError, UnknownOperationError
from linocut.vision.fields.lanes import Border, Parts, State, clamp, drop, lanes, needs_no_lane, plain, slide


def _spread(value: Any, count: int, default: int = 0) -> list[int]:
    """An argument for each of the axes, which PyTorch may give once for all or leave empty."""
    values = [value] if isinstance(value, int) else list(value or [default])
    return values * count if len(values) == 1 else values


def _trailing(call: Call, steps: Sequence[AxisField], border: Border = drop) -> State:
    """The last dimensions slid over."""
    state, count = call.state(call.first), len(steps)
    sizes = call.shape[-count:]
    moved = (slide(p, s, n, border) for p, s, n in zip(state[-count:], steps, sizes, strict=True))
    return *state[:-count], *moved


def convolution(call: Call) -> State:
    """Convolution of any kind, transposed too."""
    weight, state = call.values["weight"], call.state("input")
    if call.state_of(weight) is not None:
        raise UnknownOperationError("convolves with filters that depend on the input")
    needs_no_lane(state[1], "mixes")
    count = weight.ndim - 2
    settings = [_spread(call.values[name], count) for name in ("stride", "padding", "dilation")]
    make = algebra.transposed if call.values["transposed"] else algebra.window
    steps = [
        make(kernel, stride=stride, padding=padding, dilation=dilation)
        for kernel, stride, padding, dilation in zip(weight.shape[2:], *settings, strict=True)
    ]
    batch, _, *rest = _trailing(call, steps)
    return batch, plain(call.shape[1]), *rest


def depthwise_conv(call: Call) -> State:
    """Linocut's own depthwise convolution, over two axes: a filter a channel, zeros before and after."""
    weight, settings = call.values["weight"], (call.values[name] for name in ("stride", "before", "dilation"))
    if call.state_of(weight) is not None:
        raise UnknownOperationError("convolves with filters that depend on the input")
    steps = [
        algebra.window(kernel, stride=stride, padding=padding, dilation=dilation)
        for kernel, stride, padding, dilation in zip(weight.shape[2:], *settings, strict=True)
    ]
    return _trailing(call, steps)


def sequence(call: Call) -> State:
    """Linocut's operators over sequences; those of two axes have their pixels in a row, where a window is no window."""
    for parts in call.state(call.first):
        needs_no_lane(parts, "mixes")
    raise UnknownOperationError("mixes a sequence that holds no axis of the image")


def pool(count: int) -> Rule:
    """Pooling over this many axes."""

    def rule(call: Call) -> State:
        kernels = _spread(call.values["kernel_size"], count)
        strides = _spread(call.values.get("stride") or kernels, count)
        paddings = _spread(call.values["padding"], count)
        dilations = _spread(call.values.get("dilation", 1), count)
        each = zip(kernels, strides, paddings, dilations, strict=True)
        return _trailing(call, [algebra.window(k, stride=s, padding=p, dilation=d) for k, s, p, d in each])

    return rule


def _needs_size(parts: Parts) -> None:
    """Refuse what is another field in an image of another size, if that is not given."""
    if any(lane.edges is None for lane in lanes(parts)):
        raise FieldError("depends on the size of the input; give it as input_size, (channels, *spatial)")


def adaptive_pool(count: int) -> Rule:
    """Pooling to a given size; to a single output it is global."""

    def rule(call: Call) -> State:
        steps = []
        for parts, outputs in zip(call.state(call.first)[-count:], call.shape[-count:], strict=True):
            if outputs == 1 and any(part.size > 1 for part in parts):
                needs_no_lane(parts, "pools")
            _needs_size(parts)
            steps.append(algebra.divided(parts[0].size if parts else 1, outputs))
        return _trailing(call, steps)

    return rule


def interpolate(mode: str, count: int) -> Rule:
    """Resizing along this many axes."""

    def rule(call: Call) -> State:
        if call.values.get("antialias"):
            raise UnknownOperationError("interpolates with an antialiasing filter")
        corners = bool(call.values.get("align_corners", False))
        for parts in call.state(call.first)[-count:] if corners else ():
            _needs_size(parts)
        given = [call.values.get(name) for name in _SCALES[count]]
        sizes = zip(call.values[call.first].shape[-count:], call.shape[-count:], given, strict=True)
        scales = [_scale(inputs, outputs, factor, corners=corners) for inputs, outputs, factor in sizes]
        return _trailing(call, [algebra.resampled(s, mode=mode, align_corners=corners) for s in scales], clamp)

    return rule


_SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}


def _scale(inputs: int, outputs: int, factor: float | None, *, corners: bool) -> Fraction:
    """Inputs an output of an interpolation moves on by."""
    if corners:
        if outputs == 1 or inputs == 1:
            raise UnknownOperationError("interpolates from or to one sample with align_corners")
        return Fraction(inputs - 1, outputs - 1)
    if factor is None:
        return Fraction(inputs, outputs)
    scale = 1 / Fraction(factor).limit_denominator(1000)
    if abs(float(scale) * factor - 1) > 1e-12:
        raise UnknownOperationError(f"interpolates by {factor}, which is no ratio of small numbers")
    return scale


def pad(border: Border) -> Rule:
    """Padding, of which the border tells what it repeats."""

    def rule(call: Call) -> State:
        pad = call.values["pad" if "pad" in call.values else "padding"]
        lefts = list(reversed(pad[::2]))
        return _trailing(call, [AxisField(1, (Taps(-left, 1),)) for left in lefts], border)

    return rule


def pixel_shuffle(call: Call) -> State:
    """Groups of channels to squares of pixels."""
    state, factor = call.state("self"), call.values["upscale_factor"]
    needs_no_lane(state[-3], "mixes")
    step = algebra.resampled(Fraction(1, factor), mode="nearest")
    *batch, _, height, width = _trailing(call, [step, step])
    return *batch, plain(call.shape[-3]), height, width


def pixel_unshuffle(call: Call) -> State:
    """Squares of pixels to groups of channels."""
    state, factor = call.state("self"), call.values["downscale_factor"]
    needs_no_lane(state[-3], "mixes")
    step = algebra.window(factor, stride=factor)
    *batch, _, height, width = _trailing(call, [step, step])
    return *batch, plain(call.shape[-3]), height, width


def layer_norm(call: Call) -> State:
    """Statistics over the last dimensions."""
    state = call.state("input")
    for parts in state[len(state) - len(call.values["normalized_shape"]) :]:
        needs_no_lane(parts, "takes statistics over")
    return state


def group_norm(call: Call) -> State:
    """Statistics over channels and all axes."""
    for parts in call.state("input")[1:]:
        needs_no_lane(parts, "takes statistics over")
    return call.state("input")


def batch_norm(call: Call) -> State:
    """Statistics that are given, or in training those of the batch."""
    state = call.state("input")
    if call.values.get("training", False):
        for parts in state:
            needs_no_lane(parts, "(in training) takes statistics over")
    needs_no_lane(state[1], "scales")
    return state


def train_batch_norm(call: Call) -> State:
    """Statistics of the batch."""
    for parts in call.state("input"):
        needs_no_lane(parts, "(in training) takes statistics over")
    return call.state("input")


def applied(state: State, steps: Sequence[AxisField], shape: Sequence[int]) -> State:
    """The last dimensions slid over and the others without lanes: a module or an operation with a registered rule."""
    count = len(steps)
    for parts in state[:-count]:
        if lanes(parts):
            raise GlobalOperationError(f"has a rule for {count} axes, but the map has more")
    moved = (slide(p, s, n) for p, s, n in zip(state[-count:], steps, shape[-count:], strict=True))
    return *(plain(size) for size in shape[:-count]), *moved
