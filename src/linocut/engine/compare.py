"""Predicted label maps against true ones: reads both in strips, counts, and fills a report.

Each image has a confusion matrix of its own, from which its own figures come; their sum is the matrix of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.data.classes import Classes
from linocut.engine.compare_pictures import photo_notes, picture_examples
from linocut.engine.compare_rows import background_of, class_colours, class_rows, headline, image_row, notes, table_of
from linocut.engine.compare_style import ClassStyle
from linocut.engine.pairing import Pair, Pairing
from linocut.metrics.boundary_scores import BoundaryScores
from linocut.metrics.confusion import MOST_CLASSES, ConfusionMatrix
from linocut.metrics.report import Report, order_worst_first

Progress = Callable[[float, int], None]

_EIGHT_BITS = 256


@dataclass(frozen=True)
class CompareOptions:
    """How label maps are compared.

    Attributes:
        classes: names and colours, or None: then every label that occurs is a class.
        ignore: the label in the truth of pixels that do not count; by default the one that ``classes`` names, if any.
        boundary: measure edges too; then an image is held in memory whole.
        worst: how many images get pictures.
        images: a file or a folder with the images that the labels are of, to draw over.
        settings: what to say of this in the report.
    """

    classes: Classes | None = None
    ignore: int | None = None
    boundary: bool = False
    worst: int = 6
    images: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ignored(self) -> int | None:
        """The label that does not count."""
        if self.ignore is None and self.classes is not None:
            return self.classes.ignore
        return self.ignore


@dataclass
class Counts:
    """What is counted, of one image or of all.

    Attributes:
        matrix: which class was taken for which.
        boundary: the same of edges, if that was asked for.
    """

    matrix: ConfusionMatrix
    boundary: BoundaryScores | None

    @classmethod
    def empty(cls, count: int, options: CompareOptions) -> Counts:
        """Nothing counted yet, for so many classes."""
        void = () if options.ignored is None else (options.ignored,)
        return cls(ConfusionMatrix(count, ignore=void), BoundaryScores(count, void) if options.boundary else None)

    def add(self, pair: Pair, top: int, predicted: NDArray[Any], true: NDArray[Any]) -> None:
        """Count the rows of a pair from ``top`` on.

        Raises:
            ValueError: if a label is none of the classes; the message names the file, the pixel, and what would do.
        """
        try:
            self.matrix.update(predicted, true)
        except ValueError as error:
            raise ValueError(_outside(self.matrix, pair, top, predicted, true) or f"{pair.name}: {error}") from error
        if self.boundary is not None:
            self.boundary.update(predicted, true)

    def merge(self, other: Counts) -> None:
        """Add what another has counted."""
        self.matrix.merge(other.matrix)
        if self.boundary is not None and other.boundary is not None:
            self.boundary.merge(other.boundary)


def compare_classes(
    pairing: Pairing, options: CompareOptions, *, prediction: str, target: str, progress: Progress | None = None
) -> Report:
    """Compare classes pixel by pixel.

    Args:
        pairing: from `linocut.engine.pairing.pair_files`.
        options: how.
        prediction: what to call the predictions in the report.
        target: what to call the truth.
        progress: called with the images done, the current one as a fraction, and how many there are.

    Raises:
        ImageError: if a file turns out to be damaged.
        ValueError: if a label is none of the classes, or nothing is left to count.
    """
    count = count_classes(pairing.pairs, options)
    total = Counts.empty(count, options)
    rows = []
    for done, pair in enumerate(pairing.pairs):
        one = Counts.empty(count, options)
        for top, predicted, true in _strips(pair, whole=options.boundary):
            one.add(pair, top, predicted, true)
            if progress is not None:
                progress(done + (top + len(true)) / pair.target.height, len(pairing.pairs))
        rows.append(image_row(pair, one.matrix, one.boundary, options.classes))
        total.merge(one)
    if not total.matrix.total:
        raise ValueError(f"every pixel of {target} has the label {options.ignored}, which is ignored: nothing to count")
    images = order_worst_first(rows, "miou")
    classes = class_rows(total.matrix, total.boundary, options.classes)
    background = background_of(classes, options.classes)
    style = ClassStyle(class_colours(count, options.classes), options.ignored, background, several=len(classes) > 2)
    examples = picture_examples(images[: options.worst], pairing.pairs, style, options.images)
    return Report(
        task="semantic",
        prediction=prediction,
        target=target,
        settings={**options.settings, "ignore": options.ignored},
        scores=headline(total.matrix, total.boundary),
        rank="miou",
        classes=classes,
        confusion=table_of(total.matrix, classes),
        images=images,
        examples=examples,
        legend=style.legend,
        missing=pairing.missing,
        extra=pairing.extra,
        notes=(*notes(classes, options.classes, options.ignored), *photo_notes(examples, options.images)),
    )


def count_classes(pairs: Sequence[Pair], options: CompareOptions) -> int:
    """How many classes there can be.

    Without names every label is a class. Those of 8 bits are below 256, and classes that do not occur change no
    figure; so only files with wider labels are read beforehand, for their largest.

    Raises:
        ValueError: if there is a label that is too large for a class.
    """
    if options.classes is not None:
        return options.classes.count
    largest = 0
    for labels in (labels for pair in pairs for labels in (pair.prediction, pair.target)):
        if labels.dtype.itemsize == 1:
            largest = max(largest, _EIGHT_BITS - 1)
            continue
        for strip in labels.strips():
            kept = strip if options.ignored is None else strip[strip != options.ignored]
            largest = max(largest, int(kept.max(initial=0)))
        if largest >= MOST_CLASSES:
            raise ValueError(
                f"{labels.path} has the label {largest}, but classes are 0 … {MOST_CLASSES - 1}; if it marks void,"
                f" give --ignore {largest}; if labels are objects, --task instance"
            )
    return largest + 1


def _strips(pair: Pair, *, whole: bool) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Strips of both files and the row where they begin."""
    rows = pair.target.height if whole else None
    top = 0
    for predicted, true in zip(pair.prediction.strips(rows), pair.target.strips(rows), strict=True):
        yield top, predicted, true
        top += len(true)


def _outside(matrix: ConfusionMatrix, pair: Pair, top: int, predicted: NDArray[Any], true: NDArray[Any]) -> str | None:
    """What to say of a label that is no class; None where all are."""
    counted = ~np.isin(true, matrix.ignore)
    for labels, values in ((pair.target, true), (pair.prediction, predicted)):
        outside = counted & ((values < 0) | (values >= matrix.num_classes))
        if outside.any():
            row, column = (int(place[0]) for place in np.nonzero(outside))
            label = int(values[row, column])
            advice = f"name it with --classes, or leave it out with --ignore {label} if it marks void"
            if labels is pair.prediction:
                advice = "a prediction has to choose a class: name this one with --classes if it is one"
            if label in matrix.ignore:
                advice = "it is ignored in the truth, but a prediction has to choose a class where the truth has one"
            return (
                f"{labels.path} has the label {label} at row {top + row}, column {column}, one of"
                f" {np.count_nonzero(outside):,} such pixels in these rows, but the classes are 0 …"
                f" {matrix.num_classes - 1}; {advice}"
            )
    return None
