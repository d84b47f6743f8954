r"""One confusion matrix, and every reading of it: accuracies, intersections over union, agreement beyond chance.

With $n_{ij}$ the number of places where the target is class $i$ and the prediction class $j$, $t_i = \sum_j n_{ij}$ the
places of class $i$ in the target, $p_j = \sum_i n_{ij}$ those predicted as $j$, $s$ their total and $c = \sum_i n_{ii}$
the correct ones:

| figure | formula | undefined where |
| --- | --- | --- |
| recall (class accuracy) of $i$ | $n_{ii} / t_i$ | the class is absent from the target |
| precision of $i$ | $n_{ii} / p_i$ | the class is absent from the prediction |
| IoU (Jaccard) of $i$ | $n_{ii} / (t_i + p_i - n_{ii})$ | the class is absent from both |
| F1 (Dice) of $i$ | $2 n_{ii} / (t_i + p_i)$ | the class is absent from both |
| PA, pixel accuracy | $c / s$ | nothing was counted |
| MPA, mean pixel accuracy | mean of the recalls | no class has one |
| MIoU | mean of the IoUs | no class has one |
| FWIoU, frequency weighted IoU | $\sum_i t_i\, \mathrm{IoU}_i / s$ | nothing was counted |
| Cohen's kappa | $(s c - \sum_i t_i p_i) / (s^2 - \sum_i t_i p_i)$ | all is one class |
| Matthews | $(s c - \sum_i t_i p_i) / \sqrt{(s^2 - \sum_i t_i^2)(s^2 - \sum_i p_i^2)}$ | either is one class |

One rule for what is absent: a quotient whose denominator is 0 is NaN, and a mean goes over the classes whose figure is
not NaN. So a class that the target lacks but the prediction holds has IoU 0 and pulls the MIoU down, and has no recall;
a class that both lack counts nowhere. A class that is itself an ``ignore`` value is not evaluated: its four figures are
NaN, and it is in no mean.

The counts are summed over all images and the figures read once, at the end, as the benchmarks do (Pascal VOC,
Cityscapes, CamVid). The mean of the figures of single images is another number: for the targets 0 0 1 1 and 0 0 0 0 and
the predictions 0 0 1 0 and 0 0 0 1 the MIoU is (5/7 + 1/3)/2 = 0.524, and the mean of the two images' MIoUs 0.479. The
second is what torchmetrics' ``segmentation.MeanIoU`` gives (its issue 2558); its ``MulticlassJaccardIndex`` gives the
first.

Sources: PA, MPA, MIoU, FWIoU: Long, Shelhamer, Darrell, *Fully Convolutional Networks for Semantic Segmentation*, CVPR
2015, section 5; named so by Garcia-Garcia et al., *A Review on Deep Learning Techniques Applied to Semantic
Segmentation*, 2017 (https://arxiv.org/abs/1704.06857), section 4.1. Kappa: Cohen, 1960. Matthews' coefficient for many
classes: Gorodkin, *Comparing two K-category assignments by a K-category correlation coefficient*, 2004, equation 8.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike, NDArray

from linocut.metrics import counting
from linocut.metrics.arrays import Labels, as_array, as_labels, labels_of_scores, same_shape
from linocut.metrics.contingency import Contingency, merged

__all__ = ["ConfusionMatrix", "ConfusionScores"]

MOST_CLASSES = 65_535
# Beyond, the table of all pairs (32 MB here) would be larger than what a map fills of it.
DENSE_CLASSES = 2048

PerClass = Float64[NDArray[np.float64], " num_classes"]
Places = Int64[NDArray[np.int64], " num_classes"]
Square = Int64[NDArray[np.int64], "num_classes num_classes"]


@dataclass(frozen=True, eq=False)
class ConfusionScores:
    """The figures read off a `ConfusionMatrix`; all lie in [0, 1] but kappa and mcc, which lie in [-1, 1], or are NaN.

    Attributes:
        total: number of places counted, those with an ignored target left out.
        pa: pixel accuracy.
        mpa: mean pixel accuracy: the mean recall.
        miou: mean intersection over union.
        fwiou: frequency weighted intersection over union.
        kappa: Cohen's kappa.
        mcc: Matthews' correlation coefficient.
        iou: (num_classes,) intersection over union of each class.
        recall: (num_classes,) share of each class's places that were found; its accuracy.
        precision: (num_classes,) share of the places predicted as a class that are of it.
        f1: (num_classes,) F1, the Dice coefficient.
        support: (num_classes,) int64; the places of each class in the target.
        predicted: (num_classes,) int64; those in the prediction.
    """

    total: int
    pa: float
    mpa: float
    miou: float
    fwiou: float
    kappa: float
    mcc: float
    iou: PerClass
    recall: PerClass
    precision: PerClass
    f1: PerClass
    support: Places
    predicted: Places

    @property
    def dice(self) -> PerClass:
        """Another name of `f1`."""
        return self.f1


class ConfusionMatrix:
    r"""How often each class was taken for each other: a summary of any number of label maps that merges.

    Counts are integers, so parts of a data set that were counted apart, in any order, on any number of machines, add up
    to the figures of one pass to the last bit.

    Args:
        num_classes: number of classes, 1 … 65 535; labels are 0 … num_classes - 1. Up to 2 048 classes are kept as a
            table, more as a list of the pairs that occur.
        ignore: value or values of the target that mark places to leave out, inside or outside the classes, such as 255
            or -1. What the prediction holds there does not matter.

    Raises:
        TypeError: if an argument is not an integer.
        ValueError: if num_classes is not as above.

    Example:
        >>> matrix = ConfusionMatrix(3, ignore=255)
        >>> matrix.update(prediction=np.array([[0, 0, 1, 1]]), target=np.array([[0, 0, 1, 255]]))
        >>> matrix.update(prediction=np.array([[0, 2, 1, 0]]), target=np.array([[0, 0, 1, 1]]))
        >>> matrix.matrix  # rows are the target, columns the prediction
        array([[3, 0, 1],
               [1, 2, 0],
               [0, 0, 0]])
        >>> matrix.iou.tolist()  # 3 / (4 + 4 - 3), 2 / (3 + 2 - 2), 0 / (0 + 1 - 0)
        [0.6, 0.6666666666666666, 0.0]
        >>> matrix.pa == 5 / 7, matrix.mpa == (3 / 4 + 2 / 3) / 2  # class 2 is absent from the target: no recall
        (True, True)
    """

    def __init__(self, num_classes: int, ignore: int | Iterable[int] | None = None) -> None:
        self._num_classes = _integer(num_classes, "num_classes")
        if not 1 <= self._num_classes <= MOST_CLASSES:
            raise ValueError(f"num_classes must be in 1 … {MOST_CLASSES}, got {num_classes}")
        self._ignore = _values(ignore)
        side = self._num_classes if self._num_classes <= DENSE_CLASSES else 0
        self._table = np.zeros((side, side), np.int64)
        nothing = np.zeros(0, np.int64)
        self._listed = Contingency(nothing, nothing, nothing)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes

    @property
    def ignore(self) -> tuple[int, ...]:
        """The target's values that are left out, ascending."""
        return self._ignore

    def update(self, prediction: ArrayLike, target: ArrayLike, *, class_axis: int = 1) -> None:
        """Add a pair of maps, or any piece of one.

        Args:
            prediction: label map, bool or of any integer dtype, in any shape and memory layout; or scores
                (probabilities or logits), floating, with an axis of num_classes more than the target: the class with
                the highest score counts, of equal ones the first. NumPy arrays and torch tensors are taken alike.
            target: label map of the same shape.
            class_axis: which axis of floating scores the classes lie on, always 1 unless said otherwise, as in torch:
                (batch, classes, ...). Scores of a single map (classes, h, w) need ``class_axis=0``, scores with classes
                last -1. Label maps have no such axis.

        Raises:
            TypeError: if target is not integers or bools, or prediction is neither these nor floating.
            ValueError: if the shapes differ, the pair is empty, or a label is not a class; then the message says which
                label, where it is first and how many there are. After an error the counts are as before.

        Example:
            >>> matrix = ConfusionMatrix(2)
            >>> matrix.update(np.array([[0.2, 0.8], [0.9, 0.1]]), np.array([1, 0]))  # two places, two classes
            >>> matrix.matrix.tolist()
            [[1, 0], [0, 1]]
        """
        true = as_labels(target, "target")
        predicted = self._predicted(as_array(prediction, "prediction"), true, class_axis)
        same_shape(predicted, true)
        if self._num_classes <= counting.TABLE_CLASSES:
            self._table += counting.count_table(predicted, true, self._num_classes, self._ignore)
        else:
            self._add(counting.count_list(predicted, true, self._num_classes, self._ignore))

    def _predicted(self, values: NDArray[Any], target: Labels, class_axis: int) -> Labels:
        if values.dtype.kind != "f":
            return as_labels(values, "prediction")
        if values.shape == target.shape:
            raise TypeError(
                f"prediction must be labels, or scores with an axis of {self._num_classes} classes more than the "
                f"target, got {values.dtype} of the target's shape {values.shape}; "
                "compare probabilities with a threshold, or convert whole numbers with .astype(int)"
            )
        return labels_of_scores(values, target.shape, self._num_classes, class_axis)

    def _add(self, pairs: Contingency) -> None:
        if self._num_classes <= DENSE_CLASSES:
            self._table[pairs.target, pairs.prediction] += pairs.counts
        else:
            self._listed = merged([self._listed, pairs])

    def merge(self, other: ConfusionMatrix) -> None:
        """Add what another matrix has counted to this one; the other stays as it is.

        Raises:
            TypeError: if the other is no confusion matrix.
            ValueError: if the two were not made for the same num_classes and ignore.
        """
        if not isinstance(other, ConfusionMatrix):
            raise TypeError(f"a confusion matrix merges with a confusion matrix, got {type(other).__name__}")
        if (self._num_classes, self._ignore) != (other._num_classes, other._ignore):
            raise ValueError(
                "confusion matrices merge only with the same num_classes and ignore, got "
                f"{self._num_classes} {self._ignore} and {other._num_classes} {other._ignore}"
            )
        self._table = self._table + other._table
        self._listed = merged([self._listed, other._listed])

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The matrix of both parts, as a new one; raises what `merge` raises."""
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        total = ConfusionMatrix(self._num_classes, self._ignore)
        total.merge(self)
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        """Whether the other is for the same classes and has the same counts."""
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        mine, others = self.state(), other.state()
        return all(np.array_equal(mine[name], others[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"ConfusionMatrix(num_classes={self._num_classes}, ignore={self._ignore}, total={self.total})"

    @property
    def matrix(self) -> Square:
        """(num_classes, num_classes) int64, a copy: rows are the target, columns the prediction.

        Raises:
            ValueError: if there are more than 2 048 classes; `pairs` lists what occurs.
        """
        if self._num_classes > DENSE_CLASSES:
            raise ValueError(
                f"a table of {self._num_classes}² counts would take {self._num_classes**2 * 8 / 1e9:.1f} GB; "
                f"above {DENSE_CLASSES} classes read .pairs, the pairs that occur"
            )
        return self._table.copy()

    @property
    def pairs(self) -> Contingency:
        """The pairs of classes that occur: target, prediction and counts, each int64 (k,), ordered."""
        if self._num_classes > DENSE_CLASSES:
            return Contingency(*(column.copy() for column in self._listed))
        target, prediction = np.nonzero(self._table)
        return Contingency(target, prediction, self._table[target, prediction])

    @property
    def total(self) -> int:
        """Number of places counted."""
        return int(self._table.sum() + self._listed.counts.sum())

    @property
    def support(self) -> Places:
        """(num_classes,) places of each class in the target."""
        return self._margins()[1]

    @property
    def predicted(self) -> Places:
        """(num_classes,) places of each class in the prediction."""
        return self._margins()[2]

    @property
    def iou(self) -> PerClass:
        """(num_classes,) intersection over union; NaN for a class absent from target and prediction."""
        hit, true, predicted = self._margins()
        return self._ratio(hit, true + predicted - hit)

    @property
    def recall(self) -> PerClass:
        """(num_classes,) share of a class's places that were found; NaN for a class absent from the target."""
        hit, true, _ = self._margins()
        return self._ratio(hit, true)

    @property
    def precision(self) -> PerClass:
        """(num_classes,) share of a class's predictions that are right; NaN for a class that is never predicted."""
        hit, _, predicted = self._margins()
        return self._ratio(hit, predicted)

    @property
    def f1(self) -> PerClass:
        """(num_classes,) F1, the Dice coefficient; NaN for a class absent from target and prediction."""
        hit, true, predicted = self._margins()
        return self._ratio(2 * hit, true + predicted)

    dice = f1

    @property
    def pa(self) -> float:
        """Pixel accuracy: the share of places that are right."""
        hit, true, _ = self._margins()
        return _quotient(int(hit.sum()), int(true.sum()))

    @property
    def mpa(self) -> float:
        """Mean pixel accuracy: the mean of `recall` over the classes that the target holds."""
        return _mean(self.recall)

    @property
    def miou(self) -> float:
        """Mean of `iou` over the classes that target or prediction hold."""
        return _mean(self.iou)

    @property
    def fwiou(self) -> float:
        """Mean of `iou`, each class weighted with its places in the target."""
        hit, true, predicted = self._margins()
        held = true > 0
        iou = hit[held] / (true + predicted - hit)[held]
        return _quotient(math.fsum(true[held] * iou), int(true.sum()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond what the two margins would give by chance."""
        hit, true, predicted = (margin.tolist() for margin in self._margins())
        by_chance = sum(map(operator.mul, true, predicted))  # Python's integers, exact beyond 2⁶³
        return _quotient(sum(true) * sum(hit) - by_chance, sum(true) ** 2 - by_chance)

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient for any number of classes."""
        hit, true, predicted = (margin.tolist() for margin in self._margins())
        squares = [sum(true) ** 2 - sum(count * count for count in margin) for margin in (true, predicted)]
        covariance = sum(true) * sum(hit) - sum(map(operator.mul, true, predicted))
        # squared, the quotient of integers is rounded once, and so never beyond 1
        size = math.sqrt(_quotient(covariance * covariance, squares[0] * squares[1]))
        return math.copysign(size, covariance)

    def compute(self) -> ConfusionScores:
        """Read all figures off the counts; NaN where a figure is not defined, as it is in an empty matrix."""
        _, true, predicted = self._margins()
        return ConfusionScores(
            total=self.total,
            pa=self.pa,
            mpa=self.mpa,
            miou=self.miou,
            fwiou=self.fwiou,
            kappa=self.kappa,
            mcc=self.mcc,
            iou=self.iou,
            recall=self.recall,
            precision=self.precision,
            f1=self.f1,
            support=true,
            predicted=predicted,
        )

    def state(self) -> dict[str, Any]:
        """Settings and counts by name: the arguments, and the arrays of `pairs`, copied."""
        return {"num_classes": self._num_classes, "ignore": self._ignore, **self.pairs._asdict()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ConfusionMatrix:
        """Make the matrix that `state` was read off; lists, as JSON has them, do for arrays.

        Raises:
            ValueError: if a name is missing or unknown, the three arrays are not a list of pairs of classes, or a count
                is negative.

        Example:
            >>> matrix = ConfusionMatrix(2)
            >>> matrix.update(np.array([0, 1, 1]), np.array([0, 0, 1]))
            >>> ConfusionMatrix.from_state(matrix.state()) == matrix
            True
        """
        names = ("num_classes", "ignore", *Contingency._fields)
        if set(state) != set(names):
            raise ValueError(f"the state of a confusion matrix must hold {sorted(names)}, got {sorted(state)}")
        made = cls(state["num_classes"], state["ignore"])
        columns = [np.asarray(state[name]) for name in Contingency._fields]
        columns = [column.astype(np.int64) if column.size == 0 else column for column in columns]
        if any(c.ndim != 1 or c.size != columns[0].size or c.dtype.kind not in "iu" for c in columns):
            shapes = [f"{c.dtype} {c.shape}" for c in columns]
            raise ValueError(f"target, prediction and counts must be lists of integers of one length, got {shapes}")
        pairs = Contingency(*(column.astype(np.int64) for column in columns))
        labels = np.concatenate([pairs.target, pairs.prediction])
        if labels.size and not (labels.min() >= 0 and labels.max() < made.num_classes and pairs.counts.min() >= 0):
            raise ValueError(f"a state must hold classes of 0 … {made.num_classes - 1} and counts >= 0")
        made._add(merged([made._listed, pairs]))
        return made

    def to_json(self) -> str:
        """The state as JSON; `from_json` reads it back to the last bit."""
        plain = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in self.state().items()}
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> ConfusionMatrix:
        """Read what `to_json` wrote; raises what `from_state` raises, and ValueError if it is no JSON."""
        return cls.from_state(json.loads(text))

    def _margins(self) -> tuple[Places, Places, Places]:
        """Right places, places in the target and places in the prediction, of each class."""
        if self._num_classes <= DENSE_CLASSES:
            return self._table.diagonal().copy(), self._table.sum(axis=1), self._table.sum(axis=0)
        hit, true, predicted = (np.zeros(self._num_classes, np.int64) for _ in range(3))
        agree = self._listed.target == self._listed.prediction
        hit[self._listed.target[agree]] = self._listed.counts[agree]
        np.add.at(true, self._listed.target, self._listed.counts)
        np.add.at(predicted, self._listed.prediction, self._listed.counts)
        return hit, true, predicted

    def _ratio(self, part: Places, whole: Places) -> PerClass:
        ratio = np.full(self._num_classes, np.nan)
        np.divide(part, whole, out=ratio, where=whole > 0)
        ratio[[label for label in self._ignore if 0 <= label < self._num_classes]] = np.nan
        return ratio


def _integer(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _values(ignore: int | Iterable[int] | None) -> tuple[int, ...]:
    if ignore is None:
        return ()
    if isinstance(ignore, Iterable):
        return tuple(sorted({_integer(value, "ignore") for value in ignore}))
    return (_integer(ignore, "ignore"),)


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: PerClass) -> float:
    held = values[~np.isnan(values)].tolist()
    return _quotient(math.fsum(held), len(held))  # fsum: the order of the classes changes no bit
