from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from benchmarks.common import Clocks
from benchmarks.everything import threshold_for
from benchmarks.peers import sam_everything
from benchmarks.peers.sam_everything import (
    PRED_IOU_THRESH,
    STABILITY_THRESH,
    Everything,
    encode_runs,
    generate,
    grid_points,
    mask_boxes,
    nms,
    realistic_logits,
    stability,
)
from pycocotools import mask as coco


def test_grid_is_the_middles_of_equal_cells() -> None:
    assert grid_points(2).tolist() == [[256, 256], [768, 256], [256, 768], [768, 768]]
    assert len(grid_points()) == 1024


def test_runs_are_what_pycocotools_reads() -> None:
    masks = np.random.default_rng(0).random((5, 37, 23)) < np.array([0, 0.1, 0.5, 0.9, 1.1])[:, None, None]
    for mask, runs in zip(masks, encode_runs(torch.from_numpy(masks)), strict=True):
        read = coco.decode(coco.frPyObjects(runs, 37, 23))
        assert np.array_equal(read.astype(bool), mask)


def test_boxes_hug_their_masks() -> None:
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 7, 0] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 8, 4], [0, 7, 0, 7]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


def test_stability_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.5, -0.5, -2.0]], [[-5.0, -5.0, -5.0, -5.0]]])
    scores = stability(logits)
    assert scores[0] == pytest.approx(1 / 3)
    assert scores[1].isnan()
    assert not scores[1] >= STABILITY_THRESH


def test_nms_leaves_what_a_plain_loop_leaves() -> None:
    torch.manual_seed(0)
    corner = torch.rand(60, 2) * 40
    boxes = torch.cat([corner, corner + 5 + torch.rand(60, 2) * 30], 1)
    scores = torch.rand(60)
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        if all(_iou(boxes[i], boxes[j]) <= 0.4 for j in kept):
            kept.append(i)
    assert 1 < len(kept) < 60
    assert nms(boxes, scores, 0.4).tolist() == kept
    assert nms(boxes[:0], scores[:0], 0.4).tolist() == []


def _iou(a: torch.Tensor, b: torch.Tensor) -> float:
    inter = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0]))) * max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    area = [float((c[2] - c[0]) * (c[3] - c[1])) for c in (a, b)]
    return inter / (sum(area) - inter)


def test_stand_in_masks_let_about_half_through_each_filter() -> None:
    found = [realistic_logits(points) for points in grid_points().split(64)[::3]]
    logits, scores = (torch.cat(part).flatten(0, 1) for part in zip(*found, strict=True))
    passed = scores > PRED_IOU_THRESH
    assert 0.4 < passed.float().mean() < 0.6
    assert 0.4 < (stability(logits[passed]) >= STABILITY_THRESH).float().mean() < 0.6
    # Objects, not noise: a row crosses a rim a few times at most.
    binary = logits > 0
    assert (binary[:, :, 1:] ^ binary[:, :, :-1]).float().sum(-1).max() <= 6


def test_whole_scales_every_step_but_the_encoder() -> None:
    run = Everything([], torch.empty(0, 4), total_batches=16, batches=2)
    run.steps["encode"] = Clocks(10.0, 4.0, 20.0)
    run.steps["decode"] = Clocks(3.0, 1.0, 5.0)
    run.steps["nms"] = Clocks(1.0, 0.0, 1.0)
    assert run.whole() == Clocks(10.0 + 8 * 4.0, 4.0 + 8 * 1.0, 20.0 + 8 * 6.0)


@pytest.mark.parametrize(("batches", "ran"), [(None, 4), (2, 2)])
def test_generator_runs_the_batches_asked_for(monkeypatch: pytest.MonkeyPatch, batches: int | None, ran: int) -> None:
    seen: list[int] = []
    monkeypatch.setattr(sam_everything, "SIDE", 256)
    monkeypatch.setattr(sam_everything, "POINTS_PER_SIDE", 4)
    monkeypatch.setattr(sam_everything, "POINTS_PER_BATCH", 4)
    monkeypatch.setattr(sam_everything, "grid_points", lambda: grid_points(4) / 4)
    monkeypatch.setattr(sam_everything, "encode", lambda *_: torch.zeros(1))
    monkeypatch.setattr(sam_everything, "decode", lambda _m, _e, points: seen.append(len(points)))
    monkeypatch.setattr(sam_everything, "realistic_logits", lambda points: _discs(points))

    class Model:
        vision_encoder = None

    run = generate(Model(), np.zeros((256, 256, 3), np.uint8), batches=batches)  # type: ignore[arg-type]
    assert seen == [4] * ran
    assert (run.batches, run.total_batches) == (ran, 4)
    assert run.counts["candidates"] == 4 * 3 * ran
    assert run.counts["after nms"] == len(run.rles) == len(run.boxes)
    assert run.counts["after nms"] == 4 * ran  # three equal discs a point: two are duplicates
    read = coco.decode(coco.frPyObjects(run.rles[0], 256, 256))
    assert tuple(mask_boxes(torch.from_numpy(read[None].astype(bool)))[0].tolist()) == tuple(run.boxes[0].tolist())


def _discs(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three equal sharp discs a point, of radius 20, all of a score that passes."""
    axis = torch.arange(256) + 0.5
    distance = torch.hypot(
        axis[None, None, :] - points[:, 0, None, None], axis[None, :, None] - points[:, 1, None, None]
    )
    logits = ((20 - distance) * 10)[:, None].expand(-1, 3, -1, -1)
    return logits.contiguous(), torch.full((len(points), 3), 0.9)


@pytest.mark.parametrize("curve", [lambda t: 400 * (1 - t), lambda t: 400 * (1 - t) ** 4])
def test_threshold_for_finds_about_the_number_asked_for(curve: Callable[[float], float]) -> None:
    asked: list[float] = []

    def count(threshold: float) -> int:
        asked.append(threshold)
        return round(curve(threshold))

    assert abs(count(threshold_for(count, 100)) - 100) <= 25
    assert len(asked) <= 9


def test_threshold_for_gives_up_on_the_generous_side() -> None:
    assert threshold_for(lambda _: 3, 100, steps=5) == 0.0
    assert threshold_for(lambda threshold: 300 if threshold < 0.3 else 0, 100, steps=3) == 0.25
