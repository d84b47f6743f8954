"""Removing duplicates: non-maximum suppression by boxes and by masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from linocut.vision.masks import Mask


def box_suppress(
    boxes: Float[NDArray[np.float64], "n 4"], scores: Float[NDArray[np.float64], " n"], threshold: float
) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: of boxes that overlap more than ``threshold`` (IoU) the best stays.

    Returns:
        Indices of those that stay, best first; ties go to the smaller index.
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    keep: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        overlap = np.prod(np.clip(high - low, 0, None), axis=1)
        union = area[best] + area[rest] - overlap
        order = rest[overlap <= threshold * np.maximum(union, 1e-9)]
    return np.array(keep, dtype=np.intp)


def mask_suppress(masks: Sequence[Mask], threshold: float) -> list[int]:
    """Of masks that overlap more than ``threshold`` (IoU, exact pixels) the one with the best score stays."""
    order = sorted(range(len(masks)), key=lambda i: -masks[i].score)
    keep: list[int] = []
    for index in order:
        if all(overlap(masks[index], masks[other]) <= threshold for other in keep):
            keep.append(index)
    return keep


def overlap(a: Mask, b: Mask) -> float:
    """IoU of two masks of one image, from their bounding boxes' common part; 0 if both are empty."""
    ax0, ay0, ax1, ay1 = a.bbox
    bx0, by0, bx1, by1 = b.bbox
    x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    common = np.count_nonzero(
        a.crop[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0] & b.crop[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]
    )
    return common / (a.area + b.area - common)
