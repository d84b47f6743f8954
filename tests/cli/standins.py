"""A model whose answers are known, and running a command line with it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from linocut.cli.app import app
from linocut.vision.prompts import Prompt

WIDTH, HEIGHT = 40, 30
QUALITY = {"stability_score": 0.8, "point_coords": [[1.5, 2.5]]}


@dataclass
class Mask:
    array: np.ndarray
    score: float = 0.875
    stability: float = 0.96

    @property
    def area(self) -> int:
        return int(self.array.sum())

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        rows, columns = np.nonzero(self.array)
        return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1

    def rle(self) -> dict[str, Any]:
        rle = coco_mask.encode(np.asfortranarray(self.array.astype(np.uint8)))
        return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


@dataclass
class Session:
    """A click cuts the pixels of its colour, a negative click removes them, a box cuts itself."""

    image: np.ndarray
    log: list[Any]
    mask: np.ndarray = field(init=False)
    prompt: Prompt = field(default_factory=Prompt)

    def __post_init__(self) -> None:
        self.mask = np.zeros(self.image.shape[:2], bool)

    def click(self, x: float, y: float, positive: bool = True) -> Mask:
        self.log.append((x, y, positive))
        points, labels = (*self.prompt.points, (x + 0.5, y + 0.5)), (*self.prompt.labels, positive)
        self.prompt = dataclasses.replace(self.prompt, points=points, labels=labels)
        same = (self.image == self.image[int(y), int(x)]).all(axis=2)
        self.mask = self.mask | same if positive else self.mask & ~same
        return Mask(self.mask)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Mask:
        self.log.append((x0, y0, x1, y1))
        self.mask[int(y0) : int(y1), int(x0) : int(x1)] = True
        return Mask(self.mask)


@dataclass
class Everything:
    mask: Mask

    @property
    def label_map(self) -> np.ndarray:
        return self.mask.array.astype(np.int32)

    def records(self) -> list[dict[str, Any]]:
        x0, y0, x1, y1 = self.mask.bbox
        box = [x0, y0, x1 - x0, y1 - y0]
        return [{"segmentation": self.mask.rle(), "area": self.mask.area, "bbox": box, "predicted_iou": 0.9, **QUALITY}]


@dataclass
class Model:
    """Stands for the Segmenter; remembers how it was loaded and asked."""

    loads: list[Any] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None

    def open(self, image: np.ndarray) -> Session:
        if self.error is not None:
            raise self.error
        return Session(image, self.log)

    def encode(self, image: np.ndarray) -> np.ndarray:
        return image

    def decode(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> list[Mask]:
        (prompt,) = prompts
        session = Session(embedding, self.log)
        return [session.box(*prompt.box) if prompt.box else session.click(*prompt.points[0])]

    def everything(self, image: np.ndarray, **options: Any) -> Everything:
        self.options.append(options)
        return Everything(Mask((image == image[10, 10]).all(axis=2)))


def draw() -> np.ndarray:
    """A red and a blue square on grey."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[5:25, 5:15] = (255, 0, 0)
    image[5:25, 20:38] = (0, 0, 255)
    return image


@dataclass
class Ran:
    code: int
    out: str
    err: str


def run(*args: str | Path) -> Ran:
    """Run a command line; an exception that got out of it is an error of the test."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """The exit code, and one line on stderr with these words in it."""
    assert ran.code == code, ran
    assert re.fullmatch(r"linocut: error: [^\n]+\n", ran.err), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
