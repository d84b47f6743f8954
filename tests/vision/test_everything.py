"""Everything: the options of Segment Anything's generator, and what the result promises."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from linocut.data.rle import decode_rle
from linocut.vision.everything import Everything, cut_off, layer_points, looks, thinned
from linocut.vision.options import EverythingOptions
from linocut.vision.segmenter import Segmenter
from linocut.vision.suppress import overlap
from linocut.vision.windows import Window

Image = NDArray[np.uint8]
SIZE = (303, 384)
RECORD_KEYS = {"segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"}

# Near the centres of all coins of the photograph: (x, y).
COINS = [(335, 43), (155, 51), (216, 52), (44, 55), (276, 53), (100, 56), (271, 120), (45, 125), (205, 124), (337, 124)]
COINS += [(102, 125), (154, 127), (348, 186), (212, 193), (274, 194), (102, 195), (43, 197), (154, 198), (46, 260)]
COINS += [(173, 262), (244, 264), (301, 263), (114, 266), (360, 270)]


@pytest.fixture(scope="module")
def row(coins: Image) -> Image:
    """One row of the coins, for what needs no more."""
    return coins[90:170, 0:256]


@pytest.fixture(scope="module")
def found(model: Segmenter, coins: Image) -> Everything:
    return model.everything(coins, points_per_side=16)


def test_most_coins_are_found(found: Everything) -> None:
    sized = [mask for mask in found.masks if 700 < mask.area < 4000]
    hit = [any(mask.array[y, x] for mask in sized) for x, y in COINS]
    assert np.mean(hit) > 0.7


def test_masks_go_from_the_largest_to_the_smallest(found: Everything) -> None:
    areas = [mask.area for mask in found.masks]
    assert areas == sorted(areas, reverse=True)
    assert areas[-1] > 0
    assert len(found.points) == len(found.masks)
    assert found.size == SIZE


def test_the_label_map_shows_the_smallest_mask_at_every_pixel(found: Everything) -> None:
    expected = np.zeros(SIZE, np.int32)
    for number, mask in enumerate(found.masks, start=1):
        expected[mask.array] = number
    assert found.label_map.dtype == np.int32
    np.testing.assert_array_equal(found.label_map, expected)
    assert found.label_map.any()


def test_no_two_masks_are_duplicates(found: Everything) -> None:
    limit = found.options.mask_nms_thresh
    for i, a in enumerate(found.masks):
        assert all(overlap(a, b) <= limit for b in found.masks[:i])


def test_every_mask_keeps_the_thresholds(found: Everything) -> None:
    options = found.options
    assert all(mask.score >= options.pred_iou_thresh for mask in found.masks)
    assert all(mask.stability >= options.stability_score_thresh for mask in found.masks)


def test_the_points_are_those_of_the_grid(found: Everything) -> None:
    ((grid, _),) = next(layer_points(SIZE, found.options))
    known = {tuple(point) for point in grid}
    assert set(found.points) <= known


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_records_are_those_of_segment_anything(model: Segmenter, row: Image, mode: str) -> None:
    result = model.everything(row, points_per_side=4, pred_iou_thresh=0.2, stability_score_thresh=0.1, output_mode=mode)
    records = result.records()
    assert records
    for record, mask, point in zip(records, result.masks, result.points, strict=True):
        assert set(record) == RECORD_KEYS
        segmentation = record["segmentation"]
        pixels = segmentation if mode == "binary_mask" else decode_rle(segmentation)
        np.testing.assert_array_equal(pixels, mask.array)
        assert mode == "binary_mask" or isinstance(segmentation["counts"], str if mode == "coco_rle" else list)
        ys, xs = np.nonzero(mask.array)
        width, height = int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1
        assert record["bbox"] == [xs.min(), ys.min(), width, height]
        assert record["area"] == mask.array.sum()
        assert record["predicted_iou"] == mask.score
        assert record["stability_score"] == mask.stability
        assert record["point_coords"] == [list(point)]
        assert record["crop_box"] == [0, 0, 256, 80]
    if mode != "binary_mask":
        assert json.loads(json.dumps(records)) == records


def test_stricter_thresholds_leave_fewer_masks(model: Segmenter, row: Image) -> None:
    def count(**options: Any) -> int:
        return len(model.everything(row, points_per_side=4, **options).masks)

    loose = count(pred_iou_thresh=0.0, stability_score_thresh=0.0)
    assert loose > count(pred_iou_thresh=0.0, stability_score_thresh=0.8)
    assert loose > count(pred_iou_thresh=0.75, stability_score_thresh=0.0)
    assert count(pred_iou_thresh=1.0) == 0
    assert loose > count(pred_iou_thresh=0.0, stability_score_thresh=0.0, mask_nms_thresh=0.1)
    assert loose > count(pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=0.1)


def test_a_wider_offset_makes_masks_less_stable(model: Segmenter, row: Image) -> None:
    near, far = (
        model.everything(
            row,
            points_per_side=4,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.0,
            stability_score_offset=offset,
        )
        for offset in (0.25, 2.0)
    )
    assert np.mean([m.stability for m in near.masks]) > np.mean([m.stability for m in far.masks])


def test_the_size_of_the_batches_does_not_matter(model: Segmenter, row: Image) -> None:
    one, other = (
        model.everything(row, points_per_side=6, pred_iou_thresh=0.2, stability_score_thresh=0.1, points_per_batch=size)
        for size in (64, 7)
    )
    # convolutions may round differently, and a mask at a threshold then come or go
    assert abs(len(one.masks) - len(other.masks)) <= 2
    matched = [max(overlap(a, b) for b in other.masks) for a in one.masks]
    assert np.mean(np.array(matched) > 0.95) > 0.9


def test_point_grids_take_the_place_of_the_grid(model: Segmenter, coins: Image) -> None:
    x, y = COINS[0]
    grid = np.array([[(x + 0.5) / SIZE[1], (y + 0.5) / SIZE[0]]])
    result = model.everything(coins, points_per_side=None, point_grids=[grid])
    assert result.masks
    np.testing.assert_allclose(result.points, [[x + 0.5, y + 0.5]] * len(result.masks))
    assert any(mask.array[y, x] for mask in result.masks)


def test_crops_add_points_where_the_crops_are(model: Segmenter, row: Image) -> None:
    options = {"points_per_side": 4, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.2}
    plain = model.everything(row, **options)
    layered = model.everything(row, crop_n_layers=1, **options)
    assert len(layered.masks) > len(plain.masks)
    grids = [{tuple(p) for grid, _ in layer for p in grid} for layer in layer_points((80, 256), layered.options)]
    assert set(layered.points) <= grids[0] | grids[1]
    assert set(layered.points) - grids[0]


def test_small_regions_are_removed(model: Segmenter, row: Image) -> None:
    import cv2

    result = model.everything(
        row, points_per_side=5, pred_iou_thresh=0.2, stability_score_thresh=0.2, min_mask_region_area=200
    )
    assert result.masks
    for mask in result.masks:
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.array.astype(np.uint8), connectivity=8)
        islands = sorted(stats[1:count, cv2.CC_STAT_AREA])
        assert all(area >= 200 for area in islands[:-1])
        count, labels, stats, _ = cv2.connectedComponentsWithStats((~np.pad(mask.array, 1)).astype(np.uint8))
        holes = [stats[i, cv2.CC_STAT_AREA] for i in range(1, count) if i != labels[0, 0]]
        assert all(area >= 200 for area in holes)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (1, 300), (130, 40)])
def test_images_of_any_size(untrained: Segmenter, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    result = untrained.everything(
        image, points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, crop_n_layers=1
    )
    assert result.label_map.shape == size
    assert all(mask.array.shape == size for mask in result.masks)


def test_nothing_found(untrained: Segmenter) -> None:
    result = untrained.everything(np.zeros((40, 50), np.uint8), points_per_side=2, pred_iou_thresh=1.0)
    assert result.masks == []
    assert result.records() == []
    assert result.label_map.shape == (40, 50)
    assert not result.label_map.any()


def test_the_grid_lies_in_the_middle_of_equal_cells() -> None:
    ((points, side),) = next(layer_points((100, 200), EverythingOptions(points_per_side=2)))
    assert side == 2
    assert points.tolist() == [[50, 25], [150, 25], [50, 75], [150, 75]]


def looks_by_level(size: tuple[int, int], **options: Any) -> Counter[int]:
    """How many points of the first layer look through the windows of each level."""
    grids = next(layer_points(size, EverythingOptions(**options)))
    return Counter(window.level for _, window in looks(size, grids))


@pytest.mark.parametrize("size", [(1024, 1024), (303, 384), (100, 100), (4096, 3000)])
def test_more_points_never_look_less_at_any_level(size: tuple[int, int]) -> None:
    before = looks_by_level(size, points_per_side=1)
    assert set(before.values()) == {1}
    for side in range(2, 18):
        now = looks_by_level(size, points_per_side=side)
        assert set(now) == set(before)
        assert all(now[level] >= before[level] for level in now)
        assert min(now.values()) >= min(side, 4) ** 2
        assert now[-1] == side**2
        before = now


def test_the_default_grid_is_thinned_by_two_and_four() -> None:
    assert looks_by_level((1024, 1024)) == {-1: 32**2, 0: 16**2, 2: 8**2}
    for depth, stride in enumerate((1, 2, 4)):
        ticks = np.arange(32)[stride // 2 :: stride]
        assert thinned(32, depth) == [y * 32 + x for y in ticks for x in ticks]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_larger_grid_keeps_as_many_points(depth: int) -> None:
    kept = [len(thinned(side, depth)) for side in range(1, 100)]
    assert kept == sorted(kept)
    assert kept[:4] == [1, 4, 9, 16]


@pytest.mark.parametrize("side", [1, 2, 5, 7, 31, 33])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_thinned_points_are_spread_evenly_and_alike_on_both_sides(side: int, depth: int) -> None:
    rows, columns = np.divmod(thinned(side, depth), side)
    ticks = np.unique(rows)
    np.testing.assert_array_equal(np.unique(columns), ticks)
    assert len(ticks) ** 2 == len(rows)
    gaps = np.diff(ticks)
    assert np.ptp(gaps) <= 1 if len(gaps) else side == 1
    # as far from the one edge as from the other, to the point
    assert abs(ticks[0] - (side - 1 - ticks[-1])) <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 50, 1000])
def test_points_of_one_s_own_all_look_through_every_level(count: int) -> None:
    grid = np.random.default_rng(0).random((count, 2))
    assert looks_by_level((1024, 1024), points_per_side=None, point_grids=[grid]) == {-1: count, 0: count, 2: count}


def test_looks_go_from_the_finest_level_to_the_coarsest_through_windows_around_their_points() -> None:
    size = (1024, 1024)
    found = looks(size, list(layer_points(size, EverythingOptions(points_per_side=5, crop_n_layers=1)))[1])
    levels = [window.level for _, window in found]
    assert levels == sorted(levels)
    for (x, y), window in found:
        assert window.x <= x <= window.x + window.side
        assert window.y <= y <= window.y + window.side


def test_deeper_layers_have_fewer_points_in_more_crops() -> None:
    options = EverythingOptions(points_per_side=8, crop_n_layers=2, crop_n_points_downscale_factor=2)
    layers = list(layer_points((300, 400), options))
    assert [len(layer) for layer in layers] == [1, 4, 16]
    assert [len(points) for layer in layers for points, _ in layer[:1]] == [64, 16, 4]


def test_crops_are_laid_out_as_in_segment_anything() -> None:
    height, width, ratio = 300, 400, 512 / 1500
    corners = [np.array([[0.0, 0.0], [1.0, 1.0]])] * 2
    options = EverythingOptions(points_per_side=None, point_grids=corners, crop_n_layers=1, crop_overlap_ratio=ratio)
    boxes = [(*points[0], *points[1]) for points, _ in list(layer_points((height, width), options))[1]]
    # the formulas of the official generate_crop_boxes, without its rounding to whole pixels
    overlapping = ratio * height * (2 / 2)
    crop_width, crop_height = (overlapping + width) / 2, (overlapping + height) / 2
    for box, (i, j) in zip(boxes, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        x0, y0 = i * (crop_width - overlapping), j * (crop_height - overlapping)
        np.testing.assert_allclose(box, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)))


@pytest.mark.parametrize(
    ("box", "is_cut"),
    [
        ((20, 40, 40, 60), False),
        ((16, 40, 40, 60), True),
        ((20, 32, 40, 40), True),
        ((20, 40, 144, 60), True),
        ((20, 40, 60, 160), True),
    ],
)
def test_a_mask_at_the_edge_of_its_window_goes_on_outside(box: tuple[float, float, float, float], is_cut: bool) -> None:
    assert cut_off(box, Window(-1, 16, 32), (400, 400)) is is_cut


def test_a_mask_at_the_edge_of_the_image_does_not() -> None:
    assert not cut_off((0, 0, 128, 100), Window(-1, 0, 0), (100, 128))
    assert not cut_off((0, 0, 256, 200), Window(0, 0, 0), (200, 250))


def test_an_unknown_option_is_refused(untrained: Segmenter) -> None:
    with pytest.raises(TypeError, match="points_per_sid"):
        untrained.everything(np.zeros((9, 9, 3), np.uint8), points_per_sid=3)
