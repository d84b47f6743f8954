r"""Atrous spatial pyramid pooling: the same features seen at several dilations side by side, and as a whole.

DeepLab v3 (Chen, Papandreou, Schroff, Adam, *Rethinking Atrous Convolution for Semantic Image Segmentation*, 2017,
https://arxiv.org/abs/1706.05587, section 3.3 and figure 5): a 1×1 convolution, 3×3 convolutions at a few rates and
image-level features, concatenated and projected by a 1×1 convolution. The depthwise-separable form is DeepLab v3+'s
(Chen et al., 2018, https://arxiv.org/abs/1802.02611, section 3.1).

.. math::
    y = P\,[\,A_0 x;\; A_{r_1} x;\; \dots;\; A_{r_m} x;\; \mathrm{broadcast}(G\,\bar x)\,]

Two things differ from the paper, so that **tiles equal the whole**. Normalisation is a layer norm over the channels of
each pixel instead of a batch norm, whose training statistics run over all pixels of the batch. And the mean x̄ over the
image is a mergeable summary: a sum and a count, which tiles work out and merge before they are read
(:meth:`ASPP.summarize`, :meth:`ASPP.merge`, :meth:`ASPP.read`). What else a tile must know is a halo of
:attr:`ASPP.halo` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.dilation import DilatedConv2d, per_axis
from linocut.vision.layers import TokenNorm

Norm = Callable[[int], nn.Module]
"""From a number of channels to a layer that normalises maps of so many."""


class PixelSum(NamedTuple):
    """What the image-level branch must know of a piece of the image.

    Attributes:
        total: (batch, channels) sum over the pixels, float32 or wider.
        pixels: how many.
    """

    total: Tensor
    pixels: int


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling as in DeepLab v3.

    Args:
        in_channels: channels of the features.
        out_channels: channels of every branch and of the result.
        rates: dilation of each 3×3 branch; (1, 1, 1) is the ablation without dilation.
        pooling: whether the image-level branch is there.
        separable: 3×3 branches as a depthwise convolution and a 1×1.
        norm: makes the normalisation after each convolution, before the ReLU. One that looks at several pixels gives up
            that tiles equal the whole.

    Attributes:
        halo: pixels that a tile needs around it.

    Raises:
        ValueError: if a rate is below 1.

    Example:
        >>> ASPP(8, 4, rates=(2, 4))(torch.zeros(1, 8, 12, 10)).shape
        torch.Size([1, 4, 12, 10])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rates: Sequence[int] = (6, 12, 18),
        pooling: bool = True,
        separable: bool = False,
        norm: Norm = TokenNorm,
    ) -> None:
        super().__init__()
        rates = per_axis("rates", rates, len(rates))
        self.halo = max(rates, default=0)
        self.point = _branch(norm, nn.Conv2d(in_channels, out_channels, 1, bias=False))
        self.branches = nn.ModuleList(
            _branch(norm, *_dilated(in_channels, out_channels, rate, separable=separable)) for rate in rates
        )
        self.pool = _branch(norm, nn.Conv2d(in_channels, out_channels, 1, bias=False)) if pooling else None
        width = out_channels * (1 + len(rates) + pooling)
        self.project = _branch(norm, nn.Conv2d(width, out_channels, 1, bias=False))

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels2 h w"]:
        """The whole at once."""
        return self.read(x, self.summarize(x))

    def summarize(self, x: Float[Tensor, "batch channels h w"]) -> PixelSum:
        """What the rest must know of a tile, without its halo."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return PixelSum(x.sum(dim=(2, 3), dtype=wide), x.shape[2] * x.shape[3])

    def merge(self, a: PixelSum, b: PixelSum) -> PixelSum:
        """The summary of two pieces together; associative and commutative."""
        return PixelSum(a.total + b.total, a.pixels + b.pixels)

    def read(self, x: Float[Tensor, "batch channels h w"], summary: PixelSum) -> Float[Tensor, "batch channels2 h w"]:
        """The output of a tile, given the summary of the whole image; exact :attr:`halo` pixels away from a cut."""
        found = [self.point(x), *(branch(x) for branch in self.branches)]
        if self.pool is not None:
            mean = (summary.total / summary.pixels).to(x.dtype)
            found.append(self.pool(mean[:, :, None, None]).expand(-1, -1, *x.shape[2:]))
        out: Tensor = self.project(torch.cat(found, dim=1))
        return out


class SummedASPP(nn.Module):
    """Atrous spatial pyramid pooling as in DeepLab v2: branches of their own at several rates, whose scores are added.

    Chen et al., *DeepLab*, 2016, https://arxiv.org/abs/1606.00915, figure 7 (ASPP-L). It has neither normalisation nor
    image-level features, so tiles with a halo equal the whole.

    Args:
        in_channels: channels of the features.
        out_channels: classes.
        hidden: channels inside a branch, 1024 in the paper.
        rates: dilation of each branch's 3×3 convolution.

    Attributes:
        halo: pixels that a tile needs around it.

    Raises:
        ValueError: if a rate is below 1, or there is none.

    Example:
        >>> SummedASPP(8, 4, hidden=6, rates=(2, 4))(torch.zeros(1, 8, 12, 10)).shape
        torch.Size([1, 4, 12, 10])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, hidden: int = 1024, rates: Sequence[int] = (6, 12, 18, 24)
    ) -> None:
        super().__init__()
        rates = per_axis("rates", rates, len(rates))
        if not rates:
            raise ValueError("rates must not be empty")
        self.halo = max(rates)
        self.branches = nn.ModuleList(
            nn.Sequential(
                DilatedConv2d(in_channels, hidden, 3, dilation=rate),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 1),
                nn.ReLU(),
                nn.Conv2d(hidden, out_channels, 1),
            )
            for rate in rates
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels2 h w"]:
        """The sum of the branches."""
        return torch.stack([branch(x) for branch in self.branches]).sum(dim=0)


def _branch(norm: Norm, *convolutions: nn.Conv2d) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    return nn.Sequential(*convolutions, norm(convolutions[-1].out_channels), nn.ReLU())


def _dilated(in_channels: int, out_channels: int, rate: int, *, separable: bool) -> list[nn.Conv2d]:
    if not separable:
        return [DilatedConv2d(in_channels, out_channels, 3, dilation=rate, bias=False)]
    depthwise = DilatedConv2d(in_channels, in_channels, 3, dilation=rate, groups=in_channels, bias=False)
    return [depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=False)]
