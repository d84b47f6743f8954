"""Everything: a grid of prompts, and what survives of their masks.

The options are those of Segment Anything's automatic mask generator. What differs is the order of the work: all points
get a *first look* at 64 × 64, masks are filtered and duplicates removed at that size, and only the survivors get the
second look and are ever turned into pixels. Through coarser windows only every second, fourth … point of a grid looks
(but 4 × 4 at least), because large objects are hit by few points as well as by many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.vision.decoder import SLOTS
from linocut.vision.encoder import Embedding
from linocut.vision.masks import Mask, clean
from linocut.vision.options import EverythingOptions
from linocut.vision.prompts import Prompt, extents
from linocut.vision.segmenter import Segmenter
from linocut.vision.suppress import box_suppress, mask_suppress
from linocut.vision.windows import Window, plan

Points = NDArray[np.float64]
Look = tuple[tuple[float, float], Window]
"""A point (x, y) in pixels, and the window it is looked at through."""

_LEAST_SIDE = 4


@dataclass(frozen=True)
class Everything:
    """All objects found in an image.

    Attributes:
        masks: from the largest to the smallest.
        points: for each mask the (x, y) whose prompt found it.
        size: (height, width) of the image.
        options: as asked for.
    """

    masks: list[Mask]
    points: list[tuple[float, float]]
    size: tuple[int, int]
    options: EverythingOptions

    @cached_property
    def label_map(self) -> NDArray[np.int32]:
        """(H, W) int32: 0 for none, i for ``masks[i − 1]``; smaller objects lie on top."""
        labels = np.zeros(self.size, np.int32)
        for number, mask in enumerate(self.masks, start=1):
            x0, y0, x1, y1 = mask.bbox
            labels[y0:y1, x0:x1][mask.crop] = number
        return labels

    def records(self) -> list[dict[str, Any]]:
        """The list of dictionaries Segment Anything's generator returns, largest mask first."""
        height, width = self.size
        records = []
        for mask, point in zip(self.masks, self.points, strict=True):
            x0, y0, x1, y1 = mask.bbox
            records.append(
                {
                    "segmentation": _segmentation(mask, self.options.output_mode),
                    "area": mask.area,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "predicted_iou": mask.score,
                    "point_coords": [list(point)],
                    "stability_score": mask.stability,
                    "crop_box": [0, 0, width, height],
                }
            )
        return records


@dataclass(frozen=True)
class _Found:
    """First-look masks that passed the filters, best first where it matters."""

    logits: Tensor
    windows: list[Window]
    points: list[tuple[float, float]]
    iou: NDArray[np.float64]
    boxes: NDArray[np.float64]

    def take(self, keep: NDArray[np.intp]) -> _Found:
        rows = [int(i) for i in keep]
        return _Found(
            self.logits[torch.from_numpy(keep)],
            [self.windows[i] for i in rows],
            [self.points[i] for i in rows],
            self.iou[keep],
            self.boxes[keep],
        )


@torch.inference_mode()
def segment_everything(model: Segmenter, image: NDArray[np.uint8], options: EverythingOptions) -> Everything:
    """Find every object of an image; see the module's docstring.

    Args:
        model: the segmenter.
        image: (H, W, 3) uint8 RGB.
        options: grid, filters and output.
    """
    embedding = model.encode(image)
    layers = [_search(model, embedding, points, options) for points in layer_points(embedding.size, options)]
    found = _across_layers(layers, options)
    masks, points = _sharpen(model, embedding, found, options)
    order = sorted(range(len(masks)), key=lambda i: -masks[i].area)
    return Everything([masks[i] for i in order], [points[i] for i in order], embedding.size, options)


def layer_points(size: tuple[int, int], options: EverythingOptions) -> Iterator[list[tuple[Points, int | None]]]:
    """For each layer the grids of its crops: points (n, 2) in pixels, and how many there are along a side.

    The points of ``point_grids`` may lie anyhow and have no side: None.
    """
    for layer in range(options.crop_n_layers + 1):
        side: int | None = None
        if options.point_grids is not None:
            grid = np.asarray(options.point_grids[layer], dtype=np.float64)
        else:
            side = max(1, (options.points_per_side or 1) // options.crop_n_points_downscale_factor**layer)
            ticks = (np.arange(side) + 0.5) / side
            grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        yield [
            (grid * (x1 - x0, y1 - y0) + (x0, y0), side)
            for x0, y0, x1, y1 in _crops(size, layer, options.crop_overlap_ratio)
        ]


def _crops(size: tuple[int, int], layer: int, overlap_ratio: float) -> list[tuple[float, float, float, float]]:
    """The crops of a layer as x0, y0, x1, y1, laid out as in Segment Anything."""
    height, width = size
    count = 2**layer
    overlap = overlap_ratio * min(height, width) * 2 / count if layer else 0.0
    w, h = (width + overlap * (count - 1)) / count, (height + overlap * (count - 1)) / count
    return [
        (i * (w - overlap), j * (h - overlap), min(i * (w - overlap) + w, width), min(j * (h - overlap) + h, height))
        for j in range(count)
        for i in range(count)
    ]


def looks(size: tuple[int, int], grids: list[tuple[Points, int | None]]) -> list[Look]:
    """Which points of a layer look through which windows.

    Args:
        size: (height, width) of the image.
        grids: of :func:`layer_points`; a grid without a side is not thinned.

    Returns:
        The looks, finest windows first: windows of one level are together, so that cutting them out is one pass.
    """
    found: list[Look] = []
    for points, side in grids:
        places = [(float(x), float(y)) for x, y in points]
        windows = [plan([place], size) for place in places]
        for depth in range(len(windows[0])):
            chosen = range(len(places)) if side is None else thinned(side, depth)
            found += [(places[i], windows[i][depth]) for i in chosen]
    return sorted(found, key=lambda look: look[1].level)


def thinned(side: int, depth: int) -> list[int]:
    """Which points of a grid of ``side`` × ``side`` look through the windows ``depth`` levels above the finest.

    Every 2**depth-th along each side, from the middle of the first so many; but 4 a side at least, or all if there are
    fewer. So a larger grid never looks less.

    Example:
        >>> thinned(8, 1)
        [9, 11, 13, 15, 25, 27, 29, 31, 41, 43, 45, 47, 57, 59, 61, 63]
        >>> [len(thinned(side, 2)) for side in (1, 3, 4, 7, 8, 16, 32)]
        [1, 9, 16, 16, 16, 16, 64]
    """
    count = max(side >> depth, min(side, _LEAST_SIDE))
    ticks = [(2 * i + 1) * side // (2 * count) for i in range(count)]
    return [row * side + column for row in ticks for column in ticks]


def _search(
    model: Segmenter, embedding: Embedding, grids: list[tuple[Points, int | None]], options: EverythingOptions
) -> _Found:
    """First looks of one layer, filtered and without duplicates."""
    asked = looks(embedding.size, grids)
    parts = [
        _first_looks(model, embedding, asked[i : i + options.points_per_batch], options)
        for i in range(0, len(asked), options.points_per_batch)
    ]
    found = _join(parts)
    keep = box_suppress(found.boxes, found.iou, options.box_nms_thresh)
    return found.take(keep)


def _first_looks(
    model: Segmenter,
    embedding: Embedding,
    asked: list[Look],
    options: EverythingOptions,
) -> _Found:
    """One batch of first looks: slots 1 to 3 that pass the quality filters."""
    windows = [window for _, window in asked]
    prompts = [Prompt((point,), (True,)) for point, _ in asked]
    look = model.net.first_look(embedding.octaves, prompts, windows, [0] * len(asked), [embedding.size] * len(asked))
    logits, iou = look.logits[:, 1:].float(), look.iou[:, 1:]
    good = (iou >= options.pred_iou_thresh) & _stable(logits, options)
    rows, slots = good.nonzero(as_tuple=True)
    kept = logits[rows, slots]
    wins = [windows[int(r)] for r in rows]
    boxes = [box or (0.0, 0.0, 0.0, 0.0) for box in extents(torch.sigmoid(kept), wins)]
    found = _Found(
        kept,
        wins,
        [asked[int(r)][0] for r in rows],
        iou[rows, slots].double().numpy(),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
    )
    return found.take(np.flatnonzero([not cut_off(b, w, embedding.size) for b, w in zip(boxes, wins, strict=True)]))


def _stable(logits: Tensor, options: EverythingOptions) -> Tensor:
    """Which masks (n, slots, h, w) are not empty and stable enough; the score is that of :func:`masks.stability`."""
    inside = logits > 0
    area = inside.sum((2, 3))
    mean = (logits * inside).sum((2, 3)) / area.clamp_min(1)
    cut = (options.stability_score_offset * mean)[..., None, None]
    high, low = (logits > cut).sum((2, 3)), (logits > -cut).sum((2, 3))
    return (area > 0) & (high >= options.stability_score_thresh * low)


def cut_off(box: tuple[float, float, float, float], window: Window, size: tuple[int, int]) -> bool:
    """Whether a mask's bounding box touches an edge of its window that is not an edge of the image.

    Such an object goes on outside; a coarser window sees it whole.
    """
    height, width = size
    right, bottom = window.x + window.side, window.y + window.side
    return box[0] <= window.x > 0 or box[1] <= window.y > 0 or box[2] >= right < width or box[3] >= bottom < height


def _join(parts: list[_Found]) -> _Found:
    return _Found(
        torch.cat([p.logits for p in parts]),
        [w for p in parts for w in p.windows],
        [q for p in parts for q in p.points],
        np.concatenate([p.iou for p in parts]),
        np.concatenate([p.boxes for p in parts]),
    )


def _across_layers(layers: list[_Found], options: EverythingOptions) -> _Found:
    """One list of all layers; where layers found the same, the finer layer's mask stays."""
    found = _join(layers)
    if len(layers) == 1:
        return found
    rank = np.concatenate([np.full(len(layer.windows), index) for index, layer in enumerate(layers)]).astype(np.float64)
    return found.take(box_suppress(found.boxes, rank, options.crop_nms_thresh))


def _sharpen(
    model: Segmenter, embedding: Embedding, found: _Found, options: EverythingOptions
) -> tuple[list[Mask], list[tuple[float, float]]]:
    """Second looks at the survivors; filters and duplicates once more, now by their masks."""
    masks: list[Mask] = []
    points: list[tuple[float, float]] = []
    step = max(1, options.points_per_batch // SLOTS)
    for start in range(0, len(found.windows), step):
        part = slice(start, start + step)
        count = len(found.windows[part])
        fine = model.net.second_look(
            embedding.octaves,
            [Prompt((p,), (True,)) for p in found.points[part]],
            torch.sigmoid(found.logits[part])[:, None],
            found.windows[part],
            [0] * count,
            [embedding.size] * count,
        )
        for logits, window, score, point in zip(
            fine.logits.float().numpy(), fine.windows, fine.iou.tolist(), found.points[part], strict=True
        ):
            mask = Mask(logits, window, embedding.size, score=score, stability_offset=options.stability_score_offset)
            if score >= options.pred_iou_thresh and mask.stability >= options.stability_score_thresh:
                masks.append(clean(mask, options.min_mask_region_area))
                points.append(point)
    solid = [i for i, mask in enumerate(masks) if mask.area > 0]
    masks, points = [masks[i] for i in solid], [points[i] for i in solid]
    keep = mask_suppress(masks, options.mask_nms_thresh)
    return [masks[i] for i in keep], [points[i] for i in keep]


def _segmentation(mask: Mask, mode: str) -> Any:
    return mask.array if mode == "binary_mask" else mask.rle(compressed=mode == "coco_rle")
