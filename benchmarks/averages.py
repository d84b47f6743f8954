"""One MIoU or another: counts summed over images, the mean of the images' figures, and what torchmetrics gives.

    python -m benchmarks.averages

The labels are those of the bundled samples, six classes in five images, and the predictions the same moved by 8 pixels
down and to the right. Nothing is timed.
"""

from __future__ import annotations

import sys
from importlib import metadata

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from benchmarks.common import arguments, command
from benchmarks.metrics_samples import CLASSES, classes_of, names, objects_of
from benchmarks.report import Report, machine, table, write
from linocut.metrics import ConfusionMatrix

SHIFT = 8


def moved(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels moved down and to the right, with background where they came from."""
    said = np.zeros_like(labels)
    said[SHIFT:, SHIFT:] = labels[:-SHIFT, :-SHIFT]
    return said


def measure() -> dict[str, float]:
    """MIoU by each way of averaging."""
    count = len(CLASSES)
    total, images = ConfusionMatrix(count), []
    per_sample, jaccard = MeanIoU(count, input_format="index"), MulticlassJaccardIndex(count)
    for name in names():
        target = classes_of(name, objects_of(name))
        said = moved(target)
        one = ConfusionMatrix(count)
        one.update(said, target)
        images.append(one.miou)
        total.merge(one)
        pair = [torch.from_numpy(labels.astype(np.int64))[None] for labels in (said, target)]
        per_sample.update(*pair)
        jaccard.update(*pair)
    return {
        "linocut ConfusionMatrix.miou: counts summed, then divided": total.miou,
        "torchmetrics MulticlassJaccardIndex": float(jaccard.compute()),
        "mean over images of each image's MIoU": float(np.mean(images)),
        "torchmetrics segmentation.MeanIoU": float(per_sample.compute()),
    }


def main() -> None:
    """Measure, then write averages.json and averages.md."""
    options = arguments(__doc__ or "").parse_args()
    values = measure()
    report = Report(
        name="averages",
        title="One MIoU or another",
        command=command("benchmarks.averages", sys.argv[1:]),
        timings=(),
        notes=[
            f"torchmetrics {metadata.version('torchmetrics')}.",
            f"Five bundled samples, {len(CLASSES)} classes; the prediction is the truth moved by {SHIFT} pixels.",
        ],
        sections=[table(["way of averaging", "MIoU"], [[what, f"{value:.4f}"] for what, value in values.items()])],
        extra={"miou": values},
    )
    write(report, options.out, machine(options.threads))


if __name__ == "__main__":
    main()
