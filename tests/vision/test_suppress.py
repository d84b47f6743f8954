"""Duplicates: the best of those that overlap stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.vision import suppress
from linocut.vision.masks import Mask
from linocut.vision.suppress import box_suppress, mask_suppress, overlap
from linocut.vision.windows import Window

SIDE = 256


def rectangle(x0: int, y0: int, x1: int, y1: int, score: float = 0.5) -> Mask:
    logits = np.full((SIDE, SIDE), -1, np.float32)
    logits[y0:y1, x0:x1] = 1
    return Mask(logits, Window(0, 0, 0), (SIDE, SIDE), score=score)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.clip(high - low, 0, None))
    return float(common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common))


def test_overlap_is_the_iou_of_the_pixels() -> None:
    masks = [rectangle(10, 10, 30, 30), rectangle(20, 10, 40, 30), rectangle(100, 100, 110, 120), rectangle(0, 0, 0, 0)]
    for a in masks:
        for b in masks:
            assert overlap(a, b) == pytest.approx(iou(a.array, b.array))


def test_masks_that_only_share_a_box_do_not_overlap_much() -> None:
    ring = np.full((SIDE, SIDE), -1, np.float32)
    ring[10:60, 10:60] = 1
    ring[20:50, 20:50] = -1
    a, b = Mask(ring, Window(0, 0, 0), (SIDE, SIDE), score=0.9), rectangle(22, 22, 48, 48)
    assert overlap(a, b) == 0
    assert mask_suppress([a, b], 0.1) == [0, 1]


def test_the_mask_with_the_best_score_stays() -> None:
    masks = [rectangle(10, 10, 30, 30, 0.5), rectangle(10, 10, 30, 31, 0.9), rectangle(50, 50, 60, 60, 0.7)]
    assert mask_suppress(masks, 0.7) == [1, 2]
    assert mask_suppress(masks, 0.99) == [1, 2, 0]
    assert mask_suppress([], 0.5) == []


def test_a_chain_loses_only_what_overlaps_with_one_that_stays() -> None:
    # 0 overlaps with 1, and 1 with 2, but 0 and 2 do not: once 1 is gone, 2 has no reason to go
    masks = [rectangle(0, 0, 20, 20, 0.9), rectangle(6, 0, 26, 20, 0.8), rectangle(12, 0, 32, 20, 0.7)]
    assert overlap(masks[0], masks[2]) < 0.4 < overlap(masks[0], masks[1])
    assert mask_suppress(masks, 0.4) == [0, 2]


def brute_force(masks: list[Mask], threshold: float) -> list[int]:
    """The definition: from the best score down, each mask that overlaps too much with none that stayed."""
    keep: list[int] = []
    for index in sorted(range(len(masks)), key=lambda i: -masks[i].score):
        if all(iou(masks[index].array, masks[other].array) <= threshold for other in keep):
            keep.append(index)
    return keep


def blot(rng: np.random.Generator) -> Mask:
    """A speckled rectangle, perhaps empty, with one of four scores."""
    logits = np.full((SIDE, SIDE), -1, np.float32)
    y, x, h, w = rng.integers(0, 12, 4)
    logits[y : y + h, x : x + w] = np.where(rng.random((h, w)) < rng.choice([0.3, 0.8, 1.0]), 1, -1)
    return Mask(logits, Window(0, 0, 0), (24, 20), score=float(rng.integers(4)) / 4)


@pytest.mark.parametrize("seed", range(20))
def test_masks_stay_as_if_all_pairs_were_compared(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = [blot(rng) for _ in range(25)]
    ious = {iou(a.array, b.array) for a in masks for b in masks if a is not b}
    # thresholds between the values and exactly at them, where rounding would show
    for threshold in (0.0, 0.2, 0.5, 0.7, 1.0, *rng.choice(sorted(ious), 5)):
        assert mask_suppress(masks, threshold) == brute_force(masks, threshold)


def test_pixels_are_only_compared_where_masks_could_be_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [rectangle(x, y, x + 14, y + 14) for x in range(0, 240, 12) for y in range(0, 240, 12)]
    masks += [rectangle(0, 0, 200, 200), rectangle(0, 0, 14, 15)]
    compared = []

    def watched(a: Mask, b: Mask) -> float:
        compared.append((a, b))
        return overlap(a, b)

    monkeypatch.setattr(suppress, "overlap", watched)
    keep = mask_suppress(masks, 0.5)
    # neighbours share 2 of 14 columns, the large one holds many small ones: the bound tells all of them apart
    assert compared == [(masks[0], masks[-1])]
    assert keep == list(range(len(masks) - 1))


def test_boxes_exactly_at_the_threshold_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], dtype=np.float64)
    assert box_suppress(boxes, np.array([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert box_suppress(boxes, np.array([0.9, 0.8]), 0.49).tolist() == [0]


def test_ties_go_to_the_first() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, dtype=np.float64)
    assert box_suppress(boxes, np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0]


def test_no_boxes() -> None:
    assert box_suppress(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


corners = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 15), st.integers(1, 15))


@given(st.lists(st.tuples(corners, st.integers(0, 5)), max_size=20), st.floats(0.05, 0.95))
def test_no_two_boxes_that_stay_overlap_and_each_that_goes_has_a_reason(
    drawn: list[tuple[tuple[int, int, int, int], int]], threshold: float
) -> None:
    boxes = np.array([(x, y, x + w, y + h) for (x, y, w, h), _ in drawn], dtype=np.float64).reshape(-1, 4)
    scores = np.array([score for _, score in drawn], dtype=np.float64)
    keep = box_suppress(boxes, scores, threshold).tolist()
    assert keep == sorted(keep, key=lambda i: (-scores[i], i))
    for place, i in enumerate(keep):
        assert all(box_iou(boxes[i], boxes[j]) <= threshold + 1e-12 for j in keep[:place])
    for i in set(range(len(drawn))) - set(keep):
        assert any(box_iou(boxes[i], boxes[j]) > threshold - 1e-12 and scores[j] >= scores[i] for j in keep)
