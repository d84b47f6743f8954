"""Simulated users: where a person would click next.

Evaluation follows the standard protocol of interactive segmentation (Sofiiuk et al., *f-BRS*, CVPR 2020): the next
click is the centre of the largest error region. Training adds chance, because people do not click on centres.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def center(region: Mask) -> tuple[int, int]:
    """The pixel (x, y) of a region farthest from its edge; the image's border counts as edge.

    Args:
        region: (H, W) bool.

    Raises:
        ValueError: if the region is empty.
    """
    distance = _depth(region)
    if distance.max() == 0:
        raise ValueError("center: the region has no pixels, so it has no centre")
    return _deepest(distance)


def next_click(prediction: Mask, target: Mask, ignore: Mask | None = None) -> tuple[int, int, bool] | None:
    """The centre of the largest error region, false negatives against false positives.

    The regions compared are those of the distance transform: the deepest point of either kind of error wins, as in
    the published protocol.

    Args:
        prediction: (H, W) bool.
        target: (H, W) bool.
        ignore: (H, W) bool, pixels in which nothing is an error.

    Returns:
        x, y and whether the click is positive; None where the two agree.
    """
    missed, extra = target & ~prediction, prediction & ~target
    if ignore is not None:
        missed, extra = missed & ~ignore, extra & ~ignore
    deep_missed, deep_extra = _depth(missed), _depth(extra)
    if max(deep_missed.max(), deep_extra.max()) == 0:
        return None
    positive = bool(deep_missed.max() >= deep_extra.max())
    return *_deepest(deep_missed if positive else deep_extra), positive


def random_click(prediction: Mask, target: Mask, rng: np.random.Generator) -> tuple[int, int, bool] | None:
    """A click somewhere well inside an error, positive or negative by the size of the two kinds of error.

    Half of the time it is the deepest point of that error, else any point deeper than a random share, a tenth to nine
    tenths, of the deepest.

    Args:
        prediction: (H, W) bool.
        target: (H, W) bool.
        rng: decides everything.

    Returns:
        x, y and whether the click is positive; None where the two agree.
    """
    missed, extra = target & ~prediction, prediction & ~target
    total = int(missed.sum()) + int(extra.sum())
    if total == 0:
        return None
    positive = bool(rng.random() < missed.sum() / total)
    depth = _depth(missed if positive else extra)
    if rng.random() < 0.5:
        return *_deepest(depth), positive
    ys, xs = np.nonzero(depth >= max(depth.max() * rng.uniform(0.1, 0.9), 0.5))
    pick = int(rng.integers(len(xs)))
    return int(xs[pick]), int(ys[pick]), positive


def _deepest(depth: NDArray[np.float32]) -> tuple[int, int]:
    """The pixel (x, y) where the distance is largest; of several the first, row by row."""
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def _depth(region: Mask) -> NDArray[np.float32]:
    """Exact distance of every pixel of a region to the nearest pixel outside it, in pixels, as in the protocol."""
    padded = np.pad(region.astype(np.uint8), 1)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance[1:-1, 1:-1], dtype=np.float32)
