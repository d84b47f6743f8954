r"""Hybrid dilated convolution: rates chosen so that the layers together leave no holes.

A stack of layers with one dilation d > 1 sees its receptive field as a grid, one pixel in d an axis: neighbouring
outputs are made of inputs that have nothing in common (the gridding problem). Wang et al., *Understanding Convolution
for Semantic Segmentation*, WACV 2018, https://arxiv.org/abs/1702.08502, section 3.2, choose rates r_1, …, r_n whose
largest distance of two pixels seen at the second layer fits into the kernel, M_2 ≤ K, with

.. math::
    M_n = r_n, \qquad M_i = \max\big[ M_{i+1} - 2 r_i,\; M_{i+1} - 2 (M_{i+1} - r_i),\; r_i \big].

The rule is made for rates that start at 1 and grow; of up to four such rates up to 9 it lets through just those that
leave no holes, as the tests count. For others it says nothing: (2, 2) passes it and sees every second pixel only,
(1, 3, 1) fails it and sees every pixel. :func:`leaves_no_holes` works out the pixels seen instead. Along an axis they
are all sums r_1 t_1 + … + r_n t_n of tap numbers, so the order of the rates does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.aspp import Norm
from linocut.vision.dilation import DilatedConv2d, per_axis
from linocut.vision.fields.algebra import IDENTITY, AxisField, window
from linocut.vision.layers import TokenNorm


def pixels_seen(rates: Sequence[int], kernel: int = 3) -> list[int]:
    """Pixels of an axis that one output of a stack of dilated layers depends on, counted from the first.

    Args:
        rates: dilation of each layer, >= 1.
        kernel: taps of each layer along the axis.

    Raises:
        ValueError: if a rate or the kernel is below 1.

    Example:
        >>> pixels_seen((2, 2))
        [0, 2, 4, 6, 8]
    """
    rates, (kernel,) = per_axis("rates", rates, len(rates)), per_axis("kernel", kernel, 1)
    layers = (window(kernel, dilation=rate) for rate in rates)
    return list(reduce(AxisField.then, layers, IDENTITY).at(0).indices())


def leaves_no_holes(rates: Sequence[int], kernel: int = 3) -> bool:
    """Whether every pixel of the stack's receptive field takes part in each output.

    Args:
        rates: dilation of each layer, >= 1.
        kernel: taps of each layer along an axis.

    Raises:
        ValueError: if a rate or the kernel is below 1.

    Example:
        >>> leaves_no_holes((1, 2, 5)), leaves_no_holes((2, 4, 8))
        (True, False)
    """
    seen = pixels_seen(rates, kernel)
    return len(seen) == seen[-1] + 1


def largest_distance(rates: Sequence[int]) -> int:
    """M_2 of the paper, to be compared with the kernel; M_1 if there is one rate.

    Args:
        rates: dilation of each layer in order, at least one.

    Raises:
        ValueError: if there is no rate, or one is below 1.

    Example:
        >>> largest_distance((1, 2, 5)), largest_distance((1, 2, 9))
        (2, 5)
    """
    if not rates:
        raise ValueError("rates must not be empty")
    *inner, distance = per_axis("rates", rates, len(rates))
    for rate in reversed(inner[1:]):
        distance = max(distance - 2 * rate, distance - 2 * (distance - rate), rate)
    return distance


class HybridDilation(nn.Module):
    """A stack of 3×3 dilated convolutions whose rates leave no holes, each normalised and rectified.

    Args:
        channels: of the map.
        rates: dilation of each layer.
        norm: makes the normalisation after each convolution; per pixel by default, so that tiles equal the whole.

    Attributes:
        halo: pixels that a tile needs around it.

    Raises:
        ValueError: if the rates leave holes, or one is below 1.

    Example:
        >>> import torch
        >>> HybridDilation(4, (1, 2, 5))(torch.zeros(1, 4, 9, 9)).shape
        torch.Size([1, 4, 9, 9])
    """

    def __init__(self, channels: int, rates: Sequence[int] = (1, 2, 5), *, norm: Norm = TokenNorm) -> None:
        super().__init__()
        if not leaves_no_holes(rates):
            seen = pixels_seen(rates)
            raise ValueError(
                f"rates {tuple(rates)} see {len(seen)} of {seen[-1] + 1} pixels an axis; "
                f"rates such as (1, 2, 5) or (1, 2, 3) leave no holes"
            )
        layers: list[nn.Module] = []
        for rate in rates:
            layers += [DilatedConv2d(channels, channels, 3, dilation=rate, bias=False), norm(channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.halo = sum(rates)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Same shape out."""
        out: Tensor = self.layers(x)
        return out
