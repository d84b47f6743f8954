"""Random detections beside objects, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from linocut.metrics.average_precision import CocoAveragePrecision


@dataclass(frozen=True)
class Image:
    """One image's detections and objects; masks are bool stacks (n, h, w)."""

    name: int
    masks: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    target_masks: np.ndarray
    target_classes: np.ndarray
    crowd: np.ndarray
    target_areas: np.ndarray

    def add_to(self, precision: CocoAveragePrecision, *, runs: bool = False) -> None:
        masks, targets = (counts(self.masks), counts(self.target_masks)) if runs else (self.masks, self.target_masks)
        precision.update(
            self.name,
            masks,
            self.scores,
            self.classes,
            targets,
            self.target_classes,
            crowd=self.crowd,
            target_areas=self.target_areas,
            pixels=self.masks[0].size if len(self.masks) else self.target_masks[0].size,
        )


def counts(masks: np.ndarray) -> list[list[int]]:
    """Uncompressed run lengths, column by column."""
    found = []
    for mask in masks:
        flat = mask.ravel("F")
        bounds = np.flatnonzero(np.diff(flat)) + 1
        lengths = np.diff([0, *bounds, flat.size]).tolist()
        found.append([0, *lengths] if flat[0] else lengths)
    return found


def random_image(name: int, rng: np.random.Generator, *, side: int = 120, detections: int = 12) -> Image:
    """Boxes with ragged rims; detections are moved objects or anything, with scores of few values, so many tie."""
    objects = [_blob(rng, side) for _ in range(rng.integers(0, 7))]
    target_classes = rng.integers(1, 4, len(objects))
    masks, classes = [], []
    for _ in range(rng.integers(0, detections + 1)):
        if objects and rng.random() < 0.8:
            which = int(rng.integers(len(objects)))
            moved = np.roll(objects[which], rng.integers(-4, 5, 2), (0, 1))
            masks.append(moved & (rng.random(moved.shape) < rng.choice([1.0, 0.95, 0.8])))
            classes.append(target_classes[which] if rng.random() < 0.9 else rng.integers(1, 5))
        else:
            masks.append(_blob(rng, side))
            classes.append(rng.integers(1, 5))
    targets = np.array(objects, bool).reshape(-1, side, side)
    areas = targets.sum((1, 2)) * rng.choice([1.0, 0.5, 2.0], len(objects))
    return Image(
        name=name,
        masks=np.array(masks, bool).reshape(-1, side, side),
        scores=rng.integers(0, 8, len(masks)) / 8,
        classes=np.array(classes, np.int64),
        target_masks=targets,
        target_classes=target_classes,
        crowd=rng.random(len(objects)) < 0.2,
        target_areas=areas,
    )


def _blob(rng: np.random.Generator, side: int) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    (top, left), (height, width) = rng.integers(0, side - 10, 2), rng.integers(3, side, 2)
    mask[top : top + height, left : left + width] = rng.random() < 0.95
    return mask & (rng.random(mask.shape) < rng.choice([1.0, 0.9]))


def coco_eval(images: list[Image], max_detections: tuple[int, ...] = (1, 10, 100)) -> Any:
    """pycocotools' evaluation, accumulated and summarised, quietly."""
    found, wanted = [], []
    for image in images:
        for mask, score, cls in zip(image.masks, image.scores, image.classes, strict=True):
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            found.append({"image_id": image.name, "category_id": int(cls), "segmentation": rle, "score": float(score)})
        rows = zip(image.target_masks, image.target_classes, image.crowd, image.target_areas, strict=True)
        for mask, cls, crowd, area in rows:
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            box = coco_mask.toBbox(rle).tolist()
            wanted.append(
                {"id": len(wanted) + 1, "image_id": image.name, "category_id": int(cls), "segmentation": rle}
                | {"iscrowd": int(crowd), "area": float(area), "bbox": box}
            )
    classes = {int(c) for image in images for c in (*image.classes, *image.target_classes)}
    side = images[0].masks.shape[1:] if len(images[0].masks) else images[0].target_masks.shape[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image.name, "height": side[0], "width": side[1]} for image in images],
            "categories": [{"id": c} for c in sorted(classes)],
            "annotations": wanted,
        }
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(found) if found else COCO(), "segm")
        result.params.maxDets = list(max_detections)
        result.evaluate()
        result.accumulate()
        if len(max_detections) == 3:
            result.summarize()
    return result
