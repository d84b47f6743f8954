"""A model whose answers are known, and running a command line with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


def cut(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """A box cuts itself, a click the pixels of its colour; a negative click removes them."""
    mask = np.zeros(image.shape[:2], bool)
    if prompt.box is not None:
        x0, y0, x1, y1 = (int(edge) for edge in prompt.box)
        mask[y0:y1, x0:x1] = True
    for (x, y), positive in zip(prompt.points, prompt.labels, strict=True):
        mask[(image == image[int(y), int(x)]).all(axis=2)] = positive
    return mask


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

    def encode(self, image: np.ndarray) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return image

    def decode(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> list[Mask]:
        self.log += prompts
        return [Mask(cut(embedding, prompt)) for prompt in prompts]

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


def run_script(script: str, *args: str | Path) -> Ran:
    """Run a Python script with a command line in a process of its own, where it may import these stand-ins."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def assert_refused(ran: Ran, code: int, *words: str) -> None:
    """The exit code, and one line on stderr with these words in it."""
    assert ran.code == code, ran
    assert re.fullmatch(r"linocut: error: [^\n]+\n", ran.err), ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err
