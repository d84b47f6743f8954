"""What else counts panoptic quality and average precision: one function a peer, from the same arrays to its figures.

Not one of them is a dependency. ``pip install hotcoco faster-coco-eval torchmetrics`` brings three, ``pip install
--no-deps stardist csbdeep six cellpose numba llvmlite fastremap fill-voids roifile natsort`` two without their
networks, and panopticapi is a clone of its repository on PYTHONPATH. What cannot be imported is left out of the table
and listed.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.integer]


class PanopticImage(NamedTuple):
    """Two maps of segments and the class of each label."""

    prediction: Map
    target: Map
    prediction_classes: dict[int, int]
    target_classes: dict[int, int]


def panopticapi(images: Sequence[PanopticImage], classes: dict[int, bool]) -> Callable[[], float]:
    """`pq_compute_single_core`, with maps in memory where it would read PNG files."""
    from panopticapi import evaluation

    maps = {f"{kind}/{i}": getattr(image, kind) for i, image in enumerate(images) for kind in ("prediction", "target")}

    class Reader:
        @staticmethod
        def open(path: str) -> Map:
            return maps[path]

    evaluation.Image, evaluation.rgb2id = Reader, lambda labels: labels

    def entry(i: int, labels: Map, names: dict[int, int]) -> dict[str, Any]:
        present = zip(*np.unique(labels, return_counts=True), strict=True)
        info = [
            {"id": int(k), "category_id": names[int(k)], "iscrowd": 0, "area": int(n)} for k, n in present if k != 0
        ]
        return {"image_id": i, "file_name": str(i), "segments_info": info}

    pairs = [
        (entry(i, image.target, image.target_classes), entry(i, image.prediction, image.prediction_classes))
        for i, image in enumerate(images)
    ]
    categories = {cls: {"isthing": int(thing)} for cls, thing in classes.items()}

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            found = evaluation.pq_compute_single_core(0, pairs, "target", "prediction", categories)
        return float(found.pq_average(categories, None)[0]["pq"])

    return run


def torchmetrics(images: Sequence[PanopticImage], classes: dict[int, bool]) -> Callable[[], float]:
    """`PanopticQuality`, one image an update, on maps of class and instance."""
    import torch
    from torchmetrics.detection import PanopticQuality

    things, stuff = ({cls for cls, thing in classes.items() if thing is kind} for kind in (True, False))
    void = max(classes) + 1

    def coloured(labels: Map, names: dict[int, int]) -> Any:
        table = np.full(int(labels.max()) + 1, void)
        for label, cls in names.items():
            if label < table.size:
                table[label] = cls
        return torch.from_numpy(np.stack([table[labels], labels], axis=-1)[None].astype(np.int32))

    pairs = [(coloured(i.prediction, i.prediction_classes), coloured(i.target, i.target_classes)) for i in images]

    def run() -> float:
        metric = PanopticQuality(things=things, stuffs=stuff, allow_unknown_preds_category=True)
        for prediction, target in pairs:
            metric.update(prediction, target)
        return float(metric.compute())

    return run


def hotcoco_panoptic(images: Sequence[PanopticImage], classes: dict[int, bool]) -> Callable[[], float]:
    """`hotcoco.panoptic`, from run lengths that were encoded before the clock starts."""
    from hotcoco import COCO
    from hotcoco.panoptic import PanopticEval
    from pycocotools import mask as coco_mask

    sizes = [{"id": i, "height": m.target.shape[0], "width": m.target.shape[1]} for i, m in enumerate(images)]
    categories = [{"id": cls, "name": str(cls), "isthing": int(thing)} for cls, thing in classes.items()]

    def dataset(kind: str) -> Any:
        entries: list[dict[str, Any]] = []
        for i, image in enumerate(images):
            labels, names = getattr(image, kind), getattr(image, f"{kind}_classes")
            for label in np.unique(labels)[np.unique(labels) > 0].tolist():
                rle = coco_mask.encode(np.asfortranarray(labels == label, np.uint8))
                entry = {"id": len(entries) + 1, "image_id": i, "category_id": names[label], "iscrowd": 0}
                rle["counts"] = rle["counts"].decode()
                box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
                entries.append({**entry, "segmentation": rle, "bbox": box, "area": area, "score": 1.0})
        return COCO({"images": sizes, "categories": categories, "annotations": entries})

    target, prediction = dataset("target"), dataset("prediction")

    def run() -> float:
        found = PanopticEval(target, prediction)
        found.evaluate()
        return float(found.results()["All"]["pq"])

    return run


PANOPTIC = {"panopticapi": panopticapi, "torchmetrics": torchmetrics, "hotcoco, run lengths": hotcoco_panoptic}


def stardist(pairs: Sequence[tuple[Map, Map]], thresholds: Sequence[float]) -> Callable[[], float]:
    """`stardist.matching.matching` at all thresholds, the mean over images and thresholds of its accuracy."""
    from stardist.matching import matching

    def run() -> float:
        scores = [[m.accuracy for m in matching(target, found, thresh=list(thresholds))] for found, target in pairs]
        return float(np.mean(scores))

    return run


def cellpose(pairs: Sequence[tuple[Map, Map]], thresholds: Sequence[float]) -> Callable[[], float]:
    """`cellpose.metrics.average_precision` at all thresholds, the mean over images and thresholds."""
    from cellpose.metrics import average_precision

    def run() -> float:
        found, target = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return float(average_precision(target, found, threshold=list(thresholds))[0].mean())

    return run


INSTANCES = {"stardist": stardist, "cellpose": cellpose}

Coco = tuple[dict[str, Any], list[dict[str, Any]]]


def pycocotools(data: Coco) -> Callable[[], float]:
    """COCOeval: evaluate, accumulate, summarize; the index is built before the clock starts."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _coco(COCO, COCOeval, data)


def faster_coco_eval(data: Coco) -> Callable[[], float]:
    """Its C++ COCOeval."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _coco(COCO, COCOeval_faster, data)


def hotcoco(data: Coco) -> Callable[[], float]:
    """Its Rust COCOeval, on one thread."""
    from hotcoco import COCO, COCOeval

    truth = COCO(copy.deepcopy(data[0]))
    found = truth.load_res(copy.deepcopy(data[1]))

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            result = COCOeval(truth, found, "segm")
            result.run()
        return float(result.stats[0])

    return run


def _coco(index: Any, evaluation: Any, data: Coco) -> Callable[[], float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = index()
        truth.dataset = copy.deepcopy(data[0])
        truth.createIndex()
        found = truth.loadRes(copy.deepcopy(data[1]))

    def run() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            result = evaluation(truth, found, "segm")
            result.evaluate()
            result.accumulate()
            result.summarize()
        return float(result.stats[0])

    return run


COCO = {"pycocotools": pycocotools, "faster-coco-eval": faster_coco_eval, "hotcoco": hotcoco}
