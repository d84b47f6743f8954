"""Packs drawn by the tests: coloured shapes whose labels are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

PackWriter = Callable[..., Path]


def draw(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of three discs and its labels."""
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), 90, np.uint8)
    labels = np.zeros((side, side), np.uint8)
    for value, (x, y) in enumerate(((0.25, 0.3), (0.7, 0.35), (0.45, 0.75)), start=1):
        center, radius = (int(x * side), int(y * side)), int(side * rng.uniform(0.1, 0.18))
        cv2.circle(picture, center, radius, rng.integers(0, 256, 3).tolist(), -1)
        cv2.circle(labels, center, radius, value, -1)
    return picture, labels


@pytest.fixture
def write_pack(tmp_path: Path) -> PackWriter:
    """Write a pack of discs: ``write_pack(name, count=…, side=…, of=…, ignore=…)`` gives its folder."""

    def write(
        name: str = "discs", *, count: int = 2, side: int = 96, of: str = "photo", ignore: tuple[int, ...] = ()
    ) -> Path:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = []
        for split in ("train", "val"):
            for index in range(count):
                picture, labels = draw(index + 100 * (split == "val"), side)
                stem = f"{split}-{index}"
                cv2.imwrite(str(folder / f"{stem}.png"), picture)
                cv2.imwrite(str(folder / f"{stem}-labels.png"), labels)
                rows.append([split, stem, f"{stem}.png", f"{stem}-labels.png", side, side, 3, of])
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["split", "id", "image", "labels", "width", "height", "objects", "type"], *rows]
            )
        meta = {"name": name, "kind": "instance", "background": 0, "ignore": list(ignore)}
        (folder / "meta.json").write_text(json.dumps(meta))
        return folder

    return write
