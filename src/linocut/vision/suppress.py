"""Removing duplicates: non-maximum suppression by boxes and by masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from linocut.vision.masks import Mask


def box_suppress(
    boxes: Float[NDArray[np.float64], "n 4"], scores: Float[NDArray[np.float64], " n"], threshold: float
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: of boxes that overlap more than ``threshold`` (IoU) the best stays.

    Args:
        boxes: (n, 4) x0, y0, x1, y1 in any unit.
        scores: (n,) the higher the better.
        threshold: 0 to 1; a box exactly at it stays.

    Returns:
        Indices of those that stay, best first; ties go to the smaller index.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def duplicates(best: int, rest: NDArray[np.intp]) -> NDArray[np.bool_]:
        common = _common_area(boxes[best], boxes[rest])
        above: NDArray[np.bool_] = common > threshold * np.maximum(area[best] + area[rest] - common, 1e-9)
        return above

    return np.array(_keep_best(scores, duplicates), dtype=np.intp)


def mask_suppress(masks: Sequence[Mask], threshold: float) -> list[int]:
    """Greedy non-maximum suppression by pixels: of masks that overlap more than ``threshold`` (IoU) the best stays.

    Two masks have no more pixels in common than their boxes have, nor than the smaller of them. So most pairs need no
    look at their pixels: only those whose IoU could be above the threshold are compared, and these exactly.

    Args:
        masks: n masks of one image.
        threshold: 0 to 1; a mask exactly at it stays.

    Returns:
        Indices of those that stay, best first; ties go to the smaller index.
    """
    boxes = np.array([mask.bbox for mask in masks], dtype=np.float64).reshape(-1, 4)
    area = np.array([mask.area for mask in masks], dtype=np.float64)

    def duplicates(best: int, rest: NDArray[np.intp]) -> NDArray[np.bool_]:
        most = np.minimum(_common_area(boxes[best], boxes[rest]), np.minimum(area[best], area[rest]))
        # the quotient `overlap` takes, which grows with the common pixels: rounding loses no pair
        above: NDArray[np.bool_] = most / np.maximum(area[best] + area[rest] - most, 1) > threshold
        above[above] = [overlap(masks[best], masks[other]) > threshold for other in rest[above]]
        return above

    return _keep_best(np.array([mask.score for mask in masks], dtype=np.float64), duplicates)


def overlap(a: Mask, b: Mask) -> float:
    """IoU of two masks of one image, from their bounding boxes' common part; 0 if either is empty."""
    ax0, ay0, ax1, ay1 = a.bbox
    bx0, by0, bx1, by1 = b.bbox
    x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    common = np.count_nonzero(
        a.crop[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0] & b.crop[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]
    )
    return common / (a.area + b.area - common)


def _keep_best(
    scores: Float[NDArray[np.float64], " n"], duplicates: Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]
) -> list[int]:
    """Indices from the best score down, without those that are duplicates of one before."""
    order = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    while len(order):
        best, rest = int(order[0]), order[1:]
        keep.append(best)
        order = rest[~duplicates(best, rest)]
    return keep


def _common_area(
    box: Float[NDArray[np.float64], " 4"], others: Float[NDArray[np.float64], "n 4"]
) -> Float[NDArray[np.float64], " n"]:
    """The area a box has in common with each of the others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=1)
    return common
