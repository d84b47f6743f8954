"""The BSDS benchmark: thinning beside scikit-image, pairing beside all pairings, curves beside MATLAB's loops."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin as skimage_thin

from linocut.metrics import BoundaryBenchmark, region_boundaries
from linocut.metrics.bsds import _area, _best_point
from linocut.metrics.correspondence import correspond
from linocut.metrics.thinning import thin

masks = hnp.arrays(np.bool_, (9, 11))
sparse = hnp.arrays(np.bool_, (6, 8), elements=st.sampled_from([True, False, False, False, False]))


class TestThin:
    @given(masks)
    def test_is_scikit_images(self, mask: np.ndarray) -> None:
        np.testing.assert_array_equal(thin(mask), skimage_thin(mask))

    @given(masks)
    def test_thinned_once_is_thin(self, mask: np.ndarray) -> None:
        np.testing.assert_array_equal(thin(thin(mask)), thin(mask))
        assert not (thin(mask) & ~mask).any()

    def test_any_layout(self) -> None:
        mask = np.random.default_rng(0).random((40, 30)) < 0.7
        np.testing.assert_array_equal(thin(np.asfortranarray(mask)), thin(mask))

    def test_refuses_what_is_no_mask(self) -> None:
        with pytest.raises(TypeError, match="mask must be a bool array"):
            thin(np.ones((2, 2)))
        with pytest.raises(ValueError, match=r"\(h, w\)"):
            thin(np.ones(3, bool))


def cheapest(a: np.ndarray, b: np.ndarray, reach: float, outlier: float) -> tuple[float, int]:
    """Cost and number of pairs of the best of all pairings, by trying each."""
    first, second = sorted((np.argwhere(a).tolist(), np.argwhere(b).tolist()), key=len)
    best = (np.inf, 0)
    for chosen in permutations(range(len(second)), len(first)):
        distances = [np.hypot(*np.subtract(p, second[j])) for p, j in zip(first, chosen, strict=True)]
        # every subset of the pairs that reach: those that are worth it are taken
        taken = [d for d in distances if d <= reach + 1e-9]
        best = min(best, (sum(taken) - outlier * len(taken), -len(taken)))
    return best[0], -best[1]


def cost_by_dense_assignment(a: np.ndarray, b: np.ndarray, reach: float, outlier: float) -> float:
    """The same through the authors' square graph: outliers for both sides, outlier to outlier at the same cost."""
    first, second = np.argwhere(a), np.argwhere(b)
    n, m = len(first), len(second)
    cost = np.full((n + m, n + m), float(outlier))
    distance = np.hypot(*(first[:, None] - second[None]).transpose(2, 0, 1)) if n and m else np.zeros((n, m))
    cost[:n, :m] = np.where(distance <= reach + 1e-9, distance, 1e9)
    return float(cost[linear_sum_assignment(cost)].sum() - outlier * (n + m))


class TestCorrespond:
    @given(sparse, sparse, st.sampled_from([0.0, 1.0, 1.5, 2.3]))
    def test_pairs_as_many_as_the_authors_graph(self, a: np.ndarray, b: np.ndarray, reach: float) -> None:
        # costs of pairs are at most a hundredth of the outlier cost, so the cost tells the number of pairs
        diagonal = np.hypot(*a.shape)
        ours, theirs = correspond(a, b, max_distance=reach / diagonal)
        pairs = np.count_nonzero(ours)
        assert pairs == np.count_nonzero(theirs)
        assert not (ours & ~a).any()
        assert not (theirs & ~b).any()
        outlier = 100 * max(reach, 1)
        assert pairs == -round(cost_by_dense_assignment(a, b, reach, outlier) / outlier - 1e-3)

    def test_all_pairings_of_a_few_pixels(self) -> None:
        rng = np.random.default_rng(3)
        for _ in range(40):
            a, b = np.zeros((5, 6), bool), np.zeros((5, 6), bool)
            a.ravel()[rng.permutation(30)[:4]] = True
            b.ravel()[rng.permutation(30)[:5]] = True
            ours, _ = correspond(a, b, max_distance=2 / np.hypot(5, 6))
            cost, pairs = cheapest(a, b, 2, 200)
            assert np.count_nonzero(ours) == pairs
            assert cost == pytest.approx(cost_by_dense_assignment(a, b, 2, 200))

    def test_a_low_outlier_cost_leaves_long_pairs_apart(self) -> None:
        # a chain: keeping the pair of distance 0 costs one outlier, pairing both costs 2 + 2
        a, b = np.zeros((1, 9), bool), np.zeros((1, 9), bool)
        a[0, [2, 4]], b[0, [4, 6]] = True, True
        reach = 2 / np.hypot(1, 9)
        assert [np.count_nonzero(m) for m in correspond(a, b, max_distance=reach, outlier_cost=1.9)] == [1, 1]
        assert [np.count_nonzero(m) for m in correspond(a, b, max_distance=reach, outlier_cost=2.1)] == [2, 2]

    def test_any_layout_and_nothing(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.random((30, 40)) < 0.1, rng.random((30, 40)) < 0.1
        expected = correspond(a, b, max_distance=0.04)
        for found, wanted in zip(correspond(np.asfortranarray(a), b, max_distance=0.04), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert not any(m.any() for m in correspond(a, np.zeros_like(a)))

    def test_refuses_what_is_none(self) -> None:
        a = np.ones((2, 2), bool)
        with pytest.raises(ValueError, match="max_distance must be >= 0"):
            correspond(a, a, max_distance=-1)
        with pytest.raises(ValueError, match="outlier_cost must be > 1"):
            correspond(a, a, outlier_cost=1)
        with pytest.raises(ValueError, match=r"\(h, w\)"):
            correspond(a[0], a[0])
        with pytest.raises(TypeError, match="must be a bool array"):
            correspond(a.astype(int), a)


def f_of(recall: float, precision: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


class TestBenchmark:
    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
    def test_best_point_is_the_loop_of_the_original(self, curve: list[tuple[float, float]]) -> None:
        recall, precision = (np.array(column) for column in zip(*curve, strict=True))
        thresholds = np.arange(1, len(curve) + 1) / 10
        best = (thresholds[0], recall[0], precision[0], f_of(recall[0], precision[0]))
        for i in range(1, len(curve)):
            for d in np.linspace(0, 1, 100):
                r, p = recall[i] * d + recall[i - 1] * (1 - d), precision[i] * d + precision[i - 1] * (1 - d)
                if f_of(r, p) > best[3] + 1e-15:
                    best = (thresholds[i] * d + thresholds[i - 1] * (1 - d), r, p, f_of(r, p))
        assert _best_point(thresholds, recall, precision)[3] == pytest.approx(best[3])

    def test_area_by_hand(self) -> None:
        # precision 1 at recall .2, .5 at .4: 21 points from .2 to .4, mean .75; nothing outside
        assert _area(np.array([0.4, 0.2]), np.array([0.5, 1.0])) == pytest.approx(21 * 0.75 / 100)
        assert _area(np.array([0.4, 0.4]), np.array([0.5, 1.0])) == 0

    def test_two_thresholds_by_hand(self) -> None:
        strength = np.zeros((10, 10))
        strength[:, 2], strength[:, 7] = 0.9, 0.5
        first, second = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
        first[:, 2], second[:5, 7] = True, True
        benchmark = BoundaryBenchmark(thresholds=(0.4, 0.8), thinned=False)
        benchmark.update(strength, [first, second])
        assert benchmark.counts.tolist() == [[15, 15, 15, 20], [10, 15, 10, 10]]
        curve = benchmark.compute()
        np.testing.assert_allclose(curve.recall, [1, 2 / 3])
        np.testing.assert_allclose(curve.precision, [3 / 4, 1])
        np.testing.assert_allclose(curve.f, [6 / 7, 4 / 5])
        assert curve.ois == pytest.approx(6 / 7)
        assert curve.ods == pytest.approx(max(f_of(1 - d / 3, 3 / 4 + d / 4) for d in np.linspace(0, 1, 100)))
        assert 0.4 < curve.ods_threshold < 0.8

    def test_images_choose_their_own_threshold_for_ois(self) -> None:
        low, high, line = np.zeros((10, 10)), np.zeros((10, 10)), np.zeros((10, 10), bool)
        line[:, 4] = True
        low[:, 4] = 0.3  # only the low threshold finds it
        high[:, 4], high[:, 8] = 0.9, 0.3  # only the high threshold is clean
        benchmark = BoundaryBenchmark(thresholds=(0.2, 0.8), thinned=False)
        benchmark.update(low, [line])
        benchmark.update(high, [line])
        curve = benchmark.compute()
        assert curve.ois == 1
        assert curve.ods == pytest.approx(max(f_of(1 - d / 2, 2 / 3 + d / 3) for d in np.linspace(0, 1, 100)))

    def test_regions_have_the_boundary_at_their_corners(self) -> None:
        marks = region_boundaries(np.array([[1, 1, 1], [1, 1, 1], [2, 2, 2]]))
        assert marks.astype(int).tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0]]

    @pytest.mark.parametrize(
        ("prediction", "targets", "error", "words"),
        [
            (np.zeros((3, 3), np.uint8), [np.zeros((3, 3), bool)], TypeError, "divide by 255 first"),
            (np.zeros((3, 3)), [], ValueError, "at least one annotator"),
            (np.zeros((3, 3)), [np.zeros((3, 4), bool)], ValueError, "one shape"),
            (np.zeros((3, 3)), [np.zeros((3, 3))], TypeError, "a target must be a bool array"),
            (np.full((3, 3), np.nan), [np.zeros((3, 3), bool)], ValueError, "NaN"),
        ],
    )
    def test_says_what_is_wrong(self, prediction: object, targets: object, error: type[Exception], words: str) -> None:
        benchmark = BoundaryBenchmark(thresholds=(0.5,))
        with pytest.raises(error, match=words):
            benchmark.update(prediction, targets)
        assert benchmark.images == 0

    def test_settings_and_nothing(self) -> None:
        with pytest.raises(ValueError, match="ascending"):
            BoundaryBenchmark(thresholds=(0.5, 0.4))
        with pytest.raises(ValueError, match="max_distance"):
            BoundaryBenchmark(max_distance=-0.1)
        with pytest.raises(ValueError, match="no images"):
            BoundaryBenchmark().compute()
