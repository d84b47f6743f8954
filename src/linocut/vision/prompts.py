"""Prompts: what a person says about one object, and how the decoder is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from linocut.vision.decoder import GRID, WindowPrompt
from linocut.vision.masks import tighten
from linocut.vision.windows import Window, fit

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class GivenMask:
    """A mask to correct: the pixels of the smallest rectangle that holds it, and where that lies.

    So prompts are as small as their object, however large the image. Make one with :meth:`of`.

    Attributes:
        pixels: (h, w) bool; (0, 0) if it is empty.
        x: left edge of the rectangle in image pixels.
        y: top edge of the rectangle in image pixels.
        size: (height, width) of the image.
    """

    pixels: NDArray[np.bool_]
    x: int
    y: int
    size: tuple[int, int]

    @classmethod
    def of(
        cls, mask: ArrayLike, *, offset: tuple[int, int] = (0, 0), shape: tuple[int, int] | None = None
    ) -> GivenMask:
        """Build from a mask of the whole image, or of a rectangle of it.

        Args:
            mask: (h, w) bool or integer; every value that is not 0 is foreground.
            offset: (x, y) of the mask's left top pixel in the image.
            shape: (height, width) of the image; by default the mask is the whole image.

        Raises:
            TypeError: if the mask holds neither bools nor integers.
            ValueError: if it has not two axes or does not lie inside ``shape``.

        Example:
            >>> given = GivenMask.of([[0, 0, 0], [0, 1, 1]])
            >>> given.pixels, given.x, given.y, given.size
            (array([[ True,  True]]), 1, 1, (2, 3))
        """
        values = np.asarray(mask)
        if values.dtype.kind not in "bui":
            raise TypeError(f"mask must hold bools or integers, got {values.dtype}; threshold first, as in mask > 0.5")
        if values.ndim != 2:
            raise ValueError(f"mask must have shape (H, W), got {values.shape}")
        height, width = values.shape if shape is None else shape
        x, y = offset
        if x < 0 or y < 0 or x + values.shape[1] > width or y + values.shape[0] > height:
            raise ValueError(f"mask of shape {values.shape} at offset {offset} must lie inside shape {(height, width)}")
        return cls(*tighten(values if values.dtype == np.bool_ else values != 0, x, y), (height, width))

    @property
    def array(self) -> NDArray[np.bool_]:
        """(H, W) bool, the mask over the whole image."""
        full = np.zeros(self.size, dtype=bool)
        full[self.y : self.y + self.pixels.shape[0], self.x : self.x + self.pixels.shape[1]] = self.pixels
        return full

    @cached_property
    def window(self) -> Window:
        """The finest window that holds it."""
        height, width = self.pixels.shape
        return fit((self.x, self.y, self.x + width, self.y + height), self.size)

    @cached_property
    def cover(self) -> Float[NDArray[np.float32], "64 64"]:
        """How much of every cell of its window it covers, 0 to 1; worked out once, for all the clicks that follow."""
        cell = self.window.side // GRID
        top, left = self.y - self.window.y, self.x - self.window.x
        height, width = self.pixels.shape
        rows = np.arange(top // cell, -(-(top + height) // cell))
        columns = np.arange(left // cell, -(-(left + width) // cell))
        parts = np.add.reduceat(self.pixels, np.maximum(rows * cell - top, 0), axis=0, dtype=np.int32)
        covered = np.add.reduceat(parts, np.maximum(columns * cell - left, 0), axis=1)
        share = np.zeros((GRID, GRID), dtype=np.float32)
        share[np.ix_(rows, columns)] = covered / cell**2
        return share


@dataclass(frozen=True)
class Prompt:
    """Points, a box and a previous mask, in any combination, all about one object.

    Attributes:
        points: (x, y) in pixels of the original image, the centre of the first pixel at (0.5, 0.5) or anywhere in it.
        labels: True for a positive point, False for a negative one; as many as points.
        box: x0, y0, x1, y1 in pixels, edges included, or None.
        mask: a mask to correct, or None; :meth:`of` takes it as an array.

    Raises:
        TypeError: if ``mask`` is an array.
        ValueError: if there are not as many labels as points.

    Example:
        >>> Prompt.of(points=[(56.5, 48.5), (10.5, 12.5)], labels=[1, 0])
        Prompt(points=((56.5, 48.5), (10.5, 12.5)), labels=(True, False), box=None, mask=None)
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[bool, ...] = ()
    box: Box | None = None
    mask: GivenMask | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.labels):
            raise ValueError(
                f"a prompt needs one label a point, got {len(self.points)} points and {len(self.labels)} labels"
            )
        if not isinstance(self.mask, GivenMask | None):
            raise TypeError(
                f"mask must be a GivenMask, got {type(self.mask).__name__}; Prompt.of(mask=array) makes one of an array"
            )

    @classmethod
    def of(
        cls,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask: ArrayLike | GivenMask | None = None,
    ) -> Prompt:
        """Build from arrays: points (n, 2), labels (n,) of 1 and 0 (1 where left out), box (4,), mask (H, W).

        Raises:
            TypeError: for a mask of something else than bools or integers.
            ValueError: for a wrong shape, a label other than 0 or 1, NaN, or a box without area.
        """
        xy = np.zeros((0, 2)) if points is None else np.asarray(points, dtype=np.float64)
        if xy.ndim != 2 or xy.shape[1] != 2:
            raise ValueError(f"points must have shape (n, 2) as x, y, got {xy.shape}")
        if not np.isfinite(xy).all():
            raise ValueError(f"points must be finite, got {xy.tolist()}")
        signs = np.ones(len(xy)) if labels is None else np.asarray(labels)
        if signs.shape != (len(xy),) or not np.isin(signs, (0, 1)).all():
            raise ValueError(f"labels must be one 1 (positive) or 0 (negative) a point, got {np.asarray(labels)!r}")
        corners = None if box is None else np.asarray(box, dtype=np.float64).reshape(-1)
        if corners is not None and corners.shape != (4,):
            raise ValueError(f"box must be x0, y0, x1, y1, got {len(corners)} numbers")
        if corners is not None and not (np.isfinite(corners).all() and (corners[:2] < corners[2:]).all()):
            raise ValueError(f"box must be finite with x0 < x1 and y0 < y1, got {corners.tolist()}")
        return cls(
            tuple((float(x), float(y)) for x, y in xy),
            tuple(bool(s) for s in signs),
            None if corners is None else (float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])),
            mask if mask is None or isinstance(mask, GivenMask) else GivenMask.of(mask),
        )

    def check(self, size: tuple[int, int]) -> Prompt:
        """This prompt in canonical order, if it fits an image of ``size`` (height, width).

        The order of clicks means nothing; sorting them makes the same set give the same mask to the last bit. A mask
        without pixels says nothing and is left out.

        Raises:
            ValueError: if it is empty, has only negative points, or lies outside the image.
        """
        height, width = size
        if not self.names_object:
            what = "an empty mask" if self.mask is not None else "only negative points" if self.points else "nothing"
            raise ValueError(f"a prompt needs a positive point, a box or a mask, got {what}")
        for x, y in self.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise ValueError(f"point ({x:g}, {y:g}) lies outside the image, which is {width} x {height} pixels")
        box = None if self.box is None else _clip(self.box, size)
        if self.mask is not None and self.mask.size != size:
            raise ValueError(f"mask must have the image's shape {size}, got {self.mask.size}")
        mask = self.mask if self.mask is not None and self.mask.pixels.size else None
        ordered = sorted(zip(self.points, self.labels, strict=True))
        return Prompt(tuple(p for p, _ in ordered), tuple(label for _, label in ordered), box, mask)

    @property
    def names_object(self) -> bool:
        """Whether it says where the object is: by a positive point, a box or a mask that is not empty."""
        return any(self.labels) or self.box is not None or (self.mask is not None and self.mask.pixels.size > 0)

    @property
    def positive(self) -> list[tuple[float, float]]:
        """The positive points."""
        return [p for p, label in zip(self.points, self.labels, strict=True) if label]

    @property
    def ambiguous(self) -> bool:
        """Whether it is a single click, which may mean an object, its part or a part of that."""
        return len(self.points) == 1 and self.box is None and self.mask is None


def _clip(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    if not all(np.isfinite(box)):
        raise ValueError(f"box must be finite, got {box}")
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    if x1 - x0 <= 0 or y1 - y0 <= 0:
        raise ValueError(
            f"box ({', '.join(f'{edge:g}' for edge in box)}) must have x0 < x1 and y0 < y1 and touch the image, "
            f"which is {width} x {height} pixels"
        )
    return x0, y0, x1, y1


def to_window(
    prompts: Sequence[Prompt],
    windows: Sequence[Window],
    sizes: Sequence[tuple[int, int]],
    masks: Float[Tensor, "n 1 64 64"] | None = None,
) -> WindowPrompt:
    """Prompts in the coordinates of their windows.

    Args:
        prompts: N prompts.
        windows: N windows.
        sizes: (height, width) of each one's image.
        masks: the previous masks as probabilities, or None.
    """
    count = max(1, *(len(p.points) for p in prompts))
    points = np.full((len(prompts), count, 2), -9.0, np.float32)
    labels = np.full((len(prompts), count), -1, np.int64)
    boxes = np.zeros((len(prompts), 4), np.float32)
    inside = np.zeros((len(prompts), 4), np.float32)
    for i, (prompt, window, size) in enumerate(zip(prompts, windows, sizes, strict=True)):
        origin, side = np.array([window.x, window.y]), window.side
        if prompt.points:
            points[i, : len(prompt.points)] = (np.array(prompt.points) - origin) / side
            labels[i, : len(prompt.points)] = prompt.labels
        if prompt.box is not None:
            boxes[i] = (np.array(prompt.box) - np.tile(origin, 2)) / side
        inside[i] = (np.array([0, 0, size[1], size[0]]) - np.tile(origin, 2)) / side
    previous = torch.zeros(len(prompts), 1, GRID, GRID) if masks is None else masks.float() * 2 - 1
    zoomed = torch.tensor([float(w.level < 0) for w in windows])
    return WindowPrompt(
        torch.from_numpy(points),
        torch.from_numpy(labels),
        torch.from_numpy(boxes),
        previous,
        torch.from_numpy(inside),
        zoomed,
    )


@runtime_checkable
class Square(Protocol):
    """A square of the image; a :class:`Window` is one."""

    @property
    def x(self) -> int:
        """Left edge in image pixels."""

    @property
    def y(self) -> int:
        """Top edge in image pixels."""

    @property
    def side(self) -> int:
        """Side in image pixels."""


def transfer(
    masks: Float[Tensor, "n 1 cells cells"], source: Sequence[Square], target: Sequence[Square], side: int = GRID
) -> Float[Tensor, "n 1 side side"]:
    """Probability masks of one set of windows as seen through another; zero where the first saw nothing.

    A mask is first averaged down to the coarser of the two grids, so that thin parts fade instead of vanishing.
    """
    rows = []
    for mask, a, b in zip(masks, source, target, strict=True):
        cells = mask.shape[-1]
        factor = max(1, int(b.side / side * cells / a.side))
        # as many zeros right and below as make whole averages; a target cell may even be larger than the whole source
        rim = -cells % factor
        small = functional.avg_pool2d(functional.pad(mask[None], (0, rim, 0, rim)), factor)
        extent = a.side * (cells + rim) / cells
        shift_x = (2 * (b.x - a.x) + b.side) / extent - 1
        shift_y = (2 * (b.y - a.y) + b.side) / extent - 1
        theta = torch.tensor([[[b.side / extent, 0.0, shift_x], [0.0, b.side / extent, shift_y]]])
        grid = functional.affine_grid(theta, [1, 1, side, side], align_corners=False)
        rows.append(functional.grid_sample(small.float(), grid, mode="bilinear", align_corners=False))
    return torch.cat(rows)


def extents(masks: Float[Tensor, "n h w"], windows: Sequence[Window]) -> list[Box | None]:
    """Bounding boxes in image pixels of the cells above one half; None for an empty mask."""
    boxes: list[Box | None] = []
    for mask, window in zip(masks > 0.5, windows, strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if not len(rows):
            boxes.append(None)
            continue
        cell = window.side / mask.shape[-1]
        boxes.append(
            (
                window.x + int(columns[0]) * cell,
                window.y + int(rows[0]) * cell,
                window.x + (int(columns[-1]) + 1) * cell,
                window.y + (int(rows[-1]) + 1) * cell,
            )
        )
    return boxes
