"""Predicted objects against true ones: label maps in which every object has a number of its own, and 0 is none.

Which objects match is known from the whole image, so both maps of one image are held in memory.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.engine.compare import CompareOptions, Progress
from linocut.engine.compare_instance_style import InstanceStyle
from linocut.engine.compare_pictures import photo_notes, picture_examples
from linocut.engine.pairing import Pair, Pairing
from linocut.metrics.aggregated_jaccard import AggregatedJaccard
from linocut.metrics.instances import InstanceMatching
from linocut.metrics.panoptic import PanopticQuality
from linocut.metrics.report import ImageRow, Report, Score, order_worst_first

_BACKGROUND, _OBJECT = 0, 1
_NO_VOID = -1  # to panoptic quality, background is a segment too: an object that is found in it is false, not excused


class _Objects:
    """What is measured of objects, for one image or for all."""

    def __init__(self) -> None:
        # from an IoU of one half on a match is unique, so that the greedy one is the best one and needs no SciPy
        self.matching = InstanceMatching(method="greedy")
        self.quality = PanopticQuality(classes=(_BACKGROUND, _OBJECT), things=(_OBJECT,), void=_NO_VOID)
        self.jaccard = AggregatedJaccard() if find_spec("scipy") else None

    def update(self, pair: Pair, ignore: int | None) -> None:
        """Add an image.

        Raises:
            ValueError: if a label is negative; the message names the files.
        """
        predicted, true = pair.prediction.read(), pair.target.read()
        if ignore is not None:
            void = true == ignore
            predicted, true = np.where(void, 0, predicted), np.where(void, 0, true)
        try:
            self.matching.update(predicted, true)
            self.quality.update(predicted, true, _classes(predicted), _classes(true))
            if self.jaccard is not None:
                self.jaccard.update(predicted, true)
        except ValueError as error:
            raise ValueError(f"{pair.prediction.path} and {pair.target.path}: {error}") from error

    def merge(self, other: _Objects) -> None:
        """Add what another has seen."""
        self.matching.merge(other.matching)
        self.quality.merge(other.quality)
        if self.jaccard is not None and other.jaccard is not None:
            self.jaccard.merge(other.jaccard)

    def scores(self) -> tuple[Score, ...]:
        """The headline figures."""
        found, quality = self.matching.compute(), self.quality.compute().things
        scores = [
            Score("ap", "AP", found.mean_image_ap, "Data Science Bowl 2018: IoU 0.50 … 0.95"),
            Score("ap50", "AP50", float(found.image_ap[0]), "TP / (TP + FP + FN) at IoU 0.5"),
            Score("pq", "PQ", quality.pq, "panoptic quality, SQ · RQ"),
            Score("sq", "SQ", quality.sq, "mean IoU of the objects found"),
            Score("rq", "RQ", quality.rq, "F1 of finding objects at IoU 0.5"),
        ]
        if self.jaccard is not None:
            scores.append(Score("aji", "AJI", self.jaccard.compute().aji, "aggregated Jaccard index, by pixels"))
        return tuple(scores)


def _classes(labels: NDArray[Any]) -> dict[int, int]:
    """The class of each label: 0 is background, all others are objects."""
    return {label: _OBJECT if label else _BACKGROUND for label in np.unique(labels).tolist()}


def compare_instances(
    pairing: Pairing, options: CompareOptions, *, prediction: str, target: str, progress: Progress | None = None
) -> Report:
    """Compare objects.

    Args:
        pairing: from `linocut.engine.pairing.pair_files`.
        options: how; classes are not looked at.
        prediction: what to call the predictions in the report.
        target: what to call the truth.
        progress: called with the images done and how many there are.

    Raises:
        ImageError: if a file turns out to be damaged.
        ValueError: if a label is negative.
    """
    total = _Objects()
    rows = []
    for done, pair in enumerate(pairing.pairs, 1):
        one = _Objects()
        one.update(pair, options.ignored)
        rows.append(_image_row(pair, one))
        total.merge(one)
        if progress is not None:
            progress(done, len(pairing.pairs))
    images = order_worst_first(rows, "ap")
    style = InstanceStyle(options.ignored)
    notes = () if total.jaccard is not None else ('AJI is left out: it needs SciPy, pip install "linocut[metrics]".',)
    examples = picture_examples(images[: options.worst], pairing.pairs, style, options.images)
    return Report(
        task="instance",
        prediction=prediction,
        target=target,
        settings={**options.settings, "ignore": options.ignored},
        scores=total.scores(),
        rank="ap",
        thresholds=_thresholds(total.matching),
        images=images,
        examples=examples,
        legend=style.legend,
        missing=pairing.missing,
        extra=pairing.extra,
        notes=(*notes, *photo_notes(examples, options.images)),
    )


def _image_row(pair: Pair, one: _Objects) -> ImageRow:
    """The figures of one image; an image without any object, true or predicted, has none."""
    scores = {score.key: score.value for score in one.scores() if score.key in ("ap", "ap50", "pq", "aji")}
    found = int(one.matching.tp[0])
    counts = {"objects": one.matching.objects, "found": found, "missed": one.matching.objects - found}
    counts["false"] = one.matching.predictions - found
    return ImageRow(pair.name, pair.target.width, pair.target.height, counts, scores)


def _thresholds(matching: InstanceMatching) -> tuple[dict[str, float], ...]:
    """One row a threshold, all images together."""
    found = matching.compute()
    keys = ("ap", "precision", "recall", "f1", "tp", "fp", "fn")
    columns = [[float(t) for t in found.thresholds], *(list(getattr(found, key)) for key in keys)]
    rows = zip(*columns, strict=True)
    return tuple({key: _plain(value) for key, value in zip(("iou", *keys), row, strict=True)} for row in rows)


def _plain(value: float) -> float:
    """A Python number; a count stays whole."""
    return value if isinstance(value, int) else float(value) if not math.isnan(value) else math.nan
