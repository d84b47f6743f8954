"""How many objects were found: instances matched by IoU, and the AP of the 2018 Data Science Bowl.

Above an IoU of one half a match is unique. Two predictions are disjoint, so both can share more than half of a union
with the same object only if they share pixels (Kirillov et al. 2019, theorem 1, https://arxiv.org/abs/1801.00868); no
assignment problem is left. At lower thresholds there is a choice: `greedy` takes the best pair, then the best of the
rest; `optimal` finds as many pairs as possible, of these the set with the highest sum of IoU (Hungarian, needs SciPy).

Source: Caicedo et al., "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Nature Methods
16, 2019: AP(t) = TP(t) / (TP(t) + FP(t) + FN(t)), a hit being a pair with an IoU greater than t. StarDist and Cellpose
count an IoU equal to t too; `inclusive=True` does as they do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from linocut.metrics.assignment import best_pairs
from linocut.metrics.overlaps import Overlaps, overlaps
from linocut.metrics.summary import FloatArray, IntArray, Summary, exact_parts, exact_total, mean_of_known, ratio

Method = Literal["greedy", "optimal"]

DSB_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


def match(found: Overlaps, threshold: float, *, method: Method = "optimal", inclusive: bool = False) -> IntArray:
    """Pair predicted with true objects, each at most once.

    Args:
        found: the overlaps of two label maps, without the background.
        threshold: IoU in [0, 1) that a pair must exceed.
        method: what to do where the choice is not unique; above one half it always is.
        inclusive: whether an IoU equal to the threshold, which must then be above 0, is enough.

    Returns:
        (p,) int64: places of the matched pairs in `found.rows`, `found.columns`, ascending.

    Raises:
        ValueError: if the threshold is not as above, or the method is unknown.

    Example:
        >>> found = overlaps(np.array([1, 1, 1, 2]), np.array([7, 7, 7, 7]))
        >>> found.iou.tolist()
        [0.75, 0.25]
        >>> match(found, 0.5).tolist()
        [0]
    """
    _check_rule(threshold, method, inclusive)
    iou = found.iou
    candidates = np.flatnonzero(iou >= threshold if inclusive else iou > threshold)
    if threshold > 0.5 or (threshold == 0.5 and not inclusive) or candidates.size <= 1:
        return candidates
    rows, columns = found.rows[candidates], found.columns[candidates]
    chosen = (_greedy if method == "greedy" else _optimal)(rows, columns, iou[candidates])
    return np.sort(candidates[chosen])


def _check_rule(threshold: float, method: str, inclusive: bool) -> None:
    if method not in ("greedy", "optimal"):
        raise ValueError(f"method must be 'greedy' or 'optimal', got {method!r}")
    if not (0 < threshold <= 1 if inclusive else 0 <= threshold < 1):
        raise ValueError(f"threshold must be in {'(0, 1]' if inclusive else '[0, 1)'}, got {threshold}")


def _greedy(rows: IntArray, columns: IntArray, iou: FloatArray) -> IntArray:
    chosen: list[int] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for place in np.argsort(-iou, kind="stable").tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            chosen.append(place)
    return np.array(chosen, np.int64)


def _optimal(rows: IntArray, columns: IntArray, iou: FloatArray) -> IntArray:
    # a pair more outweighs all that the IoUs of the others can add up to
    return best_pairs(rows, columns, 1 + iou / (2 * iou.size))


@dataclass(frozen=True)
class InstanceScores:
    """The figures read off an `InstanceMatching`; arrays have an entry for each threshold.

    Attributes:
        thresholds: the IoU thresholds.
        tp: objects found.
        fp: predictions that are no object.
        fn: objects missed.
        ap: TP / (TP + FP + FN) over all images.
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        f1: 2 TP / (2 TP + FP + FN).
        image_ap: the mean over images of TP / (TP + FP + FN); images without any object, true or predicted, are left
            out.
        mean_ap: mean of `ap` over the thresholds.
        mean_image_ap: mean of `image_ap` over the thresholds, the score of the Data Science Bowl.
    """

    thresholds: tuple[float, ...]
    tp: tuple[int, ...]
    fp: tuple[int, ...]
    fn: tuple[int, ...]
    ap: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    image_ap: FloatArray
    mean_ap: float
    mean_image_ap: float

    def at(self, threshold: float) -> float:
        """AP over all images at one threshold.

        Raises:
            ValueError: if the matching was not counted at it.
        """
        if threshold not in self.thresholds:
            raise ValueError(f"threshold must be one of {self.thresholds}, got {threshold}")
        return float(self.ap[self.thresholds.index(threshold)])


@dataclass
class InstanceMatching(Summary):
    """A mergeable summary of objects found, missed and invented, at several IoU thresholds.

    Attributes:
        thresholds: IoU thresholds, ascending; by default .50, .55, … .95.
        method: how to choose below one half, see `match`.
        inclusive: whether an IoU equal to a threshold is a hit.
        background: the label, in both maps, of what is no object.
        images: images so far that hold an object, true or predicted.
        objects: true objects so far.
        predictions: predicted objects so far.
        tp: (T,) int64; matched pairs.
        ap_parts: (T, 2) int64; sum over images of TP / (TP + FP + FN), see `exact_parts`.

    Raises:
        ValueError: if the thresholds do not ascend or are not ones that `match` takes.

    Example:
        >>> scores = InstanceMatching(thresholds=(0.5, 0.7))
        >>> scores.update(np.array([[1, 1, 1, 0, 2]]), np.array([[3, 3, 3, 3, 0]]))
        >>> result = scores.compute()  # IoU .75, and label 2 is no object
        >>> result.tp, result.fp, result.fn, result.ap.tolist()
        ((1, 1), (1, 1), (0, 0), [0.5, 0.5])
    """

    SETTINGS = ("thresholds", "method", "inclusive", "background")
    SUMS = ("images", "objects", "predictions", "tp", "ap_parts")

    thresholds: tuple[float, ...] = DSB_THRESHOLDS
    method: Method = "optimal"
    inclusive: bool = False
    background: int = 0
    images: int = field(default=0, init=False)
    objects: int = field(default=0, init=False)
    predictions: int = field(default=0, init=False)
    tp: IntArray = field(init=False, repr=False)
    ap_parts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must be at least one, ascending, got {self.thresholds}")
        for threshold in self.thresholds:
            _check_rule(threshold, self.method, self.inclusive)
        self.tp = np.zeros(len(self.thresholds), np.int64)
        self.ap_parts = np.zeros((len(self.thresholds), 2), np.int64)

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, *, ignore: npt.ArrayLike | None = None) -> None:
        """Add one image.

        Args:
            prediction: label map, integers ≥ 0 of any shape: one label an object.
            target: label map of the same shape.
            ignore: bool map of the same shape; pixels that count for no object.

        Raises:
            TypeError: if a map does not hold integers.
            ValueError: if the shapes differ, or a label is negative.
        """
        found = overlaps(prediction, target, ignore=ignore).without(self.background)
        options: dict[str, Any] = {"method": self.method, "inclusive": self.inclusive}
        tp = np.array([match(found, threshold, **options).size for threshold in self.thresholds], np.int64)
        predictions, objects = found.prediction_labels.size, found.target_labels.size
        self.tp += tp
        self.predictions += predictions
        self.objects += objects
        if predictions + objects:
            self.images += 1
            self.ap_parts += exact_parts(tp / (predictions + objects - tp))

    def compute(self) -> InstanceScores:
        """Read the figures off the counts; NaN where there is nothing to divide by."""
        tp, fp, fn = self.tp, self.predictions - self.tp, self.objects - self.tp
        ap, image_ap = ratio(tp, tp + fp + fn), ratio(exact_total(self.ap_parts), self.images)
        return InstanceScores(
            thresholds=self.thresholds,
            tp=tuple(tp.tolist()),
            fp=tuple(fp.tolist()),
            fn=tuple(fn.tolist()),
            ap=ap,
            precision=ratio(tp, tp + fp),
            recall=ratio(tp, tp + fn),
            f1=ratio(2 * tp, 2 * tp + fp + fn),
            image_ap=image_ap,
            mean_ap=mean_of_known(ap),
            mean_image_ap=mean_of_known(image_ap),
        )
