"""The demo: a click, a box and everything on the bundled samples and on one large image made on the spot."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from linocut.data.images import open_image
from linocut.data.overlay import draw_labels, overlay, write_png
from linocut.metrics.interaction import iou
from linocut.vision.everything import Everything
from linocut.vision.segmenter import Segmenter

POINTS_PER_SIDE = 14
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
        labels: (H, W) reference object numbers, 0 for none.
        click_object: which of them the click means.
        box_object: which of them the box means.
    """

    title: str
    image: NDArray[np.uint8]
    click: tuple[float, float]
    box: tuple[float, float, float, float]
    labels: NDArray[np.int32]
    click_object: int
    box_object: int


@dataclass(frozen=True)
class DemoRow:
    """What one sample took, in seconds of wall time, and gave.

    Attributes:
        title: what the sample shows.
        size: (height, width) in pixels.
        encode: seconds until the first click is possible.
        click: seconds for the click.
        everything: seconds for everything.
        click_iou: overlap of the click's mask with the reference, 0 to 1.
        box_iou: overlap of the box's mask with the reference, 0 to 1.
        objects: how many there were in everything.
        picture: the file with the panels.
    """

    title: str
    size: tuple[int, int]
    encode: float
    click: float
    everything: float
    click_iou: float
    box_iou: float
    objects: int
    picture: Path


def bundled_samples() -> list[Sample]:
    """The samples that ship with the package."""
    folder = Path(str(resources.files("linocut") / "samples"))
    return [
        Sample(
            title=entry["title"],
            image=open_image(folder / entry["file"]),
            click=tuple(entry["click"]),
            box=tuple(entry["box"]),
            labels=np.asarray(cv2.imread(str(folder / entry["labels"]), cv2.IMREAD_UNCHANGED), dtype=np.int32),
            click_object=entry["click_object"],
            box_object=entry["box_object"],
        )
        for entry in json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    ]


def large_sample(sample: Sample) -> Sample:
    """A large image: a sample enlarged to 3072 × 2048 pixels, with its click, box and reference."""
    height, width = sample.image.shape[:2]
    size = (_LARGE[1], _LARGE[0])
    sx, sy = _LARGE[1] / width, _LARGE[0] / height
    x0, y0, x1, y1 = sample.box
    labels = cv2.resize(sample.labels.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    return replace(
        sample,
        title=f"{sample.title}, large",
        image=np.asarray(cv2.resize(sample.image, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8),
        click=((sample.click[0] + 0.5) * sx, (sample.click[1] + 0.5) * sy),  # the centre of the pixel clicked
        box=(x0 * sx, y0 * sy, x1 * sx, y1 * sy),
        labels=np.asarray(labels, dtype=np.int32),
    )


def run_demo(model: Segmenter, out: str | Path = "demo-out", *, console: Console | None = None) -> list[DemoRow]:
    """Cut every sample, save pictures side by side, print a table with times.

    Args:
        model: the segmenter.
        out: the folder for the pictures; made if missing.
        console: where progress and table go; standard output by default.

    Returns:
        For each sample what it took and gave, and last for the large image.

    Raises:
        OSError: if the folder cannot be made or written to.
    """
    console = console or Console()
    out = Path(out)
    samples = bundled_samples()
    samples.append(large_sample(samples[0]))
    rows = [cut_sample(model, sample, out) for sample in track(samples, "cutting", console=console, transient=True)]
    console.print(_table(rows))
    console.print(f"The pictures are in {out.resolve()}", soft_wrap=True)
    return rows


def cut_sample(model: Segmenter, sample: Sample, out: Path) -> DemoRow:
    """A click, a box and everything on one sample; the picture is saved as a PNG named after it.

    Args:
        model: the segmenter.
        sample: the picture with its prompts.
        out: the folder for the picture; made if missing.
    """
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
    picture = out / f"{sample.title.replace(', ', '-').replace(' ', '-')}.png"
    write_png(picture, _panels(sample, clicked, boxed, found))
    return DemoRow(
        title=sample.title,
        size=(sample.image.shape[0], sample.image.shape[1]),
        encode=encoded - start,
        click=done - encoded,
        everything=finished - begun,
        click_iou=iou(clicked, sample.labels == sample.click_object),
        box_iou=iou(boxed, sample.labels == sample.box_object),
        objects=len(found.masks),
        picture=picture,
    )


def _panels(
    sample: Sample, clicked: NDArray[np.bool_], boxed: NDArray[np.bool_], found: Everything
) -> NDArray[np.uint8]:
    """The image with its prompts, and the three answers, side by side."""
    image = sample.image
    count = len(found.masks)
    everything = f"everything, {POINTS_PER_SIDE} x {POINTS_PER_SIDE} points: {count} object{'s' * (count != 1)}"
    return np.hstack(
        [
            _panel(overlay(image, None, points=[sample.click], box=sample.box), sample.title),
            _panel(overlay(image, clicked, points=[sample.click]), "one click"),
            _panel(overlay(image, boxed, box=sample.box), "one box"),
            _panel(draw_labels(image, found.label_map), everything),
        ]
    )


def _panel(image: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """An image scaled to the panels' height, with a caption above."""
    width = round(image.shape[1] * _PANEL / image.shape[0])
    scaled = np.asarray(cv2.resize(image, (width, _PANEL), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    strip = np.full((32, width, 3), 255, dtype=np.uint8)
    cv2.putText(strip, caption, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    return np.pad(np.vstack([strip, scaled]), ((0, 8), (4, 4), (0, 0)), constant_values=255)


def _table(rows: list[DemoRow]) -> Table:
    """The rows as a table that fits 80 columns; times are in seconds."""
    table = Table(
        title=f"Linocut on this machine: wall seconds; everything with {POINTS_PER_SIDE} x {POINTS_PER_SIDE} points",
        caption="IoU: overlap with the sample's reference mask. The first row includes warming up.",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for name in ("sample", "pixels", "encode", "click", "IoU", "box IoU", "everything", "objects"):
        table.add_column(name, justify="left" if name == "sample" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.title,
            f"{row.size[1]}x{row.size[0]}",
            f"{row.encode:.2f}",
            f"{row.click:.3f}",
            f"{row.click_iou:.2f}",
            f"{row.box_iou:.2f}",
            f"{row.everything:.1f}",
            str(row.objects),
        )
    return table
