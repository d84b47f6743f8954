"""Panoptic quality and average precision beside their peers, from real label maps.

    RAYON_NUM_THREADS=1 python -m benchmarks.metrics_instances --data PACKS

PACKS holds the folders coco200 and dsb2018, of which the val split is read. Predictions are the true maps with every
object moved and some merged, lost or recoloured, the same for all. Every contender starts from what it takes: maps in
memory, or run lengths encoded before; the peers, and how to bring them, are in `benchmarks.peers.instances`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from benchmarks.common import Clocks, Contender, Timing, alternate, arguments, command, ratio
from benchmarks.peers.instances import COCO, INSTANCES, PANOPTIC, Coco, PanopticImage
from benchmarks.report import Goal, Report, machine, plot_bars, write
from linocut.data.packs import read_pack
from linocut.data.rle import decode_rle
from linocut.metrics import CocoAveragePrecision, InstanceMatching, PanopticQuality
from linocut.metrics.instances import DSB_THRESHOLDS

OURS = "Linocut"
Map = NDArray[np.integer]
AGREE = 1e-4
# Peers that run once, and on the smaller maps only.
SLOW = ("torchmetrics",)


def moved(labels: Map, rng: np.random.Generator) -> Map:
    """The map with its objects shifted and thickened, one in ten lost and one in ten joined to the next."""
    names = np.arange(int(labels.max()) + 1)
    fate = rng.random(names.size)
    names[fate < 0.1] = 0
    joined = np.flatnonzero((fate > 0.9) & (np.arange(names.size) > 1))
    names[joined] = names[joined - 1]
    shift = tuple(int(s) for s in rng.integers(-3, 4, 2))
    return cv2.dilate(np.roll(names[labels], shift, (0, 1)).astype(np.uint16), np.ones((3, 3), np.uint8))


def tiled(labels: Map, times: int, step: int) -> Map:
    """The map times² times beside itself; labels of the k-th copy are k · step more. The smallest type holds them."""
    steps = step * np.arange(times * times).reshape(times, times)
    copies = np.tile(labels.astype(np.int64), (times, times))
    named = np.where(copies > 0, copies + np.kron(steps, np.ones(labels.shape, np.int64)), 0)
    return named.astype(np.min_scalar_type(int(named.max())))


def nuclei(data: Path, times: int, limit: int) -> list[tuple[Map, Map]]:
    """Prediction and target of images of nuclei, tiled."""
    rng = np.random.default_rng(0)
    targets = [image.load_labels()[0] for image in read_pack(data / "dsb2018", "val").images[:limit]]
    steps = [int(target.max()) + 1 for target in targets]
    return [
        (tiled(moved(target, rng), times, step), tiled(target, times, step))
        for target, step in zip(targets, steps, strict=True)
    ]


def panoptic(data: Path, times: int) -> tuple[list[PanopticImage], dict[int, bool]]:
    """Images of segments, tiled, and which classes are things."""
    rng = np.random.default_rng(0)
    segments = json.loads((data / "coco200" / "segments.json").read_text())
    images, things = [], {}
    for image in read_pack(data / "coco200", "val").images:
        target = image.load_labels()[0].astype(np.uint16)
        held = {s["label"]: s["category_id"] for s in segments[image.id]}
        things |= {s["category_id"]: bool(s["isthing"]) for s in segments[image.id]}
        step = max(held) + 1
        prediction, target = tiled(moved(target, rng), times, step), tiled(target, times, step)
        names = {label: held[label % step] for label in np.union1d(prediction, target).tolist() if label}
        images.append(PanopticImage(prediction, target, names, names))
    return images, things


def coco(data: Path) -> Coco:
    """Objects, and for each one to seven detections made of it, as COCO's dictionaries with compressed run lengths."""
    rng = np.random.default_rng(0)
    segments = json.loads((data / "coco200" / "segments.json").read_text())
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    found: list[dict[str, Any]] = []
    for number, image in enumerate(read_pack(data / "coco200", "val").images):
        labels = image.load_labels()[0]
        truth["images"].append({"id": number, "height": labels.shape[0], "width": labels.shape[1]})
        for segment in (s for s in segments[image.id] if s["isthing"]):
            mask = (labels == segment["label"]).astype(np.uint8)
            entry = {"image_id": number, "category_id": segment["category_id"]}
            rle, area = _encoded(mask), int(mask.sum())
            box = coco_mask.toBbox(rle).tolist()
            place = {"id": len(truth["annotations"]) + 1, "iscrowd": int(segment["iscrowd"]), "area": area, "bbox": box}
            truth["annotations"].append({**entry, **place, "segmentation": rle})
            for _ in range(int(rng.integers(1, 8))):
                size = int(rng.integers(1, 12))
                shape = cv2.morphologyEx(mask, int(rng.integers(0, 2)), np.ones((size, size), np.uint8))
                shape = np.roll(shape, rng.integers(-6, 7, 2), (0, 1))
                if shape.any():
                    found.append({**entry, "segmentation": _encoded(shape), "score": float(rng.random())})
    classes = sorted({entry["category_id"] for entry in truth["annotations"]})
    truth["categories"] = [{"id": cls, "name": str(cls)} for cls in classes]
    return truth, found


def _encoded(mask: NDArray[np.uint8]) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def our_panoptic(images: list[PanopticImage], classes: dict[int, bool]) -> float:
    """Ours, from maps to PQ."""
    names = tuple(sorted(classes))
    quality = PanopticQuality(classes=names, things=tuple(cls for cls in names if classes[cls]))
    for image in images:
        quality.update(image.prediction, image.target, image.prediction_classes, image.target_classes)
    return quality.compute().all.pq


def our_instances(pairs: list[tuple[Map, Map]]) -> float:
    """Ours, from maps to the mean AP; an IoU equal to a threshold is a hit, as it is for the peers."""
    matching = InstanceMatching(inclusive=True)
    for prediction, target in pairs:
        matching.update(prediction, target)
    return matching.compute().mean_image_ap


def our_coco(data: Coco) -> Callable[[], float]:
    """Ours, from run lengths to AP."""
    truth, found = data
    by_image: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
        i["id"]: ([], []) for i in truth["images"]
    }
    for entry in found:
        by_image[entry["image_id"]][0].append(entry)
    for entry in truth["annotations"]:
        by_image[entry["image_id"]][1].append(entry)
    prepared = []
    for image in truth["images"]:
        detections, objects = by_image[image["id"]]
        prepared.append(
            {
                "image": image["id"],
                "masks": [_lengths(e["segmentation"]) for e in detections],
                "scores": np.array([e["score"] for e in detections]),
                "classes": np.array([e["category_id"] for e in detections], np.int64),
                "target_masks": [_lengths(e["segmentation"]) for e in objects],
                "target_classes": np.array([e["category_id"] for e in objects], np.int64),
                "crowd": np.array([e["iscrowd"] for e in objects], np.bool_),
                "pixels": image["height"] * image["width"],
            }
        )

    def run() -> float:
        precision = CocoAveragePrecision()
        for image in prepared:
            precision.update(**image)
        return precision.compute().ap

    return run


def _lengths(rle: dict[str, Any]) -> NDArray[np.int64]:
    """Uncompressed run lengths."""
    flat = decode_rle(rle).ravel("F")
    places = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], places, [flat.size]]))
    return np.concatenate([[0], lengths]) if flat[0] else lengths


def tasks(data: Path) -> dict[str, tuple[Callable[[], float], dict[str, Callable[[], Callable[[], float]]]]]:
    """For each task our run, and how to prepare each peer's."""
    found: dict[str, tuple[Callable[[], float], dict[str, Callable[[], Callable[[], float]]]]] = {}
    for times, size in ((1, "640 × 480"), (3, "1920 × 1440")):
        images, classes = panoptic(data, times)
        peers = {
            name: partial(make, images, classes) for name, make in PANOPTIC.items() if times == 1 or name not in SLOW
        }
        found[f"PQ, {len(images)} COCO maps of {size}"] = partial(our_panoptic, images, classes), peers
    for times, limit in ((1, 1000), (4, 12)):
        pairs = nuclei(data, times, limit)
        peers = {name: partial(make, pairs, DSB_THRESHOLDS) for name, make in INSTANCES.items()}
        found[f"AP, {len(pairs)} maps of nuclei, tiled {times} × {times}"] = partial(our_instances, pairs), peers
    annotations = coco(data)
    title = f"COCO AP, {len(annotations[1])} detections, {len(annotations[0]['images'])} images"
    found[title] = our_coco(annotations), {name: partial(make, annotations) for name, make in COCO.items()}
    return found


@contextmanager
def missing(notes: list[str], name: str) -> Iterator[None]:
    """Note a peer that cannot be imported, and go on."""
    try:
        yield
    except ImportError as error:
        notes.append(f"{name} is missing ({error}).")


def measure(data: Path, rounds: int) -> tuple[dict[str, Timing], list[Goal], list[str]]:
    """Time every task; figures of peers that differ from ours, and peers that are missing, are told in notes."""
    timings: dict[str, Timing] = {}
    goals, notes = [], []
    for task, (ours, peers) in tasks(data).items():
        runs = {OURS: ours}
        for name, prepare in peers.items():
            with missing(notes, f"{task}: {name}"):
                runs[name] = prepare()
        figures = {}
        for name, run in runs.items():
            start = Clocks.read()
            figures[name] = run()
            if name in SLOW:
                timings[f"{task}: {name}"] = Timing.of(f"{task}: {name}", [Clocks.read() - start])
        notes += [
            f"{task}: {name} says {figure:.6f}, Linocut {figures[OURS]:.6f}."
            for name, figure in figures.items()
            if abs(figure - figures[OURS]) > AGREE
        ]
        contenders = [Contender(f"{task}: {name}", run) for name, run in runs.items() if name not in SLOW]
        timings |= alternate(contenders, rounds=rounds)
        for name in list(runs)[1:]:
            measured = ratio(timings, f"{task}: {name}", f"{task}: {OURS}")
            goals.append(Goal(f"{task}: {name}'s CPU time over ours", 5, measured, at_least=True))
    return timings, goals, notes


_NOTES = (
    "All contenders get the same maps in memory, or run lengths that were made of them before the clock starts "
    "(hotcoco's panoptic form takes no maps in memory; pycocotools and faster-coco-eval parse compressed ones within "
    "their time, ours are lists of numbers). Ours writes no files and keeps no pixels.",
    "torchmetrics runs once, and only on the smaller maps.",
    "Figures agree to 1e-4 unless a note below says otherwise.",
)


def main() -> None:
    """Measure, then write metrics_instances.json, .md and .png."""
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the packs")
    options = parser.parse_args()
    description = machine(options.threads)
    timings, goals, notes = measure(options.data, options.rounds)
    report = Report(
        name="metrics_instances",
        title="Panoptic quality and average precision",
        command=command("benchmarks.metrics_instances", sys.argv[1:]),
        timings=list(timings.values()),
        goals=goals,
        notes=(*_NOTES, *notes),
    )
    write(report, options.out, description)
    plot_bars(report.timings, report.title, options.out / "metrics_instances.png")


if __name__ == "__main__":
    main()
