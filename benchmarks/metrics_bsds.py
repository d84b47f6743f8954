"""The BSDS boundary benchmark beside known figures.

    python -m benchmarks.metrics_bsds --data PACKS [--bench CLONE/bench]

Each annotator of bsds500's val split is scored against the other annotators of the image; the published F of humans on
BSDS500 is about .80. CLONE is the BSDS500 repository: its folder bench/data holds five boundary maps, their annotators'
boundaries and what the original programs made of them at five thresholds (test_2).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import arguments, command
from benchmarks.report import Goal, Report, machine, write
from linocut.data.packs import read_pack
from linocut.metrics import BoundaryBenchmark, BoundaryCurve, region_boundaries

PUBLISHED_HUMAN = 0.80
# Columns of the original's eval_bdry.txt
ODS, OIS, AP = 3, 6, 7


def humans(data: Path) -> BoundaryCurve:
    """Every annotator against the others; their maps are cut and thin already."""
    benchmark = BoundaryBenchmark(thresholds=(0.5,), thinned=False)
    for image in read_pack(data / "bsds500", "val").images:
        maps = [region_boundaries(labels) for labels in image.load_labels()]
        for k, own in enumerate(maps):
            benchmark.update(own, maps[:k] + maps[k + 1 :])
    return benchmark.compute()


def recorded(bench: Path) -> tuple[BoundaryCurve, list[float]]:
    """Ours on the five images of the benchmark, and its own record."""
    from scipy.io import loadmat

    benchmark = BoundaryBenchmark(thresholds=tuple(np.linspace(1 / 6, 5 / 6, 5).tolist()))
    for path in sorted((bench / "data" / "png").glob("*.png")):
        truth = loadmat(bench / "data" / "groundTruth" / f"{path.stem}.mat")["groundTruth"][0]
        targets = [annotator["Boundaries"][0, 0].astype(np.bool_) for annotator in truth]
        benchmark.update(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) / 255, targets)
    record = (bench / "data" / "test_2" / "eval_bdry.txt").read_text().split()
    return benchmark.compute(), [float(word) for word in record]


def main() -> None:
    """Measure, then write metrics_bsds.json and metrics_bsds.md."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the packs")
    parser.add_argument("--bench", type=Path, help="folder bench of the BSDS500 repository")
    options = parser.parse_args()
    curve = humans(options.data)
    goals = [Goal("humans on val: distance of F from the published .80", 0.02, abs(curve.ods - PUBLISHED_HUMAN))]
    notes = [f"Humans on val: F {curve.ods:.4f}, recall {curve.ods_recall:.4f}, precision {curve.ods_precision:.4f}."]
    if options.bench:
        ours, theirs = recorded(options.bench)
        for name, value, column in (("ODS", ours.ods, ODS), ("OIS", ours.ois, OIS), ("AP", ours.ap, AP)):
            goals.append(Goal(f"five recorded images: distance of {name}", 0.001, abs(value - theirs[column])))
            notes.append(f"{name} of the five recorded images: {value:.6f}, the original's {theirs[column]:.6f}.")
    report = Report(
        name="metrics_bsds",
        title="The BSDS boundary benchmark beside known figures",
        command=command("benchmarks.metrics_bsds", sys.argv[1:]),
        timings=(),
        goals=goals,
        notes=notes,
    )
    write(report, options.out, machine(options.threads))


if __name__ == "__main__":
    main()
