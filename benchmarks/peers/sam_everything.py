"""SAM's automatic mask generator on one 1024² image, step for step, with a clock on every step.

Encode once; decode a grid of points in batches of 64; for each batch upsample *every* low-resolution mask to full
size, drop those of low predicted IoU, then those of low stability at full size, threshold, take boxes, encode runs;
at the end remove duplicates by box. This is the order of the official generator with its defaults (no crop layers, no
minimal region), output as uncompressed RLE.

Random weights give noise for masks: some 130 changes a row at 256², where a photograph's object has about two. Noise
would make the peer's run-length encoding slower than it is. So the network runs in full and is timed, and then its
logits and scores are replaced by those of `realistic_logits`: three nested blobs around each point. Their cost to make
is left out.

Kirillov et al., "Segment Anything", ICCV 2023 (https://arxiv.org/abs/2304.02643), appendix B.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.common import Clocks
from benchmarks.peers.sam import SIDE, decode, encode

if TYPE_CHECKING:
    from transformers import SamModel

POINTS_PER_SIDE = 32
POINTS_PER_BATCH = 64
PRED_IOU_THRESH = 0.88
STABILITY_THRESH = 0.95
STABILITY_OFFSET = 1.0
BOX_NMS_THRESH = 0.7
LOW_SIDE = 256


@dataclass
class Everything:
    """What a run gave.

    Attributes:
        rles: uncompressed COCO run lengths of the masks kept.
        boxes: (n, 4) XYXY of the masks kept.
        steps: what each step spent, over the batches that ran.
        counts: masks left after each filter, over the batches that ran.
        batches: batches run, of the whole grid's.
        total_batches: batches of the whole grid.
    """

    rles: list[dict[str, Any]]
    boxes: Tensor
    total_batches: int
    batches: int
    steps: defaultdict[str, Clocks] = field(default_factory=lambda: defaultdict(lambda: Clocks(0.0, 0.0, 0.0)))
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def whole(self) -> Clocks:
        """What the whole grid costs: the encoder runs once, every other step is scaled to all batches."""
        factor = self.total_batches / self.batches
        weights = {step: 1.0 if step == "encode" else factor for step in self.steps}
        spent = ([weights[step] * value for value in clocks] for step, clocks in self.steps.items())
        return Clocks(*map(sum, zip(*spent, strict=True)))


def grid_points(per_side: int = POINTS_PER_SIDE) -> Tensor:
    """(per_side², 2) xy pixels of the 1024² frame, in the middles of equal cells, row by row."""
    middles = (torch.arange(per_side) + 0.5) * (SIDE / per_side)
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def generate(model: SamModel, image: NDArray[np.uint8], *, batches: int | None = None) -> Everything:
    """Run the generator.

    Args:
        model: from `benchmarks.peers.sam.build_sam`.
        image: (1024, 1024, 3) uint8 RGB.
        batches: run only so many batches, spread evenly over the grid; all if None.

    Returns:
        Masks, and where the time went.
    """
    grid = torch.split(grid_points(), POINTS_PER_BATCH)
    chosen = range(len(grid)) if batches is None else np.linspace(0, len(grid) - 1, batches).round().astype(int)
    result = Everything([], torch.empty(0, 4), len(grid), len(chosen))
    with torch.inference_mode():
        with _clock(result, "encode"):
            embedding = encode(model.vision_encoder, image)
        kept = [_batch(model, embedding, grid[int(i)], result) for i in chosen]
        with _clock(result, "nms"):
            boxes = torch.cat([b for b, _, _ in kept])
            keep = nms(boxes, torch.cat([s for _, s, _ in kept]), BOX_NMS_THRESH)
            rles = [rle for _, _, batch in kept for rle in batch]
            result.boxes, result.rles = boxes[keep], [rles[int(i)] for i in keep]
    result.counts["after nms"] = len(result.rles)
    return result


def _batch(model: SamModel, embedding: Tensor, points: Tensor, result: Everything) -> tuple[Tensor, Tensor, list[Any]]:
    """Decode one batch and filter it: boxes, scores and runs of what is left."""
    with _clock(result, "decode"):
        decode(model, embedding, points)
    logits, scores = realistic_logits(points)
    with _clock(result, "upsample"):
        # Twice, as the official predictor does: to the square frame, then to the image's own size.
        masks = functional.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
        masks = functional.interpolate(masks, (SIDE, SIDE), mode="bilinear", align_corners=False)
    masks, scores = masks.flatten(0, 1), scores.flatten()
    result.counts["candidates"] += len(masks)
    with _clock(result, "filter"):
        keep = scores > PRED_IOU_THRESH
        masks, scores = masks[keep], scores[keep]
        result.counts["after predicted IoU"] += len(masks)
        keep = stability(masks) >= STABILITY_THRESH
        masks, scores = masks[keep], scores[keep]
        result.counts["after stability"] += len(masks)
    with _clock(result, "boxes and runs"):
        binary = masks > 0
        return mask_boxes(binary), scores, encode_runs(binary)


@contextmanager
def _clock(result: Everything, step: str) -> Iterator[None]:
    """Add what the block spends to a step."""
    start = Clocks.read()
    yield
    result.steps[step] = Clocks(*map(sum, zip(result.steps[step], Clocks.read() - start, strict=True)))


def realistic_logits(points: Tensor) -> tuple[Tensor, Tensor]:
    """Stand-ins for a trained decoder's output: three nested discs with wavy rims and soft edges.

    Radii go from about 2 to 25 % of the image, as objects of photographs do. Softness and predicted IoU are drawn so
    that about half of the candidates pass the first threshold and half of those the second.

    Args:
        points: (n, 2) xy pixels of the 1024² frame.

    Returns:
        Logits (n, 3, 256, 256) and predicted IoU (n, 3), the same for the same points.
    """
    generator = torch.Generator().manual_seed(int(points.sum()))
    n = len(points)
    axis = (torch.arange(LOW_SIDE) + 0.5) * (SIDE / LOW_SIDE)
    dx = axis[None, None, :] - points[:, 0, None, None]
    dy = axis[None, :, None] - points[:, 1, None, None]
    distance, angle = torch.hypot(dx, dy)[:, None], torch.atan2(dy, dx)[:, None]
    radius = torch.exp(torch.rand(n, 1, generator=generator) * 1.3) * 20 * torch.tensor([1.0, 2.0, 3.5])
    radius = radius[:, :, None, None] * (1 + 0.1 * torch.sin(5 * angle))
    # A shift of ±1 moves a rim of slope s by 1/s pixels, so a disc of radius r has a stability of about 1 − 4/(r·s):
    # s = 80/r lies on the threshold, and the draw puts half of them on either side.
    slope = 80 / radius * torch.exp(0.7 * torch.randn(n, 3, generator=generator))[:, :, None, None]
    scores = 0.76 + 0.24 * torch.rand(n, 3, generator=generator)
    return ((radius - distance) * slope).clamp(-20, 20), scores


def stability(masks: Tensor) -> Tensor:
    """IoU of each logit mask thresholded at +offset with itself at −offset.

    Args:
        masks: (n, H, W) logits.

    Returns:
        (n,) in [0, 1]; 0/0, an empty mask, is NaN and passes no threshold.
    """
    inner = (masks > STABILITY_OFFSET).sum(-1, dtype=torch.int16).sum(-1, dtype=torch.int32)
    outer = (masks > -STABILITY_OFFSET).sum(-1, dtype=torch.int16).sum(-1, dtype=torch.int32)
    return inner / outer


def mask_boxes(masks: Tensor) -> Tensor:
    """(n, H, W) bool, none empty → (n, 4) float XYXY, the last row and column included."""
    if len(masks) == 0:
        return torch.empty(0, 4)
    columns, rows = masks.any(1).int(), masks.any(2).int()
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1 = columns.shape[1] - 1 - columns.flip(1).argmax(1)
    y1 = rows.shape[1] - 1 - rows.flip(1).argmax(1)
    return torch.stack([x0, y0, x1, y1], 1).float()


def encode_runs(masks: Tensor) -> list[dict[str, Any]]:
    """Uncompressed COCO run lengths, columns first, zeros first.

    Args:
        masks: (n, H, W) bool.

    Returns:
        One dict with "size" and "counts" for each.
    """
    _, height, width = masks.shape
    flat = masks.permute(0, 2, 1).flatten(1)
    out = []
    for mask in flat:
        changes = (mask[1:] ^ mask[:-1]).nonzero()[:, 0] + 1
        ends = torch.cat([torch.tensor([0]), changes, torch.tensor([height * width])])
        counts = (ends[1:] - ends[:-1]).tolist()
        out.append({"size": [height, width], "counts": [0, *counts] if bool(mask[0]) else counts})
    return out


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) XYXY.
        scores: (n,).
        threshold: a box goes if its IoU with a better one that stays is above this.

    Returns:
        Indices kept, best first.
    """
    order = scores.argsort(descending=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order) > 0:
        best, order = order[0], order[1:]
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[order, :2]), torch.minimum(boxes[best, 2:], boxes[order, 2:])
        overlap = (high - low).clamp(min=0).prod(1)
        order = order[overlap <= threshold * (area[best] + area[order] - overlap)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)
