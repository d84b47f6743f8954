r"""Dilated convolutions: torch's, padded so that the size stays, causal in one dimension, and depthwise-separable.

.. math::
    y[p] = b + \sum_{k} w[k] \; x[s\,p + d\,k - \ell]

p counts output pixels and k the taps of the kernel, both per axis; s is the stride, d the dilation (the rate), and ℓ
the zeros before the first pixel. A kernel of K taps spans d (K - 1) + 1 pixels with K weights: d - 1 pixels, the holes
(*à trous*), lie between any two taps. "Same" padding puts d (K - 1) zeros around the axis, the smaller half before it,
so that ⌈n / s⌉ of n pixels come out; causal padding puts all of them before it.

Sources: Holschneider et al., 1989 (the *algorithme à trous*); Yu and Koltun, *Multi-Scale Context Aggregation by
Dilated Convolutions*, ICLR 2016, https://arxiv.org/abs/1511.07122, equation 2; Chen et al., *DeepLab*, 2016,
https://arxiv.org/abs/1606.00915, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut.ops import kernel
from linocut.ops.depthwise_conv import Pads, Sizes, depthwise_conv, per_axis

__all__ = ["DilatedConv1d", "DilatedConv2d", "DilatedConv3d", "Pads", "Sizes", "convolve", "padding_of", "per_axis"]

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)


def padding_of(
    padding: Sizes | str, kernel_size: Sequence[int], dilation: Sequence[int], *, causal: bool = False
) -> Pads:
    """Pixels to add before and after each axis.

    Args:
        padding: "same" (d (K - 1) in all, the smaller half first), "valid" (none), or as many on either side.
        kernel_size: K of each axis.
        dilation: d of each axis.
        causal: all d (K - 1) go before the axis; only with "same".

    Raises:
        ValueError: for another word, or a causal padding that is not "same".

    Example:
        >>> padding_of("same", (3, 4), (2, 1))
        ((2, 2), (1, 2))
    """
    spans = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    if causal and padding != "same":
        raise ValueError(f"a causal convolution pads by itself: leave padding at 'same', got {padding!r}")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same', 'valid' or numbers, got {padding!r}")
        if causal:
            return tuple((span, 0) for span in spans)
        return tuple((span // 2, span - span // 2) if padding == "same" else (0, 0) for span in spans)
    return tuple((each, each) for each in per_axis("padding", padding, len(spans), least=0))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, ...],
    pads: Pads,
    dilation: tuple[int, ...],
    groups: int = 1,
    mode: PaddingMode = "zeros",
) -> Tensor:
    """The convolution of the module docstring over as many axes as there are pads, which need not be symmetric.

    Depthwise ones of one or two axes go to :func:`linocut.ops.depthwise_conv` where it has a kernel, the rest to torch.
    """
    if mode == "zeros" and _is_for_our_kernel(x, weight, bias, dilation=dilation, groups=groups):
        return depthwise_conv(x, weight, bias, stride=stride, padding=pads, dilation=dilation)
    operator, padding = _CONVOLUTIONS[len(pads) - 1], tuple(before for before, _ in pads)
    if mode != "zeros" or any(before != after for before, after in pads):
        around = [each for pair in reversed(pads) for each in pair]
        x = functional.pad(x, around, mode="constant" if mode == "zeros" else mode)
        padding = (0,) * len(pads)
    return operator(x, weight, bias, stride, padding, dilation, groups)


def _is_for_our_kernel(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, dilation: tuple[int, ...], groups: int
) -> bool:
    """Whether torch is slow at this one: depthwise, unless nothing is dilated and channels lie together."""
    if not (x.dim() == weight.dim() <= 4 and x.shape[1] == groups == weight.shape[0] and weight.shape[1] == 1):
        return False
    torch_is_fast = x.dim() == 4 and x.stride(1) == 1 and max(dilation) == 1
    return not torch_is_fast and kernel.usable(x, weight, bias)


def _arguments(
    axes: int, kernel_size: Sizes, stride: Sizes, padding: Sizes | str, dilation: Sizes, *, causal: bool = False
) -> tuple[dict[str, Any], tuple[int, ...], Pads]:
    """Arguments of torch's constructor, the stride, which it refuses beside "same", and the padding."""
    sizes, steps = per_axis("kernel_size", kernel_size, axes), per_axis("stride", stride, axes)
    rates = per_axis("dilation", dilation, axes)
    pads = padding_of(padding, sizes, rates, causal=causal)
    word = padding if isinstance(padding, str) else per_axis("padding", padding, axes, least=0)
    return {"kernel_size": sizes, "padding": word, "dilation": rates}, steps, pads


class DilatedConv1d(nn.Conv1d):
    """``torch.nn.Conv1d`` that keeps the length at any dilation, and may look back only.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps K.
        stride: s.
        padding: "same", "valid", or zeros on either side.
        dilation: d, the distance of two taps.
        groups: channels are split into so many groups that do not see each other.
        bias: whether to add one.
        padding_mode: what is added around the axis, as torch names it.
        device: of the parameters.
        dtype: of the parameters.
        causal: output t sees inputs up to s·t only.

    Attributes:
        pads: what is added before and after each axis.

    Raises:
        ValueError: if a size is too small, or the padding is not one of these.

    Example:
        >>> DilatedConv1d(4, 8, 3, dilation=16, causal=True)(torch.zeros(1, 4, 100)).shape
        torch.Size([1, 8, 100])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = "same",
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        causal: bool = False,
    ) -> None:
        sizes, steps, pads = _arguments(1, kernel_size, stride, padding, dilation, causal=causal)
        rest: dict[str, Any] = {
            "groups": groups,
            "bias": bias,
            "padding_mode": padding_mode,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(in_channels, out_channels, **sizes, **rest)
        self.stride, self.pads, self.causal = (steps[0],), pads, causal

    def forward(self, x: Float[Tensor, "*batch channels length"]) -> Float[Tensor, "*batch channels2 length2"]:
        """⌈length / stride⌉ outputs with the default padding."""
        return _apply(self, x)

    def extra_repr(self) -> str:
        """As torch's, and whether it is causal."""
        shown = str(super().extra_repr())  # type: ignore[no-untyped-call]  # torch does not annotate it
        return shown + (", causal=True" if self.causal else "")


class DilatedConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` that keeps the size at any dilation; an axis may have its own.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps K, per axis or for both.
        stride: s.
        padding: "same", "valid", or zeros on either side.
        dilation: d, the distance of two taps.
        groups: channels are split into so many groups that do not see each other.
        bias: whether to add one.
        padding_mode: what is added around the map, as torch names it.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        pads: what is added before and after each axis.

    Raises:
        ValueError: if a size is too small, or the padding is not one of these.

    Example:
        >>> DilatedConv2d(4, 8, 3, dilation=(2, 16))(torch.zeros(1, 4, 30, 50)).shape
        torch.Size([1, 8, 30, 50])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = "same",
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes, steps, pads = _arguments(2, kernel_size, stride, padding, dilation)
        rest: dict[str, Any] = {
            "groups": groups,
            "bias": bias,
            "padding_mode": padding_mode,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(in_channels, out_channels, **sizes, **rest)
        self.stride, self.pads = (steps[0], steps[1]), pads

    def forward(self, x: Float[Tensor, "*batch channels h w"]) -> Float[Tensor, "*batch channels2 h2 w2"]:
        """⌈size / stride⌉ outputs an axis with the default padding."""
        return _apply(self, x)


class DilatedConv3d(nn.Conv3d):
    """``torch.nn.Conv3d`` that keeps the size at any dilation; an axis may have its own.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps K, per axis or for all.
        stride: s.
        padding: "same", "valid", or zeros on either side.
        dilation: d, the distance of two taps.
        groups: channels are split into so many groups that do not see each other.
        bias: whether to add one.
        padding_mode: what is added around the volume, as torch names it.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        pads: what is added before and after each axis.

    Raises:
        ValueError: if a size is too small, or the padding is not one of these.

    Example:
        >>> DilatedConv3d(1, 2, 3, dilation=(1, 2, 4))(torch.zeros(1, 1, 5, 10, 20)).shape
        torch.Size([1, 2, 5, 10, 20])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = "same",
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes, steps, pads = _arguments(3, kernel_size, stride, padding, dilation)
        rest: dict[str, Any] = {
            "groups": groups,
            "bias": bias,
            "padding_mode": padding_mode,
            "device": device,
            "dtype": dtype,
        }
        super().__init__(in_channels, out_channels, **sizes, **rest)
        self.stride, self.pads = (steps[0], steps[1], steps[2]), pads

    def forward(self, x: Float[Tensor, "*batch channels d h w"]) -> Float[Tensor, "*batch channels2 d2 h2 w2"]:
        """⌈size / stride⌉ outputs an axis with the default padding."""
        return _apply(self, x)


def _apply(conv: DilatedConv1d | DilatedConv2d | DilatedConv3d, x: Tensor) -> Tensor:
    return convolve(
        x,
        conv.weight,
        conv.bias,
        stride=conv.stride,
        pads=conv.pads,
        dilation=conv.dilation,
        groups=conv.groups,
        mode=conv.padding_mode,
    )
