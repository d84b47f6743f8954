"""Local layers on large maps, strip by strip: the same result without their large intermediates.

An inverted residual widens its map six times, a perceptron twice. On a map of millions of pixels these intermediates
leave the caches and are fresh memory each time, which the kernel has to hand out page by page. Cut into strips with a
halo as high as the layer's receptive field reaches, they stay small, and what is computed is the same up to rounding
(Majurski & Bajcsy, *Exact Tile-Based Segmentation Inference*, J. Res. NIST 126, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

_BYTES = 4 << 20
"""About so large an intermediate may grow; a few of them fit into a processor's last cache."""


def strip_rows(x: Float[Tensor, "b c h w"], channels: int, multiple: int = 1) -> int:
    """How many rows of ``x`` go into a strip whose intermediate has so many channels at each pixel of ``x``."""
    row = x.shape[0] * channels * x.shape[3] * x.element_size()
    return max(16, _BYTES // row) // multiple * multiple


def strips(height: int, rows: int) -> Iterator[slice]:
    """Rows 0 to ``height`` in slices of ``rows``."""
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def in_strips(
    layer: Callable[..., Tensor],
    x: Float[Tensor, "b c h w"],
    *coarser: Tensor,
    channels: int,
    halo: int,
    stride: int = 1,
) -> Float[Tensor, "b c2 h2 w2"]:
    """Apply a local layer to a map, in strips if the map is large and no gradient is asked for.

    Args:
        layer: takes maps of any height; pads with zeros itself.
        x: the map; its height is a multiple of ``stride`` and of how much coarser the others are.
        *coarser: further maps (b, c', h / n, w / n) the layer takes.
        channels: of the layer's widest intermediate, as if at the resolution of ``x``.
        halo: rows of ``x`` that an output row reads above and below its own, rounded up to a multiple of ``stride`` and
            of every n.
        stride: of the layer.
    """
    height = x.shape[2]
    factors = [height // other.shape[2] for other in coarser]
    rows = strip_rows(x, channels, max(stride, *factors) if factors else stride)
    if torch.is_grad_enabled() or height <= rows:
        return layer(x, *coarser)
    out = x.new_empty(0)
    for strip in strips(height, rows):
        low, high = max(strip.start - halo, 0), min(strip.stop + halo, height)
        others = (m[:, :, low // n : high // n] for m, n in zip(coarser, factors, strict=True))
        part = layer(x[:, :, low:high], *others)
        if strip.start == 0:
            shape = (x.shape[0], part.shape[1], height // stride, part.shape[3])
            out = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
        above, count = (strip.start - low) // stride, (strip.stop - strip.start) // stride
        out[:, :, strip.start // stride : strip.stop // stride] = part[:, :, above : above + count]
    return out


def overwrite(layer: Callable[[Tensor], Tensor], x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Apply a layer that takes each pixel by itself, in the memory of ``x`` unless a gradient is asked for."""
    if torch.is_grad_enabled():
        return layer(x)
    for rows in strips(x.shape[2], strip_rows(x, x.shape[1])):
        x[:, :, rows] = layer(x[:, :, rows])
    return x
