"""Depthwise-separable dilated convolution: every channel by its own dilated filter, then channels mixed pixel by pixel.

The atrous separable convolution of DeepLab v3+ (Chen et al., 2018, https://arxiv.org/abs/1802.02611, section 3.1). Of
the in · out · K weights of a dense filter with K taps it keeps in · K + in · out.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.dilation import DilatedConv1d, DilatedConv2d, DilatedConv3d, Sizes


class SeparableConv1d(nn.Module):
    """A depthwise :class:`DilatedConv1d`, then a 1-tap convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the depthwise filter.
        stride: of the depthwise filter.
        dilation: of the depthwise filter.
        bias: whether both add one.
        causal: output t sees inputs up to stride · t only.

    Example:
        >>> import torch
        >>> SeparableConv1d(4, 8, 3, dilation=4, causal=True)(torch.zeros(1, 4, 20)).shape
        torch.Size([1, 8, 20])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        bias: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.depthwise = DilatedConv1d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            dilation=dilation,
            groups=in_channels,
            bias=bias,
            causal=causal,
        )
        self.pointwise = nn.Conv1d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "*batch channels length"]) -> Float[Tensor, "*batch channels2 length2"]:
        """⌈length / stride⌉ outputs."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class SeparableConv2d(nn.Module):
    """A depthwise :class:`DilatedConv2d`, then a 1×1 convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the depthwise filter, per axis or for both.
        stride: of the depthwise filter.
        dilation: of the depthwise filter.
        bias: whether both add one.

    Example:
        >>> import torch
        >>> SeparableConv2d(4, 8, 3, dilation=(2, 6))(torch.zeros(1, 4, 20, 30)).shape
        torch.Size([1, 8, 20, 30])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.depthwise = DilatedConv2d(
            in_channels, in_channels, kernel_size, stride, dilation=dilation, groups=in_channels, bias=bias
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "*batch channels h w"]) -> Float[Tensor, "*batch channels2 h2 w2"]:
        """⌈size / stride⌉ outputs an axis."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


class SeparableConv3d(nn.Module):
    """A depthwise :class:`DilatedConv3d`, then a 1×1×1 convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: taps of the depthwise filter, per axis or for all.
        stride: of the depthwise filter.
        dilation: of the depthwise filter.
        bias: whether both add one.

    Example:
        >>> import torch
        >>> SeparableConv3d(2, 4, 3, dilation=2)(torch.zeros(1, 2, 5, 6, 7)).shape
        torch.Size([1, 4, 5, 6, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        *,
        stride: Sizes = 1,
        dilation: Sizes = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.depthwise = DilatedConv3d(
            in_channels, in_channels, kernel_size, stride, dilation=dilation, groups=in_channels, bias=bias
        )
        self.pointwise = nn.Conv3d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "*batch channels d h w"]) -> Float[Tensor, "*batch channels2 d2 h2 w2"]:
        """⌈size / stride⌉ outputs an axis."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out
