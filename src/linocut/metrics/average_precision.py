"""COCO's average precision and recall of detected masks.

Detections of a class are taken by falling score; each takes the best object that is left if their IoU reaches a
threshold. Precision is averaged over 101 recalls, ten thresholds (.50, .55, … .95) and all classes that have an object.
A crowd is matched by the share of the detection that lies on it, any number of times, and such detections count for
nothing; the same holds for objects, and for detections without one, whose area is outside the range asked for.

Equal scores keep the order in which they were given within an image, and otherwise the order of the images' names;
pycocotools, to which the figures are equal, does the same.

Source: Lin et al., "Microsoft COCO", ECCV 2014 (https://arxiv.org/abs/1405.0312), and pycocotools, which defines the
details.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from linocut.metrics.arrays import as_array
from linocut.metrics.coco_scores import AREAS, CocoScores, Table, read_scores
from linocut.metrics.runs import Order, Runs, runs_of_counts, runs_of_labels, runs_of_masks, shared_pixels
from linocut.metrics.summary import FloatArray, IntArray, Summary, ratio

# As pycocotools has them, to the last bit.
COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
MAX_DETECTIONS = (1, 10, 100)

Masks = npt.ArrayLike | Sequence[npt.ArrayLike]
ImageName = int | str


class Record(NamedTuple):
    """What is kept of an image: detections by class and falling score, objects, and the pairs that could match.

    Attributes:
        scores: (d,) float64.
        classes: (d,) int64.
        areas: (d,) int64; pixels.
        target_classes: (t,) int64.
        target_areas: (t,) float64.
        crowd: (t,) bool.
        rows: (k,) int64; the detection of each pair.
        columns: (k,) int64; its object.
        iou: (k,) float64; their IoU, for a crowd the share of the detection on it.
    """

    scores: FloatArray
    classes: IntArray
    areas: IntArray
    target_classes: IntArray
    target_areas: FloatArray
    crowd: npt.NDArray[np.bool_]
    rows: IntArray
    columns: IntArray
    iou: FloatArray


@dataclass
class CocoAveragePrecision(Summary):
    """A mergeable summary of detections, from which COCO's twelve figures are read.

    It keeps, for each image, scores, classes and areas, and the IoU of the pairs that could match; no pixels.

    Attributes:
        thresholds: IoU thresholds in (0, 1], ascending.
        max_detections: most detections of an image and class that count, ascending; the last for AP.
        areas: ranges of area in pixels, (least, most), the first the one over everything.
        records: what is kept of each image, by its name.

    Raises:
        ValueError: if thresholds or max_detections are not as above.

    Example:
        >>> precision = CocoAveragePrecision()
        >>> objects = np.array([[1, 1, 1, 1, 0, 2, 2, 0]])
        >>> detections = np.array([[1, 1, 1, 0, 0, 2, 2, 2]])
        >>> precision.update("image", detections, [0.9, 0.8], [7, 7], objects, [7, 7])
        >>> scores = precision.compute()  # IoU .75 and .667
        >>> round(scores.ap50, 3), round(scores.ap75, 3)
        (1.0, 0.505)
    """

    SETTINGS = ("thresholds", "max_detections", "areas")
    SUMS = ("records",)

    thresholds: tuple[float, ...] = COCO_THRESHOLDS
    max_detections: tuple[int, ...] = MAX_DETECTIONS
    areas: tuple[tuple[float, float], ...] = AREAS
    records: dict[ImageName, Record] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise ValueError(f"thresholds must be IoU values in (0, 1], got {self.thresholds}")
        for name in ("thresholds", "max_detections"):
            if list(getattr(self, name)) != sorted(set(getattr(self, name))):
                raise ValueError(f"{name} must ascend, got {getattr(self, name)}")
        if not self.max_detections or self.max_detections[0] < 1 or not self.areas:
            raise ValueError(
                f"max_detections must be >= 1, areas at least one, got {self.max_detections}, {self.areas}"
            )

    def update(
        self,
        image: ImageName,
        masks: Masks,
        scores: npt.ArrayLike,
        classes: npt.ArrayLike,
        target_masks: Masks,
        target_classes: npt.ArrayLike,
        *,
        crowd: npt.ArrayLike | None = None,
        target_areas: npt.ArrayLike | None = None,
        pixels: int | None = None,
    ) -> None:
        """Add one image.

        Masks, detected or true, are one of: a bool stack (n, h, w); a label map (h, w) of integers, whose labels but 0
        are the masks in ascending order; a list of n lists of COCO run lengths (column by column, background first).

        Args:
            image: the image's name, int or str, another for each image.
            masks: n detected masks.
            scores: (n,) numbers, higher is surer.
            classes: (n,) integers.
            target_masks: m true masks of the same image.
            target_classes: (m,) integers.
            crowd: (m,) bool; which objects are crowds; by default none.
            target_areas: (m,) numbers; the objects' areas, by which they belong to a range; by default their pixels.
            pixels: pixels of the image; needed if both masks are lists of run lengths and one of them is empty.

        Raises:
            TypeError: if masks or classes are none of the above.
            ValueError: if the image was added before, numbers of masks, scores and classes differ, the masks belong to
                images of different sizes, or a score is NaN.
        """
        if image in self.records:
            raise ValueError(f"image {image!r} was added before")
        found, wanted = _read_masks(masks, target_masks, pixels)
        score, cls = (
            _column(scores, "scores", len(found), "numbers"),
            _column(classes, "classes", len(found), "integers"),
        )
        wanted_cls = _column(target_classes, "target_classes", len(wanted), "integers")
        is_crowd = _column(np.zeros(len(wanted), bool) if crowd is None else crowd, "crowd", len(wanted), "bools")
        area = _column(wanted.areas if target_areas is None else target_areas, "target_areas", len(wanted), "numbers")
        if np.isnan(score).any():
            raise ValueError("scores must not be NaN")

        order = np.lexsort((-score, cls))
        order = order[_rank(cls[order]) < self.max_detections[-1]]
        rows, columns = _candidates(found, wanted, cls, wanted_cls, order)
        shared = shared_pixels(found, wanted, order[rows], columns)
        areas = found.areas[order]
        union = areas[rows] + np.where(is_crowd[columns], 0, wanted.areas[columns] - shared)
        iou = ratio(shared, union)
        close = iou >= min(self.thresholds[0], _ALMOST_ONE)
        self.records[image] = Record(
            score[order], cls[order], areas, wanted_cls, area, is_crowd, rows[close], columns[close], iou[close]
        )

    def merge(self, other: CocoAveragePrecision) -> None:
        """Add the images of another summary to this one; the other stays as it is.

        Raises:
            TypeError: if the other is a summary of another kind.
            ValueError: if the two were made with different settings, or both hold an image.
        """
        self._check_alike(other)
        both = self.records.keys() & other.records.keys()
        if both:
            raise ValueError(f"{len(both)} images are in both summaries, among them {next(iter(both))!r}")
        self.records.update(other.records)

    def compute(self) -> CocoScores:
        """Match, and read the figures off.

        Images are taken in the order of their names, so the order in which they came does not matter.
        """
        names = sorted(self.records, key=lambda name: (isinstance(name, str), name))
        table = Table.join([self.records[name] for name in names])
        return read_scores(table, self.thresholds, self.max_detections, self.areas)

    def state(self) -> dict[str, Any]:
        """Settings, the images' names, and for each image its record's lists one after the other."""
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        records = [[column.tolist() for column in record] for record in self.records.values()]
        return {**settings, "records": {"images": list(self.records), "columns": records}}

    def _read_sum(self, name: str, value: Mapping[str, Any]) -> dict[ImageName, Record]:
        if set(value) != {"images", "columns"} or len(value["images"]) != len(value["columns"]):
            raise ValueError(f"{name} must hold 'images' and as many 'columns', got {sorted(value)}")
        made = {}
        for image, columns in zip(value["images"], value["columns"], strict=True):
            made[image] = Record(*(np.array(c, t) for c, t in zip(columns, _RECORD_TYPES, strict=True)))
        return made


# pycocotools' way to let an IoU of 1 pass a threshold of 1
_ALMOST_ONE = 1 - 1e-10
_RECORD_TYPES = (float, np.int64, np.int64, np.int64, float, bool, np.int64, np.int64, float)


def _read_masks(masks: Masks, target_masks: Masks, pixels: int | None) -> tuple[Runs, Runs]:
    given = [_array_or_lists(masks, "masks"), _array_or_lists(target_masks, "target_masks")]
    arrays = [item for item in given if isinstance(item, np.ndarray)]
    shapes = {item.shape[-2:] for item in arrays}
    if len(shapes) > 1:
        raise ValueError(f"masks and target_masks must be of one image, got sizes {sorted(shapes)}")
    if pixels is None:
        pixels = (
            int(np.prod(shapes.pop()))
            if shapes
            else max((int(np.sum(item[0])) for item in given if len(item)), default=0)
        )
    order: Order = "C" if len(arrays) == 2 else "F"
    found, wanted = (_read_runs(item, order, pixels) for item in given)
    return found, wanted


def _array_or_lists(masks: Masks, name: str) -> npt.NDArray[Any] | Sequence[npt.ArrayLike]:
    if isinstance(masks, (list, tuple)) and not (masks and np.ndim(masks[0]) > 1):
        return masks
    array = as_array(cast("npt.ArrayLike", masks), name)
    if not (array.ndim == 3 and array.dtype == np.bool_) and not (array.ndim == 2 and array.dtype.kind in "ui"):
        raise TypeError(
            f"{name} must be a bool stack (n, h, w), a label map (h, w) of integers, or lists of run lengths; "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array


def _read_runs(masks: npt.NDArray[Any] | Sequence[npt.ArrayLike], order: Order, pixels: int) -> Runs:
    if not isinstance(masks, np.ndarray):
        return runs_of_counts(masks, pixels)
    return runs_of_masks(masks, order) if masks.ndim == 3 else runs_of_labels(masks, order)[1]


def _column(values: npt.ArrayLike, name: str, size: int, kind: str) -> npt.NDArray[Any]:
    """One number for each mask, as float64, int64 or bool."""
    column = as_array(values, name)
    if column.shape != (size,):
        raise ValueError(f"{name} must be one for each of {size} masks, got shape {column.shape}")
    if size and column.dtype.kind not in {"numbers": "fui", "integers": "ui", "bools": "b"}[kind]:
        raise TypeError(f"{name} must hold {kind}, got {column.dtype}")
    return column.astype({"numbers": np.float64, "integers": np.int64, "bools": np.bool_}[kind])


def _rank(classes: IntArray) -> IntArray:
    """The place of each entry among those of its class, in classes that ascend."""
    places = np.arange(classes.size)
    begins = np.append(True, classes[1:] != classes[:-1])[: classes.size]
    return places - np.maximum.accumulate(np.where(begins, places, 0))


def _candidates(
    found: Runs, wanted: Runs, classes: IntArray, target_classes: IntArray, order: IntArray
) -> tuple[IntArray, IntArray]:
    """Pairs of detections, as places in `order`, and objects of one class whose extents meet."""
    first, last = _extents(found)
    target_first, target_last = _extents(wanted)
    meets = (first[order, None] < target_last) & (target_first < last[order, None])
    rows, columns = np.nonzero(meets & (classes[order, None] == target_classes))
    return rows, columns


def _extents(runs: Runs) -> tuple[IntArray, IntArray]:
    """The first place of each mask and the one after its last; an empty mask meets nothing."""
    first, last = np.full(len(runs), runs.pixels), np.zeros(len(runs), np.int64)
    held = np.diff(runs.offsets) > 0
    first[held] = runs.bounds[runs.offsets[:-1][held]]
    last[held] = runs.bounds[runs.offsets[1:][held] - 1]
    return first, last
