"""Crops of images with a class for every pixel, to learn from; a batch is a function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from linocut.data.packs import PackImage, read_classes, read_pack
from linocut.engine.augment import jitter

UNKNOWN = -1
"""Class index of pixels that say nothing: ignored label values and what lies outside the image."""

_SCALES = (0.5, 2.0)
_STRETCH = 0.1
_RARE = 0.5
"""So often a crop is centred on a pixel of a class drawn evenly, which shows rare classes more often."""


@dataclass(frozen=True)
class SemanticBatch:
    """What a step learns from.

    Attributes:
        images: (B, S, S, 3) uint8, the mean colour where there is no image.
        classes: (B, S, S) int64 class indices, :data:`UNKNOWN` where nothing is known.
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]


class SemanticSource:
    """The images of one split of a semantic pack, whole or as batches of random crops.

    Decoded images stay in memory, three bytes a pixel and two for the classes.

    Args:
        folder: a pack whose kind is ``semantic``.
        split: ``train``, ``val`` or ``test``.
        seed: with the step, decides every batch.
        images: crops a batch, >= 1.
        side: of a crop in pixels, >= 32.

    Raises:
        ValueError: if the folder is no semantic pack or lacks the split, or a number is too small.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        split: str,
        seed: int = 0,
        images: int = 8,
        side: int = 320,
    ) -> None:
        for name, number, least in (("images", images, 1), ("side", side, 32)):
            if number < least:
                raise ValueError(f"{name} must be >= {least}, got {number}")
        self.pack = read_pack(folder, split)
        if self.pack.kind != "semantic":
            raise ValueError(f"{folder} must be a pack of kind semantic, its meta.json says {self.pack.kind}")
        self.names = read_classes(folder)
        self.values = tuple(self.names)
        self.seed, self.images, self.side = seed, images, side
        self._cache: dict[str, tuple[NDArray[np.uint8], NDArray[np.int16]]] = {}

    def batch(self, step: int) -> SemanticBatch:
        """The crops of one step."""
        rng = np.random.default_rng((self.seed, step))
        crops = [self._crop(rng) for _ in range(self.images)]
        return SemanticBatch(np.stack([image for image, _ in crops]), np.stack([classes for _, classes in crops]))

    def whole(self, index: int, *, keep: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        """An image of the split as it is, (H, W, 3) uint8, and its class indices, (H, W) int16.

        Args:
            index: which.
            keep: keep it in memory for the next time.

        Raises:
            ValueError: if its label map is not as large, or holds a value that is neither a class nor ignored.
        """
        item = self.pack.images[index]
        if item.id in self._cache:
            return self._cache[item.id]
        image, (labels, *_) = item.load()
        read = image, self._to_classes(labels, item)
        if keep:
            self._cache[item.id] = read
        return read

    def pixels_of_classes(self) -> NDArray[np.int64]:
        """How many pixels of the split each class has."""
        total = np.zeros(len(self.values) + 1, np.int64)
        for index in range(len(self.pack.images)):
            total += np.bincount(self.whole(index)[1].ravel() + 1, minlength=total.size)
        return total[1:]

    def _to_classes(self, labels: NDArray[np.int32], item: PackImage) -> NDArray[np.int16]:
        known = {value: index for index, value in enumerate(self.values)} | dict.fromkeys(item.ignore, UNKNOWN)
        found = np.unique(labels)
        strange = [int(value) for value in found if int(value) not in known]
        if strange:
            raise ValueError(
                f"label map {item.label_paths[0]} holds {strange}, which are neither classes ({list(self.values)}) "
                f"nor ignored ({list(item.ignore)})"
            )
        table = np.full(int(found.max()) + 1, UNKNOWN, np.int16)
        for value in found:
            table[value] = known[int(value)]
        return table[labels]

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        image, classes = self.whole(int(rng.integers(len(self.pack.images))))
        image, classes = _rescale(image, classes, rng)
        top, left = self._corner(classes, rng)
        window = slice(top, top + self.side), slice(left, left + self.side)
        image, classes = image[window], classes[window]
        if rng.random() < 0.5:
            image, classes = image[:, ::-1], classes[:, ::-1]
        pixels = np.full((self.side, self.side, 3), 127, np.uint8)
        target = np.full((self.side, self.side), UNKNOWN, np.int64)
        height, width = classes.shape
        pixels[:height, :width] = jitter(np.ascontiguousarray(image), rng)
        target[:height, :width] = classes
        return pixels, target

    def _corner(self, classes: NDArray[np.int16], rng: np.random.Generator) -> tuple[int, int]:
        """Where the crop begins: anywhere, or around a pixel of a class drawn evenly from those that are there."""
        room = [max(0, size - self.side) for size in classes.shape]
        if rng.random() < _RARE:
            there = np.unique(classes[classes != UNKNOWN])
            if there.size:
                places = np.flatnonzero(classes == rng.choice(there))
                y, x = divmod(int(rng.choice(places)), classes.shape[1])
                middle = (int(at - rng.integers(self.side)) for at in (y, x))
                top, left = (int(np.clip(at, 0, most)) for at, most in zip(middle, room, strict=True))
                return top, left
        return int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))


def _rescale(
    image: NDArray[np.uint8], classes: NDArray[np.int16], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Resize by a random factor and stretch one side a little."""
    factor = float(np.exp(rng.uniform(*np.log(_SCALES))))
    stretch = float(np.exp(rng.uniform(-_STRETCH, _STRETCH)))
    size = max(1, round(image.shape[1] * factor * stretch)), max(1, round(image.shape[0] * factor / stretch))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8), np.asarray(
        cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST), np.int16
    )
