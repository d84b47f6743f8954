"""A session: one person, one image, one object after another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from linocut.vision.masks import Mask
from linocut.vision.prompts import GivenMask, Prompt
from linocut.vision.segmenter import Segmenter


@dataclass(frozen=True)
class Annotation:
    """An accepted mask with its label and the prompt that led to it."""

    label: str
    mask: Mask
    prompt: Prompt


class Session:
    """Click until the mask is right, accept it, go on with the next object.

    The mask is a function of the set of prompts: their order does not matter, and undoing one gives back exactly the
    mask there was before.

    Args:
        model: the segmenter.
        image: (H, W, 3) uint8; encoded here, once.

    Example:
        >>> import linocut
        >>> image = np.zeros((96, 128, 3), np.uint8)
        >>> image[24:72, 32:80] = (200, 80, 40)
        >>> session = linocut.load().open(image)
        >>> mask = session.click(56, 48)
        >>> better = session.click(100, 48, positive=False)
        >>> session.undo() is mask, session.redo() is better
        (True, True)
        >>> session.choose(0) is better.candidates[0]
        True
        >>> session.accept("square").label
        'square'
        >>> boxed = session.box(32, 24, 80, 72)
        >>> session.reset()
        >>> painted = session.paint(image[..., 0] > 100)
        >>> session.mask is painted, len(session.annotations)
        (True, 1)
    """

    def __init__(self, model: Segmenter, image: NDArray[np.uint8]) -> None:
        self.model = model
        self.image = image
        self.embedding = model.encode(image)
        self.annotations: list[Annotation] = []
        self._past: list[tuple[Prompt, Mask | None]] = []
        self._now: tuple[Prompt, Mask | None] = (Prompt(), None)
        self._future: list[tuple[Prompt, Mask | None]] = []

    @property
    def mask(self) -> Mask | None:
        """The mask of the prompts so far; None before the first."""
        return self._now[1]

    @property
    def prompt(self) -> Prompt:
        """The prompts so far."""
        return self._now[0]

    def click(self, x: SupportsFloat, y: SupportsFloat, positive: bool = True) -> Mask:
        """Say that the pixel (x, y) belongs to the object, or with ``positive=False`` that it does not.

        A whole number means that pixel's centre.

        Raises:
            TypeError: if x or y is no number.
            ValueError: if the point lies outside the image, or a negative point comes before anything positive.
        """
        column, row = _numbers("click", x=x, y=y)
        height, width = self.embedding.size
        if not (0 <= column < width and 0 <= row < height):
            raise ValueError(f"click ({column:g}, {row:g}) lies outside the image, which is {width} x {height} pixels")
        prompt = self.prompt
        point = (column + 0.5 * column.is_integer(), row + 0.5 * row.is_integer())
        return self._ask(replace(prompt, points=(*prompt.points, point), labels=(*prompt.labels, positive)))

    def box(self, x0: SupportsFloat, y0: SupportsFloat, x1: SupportsFloat, y1: SupportsFloat) -> Mask:
        """Say that the object fills this box; replaces an earlier box.

        Raises:
            TypeError: if an edge is no number.
            ValueError: if the box has no area or does not touch the image.
        """
        left, top, right, bottom = _numbers("box", x0=x0, y0=y0, x1=x1, y1=y1)
        return self._ask(replace(self.prompt, box=(left, top, right, bottom)))

    def paint(self, mask: NDArray[Any]) -> Mask:
        """Start from a mask of one's own; replaces an earlier one.

        Args:
            mask: (H, W) bool or integer, 0 is background.

        Raises:
            TypeError: if the mask holds neither bools nor integers: probabilities must be cut first.
            ValueError: if the mask has not the image's shape, or is empty and there is nothing else to go by.
        """
        return self._ask(replace(self.prompt, mask=GivenMask.of(mask)))

    def choose(self, index: int) -> Mask:
        """Take another of the current mask's candidates: 0 the smallest.

        Later prompts correct the candidate chosen. Undone like any step.

        Raises:
            ValueError: if there is no mask yet, or no such candidate.
        """
        if self.mask is None:
            raise ValueError("choose needs a mask: click or box first")
        if not 0 <= index < len(self.mask.candidates):
            raise ValueError(f"choose: candidates are 0 to {len(self.mask.candidates) - 1}, got {index}")
        picked = self.mask.candidates[index]
        given = GivenMask.of(picked.crop, offset=picked.bbox[:2], shape=picked.size)
        self._step(replace(self.prompt, mask=given), picked)
        return picked

    def undo(self) -> Mask | None:
        """Take back the last prompt; nothing happens if there is none. Returns the mask there was before it."""
        if self._past:
            self._future.append(self._leave())
            self._now = self._past.pop()
        return self.mask

    def redo(self) -> Mask | None:
        """Bring back the prompt last undone; nothing happens if there is none."""
        if self._future:
            self._past.append(self._leave())
            self._now = self._future.pop()
        return self.mask

    def reset(self) -> None:
        """Forget all prompts of the current object; annotations stay, and ``undo`` brings the prompts back."""
        if self.mask is not None:
            self._step(Prompt(), None)

    def accept(self, label: str = "object") -> Annotation:
        """Keep the current mask under a label, without its candidates, and start the next object.

        Raises:
            ValueError: if there is no mask.
        """
        if self.mask is None:
            raise ValueError("accept needs a mask: click or box first")
        annotation = Annotation(label, self.mask.with_candidates(()), self.prompt)
        self.annotations.append(annotation)
        self._past, self._now, self._future = [], (Prompt(), None), []
        return annotation

    def _ask(self, prompt: Prompt) -> Mask:
        mask = self.model.decode(self.embedding, [prompt])[0]
        self._step(prompt, mask)
        return mask

    def _step(self, prompt: Prompt, mask: Mask | None) -> None:
        self._past.append(self._leave())
        self._now = (prompt, mask)
        self._future.clear()

    def _leave(self) -> tuple[Prompt, Mask | None]:
        """The present step, to be kept: without pixels, which may take more memory than all else and can be remade."""
        if self.mask is not None:
            self.mask.drop_pixels()
        return self._now


def _numbers(what: str, **coordinates: Any) -> list[float]:
    """Coordinates as floats, whatever kind of number they are.

    Raises:
        TypeError: for one that is no number, be it a string of digits.
    """
    wrong = [f"{name}={value!r}" for name, value in coordinates.items() if not isinstance(value, SupportsFloat)]
    if wrong:
        raise TypeError(f"{what} takes numbers, in pixels, got {', '.join(wrong)}")
    return [float(value) for value in coordinates.values()]
