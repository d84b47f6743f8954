"""How a report draws classes, and what it marks as a mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.engine.compare_pictures import CONFUSED, FALSE, IGNORED, MARKS, MISSED, Marker, legend
from linocut.engine.pairing import Pair


@dataclass(frozen=True)
class ClassStyle:
    """Classes in colours of their own.

    Attributes:
        colours: (K, 3) RGB by label.
        ignore: the label in the truth that does not count, or None.
        background: the label of what is no object, or None: then mistakes are of one kind.
        several: whether there are more classes than one beside the background.
    """

    colours: NDArray[np.uint8]
    ignore: int | None
    background: int | None
    several: bool

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Colour and meaning of the marks."""
        kinds = [(CONFUSED, "wrong class")]
        if self.background is not None:
            kinds = [(MISSED, "missed"), (FALSE, "found where nothing is")]
            kinds += [(CONFUSED, "taken for another class")] * self.several
        return legend([*kinds, (IGNORED, "ignored")] if self.ignore is not None else kinds)

    def marker(self, _pair: Pair) -> Marker:
        """What finds the mistakes: pixels one by one, so the pair does not matter."""
        return self.kinds_of

    def kinds_of(self, predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[np.uint8]:
        """What kind of mistake each pixel is; 0 where it is right."""
        kinds = np.where(predicted != true, np.uint8(CONFUSED), np.uint8(0))
        if self.background is not None:
            kinds[(kinds > 0) & (predicted == self.background)] = MISSED
            kinds[(kinds > 0) & (true == self.background)] = FALSE
        if self.ignore is not None:
            kinds[true == self.ignore] = IGNORED
        return kinds

    def draw(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """The colours of labels; what is none of them is grey."""
        known = (labels >= 0) & (labels < len(self.colours))
        picture = self.colours[np.where(known, labels, 0)]
        picture[~known] = MARKS[IGNORED]
        if self.ignore is not None:
            picture[labels == self.ignore] = MARKS[IGNORED]
        return picture
