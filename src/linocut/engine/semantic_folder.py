"""Classes for every pixel of every image in a folder.

The output folder mirrors the input's subfolders: ``labels/NAME.png`` holds the label values, ``overlays/NAME.png`` the
classes in colour over the image, and ``classes.json`` the names by label value. Every file appears whole or not at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from linocut.data.files import write_atomic
from linocut.data.overlay import label_map_to_png, write_png
from linocut.engine.batch import check_apart, name_images
from linocut.engine.semantic_evaluate import paint
from linocut.vision.semantic import SemanticSegmenter


@dataclass(frozen=True)
class SemanticJob:
    """One image and where its outputs go."""

    source: Path
    labels: Path
    overlay: Path


def plan_semantic(source: str | Path, out: str | Path) -> list[SemanticJob]:
    """Find the images of a folder, or take one image; what earlier runs wrote is not taken for images.

    Raises:
        ValueError: if the folder has no image, or is the output folder itself, or an image would be written over.
    """
    source, out = Path(source), Path(out)
    jobs = [
        SemanticJob(path, out / "labels" / f"{stem}.png", out / "overlays" / f"{stem}.png")
        for path, _, stem in name_images(source, out)
    ]
    check_apart(jobs, out)
    return jobs


def write_classes(model: SemanticSegmenter, out: str | Path) -> None:
    """Write ``classes.json``, in the form packs have it and ``linocut metrics --classes`` reads."""
    text = json.dumps({"classes": {str(value): name for value, name in model.classes.items()}}, indent=2)
    write_atomic(Path(out) / "classes.json", f"{text}\n".encode())


def classify_image(model: SemanticSegmenter, job: SemanticJob, image: NDArray[np.uint8]) -> None:
    """Classify one image and write its label map and its overlay.

    Args:
        model: the network.
        job: where the outputs go.
        image: (H, W, 3) uint8 RGB.

    Raises:
        OSError: if the outputs cannot be written.
    """
    found = model.classify(image)
    label_map_to_png(np.asarray(model.config.values)[found], job.labels)
    write_png(job.overlay, paint(image, found))
