"""Evaluation of semantic segmentation on a pack: one confusion matrix over the whole split, and pictures of it.

PA, MPA, MIoU and FWIoU are read off the matrix of all pixels (Garcia-Garcia et al., 2017, section 5.3), not averaged
over images; pixels with an ignored label count for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray

from linocut.data.overlay import label_map_to_png, object_colours, write_png
from linocut.engine.semantic_samples import UNKNOWN, SemanticSource
from linocut.metrics import ConfusionMatrix
from linocut.vision.semantic import SemanticSegmenter

_ALPHA = 0.6


@dataclass(frozen=True)
class ClassFigures:
    """One class of an evaluation: its IoU, recall (accuracy) and precision in [0, 1], NaN where there is none."""

    name: str
    value: int
    share: float
    iou: float
    recall: float
    precision: float


@dataclass(frozen=True)
class SemanticEvaluation:
    """The figures of one network on one split of one pack.

    Attributes:
        pack: the pack's name.
        split: the split's name.
        images: how many were measured.
        parameters: of the network.
        pa: pixel accuracy; mpa, miou and fwiou likewise as :class:`~linocut.metrics.ConfusionMatrix` defines them.
        classes: figures of each class.
        seconds: median process CPU seconds an image.
    """

    pack: str
    split: str
    images: int
    parameters: int
    pa: float
    mpa: float
    miou: float
    fwiou: float
    classes: tuple[ClassFigures, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The figures as a dict that `json.dumps` takes, one key an attribute; NaN becomes None."""
        classes = [_known(asdict(each)) for each in self.classes]
        return {**_known(asdict(self)), "classes": classes}

    def headline(self) -> list[tuple[str, str]]:
        """What is said first: headings and values."""
        figures = [(name, f"{getattr(self, name.lower()):.2%}") for name in ("PA", "MPA", "MIoU", "FWIoU")]
        return [*figures, ("parameters", f"{self.parameters / 1e6:.2f} M"), ("CPU-s an image", f"{self.seconds:.3f}")]

    def class_rows(self) -> list[tuple[str, ...]]:
        """Class, share of the pixels, IoU, recall and precision as text, one row a class."""
        return [
            (each.name, *(_percent(x) for x in (each.share, each.iou, each.recall, each.precision)))
            for each in self.classes
        ]

    def markdown(self) -> str:
        """The figures as two Markdown tables."""
        names, values = zip(*self.headline(), strict=True)
        rows = [("pack", "split", "images", *names), ("---", "---", *["---:"] * (1 + len(names)))]
        rows += [(self.pack, self.split, str(self.images), *values), ()]
        rows += [CLASS_HEADINGS, ("---", *["---:"] * 4), *self.class_rows()]
        return "\n".join("| " + " | ".join(row) + " |" if row else "" for row in rows) + "\n"


CLASS_HEADINGS = ("class", "share of pixels", "IoU", "recall", "precision")


def evaluate_semantic(
    model: SemanticSegmenter,
    folder: str | Path,
    *,
    split: str = "test",
    pictures: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SemanticEvaluation:
    """Measure a network on every image of a split.

    Args:
        model: the network.
        folder: a pack of kind semantic with the network's classes.
        split: ``train``, ``val`` or ``test``.
        pictures: a folder; for every image ``ID.png`` is written, with image, prediction, truth and errors (white) side
            by side, and ``labels/ID.png``, the predicted label map.
        progress: called with the number of images done and their total.

    Raises:
        ValueError: if the folder is no semantic pack, lacks the split, or has other classes than the network.
    """
    source = SemanticSource(folder, split=split)
    if source.names != model.classes:
        raise ValueError(f"{folder} has the classes {source.names}, and the network was trained on {model.classes}")
    matrix, seconds = ConfusionMatrix(len(source.values), ignore=UNKNOWN), []
    total = len(source.pack.images)
    for index, item in enumerate(source.pack.images):
        image, truth = source.whole(index, keep=False)
        start = time.process_time()
        found = model.classify(image)
        seconds.append(time.process_time() - start)
        matrix.update(found, truth)
        if pictures is not None:
            write_png(Path(pictures) / f"{item.id}.png", side_by_side(image, found, truth))
            label_map_to_png(np.asarray(source.values)[found], Path(pictures) / "labels" / f"{item.id}.png")
        if progress:
            progress(index + 1, total)
    share = matrix.matrix.sum(axis=1) / max(1, int(matrix.matrix.sum()))
    per_class = (share, matrix.iou, matrix.recall, matrix.precision)
    return SemanticEvaluation(
        pack=source.pack.name,
        split=split,
        images=total,
        parameters=sum(parameter.numel() for parameter in model.net.parameters()),
        pa=matrix.pa,
        mpa=matrix.mpa,
        miou=matrix.miou,
        fwiou=matrix.fwiou,
        classes=tuple(
            ClassFigures(name, value, *(float(figure[index]) for figure in per_class))
            for index, (value, name) in enumerate(source.names.items())
        ),
        seconds=float(np.median(seconds)),
    )


def side_by_side(
    image: UInt8[NDArray[np.uint8], "h w 3"], found: Int[NDArray[Any], "h w"], truth: Int[NDArray[Any], "h w"]
) -> UInt8[NDArray[np.uint8], "h four_w 3"]:
    """The image, the predicted and the true classes in colour over it, and what is wrong in white.

    Args:
        image: RGB.
        found: class indices.
        truth: class indices, negative where nothing is known.
    """
    wrong = np.asarray(image // 3)
    wrong[(found != truth) & (truth >= 0)] = 255
    return np.hstack([image, paint(image, found), paint(image, truth), wrong])


def paint(
    image: UInt8[NDArray[np.uint8], "h w 3"], classes: Int[NDArray[Any], "h w"]
) -> UInt8[NDArray[np.uint8], "h w 3"]:
    """Classes in colour over their image; black where the index is negative."""
    colours = object_colours(int(classes.max(initial=0)) + 2)[classes.clip(-1) + 1]
    return np.asarray(cv2.addWeighted(image, 1 - _ALPHA, colours, _ALPHA, 0.0), np.uint8)


def _known(figures: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not have."""
    return {name: None if value != value else value for name, value in figures.items()}


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.1%}"
