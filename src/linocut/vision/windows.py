"""Windows: where the decoder looks, and cutting them out of the embedding.

A window of *level* ``o`` is a square of ``256 · 2**o`` image pixels. It is always 16 × 16 tokens at stride 16, 32 × 32
at stride 8 and 64 × 64 at stride 4 of octave ``o``, whatever the image's size: a click costs the same in any image and
is never averaged over more tokens. Level −1 looks at octave 0 enlarged twice, for small objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from linocut.vision.encoder import BASE, Octave, octave_count

FINEST = -1
"""The finest level: a window of 128 image pixels."""

MAX_WINDOWS = 3
"""At most this many levels are looked at for a click, however large the image."""

_MARGIN = 1.25


@dataclass(frozen=True)
class Window:
    """A square of the image.

    Attributes:
        level: the window's side is ``256 · 2**level`` image pixels.
        x: left edge in image pixels; may be negative or reach past the image.
        y: top edge in image pixels.
    """

    level: int
    x: int
    y: int

    @property
    def side(self) -> int:
        """Side in image pixels."""
        return BASE << self.level if self.level >= 0 else BASE >> -self.level


def top_level(size: tuple[int, int]) -> int:
    """The coarsest level of an image (height, width): its window covers the whole image."""
    return octave_count(*size) - 1


def place(level: int, center: tuple[float, float], size: tuple[int, int]) -> Window:
    """The window of ``level`` nearest to being centred at ``center``, inside the image as far as it goes.

    It lies on the stride-16 grid of its octave, so that cutting it out is a slice.

    Args:
        level: from :data:`FINEST` to :func:`top_level`.
        center: (x, y) in image pixels.
        size: (height, width) of the image.
    """
    side = Window(level, 0, 0).side
    step = 16 << max(level, 0)

    def edge(middle: float, extent: int) -> int:
        last = max(0, math.ceil((extent - side) / step))
        return step * min(max(round((middle - side / 2) / step), 0), last)

    return Window(level, edge(center[0], size[1]), edge(center[1], size[0]))


def level_for(extent: float, size: tuple[int, int]) -> int:
    """The finest level whose window holds ``extent`` pixels with a margin of a quarter."""
    level = FINEST
    while Window(level, 0, 0).side < _MARGIN * extent and level < top_level(size):
        level += 1
    return level


def fit(box: tuple[float, float, float, float], size: tuple[int, int]) -> Window:
    """The finest window that holds a box (x0, y0, x1, y1) with a margin."""
    x0, y0, x1, y1 = box
    return place(level_for(max(x1 - x0, y1 - y0), size), ((x0 + x1) / 2, (y0 + y1) / 2), size)


def plan(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> list[Window]:
    """The windows a set of positive points is looked at through, finest first, at most :data:`MAX_WINDOWS`.

    The finest holds all points with a margin, the coarsest is the whole image; in a large image the levels between are
    spread evenly.
    """
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    top = top_level(size)
    low = level_for(max(max(xs) - min(xs), max(ys) - min(ys)), size) if len(points) > 1 else FINEST
    count = min(MAX_WINDOWS, top - low + 1)
    levels = [top] if count == 1 else [round(low + i * (top - low) / (count - 1)) for i in range(count)]
    center = ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    return [place(level, center, size) for level in levels]


@dataclass(frozen=True)
class WindowFeatures:
    """Features of N windows, ready for the decoder.

    Attributes:
        pixels: (N, 3, 256, 256).
        stride2: (N, 16, 128, 128).
        stride4: (N, C4, 64, 64).
        stride8: (N, C8, 32, 32).
        stride16: (N, C16, 16, 16).
    """

    pixels: Tensor
    stride2: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor


_STRIDES = {"pixels": 1, "stride2": 2, "stride4": 4, "stride8": 8, "stride16": 16}


class _Slices(torch.autograd.Function):
    """Stack of (C, side, side) slices of a (B, C, H, W) map, zero outside; its backward adds the slices up in place.

    Autograd's own slicing would fill one full-size zero gradient per window.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, side: int, corners: list[tuple[int, int, int]]) -> Tensor:
        ctx.corners, ctx.shape, ctx.side = corners, source.shape, side
        return _slices(source, side, corners)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        total = grad.new_zeros(ctx.shape).to(memory_format=torch.channels_last)
        for row, corner in zip(grad, ctx.corners, strict=True):
            inside, outside = _overlap(corner, ctx.side, ctx.shape)
            total[corner[0], :, inside[0], inside[1]] += row[:, outside[0], outside[1]]
        return total, None, None


def _slices(source: Tensor, side: int, corners: Sequence[tuple[int, int, int]]) -> Tensor:
    """(N, C, side, side) channels-last copies of parts of a (B, C, H, W) map, zero outside it."""
    out = torch.empty(
        (len(corners), source.shape[1], side, side), dtype=source.dtype, memory_format=torch.channels_last
    )
    for row, corner in zip(out, corners, strict=True):
        inside, outside = _overlap(corner, side, source.shape)
        part = source[corner[0], :, inside[0], inside[1]]
        if part.shape[-2:] != (side, side):
            row.zero_()
        row[:, outside[0], outside[1]] = part
    return out


def _overlap(
    corner: tuple[int, int, int], side: int, shape: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a window and a map overlap: slices of the map, slices of the window."""
    inside, outside = [], []
    for start, extent in zip(corner[1:], shape[-2:], strict=True):
        low, high = min(max(start, 0), extent), max(min(start + side, extent), 0)
        high = max(high, low)
        inside.append(slice(low, high))
        outside.append(slice(low - start, high - start))
    return (inside[0], inside[1]), (outside[0], outside[1])


def cut(
    octaves: Sequence[Octave], windows: Sequence[Window], batch: Sequence[int], *, fine: bool = True
) -> list[tuple[list[int], WindowFeatures]]:
    """Cut windows out of the pyramid, grouped by level.

    Args:
        octaves: the pyramid of a batch of images.
        windows: N windows.
        batch: for each window, which image of the batch it is of.
        fine: whether the stride-2 features and the pixels are wanted; they are empty otherwise.

    Returns:
        For each level present, the indices of its windows and their features.
    """
    groups: dict[int, list[int]] = {}
    for index, window in enumerate(windows):
        groups.setdefault(window.level, []).append(index)
    result = []
    for level, indices in sorted(groups.items()):
        octave = octaves[max(level, 0)]
        zoom = 1 << max(-level, 0)
        parts = {}
        for name, stride in _STRIDES.items():
            source: Tensor = getattr(octave, name)
            if stride < 4 and not fine:
                parts[name] = source.new_empty(0)
                continue
            unit = stride << max(level, 0)
            corners = [(batch[i], windows[i].y // unit, windows[i].x // unit) for i in indices]
            extent = BASE // stride // zoom
            take = _Slices.apply if source.requires_grad else _slices
            part = take(source, extent, corners)
            if zoom > 1:
                part = functional.interpolate(part, scale_factor=zoom, mode="bilinear", align_corners=False)
            parts[name] = part
        result.append((indices, WindowFeatures(**parts)))
    return result


def gather(groups: list[tuple[list[int], WindowFeatures]], *, fine: bool = True) -> WindowFeatures:
    """The groups of :func:`cut` as one batch in the windows' own order."""
    order = [i for indices, _ in groups for i in indices]
    inverse = None
    if order != sorted(order):
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
    parts = {}
    for name, stride in _STRIDES.items():
        pieces: list[Float[Tensor, "n c h w"]] = [getattr(features, name) for _, features in groups]
        whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        parts[name] = whole if inverse is None or (stride < 4 and not fine) else whole[inverse]
    return WindowFeatures(**parts)
