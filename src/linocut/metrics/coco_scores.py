"""COCO's matching and precision curves, over all images at once.

What COCO defines image by image and class by class is done here for all of them together, one detection of each at a
time: only detections that have an object within reach take part, and few have more than a handful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from linocut.metrics.summary import FloatArray, IntArray, mean_of_known

if TYPE_CHECKING:
    from linocut.metrics.average_precision import Record

BoolArray = npt.NDArray[np.bool_]

AREAS = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class CocoScores:
    """The figures read off a `CocoAveragePrecision`, each in [0, 1], NaN where there is no object.

    Attributes:
        thresholds: T IoU thresholds.
        classes: K classes that occur, ascending.
        precision: (T, 101, K, A); precision at recalls 0, .01, … 1, for each class and range of area.
        recall: (T, K, A); the recall that all detections reach.
        recall_by_detections: (T, K, M); the same over all areas, for each number of detections.
    """

    thresholds: tuple[float, ...]
    classes: tuple[int, ...]
    precision: FloatArray
    recall: FloatArray
    recall_by_detections: FloatArray

    @property
    def ap(self) -> float:
        """AP, the mean over thresholds and classes."""
        return mean_of_known(self.precision[..., 0])

    @property
    def ap50(self) -> float:
        """AP at IoU .50."""
        return self.at(0.5)

    @property
    def ap75(self) -> float:
        """AP at IoU .75."""
        return self.at(0.75)

    @property
    def ap_by_area(self) -> tuple[float, ...]:
        """AP in each range of area but the first: small, medium, large."""
        return tuple(mean_of_known(self.precision[..., a]) for a in range(1, self.precision.shape[-1]))

    @property
    def ap_by_class(self) -> FloatArray:
        """(K,): AP of each class."""
        return np.array([mean_of_known(self.precision[:, :, k, 0]) for k in range(len(self.classes))])

    @property
    def ar(self) -> tuple[float, ...]:
        """Average recall for each number of detections: 1, 10, 100."""
        return tuple(
            mean_of_known(self.recall_by_detections[..., m]) for m in range(self.recall_by_detections.shape[-1])
        )

    @property
    def ar_by_area(self) -> tuple[float, ...]:
        """Average recall in each range of area but the first."""
        return tuple(mean_of_known(self.recall[..., a]) for a in range(1, self.recall.shape[-1]))

    def at(self, threshold: float) -> float:
        """AP at one IoU threshold.

        Raises:
            ValueError: if it is none of the thresholds.
        """
        near = np.flatnonzero(np.isclose(self.thresholds, threshold, rtol=0, atol=1e-9))
        if near.size == 0:
            raise ValueError(f"threshold must be one of {self.thresholds}, got {threshold}")
        return mean_of_known(self.precision[near[0], ..., 0])


@dataclass(frozen=True)
class Table:
    """The records of all images, one after the other; pairs point into the joined lists.

    Attributes:
        scores: (d,) float64.
        classes: (d,) int64.
        areas: (d,) int64.
        ranks: (d,) int64; place among the detections of its image and class.
        groups: (d,) int64; a number for each image and class, ascending.
        target_classes: (t,) int64.
        target_areas: (t,) float64.
        crowd: (t,) bool.
        rows: (k,) int64.
        columns: (k,) int64.
        iou: (k,) float64.
    """

    scores: FloatArray
    classes: IntArray
    areas: IntArray
    ranks: IntArray
    groups: IntArray
    target_classes: IntArray
    target_areas: FloatArray
    crowd: BoolArray
    rows: IntArray
    columns: IntArray
    iou: FloatArray

    @classmethod
    def join(cls, records: Sequence[Record]) -> Table:
        """Join the records of images."""

        def joined(name: str, dtype: type, shifts: IntArray | None = None) -> Any:
            parts = [getattr(record, name) for record in records]
            if shifts is not None:
                parts = [part + shift for part, shift in zip(parts, shifts.tolist(), strict=True)]
            return np.concatenate([np.zeros(0, dtype), *parts])

        detections = np.array([record.scores.size for record in records], np.int64)
        targets = np.array([record.crowd.size for record in records], np.int64)
        classes = joined("classes", np.int64)
        images = np.repeat(np.arange(len(records)), detections)
        begins = np.append(True, (classes[1:] != classes[:-1]) | (images[1:] != images[:-1]))[: classes.size]
        places = np.arange(classes.size)
        return cls(
            scores=joined("scores", np.float64),
            classes=classes,
            areas=joined("areas", np.int64),
            ranks=places - np.maximum.accumulate(np.where(begins, places, 0)),
            groups=np.cumsum(begins),
            target_classes=joined("target_classes", np.int64),
            target_areas=joined("target_areas", np.float64),
            crowd=joined("crowd", np.bool_),
            rows=joined("rows", np.int64, np.cumsum(detections) - detections),
            columns=joined("columns", np.int64, np.cumsum(targets) - targets),
            iou=joined("iou", np.float64),
        )


def read_scores(
    table: Table,
    thresholds: tuple[float, ...],
    max_detections: tuple[int, ...],
    areas: tuple[tuple[float, float], ...],
) -> CocoScores:
    """Match and read precision and recall.

    Args:
        table: the records of all images.
        thresholds: T IoU thresholds.
        max_detections: M most detections of an image and class that count.
        areas: A ranges of area.

    Returns:
        The curves, from which the figures follow.
    """
    names = np.union1d(table.classes, table.target_classes)
    shape = (len(thresholds), names.size)
    precision = np.full((*shape[:1], RECALLS.size, shape[1], len(areas)), np.nan)
    recall = np.full((*shape, len(areas)), np.nan)
    by_detections = np.full((*shape, len(max_detections)), np.nan)
    # by class, then by falling score; the order of images and within them decides between equal scores
    order = np.lexsort((-table.scores, table.classes))
    limits = np.searchsorted(table.classes[order], names), np.searchsorted(table.classes[order], names, side="right")
    levels = np.minimum(thresholds, 1 - 1e-10)
    for a, (least, most) in enumerate(areas):
        ignored = table.crowd | (table.target_areas < least) | (table.target_areas > most)
        matched, dropped = _match(table, ignored, levels)
        outside = (table.areas < least) | (table.areas > most)
        dropped |= ~matched & outside[:, None]
        hits, misses = (matched & ~dropped)[order], (~matched & ~dropped)[order]
        objects = np.array([np.count_nonzero(~ignored[table.target_classes == name]) for name in names])
        for k, (begin, end) in enumerate(zip(*limits, strict=True)):
            if objects[k] == 0:
                continue
            precision[:, :, k, a] = _curve(hits[begin:end], misses[begin:end], int(objects[k]))
            recall[:, k, a] = np.count_nonzero(hits[begin:end], axis=0) / objects[k]
            if a == 0:
                ranks = table.ranks[order[begin:end]]
                for m, limit in enumerate(max_detections):
                    by_detections[:, k, m] = np.count_nonzero(hits[begin:end][ranks < limit], axis=0) / objects[k]
    return CocoScores(thresholds, tuple(names.tolist()), precision, recall, by_detections)


def _match(table: Table, ignored: BoolArray, levels: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Whether each detection finds an object at each level, and whether that is an ignored one; both (d, T)."""
    matched = np.zeros((table.scores.size, levels.size), np.bool_)
    dropped = np.zeros_like(matched)
    taken = np.zeros((table.crowd.size, levels.size), np.bool_)
    # what each detection would rather have: objects before ignored ones, then the higher IoU, then the later object
    order = np.lexsort((-table.columns, -table.iou, ignored[table.columns], table.rows))
    rows, columns, iou = table.rows[order], table.columns[order], table.iou[order]
    turn = _turns(rows, table.groups)
    order = np.argsort(turn, kind="stable")
    rows, columns, iou = rows[order], columns[order], iou[order]
    ends = np.searchsorted(turn[order], np.arange(1, turn.max(initial=-1) + 2))
    begin = 0
    for end in ends.tolist():
        here, objects = rows[begin:end], columns[begin:end]
        free = (iou[begin:end, None] >= levels) & (~taken[objects] | table.crowd[objects, None])
        starts = np.flatnonzero(np.append(True, here[1:] != here[:-1]))
        places = np.where(free, np.arange(end - begin)[:, None], end - begin)
        best = np.minimum.reduceat(places, starts, axis=0)
        which, level = np.nonzero(best < end - begin)
        chosen = objects[best[which, level]]
        taken[chosen, level] = True
        matched[here[starts[which]], level] = True
        dropped[here[starts[which]], level] = ignored[chosen]
        begin = end
    return matched, dropped


def _turns(rows: IntArray, groups: IntArray) -> IntArray:
    """For each pair the place of its detection among those of its image and class that have a pair."""
    if rows.size == 0:
        return np.zeros(0, np.int64)
    new = np.append(True, rows[1:] != rows[:-1])
    count = np.cumsum(new) - 1
    group = groups[rows]
    begins = np.append(True, group[1:] != group[:-1])
    return count - np.maximum.accumulate(np.where(begins, count, 0))


def _curve(hits: BoolArray, misses: BoolArray, objects: int) -> FloatArray:
    """Precision at the 101 recalls, the highest at that recall or a later one; (T, 101) from (n, T)."""
    curve = np.zeros((hits.shape[1], RECALLS.size))
    found, missed = np.cumsum(hits, axis=0, dtype=np.float64), np.cumsum(misses, axis=0, dtype=np.float64)
    precision = found / (missed + found + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # how many hits each recall needs, and the place of that hit at each level
    needed = np.searchsorted(np.arange(objects + 1) / objects, RECALLS)
    level, place = np.nonzero(hits.T)
    first = np.searchsorted(level, np.arange(hits.shape[1]))
    totals = np.count_nonzero(hits, axis=0)
    if hits.size:
        curve[:, needed == 0] = precision[0][:, None]
    some = np.flatnonzero(needed > 0)
    which, recall = np.nonzero(needed[some] <= totals[:, None])
    at = place[first[which] + needed[some[recall]] - 1]
    curve[which, some[recall]] = precision[at, which]
    return curve
