"""Panoptic quality: one number for segments that cover an image, things and stuff alike.

For each class, with TP the matched pairs (IoU > 0.5, and then a match is unique), FP and FN the segments left over:

    PQ = Σ_TP IoU / (TP + FP/2 + FN/2) = SQ · RQ,   SQ = Σ_TP IoU / TP,   RQ = TP / (TP + FP/2 + FN/2)

Pixels that nobody labelled (void) count for no union, and a prediction more than half of which lies on void or on a
crowd of its own class is left out instead of being wrong.

Source: Kirillov, He, Girshick, Rother, Dollár, "Panoptic Segmentation", CVPR 2019 (https://arxiv.org/abs/1801.00868),
section 4; crowds as in panopticapi, the authors' implementation, except that every crowd of a class counts, where
theirs remembers one of each class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from linocut.metrics.overlaps import overlaps
from linocut.metrics.summary import FloatArray, IntArray, Summary, exact_parts, exact_total, mean_of_known, ratio

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PanopticMean:
    """Means over the classes that occur.

    Attributes:
        pq: mean panoptic quality in [0, 1]; NaN if no class occurs.
        sq: mean segmentation quality; a class without a match counts 0.
        rq: mean recognition quality.
        classes: how many classes occur, in the target or the prediction.
    """

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticScores:
    """The figures read off a `PanopticQuality`; arrays have an entry for each class.

    Attributes:
        classes: the classes.
        pq: panoptic quality; NaN for a class that does not occur.
        sq: segmentation quality, 0 where nothing matched.
        rq: recognition quality.
        tp: matched pairs.
        fp: predicted segments that match nothing.
        fn: true segments that nothing matches.
        all: means over all classes that occur.
        things: means over the classes that are things.
        stuff: means over the others.
    """

    classes: tuple[int, ...]
    pq: FloatArray
    sq: FloatArray
    rq: FloatArray
    tp: tuple[int, ...]
    fp: tuple[int, ...]
    fn: tuple[int, ...]
    all: PanopticMean
    things: PanopticMean
    stuff: PanopticMean


@dataclass
class PanopticQuality(Summary):
    """A mergeable summary of panoptic segmentations.

    Attributes:
        classes: the classes of segments, ascending.
        things: those of them that are countable objects; the others are stuff.
        void: the label, in both maps, of pixels that belong to no segment.
        tp: (C,) int64; matched pairs of each class.
        fp: (C,) int64; predicted segments left over.
        fn: (C,) int64; true segments left over.
        iou_parts: (C, 2) int64; sum of the matched pairs' IoU, see `exact_parts`.

    Raises:
        ValueError: if there is no class, they do not ascend, or a thing is none of them.

    Example:
        >>> quality = PanopticQuality(classes=(7, 9), things=(7,))
        >>> prediction, target = np.array([[1, 1, 1, 2]]), np.array([[5, 5, 6, 6]])
        >>> quality.update(prediction, target, {1: 7, 2: 9}, {5: 7, 6: 9})
        >>> scores = quality.compute()  # IoU 2/3 for class 7, 1/2 is not enough for class 9
        >>> scores.pq.round(3).tolist(), scores.tp, scores.fp, scores.fn
        ([0.667, 0.0], (1, 0), (0, 1), (0, 1))
    """

    SETTINGS = ("classes", "things", "void")
    SUMS = ("tp", "fp", "fn", "iou_parts")

    classes: tuple[int, ...]
    things: tuple[int, ...] = ()
    void: int = 0
    tp: IntArray = field(init=False, repr=False)
    fp: IntArray = field(init=False, repr=False)
    fn: IntArray = field(init=False, repr=False)
    iou_parts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.classes or list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"classes must be at least one, ascending, got {self.classes}")
        if not set(self.things) <= set(self.classes):
            raise ValueError(f"things must be classes, got {sorted(set(self.things) - set(self.classes))} beyond them")
        self.tp, self.fp, self.fn = (np.zeros(len(self.classes), np.int64) for _ in range(3))
        self.iou_parts = np.zeros((len(self.classes), 2), np.int64)

    def update(
        self,
        prediction: npt.ArrayLike,
        target: npt.ArrayLike,
        prediction_classes: Mapping[int, int],
        target_classes: Mapping[int, int],
        *,
        crowd: Collection[int] = (),
    ) -> None:
        """Add one image.

        Args:
            prediction: map of segment labels, integers ≥ 0 of any shape.
            target: map of the same shape.
            prediction_classes: the class of each label of the prediction but void. A label that has no pixel is no
                segment.
            target_classes: the class of each label of the target but void.
            crowd: labels of the target that are regions of many objects, neither matched nor missed.

        Raises:
            TypeError: if a map does not hold integers.
            ValueError: if the shapes differ, a label is negative or has no class, or a class is unknown.
        """
        found = overlaps(prediction, target)
        guessed = self._places(found.prediction_labels, prediction_classes, "prediction")
        wanted = self._places(found.target_labels, target_classes, "target")
        is_crowd = np.isin(found.target_labels, np.fromiter(crowd, np.int64, len(crowd))) & (wanted >= 0)

        rows, columns, shared = found.rows, found.columns, found.shared
        on_void = np.zeros(guessed.size, np.int64)
        unlabelled = wanted[columns] < 0
        on_void[rows[unlabelled]] = shared[unlabelled]
        alike = (guessed[rows] == wanted[columns]) & (guessed[rows] >= 0)
        candidates = alike & ~is_crowd[columns]
        iou = ratio(shared, found.union - on_void[rows])
        hits = candidates & (iou > 0.5)

        excused = on_void
        in_crowd = alike & is_crowd[columns]
        np.add.at(excused, rows[in_crowd], shared[in_crowd])
        extra = (guessed >= 0) & (2 * excused <= found.prediction_areas)
        extra[rows[hits]] = False
        missed = (wanted >= 0) & ~is_crowd
        missed[columns[hits]] = False

        matched = wanted[columns[hits]]
        size = len(self.classes)
        self.tp += np.bincount(matched, minlength=size)
        self.fp += np.bincount(guessed[extra], minlength=size)
        self.fn += np.bincount(wanted[missed], minlength=size)
        np.add.at(self.iou_parts, matched, exact_parts(iou[hits]))

    def compute(self) -> PanopticScores:
        """Read the figures off the counts."""
        iou, half = exact_total(self.iou_parts), self.tp + 0.5 * self.fp + 0.5 * self.fn
        occurs = half > 0
        pq, rq = ratio(iou, half), ratio(self.tp, half)
        sq = np.where(occurs, iou / np.maximum(self.tp, 1), np.nan)
        thing = np.isin(self.classes, self.things)

        def mean(of: BoolArray) -> PanopticMean:
            return PanopticMean(
                mean_of_known(pq[of]), mean_of_known(sq[of]), mean_of_known(rq[of]), int(np.count_nonzero(occurs & of))
            )

        return PanopticScores(
            classes=self.classes,
            pq=pq,
            sq=sq,
            rq=rq,
            tp=tuple(self.tp.tolist()),
            fp=tuple(self.fp.tolist()),
            fn=tuple(self.fn.tolist()),
            all=mean(np.ones_like(thing)),
            things=mean(thing),
            stuff=mean(~thing),
        )

    def _places(self, labels: IntArray, classes: Mapping[int, int], name: str) -> IntArray:
        """The place in `classes` of each label's class, -1 for void."""
        known = {cls: place for place, cls in enumerate(self.classes)}
        places = np.full(labels.size, -1, np.int64)
        for i, label in enumerate(labels.tolist()):
            if label == self.void:
                continue
            if label not in classes:
                raise ValueError(f"{name} holds the label {label}, which has no class; given are {sorted(classes)}")
            if classes[label] not in known:
                raise ValueError(f"label {label} of {name} has the class {classes[label]}, none of {self.classes}")
            places[i] = known[classes[label]]
        return places
