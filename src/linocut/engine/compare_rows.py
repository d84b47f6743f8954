"""The rows of a report, read off what was counted: headline figures, classes, images, and what to be warned of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.data.classes import Classes
from linocut.data.overlay import object_colours
from linocut.engine.pairing import Pair
from linocut.metrics.boundary_scores import BoundaryScores
from linocut.metrics.confusion import ConfusionMatrix
from linocut.metrics.report import ClassRow, ImageRow, Score

_VOID = 255
_DARK = 48
_MOST_NAMED = 12


def headline(matrix: ConfusionMatrix, boundary: BoundaryScores | None) -> tuple[Score, ...]:
    """The figures that people quote."""
    found = matrix.compute()
    scores = [
        Score("miou", "MIoU", found.miou, "mean of the classes' IoU"),
        Score("pa", "PA", found.pa, "share of pixels that are right"),
        Score("mpa", "MPA", found.mpa, "mean of the classes' recall"),
        Score("fwiou", "FWIoU", found.fwiou, "IoU weighted by the class's pixels"),
        Score("f1", "Mean F1", float(np.nanmean(found.f1)), "mean of the classes' F1, or Dice"),
        Score("kappa", "Kappa", found.kappa, "agreement beyond chance (Cohen)"),
        Score("mcc", "MCC", found.mcc, "correlation (Matthews), −1 to 1"),
    ]
    if boundary is not None:
        edges = boundary.compute()
        scores += [
            Score("boundary_iou", "Boundary IoU", edges.mean_iou, "IoU of the bands along edges, mean of classes"),
            Score("boundary_f", "Boundary F", edges.mean_f, "edges that lie near each other, mean of classes"),
        ]
    return tuple(scores)


def image_row(
    pair: Pair, matrix: ConfusionMatrix, boundary: BoundaryScores | None, classes: Classes | None
) -> ImageRow:
    """The figures of one image; one of which every pixel is ignored has none."""
    found = matrix.compute()
    pairs = matrix.pairs
    right = int(pairs.counts[pairs.target == pairs.prediction].sum())
    scores = {key: float(getattr(found, key)) for key in ("miou", "pa", "mpa", "fwiou", "kappa")}
    if boundary is not None:
        edges = boundary.compute()
        scores |= {"boundary_iou": edges.mean_iou, "boundary_f": edges.mean_f}
    worst = "" if right == found.total else name_of(int(np.nanargmin(found.iou)), classes)
    counts = {"counted": found.total, "wrong": found.total - right}
    return ImageRow(pair.name, pair.target.width, pair.target.height, counts, scores, worst)


def class_rows(
    matrix: ConfusionMatrix, boundary: BoundaryScores | None, classes: Classes | None
) -> tuple[ClassRow, ...]:
    """The classes that occur in truth or prediction."""
    found = matrix.compute()
    figures = {key: getattr(found, key) for key in ("iou", "precision", "recall", "f1")}
    if boundary is not None:
        edges = boundary.compute()
        figures |= {"boundary_iou": edges.iou, "boundary_f": edges.f}
    drawn = class_colours(matrix.num_classes, classes)
    return tuple(
        ClassRow(
            label=label,
            name=name_of(label, classes),
            colour="#" + bytes(drawn[label]).hex(),
            target=int(found.support[label]),
            predicted=int(found.predicted[label]),
            scores={key: float(values[label]) for key, values in figures.items()},
        )
        for label in np.flatnonzero(found.support + found.predicted).tolist()
    )


def table_of(matrix: ConfusionMatrix, rows: Sequence[ClassRow]) -> NDArray[np.int64]:
    """(K, K) pixels of the classes that occur, rows the truth; they may be few of very many."""
    labels = np.array([row.label for row in rows], np.int64)
    table = np.zeros((labels.size, labels.size), np.int64)
    true, predicted, counts = matrix.pairs
    table[np.searchsorted(labels, true), np.searchsorted(labels, predicted)] = counts
    return table


def class_colours(count: int, classes: Classes | None) -> NDArray[np.uint8]:
    """(count, 3) RGB: those of the file, and others that differ clearly; background is dark."""
    colours = object_colours(count + 1)[1:]
    if classes is not None:
        if classes.background is not None:
            colours[classes.background] = _DARK
        for label, colour in classes.colours.items():
            if label < count:
                colours[label] = colour
    return colours


def background_of(rows: Sequence[ClassRow], classes: Classes | None) -> int | None:
    """The label of what is no object: the class of that name, or 0 of two labels."""
    if classes is not None and (classes.background is not None or len(classes.names) != 2):
        return classes.background
    labels = [row.label for row in rows]
    return 0 if 0 in labels and len(labels) <= 2 else None


def notes(rows: Sequence[ClassRow], classes: Classes | None, ignored: int | None) -> tuple[str, ...]:
    """What a reader should know before the figures are believed."""
    found = []
    labels = [row.label for row in rows if row.target]
    if classes is None and ignored is None and labels[-1] == _VOID and _VOID - 1 not in labels:
        found.append(
            "The truth has the label 255, with which many data sets mark pixels that do not count; if so here, give"
            " --ignore 255."
        )
    for names, what in (
        ([row.name for row in rows if not row.target], "predicted but not in the truth, and so of IoU 0 in MIoU"),
        ([row.name for row in rows if not row.predicted], "in the truth but never predicted"),
    ):
        if names:
            found.append(f"{len(names)} class{'es' * (len(names) != 1)} {what}: {_some(names)}.")
    if classes is not None:
        seen = {row.label for row in rows}
        absent = [name for label, name in classes.names.items() if label not in seen]
        if absent:
            several = len(absent) != 1
            found.append(
                f"{len(absent)} named class{'es occur' if several else ' occurs'} in neither and"
                f" {'are' if several else 'is'} left out of means: {_some(absent)}."
            )
    return tuple(found)


def name_of(label: int, classes: Classes | None) -> str:
    """A class's name, or its number where it has none."""
    return str(label) if classes is None else classes.names.get(label, str(label))


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    shown = ", ".join(names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
