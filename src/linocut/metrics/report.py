"""What a comparison of label maps found, as JSON and CSV; `linocut.metrics.report_html` makes a page of it.

A report is figures and names only: it knows nothing of files and reads none. `linocut.engine.compare` fills it.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """One headline figure.

    Attributes:
        key: its name in JSON and CSV, ``miou``.
        title: its name for people, ``MIoU``.
        value: usually in [0, 1]; NaN where it is not defined.
        meaning: what it is, in a few words.
    """

    key: str
    title: str
    value: float
    meaning: str


@dataclass(frozen=True)
class ClassRow:
    """One class over all images.

    Attributes:
        label: its number.
        name: what it is called.
        colour: ``#rrggbb``.
        target: pixels that are of it in truth.
        predicted: pixels that were said to be of it.
        scores: ``iou``, ``precision``, ``recall``, ``f1`` and more; NaN where not defined.
    """

    label: int
    name: str
    colour: str
    target: int
    predicted: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        name: what the files are called.
        width: in pixels.
        height: in pixels.
        counts: whole numbers, such as ``counted`` and ``wrong`` pixels.
        scores: its own ``pa``, ``miou`` …; NaN where not defined.
        worst_class: the class with the lowest IoU in it, or "".
    """

    name: str
    width: int
    height: int
    counts: Mapping[str, int]
    scores: Mapping[str, float]
    worst_class: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture in a report.

    Attributes:
        caption: what stands under it.
        alt: what it shows, for those who do not see it.
        data: an image file.
        kind: its media type.
        width: in pixels.
        height: in pixels.
    """

    caption: str
    alt: str
    data: bytes = field(repr=False)
    kind: str
    width: int
    height: int

    @property
    def address(self) -> str:
        """The picture as an address that holds it whole."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Example:
    """An image with pictures of where it is wrong.

    Attributes:
        image: its figures.
        pictures: truth, prediction and mistakes.
        on_photo: they lie over what the labels are of.
    """

    image: ImageRow
    pictures: tuple[Picture, ...]
    on_photo: bool = False


@dataclass(frozen=True)
class Report:
    """The figures of a set of predictions against the truth.

    Attributes:
        task: ``semantic`` or ``instance``.
        prediction: where the predictions were.
        target: where the truth was.
        settings: what was asked for, by option.
        scores: the headline figures, the most important first.
        rank: the key of the score by which images are ordered, worst first.
        classes: those that occur in either, by label; empty for instances.
        confusion: (classes, classes) pixels, rows the truth, columns what was predicted; None for instances.
        thresholds: for instances, one row an IoU threshold: ``iou``, ``ap``, ``tp``, ``fp``, ``fn``.
        images: all, worst first.
        examples: the worst, with pictures.
        legend: colour and meaning of what the pictures mark.
        missing: truths without a prediction; they are not in the figures.
        extra: predictions without a truth; nor are they.
        notes: what a reader must know to judge the figures, one sentence each.
    """

    task: str
    prediction: str
    target: str
    settings: Mapping[str, Any]
    scores: tuple[Score, ...]
    rank: str
    classes: tuple[ClassRow, ...] = ()
    confusion: NDArray[np.int64] | None = None
    thresholds: tuple[Mapping[str, float], ...] = ()
    images: tuple[ImageRow, ...] = ()
    examples: tuple[Example, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as `json.dumps` takes it; what is not defined is None."""
        return {
            "task": self.task,
            "prediction": self.prediction,
            "target": self.target,
            "settings": dict(self.settings),
            "scores": {score.key: _number(score.value) for score in self.scores},
            "classes": [
                {
                    "label": row.label,
                    "name": row.name,
                    **_numbers(row.scores),
                    "target_pixels": row.target,
                    "predicted_pixels": row.predicted,
                }
                for row in self.classes
            ],
            "confusion_matrix": None
            if self.confusion is None
            else {
                "rows": "target",
                "columns": "prediction",
                "labels": [row.label for row in self.classes],
                "pixels": self.confusion.tolist(),
            },
            "thresholds": [_numbers(row) for row in self.thresholds],
            "images": [
                {
                    "name": row.name,
                    "width": row.width,
                    "height": row.height,
                    **row.counts,
                    **_numbers(row.scores),
                    "worst_class": row.worst_class or None,
                }
                for row in self.images
            ],
            "missing": list(self.missing),
            "extra": list(self.extra),
            "notes": list(self.notes),
        }


def render_json(report: Report) -> str:
    """The report as JSON text, the same for the same figures."""
    return json.dumps(report.to_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def per_class_csv(report: Report) -> str:
    """One row a class, or for instances one row a threshold; what is not defined is empty."""
    if report.task == "instance":
        return _csv(report.thresholds)
    rows = (
        {
            "label": row.label,
            "name": row.name,
            **row.scores,
            "target_pixels": row.target,
            "predicted_pixels": row.predicted,
        }
        for row in report.classes
    )
    return _csv(list(rows))


def per_image_csv(report: Report) -> str:
    """One row an image, worst first; what is not defined is empty."""
    rows = (
        {
            "name": row.name,
            "width": row.width,
            "height": row.height,
            **row.counts,
            **row.scores,
            "worst_class": row.worst_class,
        }
        for row in report.images
    )
    return _csv(list(rows))


def order_worst_first(images: Iterable[ImageRow], rank: str) -> tuple[ImageRow, ...]:
    """Images by a score, the lowest first, those without one last; equals by name."""

    def place(row: ImageRow) -> tuple[bool, float, str]:
        value = row.scores[rank]
        return math.isnan(value), 0.0 if math.isnan(value) else value, row.name

    return tuple(sorted(images, key=place))


def _number(value: Any) -> Any:
    """A number as JSON has them: None where it is not defined."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbers(values: Mapping[str, float]) -> dict[str, Any]:
    """Numbers as JSON has them."""
    return {key: _number(value) for key, value in values.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the keys of the first as headings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow("" if _number(value) is None else value for value in row.values())
    return text.getvalue()
