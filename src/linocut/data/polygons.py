"""Masks as polygons and back, without losing a pixel.

Coordinates are those of pixel corners: the pixel in column x and row y is the square from (x, y) to (x + 1, y + 1), and
its centre is (x + 0.5, y + 0.5). A ring runs along the edges between pixels, so the area that the rings enclose is the
number of pixels, and filling the rings gives the mask back exactly. (``cv2.findContours`` runs through pixel centres:
its rings enclose half a pixel too little all round, nothing at all for a line one pixel wide, and do not say what to
fill.)

Rings are closed without repeating the first point. Outer rings have a positive signed area ½ Σ (xᵢ yᵢ₊₁ − xᵢ₊₁ yᵢ),
holes a negative one, so the signed areas add up to the mask's. Every ring is simple: pixels that touch only at a corner
are parted there. Filling follows the even-odd rule: a pixel is inside if its centre is inside an odd number of rings,
whatever way they run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike, NDArray

_FARTHEST = 1e15  # pixel coordinates this far out are a mistake, and near the end of what float64 resolves


def mask_to_polygons(mask: ArrayLike, *, tolerance: float = 0.0) -> list[Float64[NDArray[np.float64], "n 2"]]:
    """Trace the border of a mask along the edges of its pixels.

    Args:
        mask: bool or integer (h, w); every value that is not 0 is foreground.
        tolerance: how far, in pixels, a ring may stray from the border when points are left out (Douglas and Peucker);
            0 keeps every corner, and then :func:`polygons_to_mask` gives the mask back exactly. Rings that shrink to
            fewer than three points are dropped.

    Returns:
        Rings, each float64 (n, 2) of (x, y) in pixel corners, n >= 3; outer rings and holes.

    Raises:
        TypeError: if ``mask`` holds neither bools nor integers.
        ValueError: if ``mask`` has not two axes, or ``tolerance`` is negative or not finite.

    Example:
        >>> mask_to_polygons(np.array([[True, True]]))[0].tolist()
        [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]

    Source: Douglas and Peucker, *Algorithms for the reduction of the number of points*, 1973, as in OpenCV.
    """
    pixels = np.asarray(mask)
    if pixels.dtype.kind not in "bui":
        raise TypeError(f"a mask must hold bools or integers, got {pixels.dtype}; threshold first, as in mask > 0.5")
    if pixels.ndim != 2:
        raise ValueError(f"a mask must have the shape (h, w), got {pixels.shape}")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance must be a finite number of pixels >= 0, got {tolerance}")
    rings = [np.array(ring, dtype=np.float64) for ring in _trace(pixels != 0)]
    if tolerance == 0:
        return rings
    simpler = (_simplify(ring, tolerance) for ring in rings)
    return [ring for ring in simpler if len(ring) >= 3]


def polygons_to_mask(rings: Sequence[ArrayLike], shape: tuple[int, int]) -> Bool[NDArray[np.bool_], "h w"]:
    """Fill rings by the even-odd rule.

    A pixel whose centre lies exactly on a left or upper edge is inside, on a right or lower edge outside. So polygons
    that share an edge share no pixel and leave none out.

    Args:
        rings: each (n, 2) of (x, y) in pixel corners, n >= 3; parts outside the image are cut off.
        shape: (height, width) of the mask.

    Returns:
        bool (height, width).

    Raises:
        ValueError: if a ring has not the shape (n, 2), fewer than three points or a coordinate that is not finite, or
            if ``shape`` has a negative side.

    Example:
        >>> polygons_to_mask([[(0, 0), (2, 0), (0, 2)]], (2, 2)).tolist()
        [[True, False], [False, False]]
    """
    height, width = shape
    if height < 0 or width < 0:
        raise ValueError(f"shape must be (height, width), both >= 0, got {shape}")
    edges = [_edges(np.asarray(ring, dtype=np.float64), place) for place, ring in enumerate(rings)]
    mask = np.zeros((height, width), dtype=np.uint8)
    if not edges:
        return mask.view(np.bool_)
    rows, columns = _crossings(np.concatenate(edges), height)
    seen = columns < width  # beyond the right side nothing is left to flip
    np.bitwise_xor.at(mask, (rows[seen], columns[seen]), 1)
    np.bitwise_xor.accumulate(mask, axis=1, out=mask)
    return mask.view(np.bool_)


def _trace(mask: Bool[NDArray[np.bool_], "h w"]) -> Iterator[Int64[NDArray[np.int64], "n 2"]]:
    """Follow the border with the foreground on the right hand (y points down), one simple ring after the other."""
    corners, start, end, after = _border(mask)
    following = after.tolist()
    stride = mask.shape[1] + 1
    for first in range(len(following)):
        cycle: list[int] = []
        here = first
        while following[here] >= 0:
            cycle.append(here)
            step, following[here] = following[here], -1  # walked; so the cycle ends where it began
            here = step
        if cycle:
            ring = corners[np.stack([start[cycle], end[cycle]], axis=1).ravel()]
            yield from _part(ring, ring[:, 1] * stride + ring[:, 0])


def _border(
    mask: Bool[NDArray[np.bool_], "h w"],
) -> tuple[
    Int64[NDArray[np.int64], "corners 2"],
    Int64[NDArray[np.int64], " edges"],
    Int64[NDArray[np.int64], " edges"],
    Int64[NDArray[np.int64], " edges"],
]:
    """Find the corners (x, y) of the border and its horizontal edges: where each starts and ends, and which comes next.

    A rectilinear border is given by its corners alone: along a row of the grid they pair up, left and right end of an
    edge, and along a column, upper and lower end. Where two pixels touch at a corner two edges of each kind meet; that
    corner is listed twice, and which copy goes with which edge decides that the path stays with the pixel it came by.
    """
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    falling = nw & se & ~ne & ~sw
    rising = ne & sw & ~nw & ~se
    twice = falling | rising
    y, x = np.nonzero((nw ^ ne ^ sw ^ se) | twice)
    y, x = (np.repeat(axis, 1 + twice[y, x]) for axis in (y, x))
    node = np.arange(len(x))
    # even nodes are left ends, odd ones right ends; at a rising diagonal the left end belongs to the upper pixel
    column = np.lexsort((node % 2 == rising[y, x], y, x))
    mate = np.empty_like(node)
    mate[column[0::2]], mate[column[1::2]] = column[1::2], column[0::2]
    left, right = node[0::2], node[1::2]
    rightwards = se[y[left], x[left]]
    start, end = np.where(rightwards, left, right), np.where(rightwards, right, left)
    return np.stack([x, y], axis=1), start, end, mate[end] // 2


def _part(
    ring: Int64[NDArray[np.int64], "n 2"], names: Int64[NDArray[np.int64], " n"]
) -> Iterator[Int64[NDArray[np.int64], "_ 2"]]:
    """Part a ring wherever it comes to a corner again."""
    if len(np.unique(names)) == len(names):
        yield ring
        return
    path: list[int] = []
    place: dict[int, int] = {}
    for index, name in enumerate(names.tolist()):
        if name not in place:
            place[name] = len(path)
            path.append(index)
            continue
        loop = path[place[name] :]
        yield ring[loop]
        del path[place[name] + 1 :]
        for inner in names[loop[1:]].tolist():
            del place[inner]
    yield ring[path]


def _simplify(ring: Float64[NDArray[np.float64], "n 2"], tolerance: float) -> Float64[NDArray[np.float64], "m 2"]:
    points = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, closed=True)
    return points[:, 0].astype(np.float64)


def _edges(ring: NDArray[np.float64], place: int) -> Float64[NDArray[np.float64], "edges 4"]:
    """Give the edges of a ring that are not horizontal as (x, y) of the upper end and (x, y) of the lower."""
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise ValueError(f"ring {place} must have the shape (n, 2) with n >= 3, got {ring.shape}")
    if not (np.abs(ring) <= _FARTHEST).all():
        raise ValueError(f"ring {place} has a coordinate that is not finite or beyond {_FARTHEST:g}")
    edges = np.concatenate([ring, np.roll(ring, -1, axis=0)], axis=1)
    upwards = edges[:, 1] > edges[:, 3]
    # one direction for all, so that an edge shared by two rings is rounded alike in both
    edges[upwards] = edges[upwards][:, [2, 3, 0, 1]]
    return edges[edges[:, 1] < edges[:, 3]]


def _crossings(
    edges: Float64[NDArray[np.float64], "edges 4"], height: int
) -> tuple[Int64[NDArray[np.int64], " crossings"], Int64[NDArray[np.int64], " crossings"]]:
    """Find, for each edge and each row whose centres it passes, the row and the first column to the edge's right."""
    x0, y0, x1, y1 = edges.T
    first, end = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    counts = end - first
    edge = np.repeat(np.arange(len(edges)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    x = x0[edge] + (rows + 0.5 - y0[edge]) * ((x1 - x0) / (y1 - y0))[edge]
    return rows, np.maximum(np.ceil(x - 0.5), 0).astype(np.int64)
