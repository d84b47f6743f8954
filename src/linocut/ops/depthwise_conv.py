r"""Depthwise convolution: one small filter a channel, with any stride, dilation and padding, over one or two axes.

.. math::
    y_c[p] = b_c + \sum_k w_c[k] \; x_c[s\,p + d\,k - \ell]

per axis, with x zero outside. It is the spatial half of a separable convolution (Sifre and Mallat, 2014; Chollet,
*Xception*, CVPR 2017, https://arxiv.org/abs/1610.02357), and dilated it is that of DeepLab v3+'s atrous separable
convolution (Chen et al., 2018, https://arxiv.org/abs/1802.02611).

============== ================================================= ===============================
symbol         meaning                                           shape
============== ================================================= ===============================
``x``          input                                             (batch, channels, \*size)
``weight``     w, as torch keeps it                              (channels, 1, \*taps)
``bias``       b                                                 (channels,)
s, d, ℓ        stride, dilation, zeros before the first entry    per axis
============== ================================================= ===============================

Cost: O(outputs · taps) time, at any dilation and in either memory format. A filter dilated by d reads rows d apart; the
native kernel takes the output rows in that order too, so the rows it needs again are still in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from linocut.ops import kernel
from linocut.ops.arguments import floats

Sizes = int | Sequence[int]
"""One number for all axes, or one for each."""

Pads = tuple[tuple[int, int], ...]
"""Zeros before and after each axis."""

# Outputs of a plane, and pixels of an image, that a thread takes at a time: many enough to pay for starting, few enough
# to share out. They do not depend on the number of threads, so results do not either.
_PIECE = {False: 1 << 16, True: 1 << 12}
_CONVOLUTIONS = (functional.conv1d, functional.conv2d)


def per_axis(name: str, value: Sizes, axes: int, *, least: int = 1) -> tuple[int, ...]:
    """One whole number for each axis.

    Args:
        name: of the argument, for the error.
        value: one number for all axes, or one for each.
        axes: how many there are.
        least: the smallest that makes sense.

    Raises:
        TypeError: if a number is not whole.
        ValueError: if there are more or fewer numbers than axes, or one is too small.
    """
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(values) != axes:
        raise ValueError(f"{name} must be one number or {axes}, one an axis, got {value!r}")
    for each in values:
        if not isinstance(each, int):
            raise TypeError(f"{name} must be whole, got {each!r}")
        if each < least:
            raise ValueError(f"{name} must be >= {least}, got {each}")
    return values


def reference(
    x: Float[Tensor, "batch channels *size"],
    weight: Float[Tensor, "channels 1 *taps"],
    bias: Float[Tensor, " channels"] | None,
    *,
    stride: Sequence[int],
    pads: Pads,
    dilation: Sequence[int],
) -> Float[Tensor, "batch channels *size2"]:
    """Torch's own: the oracle of the tests, and the form for other dtypes and devices."""
    if any(before != after for before, after in pads):
        x = functional.pad(x, [each for pair in reversed(pads) for each in pair])
        pads = ((0, 0),) * len(pads)
    operator = _CONVOLUTIONS[len(pads) - 1]
    padding = tuple(before for before, _ in pads)
    return operator(x, weight, bias, tuple(stride), padding, tuple(dilation), x.shape[1])


def _as_pixels(x: Tensor) -> bool:
    """Whether the kernel for neighbouring channels takes it: channels-last, or a map of one pixel."""
    return bool(x.shape[1] > 1 and x.stride(1) == 1)


def _readable(x: Tensor) -> Tensor:
    """The tensor itself if a kernel can read it where it lies, else a contiguous copy."""
    return x if _as_pixels(x) or x.stride(3) == 1 else x.contiguous()


def _empty(x: Tensor, size: Any) -> Tensor:
    """Memory for a map of another size in the memory format of this one."""
    format_ = torch.channels_last if _as_pixels(x) else torch.contiguous_format
    shape = (x.shape[0], x.shape[1], size[0], size[1])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=format_)


def _taps(weight: Tensor, pixels: bool) -> Tensor:
    """The filters as the kernels read them: (channels, taps) for planes, (taps, channels) for pixels."""
    flat = weight.float().flatten(1)
    return flat.t().contiguous() if pixels else flat.contiguous()


def _rows(height: int, width: int, *, pixels: bool) -> int:
    """Output rows in a piece of an image."""
    return min(max(16, _PIECE[pixels] // max(width, 1)), max(height, 1))


def _axes(
    inside: Sequence[int], outside: Sequence[int], taps: Sequence[int], stride: Any, before: Any, dilation: Any
) -> list[list[int]]:
    """What the kernel is told of each axis: input, output, taps, input step, output step, dilation, offset."""
    return [[inside[a], outside[a], taps[a], 1, stride[a], dilation[a], before[a]] for a in range(2)]


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    axes = _axes(x.shape[2:], size, weight.shape[2:], stride, before, dilation)
    return _launch(x, weight, bias, axes, size)


def _launch(x: Tensor, weight: Tensor, bias: Tensor | None, axes: list[list[int]], size: Sequence[int]) -> Tensor:
    """Call the kernel; what it is told of the axes decides which way it goes."""
    x = _readable(x)
    pixels, out = _as_pixels(x), _empty(x, size)
    filters = _taps(weight, pixels)
    kernel.kernels().depthwise_conv(
        x.shape[0],
        x.shape[1],
        *axes,
        _rows(size[0], size[1], pixels=pixels),
        x.dtype == torch.bfloat16,
        pixels,
        x.data_ptr(),
        x.stride(),
        out.data_ptr(),
        out.stride(),
        filters.data_ptr(),
        kernel.address(bias),
        kernel.threads(),
    )
    return out


_native = torch.library.custom_op(
    "linocut::depthwise_conv",
    _run,
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, SymInt[] stride, SymInt[] before, SymInt[] dilation, SymInt[] size)"
    " -> Tensor",
)


@_native.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, before: Any, dilation: Any, size: Any) -> Tensor:
    return _empty(x, size)


@torch.library.custom_op(
    "linocut::depthwise_conv_input_grad",
    mutates_args=(),
    schema="(Tensor grad, Tensor weight, SymInt[] stride, SymInt[] before, SymInt[] dilation, SymInt[] size) -> Tensor",
)
def _input_grad(
    grad: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    axes = [[grad.shape[2 + a], size[a], weight.shape[2 + a], stride[a], 1, -dilation[a], -before[a]] for a in range(2)]
    return _launch(grad, weight, None, axes, size)


@_input_grad.register_fake
def _(grad: Tensor, weight: Tensor, stride: Any, before: Any, dilation: Any, size: Any) -> Tensor:
    return _empty(grad, size)


@torch.library.custom_op(
    "linocut::depthwise_conv_weight_grad",
    mutates_args=(),
    schema="(Tensor x, Tensor grad, SymInt[] stride, SymInt[] before, SymInt[] dilation, SymInt[] taps)"
    " -> (Tensor, Tensor)",
)
def _weight_grad(
    x: Tensor,
    grad: Tensor,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    taps: Sequence[int],
) -> tuple[Tensor, Tensor]:
    x, (batch, channels, height, width) = _readable(x), grad.shape
    pixels, count = _as_pixels(x), taps[0] * taps[1]
    rows = _rows(height, width, pixels=pixels)
    if pixels != _as_pixels(grad) or _readable(grad) is not grad:
        grad = grad.contiguous(memory_format=torch.channels_last if pixels else torch.contiguous_format)
    sums = x.new_empty(
        batch, -(-height // rows), *((count + 1, channels) if pixels else (channels, count + 1)), dtype=torch.float32
    )
    kernel.kernels().depthwise_conv_weight_grad(
        batch,
        channels,
        *_axes(x.shape[2:], (height, width), taps, stride, before, dilation),
        rows,
        x.dtype == torch.bfloat16,
        pixels,
        x.data_ptr(),
        x.stride(),
        grad.data_ptr(),
        grad.stride(),
        sums.data_ptr(),
        kernel.threads(),
    )
    total = sums.sum(dim=(0, 1))
    by_channel = total.t() if pixels else total
    weight = by_channel[:, :count].reshape(channels, 1, taps[0], taps[1])
    return weight.contiguous(), by_channel[:, count].clone()


@_weight_grad.register_fake
def _(x: Tensor, grad: Tensor, stride: Any, before: Any, dilation: Any, taps: Any) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(x.shape[1], 1, taps[0], taps[1], dtype=torch.float32),
        x.new_empty(x.shape[1], dtype=torch.float32),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.before, ctx.dilation, _ = inputs
    ctx.bias = bias is not None
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    options = ctx.stride, ctx.before, ctx.dilation
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = _input_grad(grad, weight, *options, x.shape[2:])
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        grad_weight, grad_bias = _weight_grad(x, grad, *options, weight.shape[2:])
    return grad_x, grad_weight, grad_bias if ctx.bias else None, None, None, None, None


_native.register_autograd(_backward, setup_context=_setup)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    axes = x.dim() - 2
    if axes not in (1, 2) or weight.dim() != x.dim() or weight.shape[:2] != (x.shape[1], 1):
        shapes = f"{tuple(x.shape)} and {tuple(weight.shape)}"
        raise ValueError(
            f"depthwise_conv: x must be (batch, channels, *size) with one or two axes and weight (channels, 1, *taps), "
            f"got {shapes}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"depthwise_conv: bias must be {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")


def _sizes(x: Tensor, weight: Tensor, stride: Sequence[int], pads: Pads, dilation: Sequence[int]) -> list[int]:
    """Output size per axis."""
    sizes = []
    for n, taps, s, (before, after), d in zip(x.shape[2:], weight.shape[2:], stride, pads, dilation, strict=True):
        span, there = d * (taps - 1) + 1, n + before + after
        if there < span:
            raise ValueError(f"depthwise_conv: a filter that spans {span} does not fit into {n} padded to {there}")
        sizes.append((there - span) // s + 1)
    return sizes


@floats
def depthwise_conv(
    x: Float[Tensor, "batch channels *size"],
    weight: Float[Tensor, "channels 1 *taps"],
    bias: Float[Tensor, " channels"] | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes | Pads = 0,
    dilation: Sizes = 1,
) -> Float[Tensor, "batch channels *size2"]:
    """Convolve every channel with its own filter.

    Args:
        x: input, in any memory format; channels-last stays channels-last.
        weight: one filter a channel, as ``torch.nn.Conv2d`` with as many groups as channels keeps it.
        bias: added to each channel.
        stride: s, for all axes or each.
        padding: zeros on either side, for all axes or each, or (before, after) for each.
        dilation: d, for all axes or each.

    Returns:
        The outputs, in the dtype of ``x``.

    Raises:
        ValueError: if the shapes do not fit together, a number is too small, or a filter larger than the padded input.
        TypeError: if a number is not whole.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4)
        >>> depthwise_conv(x, torch.ones(1, 1, 2), padding=((2, 0),), dilation=2).flatten().tolist()
        [1.0, 2.0, 4.0, 6.0]
    """
    _check(x, weight, bias)
    axes = x.dim() - 2
    steps, rates = per_axis("stride", stride, axes), per_axis("dilation", dilation, axes)
    pads = padding_pairs(padding, axes)
    size = _sizes(x, weight, steps, pads, rates)
    if not (kernel.usable(x, weight, bias) and x.numel() and weight.numel()):
        return reference(x, weight, bias, stride=steps, pads=pads, dilation=rates)
    filters, shift = weight.float(), None if bias is None else bias.float().contiguous()
    before = [each for each, _ in pads]
    run = _run if kernel.direct(x, filters, shift) else _native
    if axes == 2:
        return run(x, filters, shift, steps, before, rates, size)
    y = run(x.unsqueeze(2), filters.unsqueeze(2), shift, [1, *steps], [0, *before], [1, *rates], [1, *size])
    return y.squeeze(2)


def padding_pairs(padding: Sizes | Pads, axes: int) -> Pads:
    """Zeros before and after each axis, from one number, one an axis, or both for each.

    Raises:
        TypeError: if a number is not whole.
        ValueError: if there are more or fewer than axes, or one is negative.
    """
    if isinstance(padding, int) or len(padding) != axes or all(isinstance(each, int) for each in padding):
        return tuple((each, each) for each in per_axis("padding", padding, axes, least=0))  # type: ignore[arg-type]  # numbers
    both = [per_axis("padding", pair, 2, least=0) for pair in padding]
    return tuple((before, after) for before, after in both)
