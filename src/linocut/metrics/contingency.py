r"""Which labels of two maps lie on each other, and how often: the table under every metric of overlap.

For two label maps $p$ and $t$ of one shape the contingency table is

$$ n_{ij} = |\{x : t(x) = i,\ p(x) = j\}|. $$

Here only the pairs that occur are listed, so labels may be any integers: the classes of a semantic map, or the
thousands of instances of a slide. Sums over $j$ are the areas of the target's segments, sums over $i$ those of the
prediction's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import ArrayLike, NDArray

from linocut import native
from linocut.metrics.arrays import Labels, as_labels, bits, chunks, same_shape

__all__ = ["Contingency", "contingency", "count_pairs", "merged"]

Counts = Int64[NDArray[np.int64], " pairs"]

# A table of so many pairs is counted directly; of more, only if there are as many pixels.
_DENSE_PAIRS = 1 << 16


class Contingency(NamedTuple):
    """The pairs of labels that occur, ordered by target and then prediction, each once.

    Attributes:
        target: (k,) int64; the target's label of each pair.
        prediction: (k,) int64; the prediction's.
        counts: (k,) int64 ≥ 1; at how many places the pair occurs.
    """

    target: Counts
    prediction: Counts
    counts: Counts


def contingency(prediction: ArrayLike, target: ArrayLike) -> Contingency:
    """Count the pairs of labels of two maps.

    Args:
        prediction: label map of any shape and integer dtype, or bool; a NumPy array or torch tensor, in any layout.
        target: label map of the same shape.

    Returns:
        The pairs that occur, and how often.

    Raises:
        TypeError: if a map holds something else than integers or bools.
        ValueError: if the shapes differ, the maps hold nothing, or a label is not below 2⁶³.

    Example:
        >>> pairs = contingency(np.array([[1, 1, 2]]), np.array([[7, 0, 0]]))
        >>> pairs.target.tolist(), pairs.prediction.tolist(), pairs.counts.tolist()
        ([0, 0, 7], [1, 2, 1], [1, 1, 1])
    """
    predicted, true = as_labels(prediction, "prediction"), as_labels(target, "target")
    same_shape(predicted, true)
    for name, labels in (("prediction", predicted), ("target", true)):
        if labels.dtype.itemsize == 8 and labels.dtype.kind == "u" and int(labels.max()) >= 1 << 63:
            raise ValueError(f"{name} must hold labels below 2**63, got {labels.max()}")
    return count_pairs(predicted, true)


def count_pairs(prediction: Labels, target: Labels) -> Contingency:
    """`contingency` of two arrays that have been checked: labels of one shape, at least one, all below 2⁶³.

    Example:
        >>> count_pairs(np.array([3, 3]), np.array([-1, -1])).counts.tolist()
        [2]
    """
    core = native.core()
    if core is None:
        return merged([_reference_pairs(*pair) for pair in chunks(prediction, target)])
    parts = [core.count_pairs(bits(p), bits(t)).view(np.int64) for p, t in chunks(prediction, target)]
    return merged([Contingency(*part) for part in parts])


def merged(parts: list[Contingency]) -> Contingency:
    """Add up lists of pairs.

    Args:
        parts: at least one.

    Returns:
        Their sum, ordered, each pair once.

    Example:
        >>> one = Contingency(np.array([0]), np.array([1]), np.array([2]))
        >>> merged([one, one]).counts.tolist()
        [4]
    """
    if len(parts) == 1:
        return parts[0]
    target, prediction, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((prediction, target))
    target, prediction = target[order], prediction[order]
    is_new = np.ones(order.size, bool)
    is_new[1:] = (target[1:] != target[:-1]) | (prediction[1:] != prediction[:-1])
    starts = np.flatnonzero(is_new)
    return Contingency(target[starts], prediction[starts], np.add.reduceat(counts[order], starts))


def _reference_pairs(prediction: Labels, target: Labels) -> Contingency:
    low_p, high_p, low_t, high_t = (int(end) for labels in (prediction, target) for end in (labels.min(), labels.max()))
    wide, high = high_p - low_p + 1, high_t - low_t + 1
    if wide * high <= max(_DENSE_PAIRS, target.size):
        codes = (target.astype(np.int64) - low_t) * wide
        codes += prediction.astype(np.int64) - low_p
        table = np.bincount(codes, minlength=wide * high)
        found = np.flatnonzero(table)
        return Contingency(found // wide + low_t, found % wide + low_p, table[found].astype(np.int64, copy=False))
    of_target, rows = np.unique(target, return_inverse=True)
    of_prediction, columns = np.unique(prediction, return_inverse=True)
    pairs, counts = np.unique(rows.astype(np.int64) * of_prediction.size + columns, return_counts=True)
    first, second = np.divmod(pairs, of_prediction.size)
    return Contingency(
        of_target[first].astype(np.int64), of_prediction[second].astype(np.int64), counts.astype(np.int64)
    )
