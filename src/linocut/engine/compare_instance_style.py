"""How a report draws objects, and what it marks as a mistake."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.data.overlay import object_colours
from linocut.engine.compare_pictures import CONFUSED, FALSE, IGNORED, MARKS, MISSED, Marker, legend
from linocut.engine.pairing import Pair
from linocut.metrics.instances import match
from linocut.metrics.overlaps import overlaps

_OBJECT_COLOURS = 1024


@dataclass(frozen=True)
class InstanceStyle:
    """Objects in colours that tell neighbours apart.

    Attributes:
        ignore: the label in the truth that does not count, or None.
        threshold: the IoU above which an object is found.
        background: the label of what is no object.
    """

    ignore: int | None
    threshold: float = 0.5
    background: int = 0

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Colour and meaning of the marks."""
        kinds = [
            (MISSED, f"object missed: none with IoU > {self.threshold:g}"),
            (FALSE, "found where no object is"),
            (CONFUSED, "edge of a found object"),
        ]
        return legend([*kinds, (IGNORED, "ignored")] if self.ignore is not None else kinds)

    def marker(self, pair: Pair) -> Marker:
        """What finds the mistakes; which objects were found is known from the whole image."""
        predicted, true = pair.prediction.read(), pair.target.read()
        found = overlaps(predicted, true, ignore=None if self.ignore is None else true == self.ignore)
        found = found.without(self.background)
        pairs = match(found, self.threshold, method="greedy")
        hit, hit_by = found.target_labels[found.columns[pairs]], found.prediction_labels[found.rows[pairs]]
        missed, false = np.setdiff1d(found.target_labels, hit), np.setdiff1d(found.prediction_labels, hit_by)
        return partial(
            self._kinds_of, missed=missed, false=false, hit=dict(zip(hit.tolist(), hit_by.tolist(), strict=True))
        )

    def _kinds_of(
        self,
        predicted: NDArray[Any],
        true: NDArray[Any],
        *,
        missed: NDArray[Any],
        false: NDArray[Any],
        hit: dict[int, int],
    ) -> NDArray[np.uint8]:
        labels, places = np.unique(true, return_inverse=True)
        partner = np.array([hit.get(int(label), self.background) for label in labels])[places].reshape(true.shape)
        kinds = np.where(predicted != partner, np.uint8(CONFUSED), np.uint8(0))
        kinds[np.isin(predicted, false)] = FALSE
        kinds[np.isin(true, missed)] = MISSED
        if self.ignore is not None:
            kinds[true == self.ignore] = IGNORED
        return kinds

    def draw(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """The colours of objects; background is black, and what is ignored grey."""
        colours = object_colours(_OBJECT_COLOURS)
        picture = colours[np.where(labels == self.background, 0, 1 + labels.astype(np.int64) % (_OBJECT_COLOURS - 1))]
        if self.ignore is not None:
            picture[labels == self.ignore] = MARKS[IGNORED]
        return picture
