"""A network that was trained with strides, run without the last of them: the same weights on a finer map.

Where a stride is taken out, every later filter is dilated by it, so that it meets the same inputs as before (Chen et
al., *Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs*, ICLR 2015,
https://arxiv.org/abs/1412.7062, section 3.1; Yu, Koltun, Funkhouser, *Dilated Residual Networks*, CVPR 2017,
https://arxiv.org/abs/1705.09914). The finer map, read at every s-th pixel, is the old one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from math import prod

from torch import nn

from linocut.vision.dilation import DilatedConv1d, DilatedConv2d, DilatedConv3d, per_axis

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_KINDS = ("pooling", "padding", "upsampling", "pixelshuffle", "fold")
_LOOKING_AROUND = tuple(f"torch.nn.modules.{kind}" for kind in _KINDS)
"""Where torch keeps other layers that see more than one pixel."""


def at_output_stride(stages: nn.Sequential, *, output_stride: int, input_stride: int = 1) -> nn.Sequential:
    """A copy of strided stages that keeps to an output stride, dilated where strides are taken out.

    Args:
        stages: of a network, in order: convolutions, max pooling, and blocks of them. Inside a block (a module that is
            not a Sequential) at most one layer of the main path is strided, and layers before it are registered before
            it; further strided layers are taken for its shortcut's, as in any ResNet.
        output_stride: pixels of the image an axis to one of the result, such as 8 or 16.
        input_stride: the same of what the stages are given.

    Returns:
        Stages with the same names of parameters and the same values.

    Raises:
        ValueError: if the output stride is not a multiple of the input's, the strides do not reach it, or a layer that
            has to be dilated cannot be.

    Example:
        >>> stages = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1))
        >>> [layer.dilation for layer in at_output_stride(stages, output_stride=2)]
        [(1, 1), (1, 1), (2, 2)]
    """
    per_axis("output_stride", output_stride, 1)
    per_axis("input_stride", input_stride, 1)
    if output_stride % input_stride:
        raise ValueError(f"output_stride must be a multiple of the input stride {input_stride}, got {output_stride}")
    result = copy.deepcopy(stages)
    stride, rate = input_stride, 1
    for block in _blocks(result):
        step = _step(block)
        removed = stride * step > output_stride
        passed = False
        if removed or rate > 1:
            _require_dilatable(block)
        for layer in _layers(block):
            strided = _stride(layer) > 1
            if removed and strided:
                _set_stride(layer)
            _dilate(layer, rate * step if removed and passed and not strided else rate)
            passed = passed or strided
        stride, rate = (stride, rate * step) if removed else (stride * step, rate)
    if stride != output_stride:
        raise ValueError(f"the strides of these stages make an output stride of {stride}, not {output_stride}")
    return result


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What is run one after the other: children of Sequentials, all the way down."""
    if not isinstance(module, nn.Sequential):
        yield module
        return
    for child in module:
        yield from _blocks(child)


def _layers(block: nn.Module) -> list[nn.Module]:
    """The layers of a block that see more than one pixel or leave some out."""
    found: list[nn.Module] = []
    for module in block.modules():
        if isinstance(module, _LAYERS):
            found.append(module)
        elif _stride(module) > 1:
            raise ValueError(f"{type(module).__name__} is strided and cannot be dilated")
    return found


def _require_dilatable(block: nn.Module) -> None:
    """Refuse layers that see several pixels and cannot be dilated, and blocks that say how far they see.

    Raises:
        ValueError: naming the first of them.
    """
    for module in block.modules():
        name = type(module).__name__
        transposed = getattr(module, "transposed", False)
        if transposed or (type(module).__module__ in _LOOKING_AROUND and not isinstance(module, _LAYERS)):
            raise ValueError(f"{name} would see other pixels on the finer map, and it cannot be dilated")
        if isinstance(getattr(module, "halo", None), int):
            raise ValueError(f"{name} says how far it sees, which dilating would make wrong; build it with other rates")


def _per_axis(module: nn.Module, name: str) -> tuple[int, ...]:
    value: int | Sequence[int] = getattr(module, name)
    return (value,) if isinstance(value, int) else tuple(value)


def _stride(module: nn.Module) -> int:
    """The stride of a layer, the same on all axes; 1 of a module without one."""
    if not hasattr(module, "stride"):
        return 1
    steps = set(_per_axis(module, "stride"))
    if len(steps) > 1:
        raise ValueError(f"{type(module).__name__} has a different stride on each axis: {sorted(steps)}")
    return steps.pop()


def _step(block: nn.Module) -> int:
    """The stride of a block: that of its main path, which its shortcut shares."""
    steps = {_stride(layer) for layer in _layers(block)} - {1}
    if len(steps) > 1:
        raise ValueError(f"{type(block).__name__} holds layers of different strides: {sorted(steps)}")
    return prod(steps)


def _set_stride(layer: nn.Module) -> None:
    one = (1,) * len(_per_axis(layer, "stride"))
    layer.stride = one  # type: ignore[assignment]  # a tuple


def _dilate(layer: nn.Module, rate: int) -> None:
    """Multiply a layer's dilation and with it its padding."""
    if rate == 1:
        return
    layer.dilation = tuple(rate * each for each in _per_axis(layer, "dilation"))  # type: ignore[assignment]  # a tuple
    if isinstance(layer, _CONVOLUTIONS):
        _dilate_convolution(layer, rate)
        return
    if any(_per_axis(layer, "padding")):
        raise ValueError(
            f"{type(layer).__name__} would be dilated by {rate}, but torch pads pooling by half its kernel at most; "
            f"a larger output_stride leaves it alone"
        )


def _dilate_convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, rate: int) -> None:
    if isinstance(layer.padding, str):
        if layer.padding == "same" and any(taps % 2 == 0 for taps in layer.kernel_size):
            raise ValueError(
                f"{type(layer).__name__} pads to the same size around {layer.kernel_size} taps, which cannot be "
                f"dilated evenly; give it numbers"
            )
    else:
        layer.padding = tuple(rate * each for each in layer.padding)
    # what torch pads itself where padding is not zeros
    layer._reversed_padding_repeated_twice = [rate * each for each in layer._reversed_padding_repeated_twice]
    if isinstance(layer, DilatedConv1d | DilatedConv2d | DilatedConv3d):
        layer.pads = tuple((rate * before, rate * after) for before, after in layer.pads)
