"""Masks as runs of pixels, for the overlaps of many masks that may lie on each other: detections beside objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from linocut import native
from linocut.metrics.overlaps import as_mask, label_map
from linocut.metrics.summary import IntArray

Order = Literal["C", "F"]


@dataclass(frozen=True)
class Runs:
    """n masks of one image, read row by row or column by column.

    Attributes:
        bounds: (2r,) int64; for each run the place of its first pixel and the place after its last, mask by mask,
            ascending within a mask.
        offsets: (n + 1,) int64; where each mask begins in `bounds`.
        pixels: pixels of the image.
    """

    bounds: IntArray
    offsets: IntArray
    pixels: int

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def areas(self) -> IntArray:
        """(n,) int64: pixels of each mask."""
        lengths = np.append(0, np.cumsum(self.bounds[1::2] - self.bounds[::2]))
        return np.diff(lengths[self.offsets // 2])


def runs_of_counts(counts: Sequence[npt.ArrayLike], pixels: int) -> Runs:
    """Runs from COCO's lists of run lengths, background first.

    Args:
        counts: n lists of integers ≥ 0, each adding up to `pixels`; ``counts`` of an uncompressed run-length mask.
        pixels: pixels of the image.

    Raises:
        TypeError: if a list holds something else than integers.
        ValueError: if a length is negative, or a list does not add up.

    Example:
        >>> found = runs_of_counts([[2, 1, 3], [0, 6]], 6)
        >>> found.bounds.tolist(), found.offsets.tolist(), found.areas.tolist()
        ([2, 3, 0, 6], [0, 2, 4], [1, 6])
    """
    lists = [np.asarray(item) for item in counts]
    for item in lists:
        if item.ndim != 1 or item.dtype.kind not in "ui" or item.size == 0:
            raise TypeError(f"run lengths must be a flat list of integers, got shape {item.shape}, {item.dtype}")
    sizes = np.array([item.size for item in lists], np.int64)
    if not lists:
        return Runs(np.zeros(0, np.int64), np.zeros(1, np.int64), pixels)
    lengths = np.concatenate(lists).astype(np.int64, copy=False)
    if lengths.min() < 0:
        raise ValueError(f"run lengths must be >= 0, got {lengths.min()}")
    places, last = np.cumsum(lengths), np.cumsum(sizes) - 1
    totals = np.diff(places[last], prepend=0)
    if (totals != pixels).any():
        wrong = int(np.argmax(totals != pixels))
        raise ValueError(f"run lengths of a mask must add up to {pixels} pixels, got {totals[wrong]} for mask {wrong}")
    places -= np.repeat(np.arange(len(lists)) * pixels, sizes)
    # a list of odd length ends with background, which begins no run
    odd = sizes % 2 == 1
    keep = np.ones(places.size, np.bool_)
    keep[last[odd]] = False
    return Runs(places[keep], np.append(0, np.cumsum(sizes - odd)), pixels)


def runs_of_masks(masks: npt.ArrayLike, order: Order = "C") -> Runs:
    """Runs of a stack of masks.

    Args:
        masks: bool (n, h, w).
        order: "C" to read row by row, "F" column by column.

    Raises:
        TypeError: if the stack is not bool.
        ValueError: if it has not three axes.

    Example:
        >>> runs_of_masks(np.array([[[True, True, False], [False, False, True]]])).bounds.tolist()
        [0, 2, 5, 6]
    """
    stack = as_mask(masks, "masks")
    if stack.ndim != 3:
        raise ValueError(f"masks must have the shape (n, h, w), got {stack.shape}")
    n, h, w = stack.shape
    rimmed = np.zeros((n, h * w + 2), np.bool_)
    rimmed[:, 1:-1] = (stack if order == "C" else stack.transpose(0, 2, 1)).reshape(n, h * w)
    owners, bounds = np.divmod(np.flatnonzero(rimmed[:, 1:] != rimmed[:, :-1]), h * w + 1)
    return Runs(bounds, np.append(0, np.cumsum(np.bincount(owners, minlength=n))), h * w)


def runs_of_labels(labels: npt.ArrayLike, order: Order = "C") -> tuple[IntArray, Runs]:
    """The labels of a map but 0, ascending, and the runs of each.

    Args:
        labels: label map (h, w), integers ≥ 0.
        order: "C" to read row by row, "F" column by column.

    Raises:
        TypeError: if the map does not hold integers.
        ValueError: if a label is negative.

    Example:
        >>> names, found = runs_of_labels(np.array([[4, 4, 0, 2]]))
        >>> names.tolist(), found.bounds.tolist(), found.offsets.tolist()
        ([2, 4], [3, 4, 0, 2], [0, 2, 4])
    """
    flat = label_map(labels, "labels").ravel(order)
    if flat.size == 0:
        return np.zeros(0, np.int64), Runs(np.zeros(0, np.int64), np.zeros(1, np.int64), 0)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.append(0, changes), np.append(changes, flat.size)
    owners = flat[starts]
    order_of_runs = np.argsort(owners, kind="stable")
    order_of_runs = order_of_runs[np.count_nonzero(owners == 0) :]
    names, sizes = np.unique(owners[order_of_runs], return_counts=True)
    bounds = np.stack([starts[order_of_runs], ends[order_of_runs]], axis=1).ravel()
    return names.astype(np.int64), Runs(bounds, np.append(0, 2 * np.cumsum(sizes)), flat.size)


def shared_pixels(a: Runs, b: Runs, rows: IntArray, columns: IntArray) -> IntArray:
    """Pixels that pairs of masks share.

    Args:
        a: masks.
        b: masks of the same image, read in the same order.
        rows: (k,) int64; the first mask of each pair, a place in `a`.
        columns: (k,) int64; the second, a place in `b`.

    Returns:
        (k,) int64.

    Example:
        >>> masks = runs_of_counts([[2, 3, 1], [0, 4, 2]], 6)
        >>> shared_pixels(masks, masks, np.array([0, 0]), np.array([0, 1])).tolist()
        [3, 2]
    """
    core = native.core()
    if core is None:
        return _reference_shared(a, b, rows, columns)
    parts = (a.bounds, a.offsets, b.bounds, b.offsets, rows, columns)
    return core.shared_pixels(*(np.ascontiguousarray(part, np.int64) for part in parts)).view(np.int64)


def _reference_shared(a: Runs, b: Runs, rows: IntArray, columns: IntArray) -> IntArray:
    """How much of b's mask lies before each bound of a's, ends less starts."""
    # The masks of b one after the other on one line, each after an empty run so that something is before every place.
    step = b.pixels + 1
    owners = np.repeat(np.arange(len(b)), np.diff(b.offsets) // 2)
    starts = np.concatenate([np.arange(len(b)) * step, owners * step + b.bounds[::2] + 1])
    lengths = np.concatenate([np.zeros(len(b), np.int64), b.bounds[1::2] - b.bounds[::2]])
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    before = np.cumsum(lengths) - lengths

    sizes = np.diff(a.offsets)[rows]
    first = np.cumsum(sizes) - sizes
    bounds = a.bounds[np.repeat(a.offsets[:-1][rows] - first, sizes) + np.arange(sizes.sum())]
    places = np.repeat(columns * step, sizes) + bounds + 1
    run = np.searchsorted(starts, places, side="right") - 1
    covered = before[run] + np.minimum(places - starts[run], lengths[run])
    gained = np.append(0, np.cumsum(covered[1::2] - covered[::2]))
    shared: IntArray = gained[(first + sizes) // 2] - gained[first // 2]
    return shared
