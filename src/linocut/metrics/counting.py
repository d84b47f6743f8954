"""Counting pairs of classes: the loop over pixels under `ConfusionMatrix`, and its errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from linocut import native
from linocut.metrics.arrays import Labels, bits, chunks
from linocut.metrics.contingency import Contingency, count_pairs

__all__ = ["TABLE_CLASSES", "count_list", "count_table"]

# The native core counts bytes, and needs two values for what is no class: kMostByteClasses in csrc/counting.hpp.
TABLE_CLASSES = 254
# Pixels that the NumPy form takes at a time, each of them 8 bytes there.
_STRIP = 1 << 20

Square = Int64[NDArray[np.int64], "num_classes num_classes"]


def count_table(prediction: Labels, target: Labels, num_classes: int, ignore: tuple[int, ...]) -> Square:
    """Count every pair of classes.

    Args:
        prediction: labels.
        target: labels of the same shape, at least one.
        num_classes: number of classes, small enough for a table.
        ignore: values of the target to leave out.

    Returns:
        (num_classes, num_classes) counts, rows are the target.

    Raises:
        ValueError: if a label that counts is not a class.

    Example:
        >>> count_table(np.array([0, 1, 1]), np.array([0, 0, 9]), 2, (9,)).tolist()
        [[1, 1], [0, 0]]
    """
    core = native.core()
    table = None if core is None else _native_table(core, prediction, target, num_classes, ignore)
    return _reference_table(prediction, target, num_classes, ignore) if table is None else table


def _native_table(
    core: native.Core, prediction: Labels, target: Labels, num_classes: int, ignore: tuple[int, ...]
) -> Square | None:
    """The counts, or None if a label is no class, about which the reference has more to say."""
    ignored = [value % 2**64 for value in ignore if _holds(target, value)]
    total = np.zeros((num_classes, num_classes), np.int64)
    for predicted, true in chunks(prediction, target):
        table, outside = core.count_classes(bits(predicted), bits(true), num_classes, ignored)
        if outside:
            return None
        total += table.view(np.int64)
    return total


def _reference_table(prediction: Labels, target: Labels, num_classes: int, ignore: tuple[int, ...]) -> Square:
    total = np.zeros(num_classes * num_classes, np.int64)
    for predicted, true in chunks(prediction, target):
        for start in range(0, true.size, _STRIP):
            p, t = predicted[start : start + _STRIP], true[start : start + _STRIP]
            keep = _kept(t, ignore)
            if not keep.all():
                p, t = p[keep], t[keep]
            if _outside(p, num_classes).any() or _outside(t, num_classes).any():
                _refuse(prediction, target, num_classes, ignore)
            codes = t.astype(np.intp) * num_classes
            codes += p.astype(np.intp)
            total += np.bincount(codes, minlength=total.size)
    return total.reshape(num_classes, num_classes)


def count_list(prediction: Labels, target: Labels, num_classes: int, ignore: tuple[int, ...]) -> Contingency:
    """List the pairs of classes that occur, for any number of classes; arguments and errors of `count_table`.

    Example:
        >>> count_list(np.array([0, 70]), np.array([0, -1]), 300, (-1,)).counts.tolist()
        [1]
    """
    pairs = count_pairs(_signed(prediction), _signed(target))
    held = np.array([value for value in ignore if _holds(target, value)], target.dtype)
    keep = np.isin(pairs.target, _signed(held), invert=True)
    pairs = Contingency(pairs.target[keep], pairs.prediction[keep], pairs.counts[keep])
    if _outside(pairs.prediction, num_classes).any() or _outside(pairs.target, num_classes).any():
        _refuse(prediction, target, num_classes, ignore)
    return pairs


def _signed(labels: Labels) -> Labels:
    """The same bits; labels from 2⁶³ on become negative, which no class is either."""
    return labels.view(labels.dtype.str.replace("u", "i")) if labels.dtype.str[1:] == "u8" else labels


def _kept(target: Labels, ignore: tuple[int, ...]) -> NDArray[np.bool_]:
    keep = np.ones(target.shape, bool)
    for value in ignore:
        if _holds(target, value):
            keep &= target != value
    return keep


def _holds(labels: Labels, value: int) -> bool:
    if labels.dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(labels.dtype)
    return limits.min <= value <= limits.max


def _outside(labels: Labels, num_classes: int) -> NDArray[np.bool_]:
    outside = labels < 0 if labels.dtype.kind == "i" else np.zeros(labels.shape, bool)
    if _holds(labels, num_classes):
        outside |= labels >= num_classes
    return outside


def _refuse(prediction: Labels, target: Labels, num_classes: int, ignore: tuple[int, ...]) -> None:
    """Say which label is no class: which, where first, and how many."""
    found: dict[str, list[int]] = {}  # of each map: the first place, its label, and how many there are
    start = 0
    for predicted, true in chunks(prediction, target, in_order=True):
        keep = _kept(true, ignore)
        for name, labels in (("target", true), ("prediction", predicted)):
            outside = _outside(labels, num_classes) & keep
            if outside.any():
                first = int(np.argmax(outside))
                found.setdefault(name, [start + first, int(labels[first]), 0])[2] += int(np.count_nonzero(outside))
        start += true.size
    name, (place, label, count) = next(iter(found.items()))
    index = tuple(int(i) for i in np.unravel_index(place, target.shape))
    advice = f"; if it marks places without a label, pass ignore={label}" if name == "target" else ""
    raise ValueError(
        f"{name} must hold classes of 0 … {num_classes - 1}, got {label} at {index}, "
        f"{count} of {target.size} labels are outside{advice}"
    )
