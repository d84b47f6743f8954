"""Boundary IoU, boundary F and trimap IoU: by hand, by measuring every distance, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from linocut.metrics import BoundaryScores, boundary_f, boundary_iou, trimap_iou
from linocut.metrics.boundaries import band, contour, in_pixels, near

masks = hnp.arrays(np.bool_, (7, 9))
widths = st.sampled_from([1, 2, 3.5, 0.2])


def brute_contour(mask: np.ndarray) -> np.ndarray:
    found = np.zeros_like(mask)
    h, w = mask.shape
    for y, x in np.argwhere(mask):
        steps = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        found[y, x] = any(0 <= j < h and 0 <= i < w and not mask[j, i] for j, i in steps)
    return found


def brute_near(mask: np.ndarray, reach: float) -> np.ndarray:
    if not mask.any():
        return np.zeros_like(mask)
    everywhere = np.argwhere(np.ones_like(mask))
    return (cdist(everywhere, np.argwhere(mask)).min(axis=1) <= reach + 1e-9).reshape(mask.shape)


class TestPieces:
    @given(masks, widths)
    def test_band_is_the_mask_less_its_erosion(self, mask: np.ndarray, width: float) -> None:
        moves = round(width * np.hypot(*mask.shape)) if width < 1 else round(width)
        inner = np.pad(mask, 1)
        for _ in range(moves):
            inner = binary_erosion(inner, np.ones((3, 3)))
        np.testing.assert_array_equal(band(mask, width), mask & ~inner[1:-1, 1:-1])

    @given(masks)
    def test_contour_is_where_a_neighbour_is_outside(self, mask: np.ndarray) -> None:
        np.testing.assert_array_equal(contour(mask), brute_contour(mask))

    @given(masks, st.sampled_from([0.0, 1.0, 1.4, np.sqrt(2), 2.0, 2.5, 5.0]))
    def test_near_measures_euclid(self, mask: np.ndarray, reach: float) -> None:
        np.testing.assert_array_equal(near(mask, reach), brute_near(mask, reach))

    def test_far_distances_are_exact(self) -> None:
        mask = np.zeros((1300, 1700), bool)
        mask[0, 0] = True
        reach = float(np.hypot(1200, 1600))  # 2000 exactly
        assert near(mask, reach)[1200, 1600]
        assert not near(mask, reach - 0.01)[1200, 1600]

    @pytest.mark.parametrize("length", [0, -1, float("nan"), float("inf")])
    def test_lengths_are_positive(self, length: float) -> None:
        with pytest.raises(ValueError, match="width must be > 0"):
            in_pixels(length, (3, 4), "width")
        with pytest.raises(ValueError, match="width must be > 0"):
            BoundaryScores(2, width=length)

    def test_below_one_a_length_is_a_share_of_the_diagonal(self) -> None:
        assert in_pixels(0.02, (300, 400), "width") == 10
        assert in_pixels(1, (300, 400), "width") == 1


class TestOfMasks:
    @given(masks, masks, widths)
    def test_follow_their_formulas(self, a: np.ndarray, b: np.ndarray, width: float) -> None:
        reach = in_pixels(width, a.shape, "width")
        bands = band(a, width), band(b, width)
        union = (bands[0] | bands[1]).sum()
        assert boundary_iou(a, b, width=width) == ((bands[0] & bands[1]).sum() / union if union else 1.0)

        edges = brute_contour(a), brute_contour(b)
        shares = [(x & brute_near(y, reach)).sum() / x.sum() if x.any() else 0.0 for x, y in (edges, edges[::-1])]
        f = 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else float(not (edges[0].any() or edges[1].any()))
        assert boundary_f(a, b, tolerance=width) == pytest.approx(f)

        zone = brute_near(edges[1], reach)
        union = ((a | b) & zone).sum()
        trimap = (a & b & zone).sum() / union if union else np.nan
        assert trimap_iou(a, b, width=width) == pytest.approx(trimap, nan_ok=True)

    @given(masks, masks, widths)
    def test_are_bounded_and_the_first_two_symmetric(self, a: np.ndarray, b: np.ndarray, width: float) -> None:
        assert 0 <= boundary_iou(a, b, width=width) <= 1
        assert boundary_iou(a, b, width=width) == boundary_iou(b, a, width=width)
        assert 0 <= boundary_f(a, b, tolerance=width) <= 1
        assert boundary_f(a, b, tolerance=width) == pytest.approx(boundary_f(b, a, tolerance=width))
        assert boundary_iou(a, a, width=width) == boundary_f(a, a, tolerance=width) == 1

    def test_boundary_iou_sees_what_iou_does_not(self) -> None:
        target, prediction = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
        target[20:180, 20:180], prediction[24:176, 24:176] = True, True
        assert (target & prediction).sum() / target.sum() > 0.9
        # bands of 6 pixels: rings of sides 160 to 148 and 152 to 140, which share the ring of sides 152 to 148
        assert boundary_iou(prediction, target) == (152**2 - 148**2) / (160**2 - 140**2)

    def test_tensors_and_any_layout(self) -> None:
        a, b = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
        a[2:6, 1:8], b[3:7, 2:8] = True, True
        for x, y in ((np.asfortranarray(a), b), (torch.from_numpy(a), torch.from_numpy(b)), (a.T.copy().T, b)):
            assert boundary_iou(x, y, width=1) == boundary_iou(a, b, width=1)
            assert boundary_f(x, y, tolerance=1) == boundary_f(a, b, tolerance=1)
            assert trimap_iou(x, y, width=1) == trimap_iou(a, b, width=1)

    @pytest.mark.parametrize("measure", [boundary_iou, boundary_f, trimap_iou])
    def test_says_what_is_wrong(self, measure: object) -> None:
        with pytest.raises(TypeError, match="prediction must be a bool array, got uint8"):
            measure(np.ones((2, 2), np.uint8), np.ones((2, 2), bool))
        with pytest.raises(ValueError, match="one shape"):
            measure(np.ones((2, 2), bool), np.ones((2, 3), bool))
        with pytest.raises(ValueError, match="at least one"):
            measure(np.ones((0, 2), bool), np.ones((0, 2), bool))


class TestBoundaryScores:
    @given(st.lists(st.tuples(masks, masks), min_size=1, max_size=3))
    def test_two_classes_are_a_mask_and_its_rest(self, images: list[tuple[np.ndarray, np.ndarray]]) -> None:
        scores = BoundaryScores(2, width=1, tolerance=1.5, trimap_width=2)
        for a, b in images:
            scores.update(a.astype(np.uint8), b.astype(np.uint8))
        report = scores.compute()
        edged = [(a, b) for a, b in images if contour(a).any() or contour(b).any()]
        if edged:
            assert report.f[1] == pytest.approx(np.mean([boundary_f(a, b, tolerance=1.5) for a, b in edged]))
        bands = [(band(a, 1), band(b, 1)) for a, b in images]
        union = sum((a | b).sum() for a, b in bands)
        if union:
            assert report.iou[1] == sum((a & b).sum() for a, b in bands) / union

    def test_one_image_gives_the_figures_of_the_masks(self) -> None:
        a, b = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
        a[3:15, 4:20], b[4:16, 6:20] = True, True
        scores = BoundaryScores(2, width=2, tolerance=1, trimap_width=3)
        scores.update(a, b)
        report = scores.compute()
        assert report.iou[1] == boundary_iou(a, b, width=2)
        assert report.f[1] == boundary_f(a, b, tolerance=1)
        assert report.trimap_iou[1] == trimap_iou(a, b, width=3)
        assert report.mean_f == pytest.approx(report.f.mean())
        assert 0 < report.precision[1] < 1
        assert 0 < report.recall[1] < 1

    def test_ignored_pixels_belong_to_no_class_in_either_map(self) -> None:
        target = np.zeros((9, 9), np.uint8)
        target[2:7, 2:7] = 1
        target[:, 5:] = 255
        prediction = target.copy()
        prediction[:, 5:] = np.arange(36).reshape(9, 4) % 2  # whatever it says there
        scores = BoundaryScores(2, ignore=(255,), width=1, tolerance=1)
        scores.update(prediction, target)
        report = scores.compute()
        assert (report.mean_iou, report.mean_f, report.mean_trimap_iou) == (1.0, 1.0, 1.0)

    def test_absent_classes_are_nan_and_in_no_mean(self) -> None:
        scores = BoundaryScores(3, width=1, tolerance=1)
        scores.update(np.eye(4, dtype=int), np.eye(4, dtype=int))
        report = scores.compute()
        np.testing.assert_array_equal(report.iou, [1, 1, np.nan])
        assert report.mean_iou == 1

    @pytest.mark.parametrize(
        ("prediction", "target", "error", "words"),
        [
            ([[0.0]], [[0]], TypeError, "prediction must be a label map"),
            ([[0]], [[0, 1]], ValueError, "one shape"),
            ([0], [0], ValueError, r"\(h, w\)"),
            ([[2]], [[0]], ValueError, "prediction must hold labels below num_classes = 2 or to ignore.* got 2"),
            ([[0]], [[7]], ValueError, "target must hold labels below num_classes = 2"),
            ([[-1]], [[0]], ValueError, "labels >= 0"),
        ],
    )
    def test_says_what_is_wrong(self, prediction: object, target: object, error: type[Exception], words: str) -> None:
        scores = BoundaryScores(2, ignore=(255,))
        with pytest.raises(error, match=words):
            scores.update(prediction, target)
        with pytest.raises(ValueError, match="num_classes must be >= 1"):
            BoundaryScores(0)
