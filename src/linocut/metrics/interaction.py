"""How good is a mask after k clicks, and how many clicks does a good mask take.

The measures of interactive segmentation: IoU after k clicks, and NoC@t, the number of clicks until the IoU first
reaches t. `ClickCurve` holds what they need as sums over objects, so parts of a test set evaluated apart merge into
the figures of the whole.

Source: Sofiiuk, Petrov, Konushin, "Reviving Iterative Training with Mask Guidance for Interactive Segmentation", 2021
(https://arxiv.org/abs/2102.06583), section 4: an object that never reaches t within K clicks counts K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from linocut.metrics.summary import FloatArray, IntArray, Summary, exact_parts, exact_total

BoolArray = npt.NDArray[np.bool_]

STANDARD_THRESHOLDS = (0.80, 0.85, 0.90)


def iou(prediction: BoolArray, target: BoolArray, *, ignore: BoolArray | None = None) -> float:
    """Intersection over union of two masks, |P ∩ T| / |P ∪ T|.

    Args:
        prediction: bool array of any shape.
        target: bool array of the same shape.
        ignore: bool array of the same shape; pixels that are True in it count for neither mask.

    Returns:
        A number in [0, 1]. Two empty masks agree in every pixel, so theirs is 1.

    Raises:
        TypeError: if an array is not bool (an array of logits or of 0 and 255 is a mistake, not a mask).
        ValueError: if the shapes differ.

    Example:
        >>> iou(np.array([True, True, False]), np.array([False, True, True]))
        0.3333333333333333
    """
    for name, array in (("prediction", prediction), ("target", target), ("ignore", ignore)):
        if array is None:
            continue
        if array.dtype != np.bool_:
            raise TypeError(f"{name} must be a bool array, got {array.dtype}; compare with a threshold first")
        if array.shape != target.shape:
            raise ValueError(f"{name} and target must have one shape, got {array.shape} and {target.shape}")
    both, either = prediction & target, prediction | target
    if ignore is not None:
        both, either = both & ~ignore, either & ~ignore
    union = np.count_nonzero(either)
    return float(np.count_nonzero(both) / union) if union else 1.0


@dataclass(frozen=True)
class ClickScores:
    """The figures read off a `ClickCurve`.

    Attributes:
        objects: number of objects.
        max_clicks: K, the most clicks an object got.
        thresholds: the IoU thresholds t, ascending.
        noc: NoC@t for each threshold: the mean number of clicks to first reach t, K where it was never reached.
        fail: for each threshold the share of objects, in [0, 1], that never reached it.
        iou_by_click: (K,) mean IoU after 1, 2, … K clicks.
    """

    objects: int
    max_clicks: int
    thresholds: tuple[float, ...]
    noc: tuple[float, ...]
    fail: tuple[float, ...]
    iou_by_click: tuple[float, ...]

    def noc_at(self, threshold: float) -> float:
        """NoC@threshold.

        Raises:
            ValueError: if the curve was not kept for this threshold.
        """
        return self.noc[self._place(threshold)]

    def fail_at(self, threshold: float) -> float:
        """Share of objects that never reached the threshold.

        Raises:
            ValueError: if the curve was not kept for this threshold.
        """
        return self.fail[self._place(threshold)]

    def iou_after(self, clicks: int) -> float:
        """Mean IoU after so many clicks.

        Raises:
            ValueError: if clicks is not in 1 … max_clicks.
        """
        if not 1 <= clicks <= self.max_clicks:
            raise ValueError(f"clicks must be in 1 … {self.max_clicks}, got {clicks}")
        return self.iou_by_click[clicks - 1]

    def _place(self, threshold: float) -> int:
        if threshold not in self.thresholds:
            raise ValueError(f"threshold must be one of {self.thresholds}, got {threshold}")
        return self.thresholds.index(threshold)


@dataclass
class ClickCurve(Summary):
    """A mergeable summary of interactive segmentation runs.

    The state is three sums over objects, so `a + b` is the summary of both sets of objects.

    Attributes:
        max_clicks: K ≥ 1, the most clicks an object may get.
        thresholds: IoU thresholds in (0, 1], ascending.
        objects: number of objects so far.
        first_reached: (T, K) int64; entry (i, k) counts the objects that reached threshold i first at click k + 1.
        iou_parts: (K, 2) int64; the sum of the IoU after each number of clicks, see `exact_parts`.

    Raises:
        ValueError: if max_clicks or the thresholds are not as above.

    Example:
        >>> curve = ClickCurve(max_clicks=3)
        >>> curve.update([0.5, 0.92])
        >>> curve.update([0.1, 0.2, 0.3])
        >>> curve.compute().noc_at(0.90)
        2.5
    """

    SETTINGS = ("max_clicks", "thresholds")
    SUMS = ("objects", "first_reached", "iou_parts")

    max_clicks: int = 20
    thresholds: tuple[float, ...] = STANDARD_THRESHOLDS
    objects: int = field(default=0, init=False)
    first_reached: IntArray = field(init=False, repr=False)
    iou_parts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.max_clicks < 1:
            raise ValueError(f"max_clicks must be >= 1, got {self.max_clicks}")
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise ValueError(f"thresholds must be IoU values in (0, 1], got {self.thresholds}")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must ascend, got {self.thresholds}")
        self.first_reached = np.zeros((len(self.thresholds), self.max_clicks), np.int64)
        self.iou_parts = np.zeros((self.max_clicks, 2), np.int64)

    @property
    def iou_sum(self) -> FloatArray:
        """(K,) float64: the sum of the IoU after each number of clicks."""
        return exact_total(self.iou_parts)

    def update(self, ious: Sequence[float] | npt.NDArray[np.floating]) -> None:
        """Add one object.

        Args:
            ious: the IoU after 1, 2, … n clicks, 1 ≤ n ≤ max_clicks. An object that was stopped early keeps its last
                IoU for the clicks it did not get.

        Raises:
            ValueError: if there is no click, there are more than max_clicks, or a value is not in [0, 1].
        """
        values = np.asarray(ious, np.float64)
        if values.ndim != 1 or not 1 <= values.size <= self.max_clicks:
            raise ValueError(f"ious must be 1 … {self.max_clicks} values, one a click, got shape {values.shape}")
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError(f"ious must lie in [0, 1], got {values.tolist()}")
        for row, threshold in zip(self.first_reached, self.thresholds, strict=True):
            reached = values >= threshold
            if reached.any():
                row[np.argmax(reached)] += 1
        self.iou_parts += exact_parts(np.pad(values, (0, self.max_clicks - values.size), "edge"))
        self.objects += 1

    def compute(self) -> ClickScores:
        """Read the figures off the sums.

        Raises:
            ValueError: if no object was added: a mean over nothing does not exist.
        """
        if self.objects == 0:
            raise ValueError("a click curve of no objects has no figures; call update first")
        clicks = np.arange(1, self.max_clicks + 1)
        never = self.objects - self.first_reached.sum(axis=1)
        noc = (self.first_reached @ clicks + never * self.max_clicks) / self.objects
        return ClickScores(
            objects=self.objects,
            max_clicks=self.max_clicks,
            thresholds=self.thresholds,
            noc=tuple(noc.tolist()),
            fail=tuple((never / self.objects).tolist()),
            iou_by_click=tuple((self.iou_sum / self.objects).tolist()),
        )
