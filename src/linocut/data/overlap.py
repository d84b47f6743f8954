"""How much many masks overlap, each with each.

"Everything" decodes a thousand prompts on one image and most of them find the same objects. Which masks are duplicates
is a question about all pairs: n² / 2 of them, so it is asked of small masks, packed 64 pixels to a word; the common
pixels of a pair are then an AND and a count of bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt64
from numpy.typing import NDArray

from linocut import native

_WORD_BYTES = 8
_EXACT_FLOAT32 = 1 << 24  # float32 counts without error up to here


def pairwise_intersections(masks: NDArray[Any]) -> Int64[NDArray[np.int64], "n n"]:
    """Count the pixels that each two masks have in common; the diagonal holds the areas.

    Cost: n² · h · w / 128 word operations, less where masks have few rows in common.

    Args:
        masks: bool (n, h, w).

    Returns:
        int64 (n, n), symmetric.

    Raises:
        TypeError: if ``masks`` is not a bool array.
        ValueError: if ``masks`` has not three axes.

    Example:
        >>> masks = np.array([[[True, True]], [[False, True]]])
        >>> pairwise_intersections(masks).tolist()
        [[2, 1], [1, 1]]
    """
    flat = _flatten(masks)
    core = native.core()
    if core is None:
        return _reference_intersections(flat)
    return core.pairwise_intersections(_pack(flat)).view(np.int64)


def pairwise_iou(masks: NDArray[Any]) -> Float32[NDArray[np.float32], "n n"]:
    """Intersection over union of each two masks.

    IoU(a, b) = |a ∧ b| / (|a| + |b| − |a ∧ b|), and 0 where both are empty.

    Args:
        masks: bool (n, h, w).

    Returns:
        float32 (n, n), symmetric, in 0..1; the diagonal is 1 where a mask is not empty.

    Raises:
        TypeError: if ``masks`` is not a bool array.
        ValueError: if ``masks`` has not three axes.

    Example:
        >>> masks = np.array([[[True, True]], [[False, True]]])
        >>> pairwise_iou(masks).tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    common = pairwise_intersections(masks)
    area = np.diagonal(common)
    union = area[:, None] + area[None, :] - common
    iou: NDArray[np.float32] = (common / np.maximum(union, 1)).astype(np.float32)
    return iou


def _flatten(masks: NDArray[Any]) -> Bool[NDArray[np.bool_], "n pixels"]:
    if masks.dtype != np.bool_:
        raise TypeError(f"masks must be a bool array, got {masks.dtype}; threshold first, as in masks > 0")
    if masks.ndim != 3:
        raise ValueError(f"masks must have the shape (n, h, w), got {masks.shape}; one mask is mask[None]")
    n, h, w = masks.shape
    return masks.reshape(n, h * w)


def _pack(flat: Bool[NDArray[np.bool_], "n pixels"]) -> UInt64[NDArray[np.uint64], "n words"]:
    bits = np.packbits(flat, axis=1)
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % _WORD_BYTES)))
    return np.ascontiguousarray(padded).view(np.uint64)


def _reference_intersections(flat: Bool[NDArray[np.bool_], "n pixels"]) -> Int64[NDArray[np.int64], "n n"]:
    # A product of 0-1 matrices counts common pixels, and BLAS does it fastest in float32; pieces keep the float copy
    # small and every partial count exact.
    n, pixels = flat.shape
    piece = min(_EXACT_FLOAT32, max(1, (1 << 25) // max(n, 1)))
    common = np.zeros((n, n), dtype=np.int64)
    for start in range(0, pixels, piece):
        part = flat[:, start : start + piece].astype(np.float32)
        common += (part @ part.T).astype(np.int64)
    return common
