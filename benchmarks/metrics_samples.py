"""The bundled samples as a small test set for metrics: their truth as classes, and predictions with known faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("background", "cup", "helmet", "head", "eye", "nucleus")
_MEANINGS = {"coffee": ["cup"], "astronaut": ["helmet", "head"], "chelsea": ["eye", "eye"]}
SAMPLES = Path(str(resources.files("linocut") / "samples"))


def objects_of(name: str) -> NDArray[np.int32]:
    """(H, W) object numbers of a sample, 0 for none."""
    return np.asarray(cv2.imread(str(SAMPLES / f"{name}-labels.png"), cv2.IMREAD_UNCHANGED), np.int32)


def photo_of(name: str) -> Path:
    """The picture of a sample."""
    return next(path for path in SAMPLES.glob(f"{name}.*") if path.suffix in (".jpg", ".png"))


def names() -> list[str]:
    """The samples, by the stem of their files."""
    entries = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    return [Path(entry["file"]).stem for entry in entries]


def class_of(name: str, number: int) -> int:
    """The class of an object of a sample."""
    meanings = _MEANINGS.get(name)
    return CLASSES.index("nucleus" if meanings is None else meanings[number - 1])


def classes_of(name: str, objects: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W) classes of objects."""
    table = [0, *(class_of(name, number) for number in range(1, int(objects.max(initial=0)) + 1))]
    return np.array(table, np.uint8)[objects]


def without_the_smaller_half(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """The objects, less the half of them that has the fewest pixels."""
    areas = np.bincount(objects.ravel())[1:]
    small = np.argsort(areas, kind="stable")[: len(areas) // 2] + 1
    return np.where(np.isin(objects, small), 0, objects)


def too_wide(objects: NDArray[np.int32], pixels: int = 3) -> NDArray[np.int32]:
    """Every object grown by some pixels, where no other is."""
    side = 2 * pixels + 1
    grown = cv2.dilate(objects.astype(np.uint16), np.ones((side, side), np.uint8))
    return np.where(objects > 0, objects, grown).astype(np.int32)


def joined(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Objects that touch made one."""
    _, labels = cv2.connectedComponents((objects > 0).astype(np.uint8), connectivity=4)
    return np.asarray(labels, np.int32)


FAULTS: dict[str, Callable[[NDArray[np.int32]], NDArray[np.int32]]] = {
    "nothing found": np.zeros_like,
    "the smaller half missed": without_the_smaller_half,
    "all drawn 3 pixels too wide": too_wide,
    "those that touch made one": joined,
}
