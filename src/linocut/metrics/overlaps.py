"""Which segments of two label maps overlap, and by how many pixels: what panoptic quality, AP and AJI are read off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from linocut.metrics.arrays import Labels, as_array, as_labels, same_shape
from linocut.metrics.contingency import Contingency, count_pairs
from linocut.metrics.summary import FloatArray, IntArray, ratio


@dataclass(frozen=True)
class Overlaps:
    """The pairs of segments of two label maps that share a pixel, ordered by target and then prediction.

    Attributes:
        prediction_labels: (n,) int64; the labels that occur in the prediction, ascending.
        prediction_areas: (n,) int64; their pixels.
        target_labels: (m,) int64; the labels that occur in the target, ascending.
        target_areas: (m,) int64; their pixels.
        rows: (k,) int64; for each pair the place of its prediction in `prediction_labels`.
        columns: (k,) int64; the place of its target in `target_labels`.
        shared: (k,) int64; the pixels they share, ≥ 1.
    """

    prediction_labels: IntArray
    prediction_areas: IntArray
    target_labels: IntArray
    target_areas: IntArray
    rows: IntArray
    columns: IntArray
    shared: IntArray

    @property
    def iou(self) -> FloatArray:
        """(k,) float64 in (0, 1]: intersection over union of each pair."""
        return ratio(self.shared, self.union)

    @property
    def union(self) -> IntArray:
        """(k,) int64: pixels of each pair's union."""
        return self.prediction_areas[self.rows] + self.target_areas[self.columns] - self.shared

    def without(self, background: int) -> Overlaps:
        """The same without the segments, predicted or not, that have the background's label."""
        keep_rows, keep_columns = self.prediction_labels != background, self.target_labels != background
        pairs = keep_rows[self.rows] & keep_columns[self.columns]
        return Overlaps(
            self.prediction_labels[keep_rows],
            self.prediction_areas[keep_rows],
            self.target_labels[keep_columns],
            self.target_areas[keep_columns],
            (np.cumsum(keep_rows) - 1)[self.rows[pairs]],
            (np.cumsum(keep_columns) - 1)[self.columns[pairs]],
            self.shared[pairs],
        )


def overlaps(prediction: npt.ArrayLike, target: npt.ArrayLike, *, ignore: npt.ArrayLike | None = None) -> Overlaps:
    """Count the pixels that each label of one map shares with each of the other.

    Args:
        prediction: label map, integers ≥ 0 or bools, of any shape; a NumPy array or torch tensor.
        target: label map of the same shape.
        ignore: bool map of the same shape; pixels that are True in it belong to no segment.

    Returns:
        The pairs that share a pixel, every label that occurs included.

    Raises:
        TypeError: if a map holds something else than integers or bools.
        ValueError: if the shapes differ, the maps hold nothing, or a label is negative.

    Example:
        >>> found = overlaps(np.array([[1, 1, 2]]), np.array([[5, 0, 0]]))
        >>> found.target_labels.tolist(), found.target_areas.tolist()
        ([0, 5], [2, 1])
        >>> found.rows.tolist(), found.columns.tolist(), found.shared.tolist()
        ([0, 1, 0], [0, 0, 1], [1, 1, 1])
    """
    a, b = label_map(prediction, "prediction"), label_map(target, "target")
    same_shape(a, b)
    if ignore is not None:
        keep = ~as_mask(ignore, "ignore")
        if keep.shape != a.shape:
            raise ValueError(f"ignore must have the shape of the maps, {a.shape}, got {keep.shape}")
        a, b = a[keep], b[keep]
    nothing = np.zeros(0, np.int64)
    pairs = count_pairs(a, b) if a.size else Contingency(nothing, nothing, nothing)
    prediction_labels, rows = np.unique(pairs.prediction, return_inverse=True)
    target_labels, columns = np.unique(pairs.target, return_inverse=True)
    return Overlaps(
        prediction_labels,
        _sums(rows, pairs.counts, prediction_labels.size),
        target_labels,
        _sums(columns, pairs.counts, target_labels.size),
        rows.astype(np.int64, copy=False),
        columns.astype(np.int64, copy=False),
        pairs.counts,
    )


def label_map(values: npt.ArrayLike, name: str) -> Labels:
    """The array of a label map without negative labels.

    Raises:
        TypeError: if it holds something else than integers or bools.
        ValueError: if a label is negative.
    """
    labels = as_labels(values, name)
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        place = tuple(int(i) for i in np.unravel_index(int(np.argmin(labels)), labels.shape))
        count = int(np.count_nonzero(labels < 0))
        raise ValueError(f"{name} must hold labels >= 0, got {labels.min()} at {place}; {count} pixels are negative")
    return labels


def as_mask(values: npt.ArrayLike, name: str) -> npt.NDArray[np.bool_]:
    """The array of a mask.

    Raises:
        TypeError: if it is not bool (an array of logits or of 0 and 255 is a mistake, not a mask).
    """
    mask = as_array(values, name)
    if mask.dtype != np.bool_:
        raise TypeError(f"{name} must be a bool array, got {mask.dtype}; compare with a threshold first")
    return mask


def mask_pair(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Two masks of one shape.

    Raises:
        TypeError: if one is not bool.
        ValueError: if the shapes differ, or the masks have no pixel.
    """
    a, b = as_mask(prediction, "prediction"), as_mask(target, "target")
    same_shape(a, b)
    return a, b


def _sums(places: npt.NDArray[np.integer], counts: IntArray, size: int) -> IntArray:
    # float64 holds integers up to 2⁵³, far more than any map has pixels
    return np.bincount(places, counts, size).astype(np.int64)
