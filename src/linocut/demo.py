"""The demo: a click, a box and everything on the bundled samples and on one large image made on the spot."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from linocut.data.files import atomic_path
from linocut.data.images import open_image
from linocut.data.overlay import overlay
from linocut.vision.segmenter import Segmenter

POINTS_PER_SIDE = 16
_PANEL = 360
_LARGE = (2048, 3072)


@dataclass(frozen=True)
class Sample:
    """A picture with a click and a box on objects in it.

    Attributes:
        title: what it shows.
        image: (H, W, 3) uint8.
        click: x, y in pixels.
        box: x0, y0, x1, y1 in pixels.
        labels: (H, W) ground-truth object numbers, 0 for none; None where there is no ground truth.
    """

    title: str
    image: NDArray[np.uint8]
    click: tuple[float, float]
    box: tuple[float, float, float, float]
    labels: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class DemoRow:
    """What one sample took, in seconds of wall time, and gave."""

    title: str
    size: tuple[int, int]
    encode: float
    click: float
    everything: float
    objects: int
    picture: Path


def bundled_samples() -> list[Sample]:
    """The samples that ship with the package."""
    folder = Path(str(resources.files("linocut") / "samples"))
    samples = []
    for entry in json.loads((folder / "samples.json").read_text(encoding="utf-8")):
        labels = None
        if entry["labels"]:
            raw = cv2.imread(str(folder / entry["labels"]), cv2.IMREAD_UNCHANGED)
            labels = np.asarray(raw, dtype=np.int32)
        image = open_image(folder / entry["file"])
        samples.append(Sample(entry["title"], image, tuple(entry["click"]), tuple(entry["box"]), labels))
    return samples


def large_sample(samples: list[Sample]) -> Sample:
    """One large image: the first sample enlarged to 3072 × 2048 pixels, with its click and box."""
    first = samples[0]
    height, width = first.image.shape[:2]
    image = cv2.resize(first.image, (_LARGE[1], _LARGE[0]), interpolation=cv2.INTER_CUBIC)
    sx, sy = _LARGE[1] / width, _LARGE[0] / height
    x0, y0, x1, y1 = first.box
    return Sample(
        f"{first.title}, large",
        np.asarray(image, dtype=np.uint8),
        (first.click[0] * sx, first.click[1] * sy),
        (x0 * sx, y0 * sy, x1 * sx, y1 * sy),
    )


def run_demo(model: Segmenter, out: str | Path = "demo-out", *, console: Console | None = None) -> list[DemoRow]:
    """Cut every sample, save pictures side by side, print a table with times.

    Args:
        model: the segmenter.
        out: the folder for the pictures; made if missing.
        console: where progress and table go; standard output by default.
    """
    console = console or Console()
    out = Path(out)
    samples = bundled_samples()
    samples.append(large_sample(samples))
    rows = [cut_sample(model, sample, out) for sample in track(samples, "cutting", console=console, transient=True)]
    console.print(_table(rows))
    console.print(f"The pictures are in {out.resolve()}", soft_wrap=True)
    return rows


def cut_sample(model: Segmenter, sample: Sample, out: Path) -> DemoRow:
    """A click, a box and everything on one sample; the picture is saved as a PNG named after it."""
    start = time.perf_counter()
    session = model.open(sample.image)
    encoded = time.perf_counter()
    clicked = session.click(*sample.click).array
    done = time.perf_counter()
    session.reset()
    boxed = session.box(*sample.box).array
    begun = time.perf_counter()
    found = model.everything(sample.image, points_per_side=POINTS_PER_SIDE)
    finished = time.perf_counter()
    image = sample.image
    panels = [
        _panel(overlay(image, None, points=[sample.click], box=sample.box), sample.title),
        _panel(overlay(image, clicked, points=[sample.click]), "one click"),
        _panel(overlay(image, boxed, box=sample.box), "one box"),
        _panel(overlay(image, found.label_map), f"everything: {len(found.masks)} objects"),
    ]
    picture = out / f"{sample.title.replace(', ', '-').replace(' ', '-')}.png"
    with atomic_path(picture) as path:
        cv2.imwrite(str(path), cv2.cvtColor(np.hstack(panels), cv2.COLOR_RGB2BGR))
    size = (image.shape[0], image.shape[1])
    return DemoRow(sample.title, size, encoded - start, done - encoded, finished - begun, len(found.masks), picture)


def _panel(image: NDArray[Any], caption: str) -> NDArray[np.uint8]:
    """An image scaled to the panels' height, with a caption above."""
    width = round(image.shape[1] * _PANEL / image.shape[0])
    scaled = np.asarray(cv2.resize(image, (width, _PANEL), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    strip = np.full((32, width, 3), 255, dtype=np.uint8)
    cv2.putText(strip, caption, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    return np.pad(np.vstack([strip, scaled]), ((0, 8), (4, 4), (0, 0)), constant_values=255)


def _table(rows: list[DemoRow]) -> Table:
    table = Table(title=f"Linocut on this machine (everything: {POINTS_PER_SIDE} x {POINTS_PER_SIDE} points)")
    for name in ("sample", "pixels", "encode s", "click s", "everything s", "objects", "picture"):
        table.add_column(name, justify="left" if name in ("sample", "picture") else "right")
    for row in rows:
        table.add_row(
            row.title,
            f"{row.size[1]} x {row.size[0]}",
            f"{row.encode:.2f}",
            f"{row.click:.3f}",
            f"{row.everything:.1f}",
            str(row.objects),
            row.picture.name,
        )
    return table
