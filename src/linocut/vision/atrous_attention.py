"""Atrous self-attention: any mixer of `linocut.mixers` over every r-th pixel of every r-th row.

A map is taken apart into r² grids of pixels r apart, each is mixed by itself with the same weights, and all are put
together again: attention that reaches across the whole map at an r²-th of the pairs, as the long-range half of Huang et
al., *Interlaced Sparse Self-Attention*, 2019, https://arxiv.org/abs/1907.12273. Nothing passes from one grid to
another, so it wants a local layer beside it, just as dilated convolutions do (the gridding problem).

The mixer "strided_attention" in `mixers.images.ImageMixer` is the same idea along the row-major order of the pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.images import ImageMixer
from linocut.vision.dilation import per_axis


class AtrousMixer(nn.Module):
    """A mixer over each of the r² grids of a map.

    Args:
        channels: of the map.
        rate: r, the distance of two pixels of a grid, for both axes or each.
        mixer: one of :func:`linocut.mixers.names`.
        **options: of the mixer.

    Raises:
        ValueError: if the rate is below 1, or the mixer is unknown.

    Example:
        >>> AtrousMixer(8, rate=3, heads=2)(torch.zeros(1, 8, 7, 10)).shape
        torch.Size([1, 8, 7, 10])
    """

    def __init__(
        self, channels: int, *, rate: int | tuple[int, int], mixer: str = "softmax_attention", **options: Any
    ) -> None:
        super().__init__()
        self.rate = per_axis("rate", rate, 2)
        self.mixer = ImageMixer(mixer, channels, **options)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Same shape out; the map may have any size, its grids then differ by a row or a column."""
        down, across = self.rate
        rows = []
        for i in range(min(down, x.shape[2])):
            grids = [self.mixer(x[:, :, i::down, j::across]) for j in range(min(across, x.shape[3]))]
            rows.append(_interleave(grids, x.shape[3], dim=3))
        return _interleave(rows, x.shape[2], dim=2)


def _interleave(parts: list[Tensor], size: int, *, dim: int) -> Tensor:
    """Take entries along an axis in turns: the first of each part, the second of each and so on."""
    order = torch.cat([torch.arange(start, size, len(parts)) for start in range(len(parts))])
    return torch.cat(parts, dim=dim).index_select(dim, order.argsort().to(parts[0].device))
