"""The BSDS benchmark of boundary detectors: ODS, OIS and AP.

A soft boundary map is cut at many thresholds, thinned, and its pixels are paired with those of each annotator
(`correspondence`). Over a set of images, recall is the share of the annotators' pixels that have a partner, all
annotators added; precision the share of the detector's pixels that have one with any annotator. ODS is the best F over
thresholds of the pooled counts, interpolated between thresholds; OIS pools each image at its own best threshold; AP is
the area under the pooled curve at recalls 0, .01, … 1.

Sources: Martin, Fowlkes, Malik, IEEE TPAMI 26(5), 2004; Arbeláez, Maire, Fowlkes, Malik, "Contour detection and
hierarchical image segmentation", IEEE TPAMI 33(5), 2011, section 3, and the benchmark that came with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from linocut.metrics.arrays import as_array
from linocut.metrics.correspondence import MAX_DISTANCE, correspond
from linocut.metrics.overlaps import as_mask, label_map
from linocut.metrics.summary import FloatArray, IntArray, Summary, ratio
from linocut.metrics.thinning import thin

BoolArray = npt.NDArray[np.bool_]

BSDS_THRESHOLDS = tuple((np.arange(1, 100) / 100).tolist())

# Points from one threshold to the next at which F is looked for.
_STEPS = np.linspace(0, 1, 100)


def region_boundaries(labels: npt.ArrayLike) -> BoolArray:
    """The boundary map of a partition into regions, as BSDS500 has it of its annotators'.

    A pixel is marked if its lower right corner touches two regions; the marks are thinned.

    Args:
        labels: label map (h, w), integers ≥ 0.

    Returns:
        bool (h, w).

    Raises:
        TypeError: if the map does not hold integers.
        ValueError: if it has not two axes, or a label is negative.

    Example:
        >>> region_boundaries(np.array([[1, 1, 2, 2], [1, 1, 2, 2]])).astype(int).tolist()
        [[0, 1, 0, 0], [0, 1, 0, 0]]
    """
    regions = label_map(labels, "labels")
    if regions.ndim != 2:
        raise ValueError(f"labels must have the shape (h, w), got {regions.shape}")
    below, right = np.zeros(regions.shape, np.bool_), np.zeros(regions.shape, np.bool_)
    below[:-1] = regions[:-1] != regions[1:]
    right[:, :-1] = regions[:, :-1] != regions[:, 1:]
    marks = below | right
    marks[:-1] |= right[1:]
    marks[:, :-1] |= below[:, 1:]
    return thin(marks)


@dataclass(frozen=True)
class BoundaryCurve:
    """The figures read off a `BoundaryBenchmark`; arrays have an entry for each threshold.

    Attributes:
        ods: the best F of the pooled counts, interpolated between thresholds.
        ods_threshold: where.
        ods_precision: precision there.
        ods_recall: recall there.
        ois: F of the counts pooled with each image at its best threshold.
        ap: area under the pooled curve.
        thresholds: the thresholds.
        precision: pooled precision, 0 where nothing was marked.
        recall: pooled recall.
        f: their harmonic mean.
    """

    ods: float
    ods_threshold: float
    ods_precision: float
    ods_recall: float
    ois: float
    ap: float
    thresholds: tuple[float, ...]
    precision: FloatArray
    recall: FloatArray
    f: FloatArray


@dataclass
class BoundaryBenchmark(Summary):
    """A mergeable summary of boundary maps beside those of several annotators; needs SciPy.

    Attributes:
        thresholds: where the soft map is cut, ascending; a pixel at the threshold is in. By default .01, .02, … .99.
        max_distance: the largest distance of a pair, a share of the diagonal.
        thinned: whether the cut map is thinned first.
        images: images so far.
        counts: (T, 4) int64; annotators' pixels with a partner, annotators' pixels, detector's pixels with a partner,
            detector's pixels.
        best: (4,) int64; the same, each image at its best threshold.

    Raises:
        ValueError: if the thresholds do not ascend, or max_distance is negative.

    Example:
        >>> benchmark = BoundaryBenchmark(thresholds=(0.5,), max_distance=0.1)
        >>> strength = np.zeros((8, 8))
        >>> strength[:, 3], strength[0, 6] = 0.9, 0.6
        >>> annotator = np.zeros((8, 8), bool)
        >>> annotator[:, 4] = True
        >>> benchmark.update(strength, [annotator])
        >>> curve = benchmark.compute()
        >>> curve.ods_recall, curve.ods_precision
        (1.0, 0.8888888888888888)
    """

    SETTINGS = ("thresholds", "max_distance", "thinned")
    SUMS = ("images", "counts", "best")

    thresholds: tuple[float, ...] = BSDS_THRESHOLDS
    max_distance: float = MAX_DISTANCE
    thinned: bool = True
    images: int = field(default=0, init=False)
    counts: IntArray = field(init=False, repr=False)
    best: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must be at least one, ascending, got {self.thresholds}")
        if not self.max_distance >= 0:
            raise ValueError(f"max_distance must be >= 0, a share of the diagonal, got {self.max_distance}")
        self.counts = np.zeros((len(self.thresholds), 4), np.int64)
        self.best = np.zeros(4, np.int64)

    def update(self, prediction: npt.ArrayLike, targets: Sequence[npt.ArrayLike]) -> None:
        """Add one image.

        Args:
            prediction: boundary strength (h, w), floats, or bool for a map that is cut already.
            targets: the boundary maps of one or more annotators, bool (h, w), see `region_boundaries`.

        Raises:
            TypeError: if the prediction holds neither floats nor bools, or a target is not bool.
            ValueError: if there is no target, the shapes differ, or the prediction holds NaN.
        """
        strength, annotators = as_array(prediction, "prediction"), [as_mask(target, "a target") for target in targets]
        if strength.dtype.kind not in "fb":
            raise TypeError(f"prediction must hold floats or bools, got {strength.dtype}; divide by 255 first")
        if not annotators:
            raise ValueError("targets must hold the boundary map of at least one annotator, got none")
        if strength.ndim != 2 or any(target.shape != strength.shape for target in annotators):
            shapes = [target.shape for target in annotators]
            raise ValueError(f"prediction and targets must have one shape (h, w), got {strength.shape} and {shapes}")
        if strength.dtype.kind == "f" and np.isnan(strength).any():
            raise ValueError("prediction must not hold NaN")
        counts = self._count(strength, annotators)
        self.images += 1
        self.counts += counts
        self.best += counts[int(np.argmax(_f(*_recall_precision(counts))))]

    def compute(self) -> BoundaryCurve:
        """Read the figures off the counts.

        Raises:
            ValueError: if no image was added.
        """
        if self.images == 0:
            raise ValueError("a benchmark of no images has no figures; call update first")
        recall, precision = _recall_precision(self.counts)
        threshold, at_recall, at_precision, ods = _best_point(np.array(self.thresholds), recall, precision)
        return BoundaryCurve(
            ods=ods,
            ods_threshold=threshold,
            ods_precision=at_precision,
            ods_recall=at_recall,
            ois=float(_f(*_recall_precision(self.best[None]))[0]),
            ap=_area(recall, precision),
            thresholds=self.thresholds,
            precision=precision,
            recall=recall,
            f=_f(recall, precision),
        )

    def _count(self, strength: npt.NDArray[Any], annotators: list[BoolArray]) -> IntArray:
        counts = np.zeros((len(self.thresholds), 4), np.int64)
        size = -1
        for i, threshold in enumerate(self.thresholds):
            cut = np.asarray(strength >= threshold, np.bool_)
            # cuts lie within each other, so one as large as the last is the last
            if np.count_nonzero(cut) == size:
                counts[i] = counts[i - 1]
                continue
            size = int(np.count_nonzero(cut))
            marks = thin(cut) if self.thinned else cut
            partnered = np.zeros_like(marks)
            for target in annotators:
                ours, theirs = correspond(marks, target, max_distance=self.max_distance)
                partnered |= ours
                counts[i, :2] += np.count_nonzero(theirs), np.count_nonzero(target)
            counts[i, 2:] = np.count_nonzero(partnered), np.count_nonzero(marks)
        return counts


def _recall_precision(counts: IntArray) -> tuple[FloatArray, FloatArray]:
    """Recall and precision of counts (…, 4), 0 where there is nothing to divide by."""
    return np.nan_to_num(ratio(counts[..., 0], counts[..., 1])), np.nan_to_num(ratio(counts[..., 2], counts[..., 3]))


def _f(recall: FloatArray, precision: FloatArray) -> FloatArray:
    return np.nan_to_num(ratio(2 * precision * recall, precision + recall))


def _best_point(thresholds: FloatArray, recall: FloatArray, precision: FloatArray) -> tuple[float, float, float, float]:
    """Threshold, recall, precision and F where F is highest on the lines between neighbouring thresholds."""
    points = np.stack([thresholds, recall, precision])
    if thresholds.size > 1:
        points = (points[:, 1:, None] * _STEPS + points[:, :-1, None] * (1 - _STEPS)).reshape(3, -1)
    f = _f(points[1], points[2])
    at = int(np.argmax(f))
    return float(points[0, at]), float(points[1, at]), float(points[2, at]), float(f[at])


def _area(recall: FloatArray, precision: FloatArray) -> float:
    """Precision at recalls 0, .01, … 1, interpolated, 0 beyond the curve's ends, added and divided by 100."""
    # of equal recalls the last counts, that of the highest threshold
    known, place = np.unique(recall[::-1], return_index=True)
    if known.size < 2:
        return 0.0
    at = np.arange(101) / 100
    return float(np.interp(at, known, precision[::-1][place], left=0, right=0).sum() / 100)
