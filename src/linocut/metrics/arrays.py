"""What metrics take: label maps and class scores from NumPy and torch alike, without a copy and without torch.

A tensor can only come from someone who has imported torch, so torch is looked up and never imported. Arrays that do not
lie in one piece are read through small buffers, `chunks`, so that a transposed map or every second column costs no copy
of the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_array", "as_labels", "bits", "chunks", "labels_of_scores", "same_shape"]

Labels = NDArray[Any]  # bool or any integer dtype

# Labels that a buffer holds: two buffers of the widest labels just fit into a second-level cache
_BUFFER = 1 << 16


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """A view of the memory of an array or tensor.

    Args:
        values: a NumPy array, a torch tensor, or what `np.asarray` takes. Of a tensor that needs a gradient the values
            are taken; one on another device is copied from there, and bfloat16, which NumPy lacks, becomes float32.
        name: what errors call it.

    Returns:
        The array, with the memory of a NumPy array or CPU tensor.

    Raises:
        TypeError: for a masked array, whose mask would be lost.

    Example:
        >>> values = np.arange(3)
        >>> as_array(values, "target") is values
        True
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; fill it and pass that value as ignore")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        tensor = cast("Any", values).detach().cpu()
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return np.asarray(values)


def as_labels(values: ArrayLike, name: str) -> Labels:
    """The array of a label map: bools or integers of any width.

    Raises:
        TypeError: if it holds anything else.

    Example:
        >>> as_labels([[0, 2]], "target").shape
        (1, 2)
    """
    labels = as_array(values, name)
    if labels.dtype.kind not in "bui":
        raise TypeError(f"{name} must be a label map of integers or bools, got {labels.dtype}{_hint(labels)}")
    return labels


def _hint(labels: NDArray[Any]) -> str:
    if labels.dtype.kind != "f":
        return ""
    return "; compare probabilities with a threshold, or convert whole numbers with .astype(int)"


def bits(labels: Labels) -> Labels:
    """The same memory as integers: bools become bytes.

    Example:
        >>> bits(np.array([True, False])).tolist()
        [1, 0]
    """
    return labels.view(np.uint8) if labels.dtype.kind == "b" else labels


def same_shape(prediction: NDArray[Any], target: NDArray[Any]) -> None:
    """Check that two maps are a pair.

    Raises:
        ValueError: if their shapes differ, or they hold nothing.

    Example:
        >>> same_shape(np.zeros((2, 3)), np.ones((2, 3)))
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction and target must have one shape, got {prediction.shape} and {target.shape}")
    if target.size == 0:
        raise ValueError(f"prediction and target must hold at least one label, got shape {target.shape}")


def chunks(first: Labels, second: Labels, *, in_order: bool = False) -> Iterator[tuple[Labels, Labels]]:
    """Cut a pair of maps of one shape into flat pieces in one memory order and of native byte order.

    Args:
        first: a map.
        second: a map of the same shape.
        in_order: whether to go through them row by row, as `ravel` does, and not in the order of memory.

    Yields:
        One-dimensional C-contiguous pieces, the same places of both. A pair that lies in one piece comes in one piece,
        uncopied; of others a piece may be a buffer, which is only good until the next one.

    Example:
        >>> grid = np.arange(6).reshape(2, 3)
        >>> [(a.tolist(), b.tolist()) for a, b in chunks(grid.T, grid.T, in_order=True)]
        [([0, 3, 1, 4, 2, 5], [0, 3, 1, 4, 2, 5])]
    """
    if all(x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative for x in (first, second)):
        yield first.reshape(-1), second.reshape(-1)
        return
    copied: Any = ["readonly", "contig", "aligned"]  # NumPy's stubs misspell it
    pieces = np.nditer(
        [first, second],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[copied, copied],
        op_dtypes=[first.dtype.newbyteorder("="), second.dtype.newbyteorder("=")],
        casting="equiv",
        order="C" if in_order else "K",
        buffersize=_BUFFER,
    )
    yield from cast("Iterator[tuple[Labels, Labels]]", pieces)


def labels_of_scores(scores: NDArray[Any], shape: tuple[int, ...], num_classes: int, class_axis: int) -> Labels:
    r"""The class with the highest score at every place, $\arg\max_c s_c$; of equal ones the first.

    Probabilities and logits give the same class. No softmax is needed, and none is taken.

    Args:
        scores: floating, the target's shape with an axis of num_classes more.
        shape: the target's shape.
        num_classes: number of classes.
        class_axis: which axis of the scores the classes lie on.

    Returns:
        Labels of the target's shape.

    Raises:
        ValueError: if the shapes do not fit, or a score is NaN.

    Example:
        >>> scores = np.array([[[0.1, 0.9], [0.6, 0.4]]])  # two pixels of two classes, classes last
        >>> labels_of_scores(scores, (1, 2), 2, class_axis=-1).tolist()
        [[1, 0]]
    """
    if not _fits(scores.shape, shape, num_classes, class_axis):
        axes = [axis for axis in range(scores.ndim) if _fits(scores.shape, shape, num_classes, axis)]
        advice = f"class_axis={axes[0]} would fit" if axes else "no axis would fit"
        raise ValueError(
            f"a floating prediction must have the target's shape {shape} with an axis of {num_classes} classes more, "
            f"at class_axis={class_axis}, got {scores.shape}; {advice}"
        )
    by_class = np.moveaxis(scores, class_axis, 0)
    highest = by_class[0].copy()
    labels = np.zeros(shape, np.min_scalar_type(num_classes - 1))
    for label in range(1, num_classes):
        np.copyto(labels, labels.dtype.type(label), where=by_class[label] > highest)
        np.maximum(highest, by_class[label], out=highest)
    if np.isnan(highest).any():  # np.maximum hands a NaN on
        unclear = np.isnan(highest)
        place = tuple(int(i) for i in np.argwhere(unclear)[0])
        raise ValueError(
            f"prediction must hold scores that can be compared, got NaN at {place}; "
            f"{np.count_nonzero(unclear)} of {unclear.size} places hold one"
        )
    return labels


def _fits(scores: tuple[int, ...], shape: tuple[int, ...], num_classes: int, axis: int) -> bool:
    if len(scores) != len(shape) + 1 or not -len(scores) <= axis < len(scores):
        return False
    axis %= len(scores)
    return scores[axis] == num_classes and scores[:axis] + scores[axis + 1 :] == shape
