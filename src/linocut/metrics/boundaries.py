"""How well edges are drawn: boundary IoU, boundary F and trimap IoU, of masks and of class maps.

- Boundary IoU: the IoU of the two bands of pixels within d of their own region's contour. Cheng, Girshick, Dollár,
  Berg, Kirillov, CVPR 2021 (https://arxiv.org/abs/2103.16562), equation 2; d = 2 % of the image's diagonal, distance in
  king's moves, the image's rim a contour, as in the authors' implementation.
- Boundary F: 2PR / (P + R), P the share of the predicted contour within a tolerance of the true one, R the other way
  round. Csurka, Larlus, Perronnin, BMVC 2013 (a class's F is the mean over the images where it occurs); with one mask
  an image it is the F of DAVIS (Perazzi et al., CVPR 2016). Nothing is matched one to one; `bsds` does that.
- Trimap IoU: the IoU of the two regions counted only within d of the true contour (Kohli, Ladický, Torr, IJCV 2009).

Contours are pixels of a region with a 4-neighbour outside it. A region that reaches the image's rim has no contour
there, but for boundary IoU. Distances are Euclidean, but for boundary IoU. Lengths are pixels, or, below 1, shares of
the image's diagonal.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from linocut.metrics.overlaps import as_mask, mask_pair
from linocut.metrics.summary import IntArray

BoolArray = npt.NDArray[np.bool_]

BOUNDARY_WIDTH = 0.02
TOLERANCE = 0.0075
TRIMAP_WIDTH = 5.0


def in_pixels(length: float, shape: tuple[int, ...], name: str) -> float:
    """A length in pixels, which is given in pixels (≥ 1) or as a share of the diagonal (below 1).

    Raises:
        ValueError: if it is not a positive number.
    """
    if not (length > 0 and np.isfinite(length)):
        raise ValueError(f"{name} must be > 0: pixels, or below 1 a share of the diagonal; got {length}")
    return float(length * np.hypot(shape[0], shape[1])) if length < 1 else float(length)


def contour(mask: BoolArray) -> BoolArray:
    """The pixels of a mask that have a 4-neighbour outside it; beyond the image's rim nothing is outside.

    Args:
        mask: bool (h, w).

    Returns:
        bool (h, w).

    Example:
        >>> contour(np.array([[True, True, True, False]])).tolist()
        [[False, False, True, False]]
    """
    edge = np.zeros_like(mask)
    down, across = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge & mask


def band(mask: BoolArray, width: float = BOUNDARY_WIDTH) -> BoolArray:
    """The pixels of a mask within `width` king's moves of a pixel outside it; beyond the rim all is outside.

    Args:
        mask: bool (h, w).
        width: pixels, rounded, at least 1; or below 1 a share of the diagonal.

    Returns:
        bool (h, w).

    Raises:
        TypeError: if the mask is not bool.
        ValueError: if width is not positive.
    """
    import cv2

    mask = as_mask(mask, "mask")
    moves = max(1, round(in_pixels(width, mask.shape, "width")))
    padded = np.ascontiguousarray(np.pad(mask, 1)).view(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
    return mask & np.asarray(distance <= moves, np.bool_)


def near(mask: BoolArray, tolerance: float) -> BoolArray:
    """The pixels within a Euclidean distance, in pixels, of a pixel of the mask.

    Args:
        mask: bool (h, w).
        tolerance: pixels, ≥ 0.

    Returns:
        bool (h, w); False everywhere if the mask is empty.
    """
    import cv2

    if not mask.any():
        return np.zeros_like(mask)
    distance = cv2.distanceTransform(np.ascontiguousarray(~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # squared distances are integers; rounding them undoes the rounding of the transform's float32 roots
    squared = np.rint(np.square(distance, dtype=np.float64))
    return np.asarray(squared <= tolerance * tolerance, np.bool_)


def boundary_iou(prediction: npt.ArrayLike, target: npt.ArrayLike, *, width: float = BOUNDARY_WIDTH) -> float:
    """IoU of the bands along the two contours.

    Args:
        prediction: bool (h, w).
        target: bool (h, w).
        width: d; pixels, or below 1 a share of the image's diagonal.

    Returns:
        A number in [0, 1]; 1 for two empty masks.

    Raises:
        TypeError: if a mask is not bool.
        ValueError: if the shapes differ, or width is not positive.

    Example:
        >>> target = np.ones((5, 5), bool)  # the band is the rim, 16 pixels
        >>> prediction = target.copy()
        >>> prediction[:, 4] = False  # its band: 14 pixels of the remaining 5 × 4, of which 11 are in the rim
        >>> boundary_iou(prediction, target, width=1)  # 11 / (14 + 16 - 11)
        0.5789473684210527
    """
    a, b = mask_pair(prediction, target)
    shared, union = band_counts(a, b, width)
    return float(shared / union) if union else 1.0


def boundary_f(prediction: npt.ArrayLike, target: npt.ArrayLike, *, tolerance: float = TOLERANCE) -> float:
    """Harmonic mean of the shares of each contour that lie near the other.

    Args:
        prediction: bool (h, w).
        target: bool (h, w).
        tolerance: pixels, or below 1 a share of the image's diagonal.

    Returns:
        A number in [0, 1]; 1 if neither mask has a contour, 0 if one has.

    Raises:
        TypeError: if a mask is not bool.
        ValueError: if the shapes differ, or the tolerance is not positive.

    Example:
        >>> target, prediction = np.zeros((2, 9), bool), np.zeros((2, 9), bool)
        >>> target[:, :4], prediction[:, :6] = True, True  # contours in columns 3 and 5
        >>> boundary_f(prediction, target, tolerance=1), boundary_f(prediction, target, tolerance=2)
        (0.0, 1.0)
    """
    a, b = mask_pair(prediction, target)
    counts = contour_counts(a, b, tolerance)
    return f_measure(counts) if counts.any() else 1.0


def trimap_iou(prediction: npt.ArrayLike, target: npt.ArrayLike, *, width: float = TRIMAP_WIDTH) -> float:
    """IoU counted only within `width` of the target's contour, on both sides of it.

    Args:
        prediction: bool (h, w).
        target: bool (h, w).
        width: pixels, or below 1 a share of the image's diagonal.

    Returns:
        A number in [0, 1]; NaN if the target has no contour, or neither mask has a pixel near it.

    Raises:
        TypeError: if a mask is not bool.
        ValueError: if the shapes differ, or width is not positive.

    Example:
        >>> target, prediction = np.zeros((1, 9), bool), np.zeros((1, 9), bool)
        >>> target[:, :4], prediction[:, :9] = True, True  # the trimap: columns 2 to 4
        >>> trimap_iou(prediction, target, width=1)
        0.6666666666666666
    """
    a, b = mask_pair(prediction, target)
    shared, union = trimap_counts(a, b, width)
    return float(shared / union) if union else float("nan")


def band_counts(prediction: BoolArray, target: BoolArray, width: float) -> IntArray:
    """Pixels of the intersection and the union of the bands of two masks (h, w); `width` as in `boundary_iou`."""
    return _shared_and_union(band(prediction, width), band(target, width))


def trimap_counts(prediction: BoolArray, target: BoolArray, width: float) -> IntArray:
    """Pixels of the intersection and the union of two masks (h, w) near the target's contour."""
    zone = near(contour(target), in_pixels(width, target.shape, "width"))
    return _shared_and_union(prediction & zone, target & zone)


def _shared_and_union(a: BoolArray, b: BoolArray) -> IntArray:
    return np.array([np.count_nonzero(a & b), np.count_nonzero(a | b)], np.int64)


def contour_counts(prediction: BoolArray, target: BoolArray, tolerance: float) -> IntArray:
    """Contour pixels of two masks (h, w): predicted near a true one, predicted, true near a predicted one, true."""
    reach = in_pixels(tolerance, target.shape, "tolerance")
    a, b = contour(prediction), contour(target)
    counts = (a & near(b, reach), a, b & near(a, reach), b)
    return np.array([np.count_nonzero(pixels) for pixels in counts], np.int64)


def f_measure(counts: IntArray) -> float:
    """2PR / (P + R) of the four counts of `contour_counts`; 0 if nothing is near."""
    precision, recall = counts[0] / max(counts[1], 1), counts[2] / max(counts[3], 1)
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
