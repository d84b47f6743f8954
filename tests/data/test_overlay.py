"""Overlays: what is drawn where, and label maps as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from linocut.data.overlay import (
    NEGATIVE,
    POSITIVE,
    WHITE,
    as_label_map,
    draw_labels,
    label_map_to_png,
    object_colours,
    oklch_to_rgb,
    overlay,
    write_png,
)

GREY = np.full((60, 80, 3), 128, np.uint8)


def disc(x: float, y: float, radius: float, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 < radius**2


class TestColours:
    def test_no_object_is_black_and_the_rest_is_not(self) -> None:
        colours = object_colours(1000)
        assert colours.shape == (1000, 3)
        assert colours[0].tolist() == [0, 0, 0]
        assert (colours[1:].max(axis=1) > 100).all()

    def test_the_number_decides_and_not_how_many_there_are(self) -> None:
        np.testing.assert_array_equal(object_colours(10), object_colours(500)[:10])

    def test_neighbours_in_number_differ_clearly(self) -> None:
        lab = cv2.cvtColor((object_colours(200)[1:, None] / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)[
            :, 0
        ]
        for step in (1, 2, 3):
            assert np.linalg.norm(lab[step:] - lab[:-step], axis=1).min() > 25  # 2 is just noticeable

    def test_the_corners_of_srgb(self) -> None:
        """OKLCH of red, green, blue and white as CSS Color Module Level 4 gives them."""
        lightness, chroma = np.array([0.62796, 0.86644, 0.45201, 1.0]), np.array([0.25768, 0.29483, 0.31321, 0.0])
        rgb = oklch_to_rgb(lightness, chroma, np.array([29.234, 142.495, 264.052, 0.0]))
        corners = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
        assert np.abs(rgb.astype(int) - corners).max() <= 1


class TestDrawing:
    def test_outside_nothing_changes_and_inside_colours_mix(self) -> None:
        mask = disc(40, 30, 20)
        picture = overlay(GREY, mask, alpha=0.5, outline=False)
        colour = object_colours(2)[1].astype(float)
        np.testing.assert_array_equal(picture[~mask], GREY[~mask])
        assert np.abs(picture[mask] - (0.5 * 128 + 0.5 * colour)).max() <= 0.5
        assert (GREY == 128).all()

    def test_the_outline_is_the_rim_in_full_colour(self) -> None:
        mask = disc(40, 30, 20)
        inner = cv2.erode(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).astype(bool)
        picture = overlay(GREY, mask, alpha=0.0)
        np.testing.assert_array_equal((picture == object_colours(2)[1]).all(axis=2), mask & ~inner)
        np.testing.assert_array_equal(picture[inner], GREY[inner])

    def test_touching_objects_are_told_apart(self) -> None:
        labels = np.ones((60, 80), np.int32)
        labels[:, 40:] = 2
        picture = draw_labels(GREY, labels, alpha=0.0)
        changed = (picture != 128).any(axis=2)
        assert changed[:, 39:41].all()
        assert not changed[:, :39].any()
        assert not changed[:, 41:].any()

    def test_lines_grow_with_the_image(self) -> None:
        def thickness(side: int) -> int:
            mask = np.zeros((side, side), bool)
            mask[:, : side // 2] = True
            picture = overlay(np.zeros((side, side, 3), np.uint8), mask, alpha=0.0)
            return int(picture[side // 2].any(axis=1).sum())

        assert (thickness(200), thickness(600), thickness(3000)) == (1, 2, 10)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
    def test_masks_and_label_maps_look_the_same(self, dtype: Any) -> None:
        masks = [disc(20, 30, 12), disc(60, 30, 12)]
        label_map = (masks[0] + 2 * masks[1]).astype(dtype)
        expected = overlay(GREY, masks)
        np.testing.assert_array_equal(overlay(GREY, label_map), expected)
        np.testing.assert_array_equal(overlay(GREY, np.stack(masks)), expected)
        np.testing.assert_array_equal(draw_labels(GREY, label_map), expected)

    def test_smaller_masks_lie_on_top_and_keep_their_number(self) -> None:
        small, large = disc(40, 30, 5), disc(40, 30, 20)
        assert as_label_map([small, large])[30, 40] == 1
        assert as_label_map([large, small])[30, 40] == 2
        assert as_label_map([large, small])[30, 25] == 1

    @pytest.mark.parametrize("empty", [None, np.zeros((60, 80), bool), np.zeros((60, 80), int)])
    def test_without_objects_the_image_stays(self, empty: np.ndarray | None) -> None:
        picture = overlay(GREY, empty)
        np.testing.assert_array_equal(picture, GREY)
        assert picture is not GREY

    def test_points_are_green_or_red_with_a_white_rim(self) -> None:
        picture = overlay(GREY, None, points=[(20.5, 30.5), (60.5, 30.5)], labels=[True, False])
        assert tuple(picture[30, 20]) == POSITIVE
        assert tuple(picture[30, 60]) == NEGATIVE
        for x in (20, 60):
            changed = (picture != 128).any(axis=2)[:, x - 15 : x + 16]
            rows, columns = np.nonzero(changed)
            assert rows.mean() == pytest.approx(30, abs=0.1)
            assert columns.mean() == pytest.approx(15, abs=0.1)
            line = picture[30, x - 15 : x + 16]
            assert (line.min(axis=1) > 200).sum() >= 2
        assert tuple(overlay(GREY, None, points=[(20.5, 30.5)])[30, 20]) == POSITIVE

    def test_points_at_and_beyond_the_edge_are_cut(self) -> None:
        assert (overlay(GREY, None, points=[(0.0, 0.0), (79.0, 59.0), (-500.0, 20.0)]) != 128).any()

    def test_the_box_is_a_frame_around_its_pixels(self) -> None:
        picture = overlay(GREY, None, box=(20.0, 10.0, 60.0, 50.0))
        assert tuple(picture[30, 20]) == POSITIVE
        assert tuple(picture[30, 59]) == POSITIVE
        assert tuple(picture[10, 40]) == POSITIVE
        assert tuple(picture[49, 40]) == POSITIVE
        assert tuple(picture[30, 40]) == (128, 128, 128)
        assert (picture == WHITE).all(axis=2).any()


class TestErrors:
    @pytest.mark.parametrize(
        ("image", "masks", "options", "message"),
        [
            (GREY[..., 0], None, {}, r"image must be \(height, width, 3\) uint8, got uint8 \(60, 80\)"),
            (GREY / 255, None, {}, "uint8, got float64"),
            (
                GREY,
                np.zeros((80, 60), bool),
                {},
                r"masks are \(80, 60\) \(height, width\), but the image is \(60, 80\)",
            ),
            (GREY, np.zeros((60, 80)), {}, "label map must be .* integers, got float64"),
            (GREY, np.full((60, 80), -1), {}, "labels must be >= 0, got -1"),
            (GREY, [], {}, "no masks were given"),
            (GREY, [np.zeros((60, 80))], {}, "every mask must be bool of one shape"),
            (GREY, [np.zeros((60, 80), bool), np.zeros((6, 8), bool)], {}, "every mask must be bool of one shape"),
            (GREY, np.zeros((60, 80), bool), {"alpha": 1.5}, "alpha must be in 0 … 1, got 1.5"),
            (GREY, None, {"points": [(1.0, 2.0)], "labels": [1, 0]}, "labels must be one for each of the 1 points"),
            (GREY, None, {"box": (1.0, 2.0, 3.0)}, r"box must be \(x0, y0, x1, y1\)"),
        ],
    )
    def test_what_cannot_be_drawn(self, image: Any, masks: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            overlay(image, masks, **options)


class TestLabelPng:
    @pytest.mark.parametrize(
        ("highest", "depth"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)]
    )
    @pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
    def test_round_trip_in_the_least_depth(self, tmp_path: Path, highest: int, depth: type, dtype: type) -> None:
        labels = np.linspace(0, highest, 12).astype(dtype).reshape(3, 4)
        label_map_to_png(labels, tmp_path / "labels.png")
        read = cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED)
        assert read.dtype == depth
        np.testing.assert_array_equal(read, labels)

    def test_bool(self, tmp_path: Path) -> None:
        label_map_to_png(disc(40, 30, 20), tmp_path / "labels.png")
        with Image.open(tmp_path / "labels.png") as image:
            np.testing.assert_array_equal(np.asarray(image), disc(40, 30, 20))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.full((2, 2), 65536), "up to 65535, got 65536"),
            (np.full((2, 2), -1), "labels must be >= 0"),
            (np.zeros((2, 2)), "integers, got float64"),
            (np.zeros((2, 2, 1), int), "got int64"),
            (np.zeros((0, 2), int), "must have pixels"),
        ],
    )
    def test_what_a_png_cannot_hold_leaves_the_old_file(self, tmp_path: Path, labels: np.ndarray, message: str) -> None:
        path = tmp_path / "labels.png"
        path.write_bytes(b"old")
        with pytest.raises(ValueError, match=message):
            label_map_to_png(labels, path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=["grey", "RGB"])
def test_a_png_holds_the_pixels_whatever_its_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_png(tmp_path / "new" / "picture.jpg", pixels)
    with Image.open(tmp_path / "new" / "picture.jpg") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), pixels)
