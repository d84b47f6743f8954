"""Overlaps, matching, the AP of the Data Science Bowl and AJI: by hand, by brute force, and what is refused."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linocut.metrics import AggregatedJaccard, InstanceMatching, InstanceScores, match, overlaps
from linocut.metrics.assignment import best_pairs

pairs_of_maps = st.tuples(
    hnp.arrays(np.uint8, (4, 6), elements=st.integers(0, 4)), hnp.arrays(np.uint8, (4, 6), elements=st.integers(0, 4))
)


def brute_iou(prediction: np.ndarray, target: np.ndarray) -> dict[tuple[int, int], float]:
    """IoU of every pair of objects that meet, by label."""
    found = {}
    for p in set(prediction.ravel().tolist()) - {0}:
        for t in set(target.ravel().tolist()) - {0}:
            shared = np.count_nonzero((prediction == p) & (target == t))
            if shared:
                found[p, t] = shared / np.count_nonzero((prediction == p) | (target == t))
    return found


def most_pairs(iou: dict[tuple[int, int], float], threshold: float) -> int:
    """The largest number of disjoint pairs above a threshold, by trying all."""
    rows, columns = sorted({p for p, _ in iou}), sorted({t for _, t in iou})
    if len(rows) > len(columns):
        return most_pairs({(t, p): v for (p, t), v in iou.items()}, threshold)
    choices = permutations(columns, len(rows))
    return max(sum(iou.get(pair, 0) > threshold for pair in zip(rows, chosen, strict=True)) for chosen in choices)


def scores_of(prediction: object, target: object, **settings: object) -> InstanceScores:
    matching = InstanceMatching(**settings)
    matching.update(prediction, target)
    return matching.compute()


class TestOverlaps:
    @given(pairs_of_maps)
    def test_agree_with_counting_one_by_one(self, maps: tuple[np.ndarray, np.ndarray]) -> None:
        found = overlaps(*maps).without(0)
        labels = zip(found.prediction_labels[found.rows], found.target_labels[found.columns], strict=True)
        assert dict(zip(((int(p), int(t)) for p, t in labels), found.iou.tolist(), strict=True)) == brute_iou(*maps)

    def test_dtypes_layouts_and_tensors_give_the_same(self) -> None:
        a, b = np.arange(24).reshape(4, 6) % 5, np.arange(24).reshape(4, 6) % 3
        expected = overlaps(a, b)
        for x, y in (
            (a.astype(np.uint8), b.astype(np.int16)),
            (np.asfortranarray(a), b),
            (torch.from_numpy(a), torch.from_numpy(b).to(torch.int32)),
        ):
            found = overlaps(x, y)
            np.testing.assert_array_equal(found.shared, expected.shared)
            np.testing.assert_array_equal(found.prediction_areas, expected.prediction_areas)

    def test_ignored_pixels_are_of_no_segment(self) -> None:
        found = overlaps([[1, 1, 2]], [[3, 3, 3]], ignore=[[False, True, False]])
        assert found.target_areas.tolist() == [2]
        assert found.iou.tolist() == [0.5, 0.5]
        assert overlaps([[1]], [[1]], ignore=[[True]]).shared.size == 0

    @pytest.mark.parametrize(
        ("prediction", "target", "error", "words"),
        [
            ([[0.5]], [[1]], TypeError, "prediction must be a label map of integers or bools, got float64"),
            ([[1]], [[1.0]], TypeError, "target must be a label map"),
            ([[1, -2]], [[1, 1]], ValueError, r"prediction must hold labels >= 0, got -2 at \(0, 1\); 1 pixels"),
            ([[1]], [[1, 1]], ValueError, r"one shape, got \(1, 1\) and \(1, 2\)"),
            (np.zeros((0, 3), int), np.zeros((0, 3), int), ValueError, "at least one label"),
        ],
    )
    def test_says_what_is_wrong(self, prediction: object, target: object, error: type[Exception], words: str) -> None:
        for summary in (InstanceMatching(), AggregatedJaccard()):
            with pytest.raises(error, match=words):
                summary.update(prediction, target)
            assert summary.images == 0

    def test_ignore_must_fit(self) -> None:
        with pytest.raises(ValueError, match="ignore must have the shape"):
            overlaps([[1]], [[1]], ignore=[True])
        with pytest.raises(TypeError, match="ignore must be a bool array"):
            overlaps([[1]], [[1]], ignore=[[1]])


class TestMatch:
    @given(pairs_of_maps, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7]))
    def test_optimal_finds_as_many_as_there_can_be(self, maps: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
        found = overlaps(*maps).without(0)
        chosen = match(found, threshold)
        iou = brute_iou(*maps)
        assert chosen.size == (most_pairs(iou, threshold) if iou else 0)
        assert len(set(found.rows[chosen].tolist())) == len(set(found.columns[chosen].tolist())) == chosen.size
        assert (found.iou[chosen] > threshold).all()

    @given(pairs_of_maps, st.sampled_from([0.5, 0.6, 0.9]))
    def test_above_one_half_there_is_no_choice(self, maps: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
        found = overlaps(*maps).without(0)
        np.testing.assert_array_equal(match(found, threshold), match(found, threshold, method="greedy"))

    def test_greedy_takes_the_best_first_optimal_the_most(self) -> None:
        prediction, target = np.zeros((1, 16), int), np.zeros((1, 16), int)
        target[0, :7], target[0, 7:13] = 1, 2
        prediction[0, 3:10] = 1
        prediction[0, [0, 1, 2, 13, 14, 15]] = 2
        assert brute_iou(prediction, target) == {(1, 1): 0.4, (1, 2): 0.3, (2, 1): 0.3}
        found = overlaps(prediction, target).without(0)
        assert found.iou[match(found, 0.2, method="greedy")].tolist() == [0.4]
        assert found.iou[match(found, 0.2)].tolist() == [0.3, 0.3]

    def test_one_half_is_a_hit_only_if_asked(self) -> None:
        found = overlaps([[1, 2]], [[1, 1]]).without(0)
        assert match(found, 0.5).size == 0
        assert match(found, 0.5, inclusive=True).size == 1
        assert match(found, 0.5, inclusive=True, method="greedy").size == 1

    @pytest.mark.parametrize(
        ("threshold", "options"), [(1.0, {}), (-0.1, {}), (0.0, {"inclusive": True}), (0.5, {"method": "best"})]
    )
    def test_refuses_what_is_no_rule(self, threshold: float, options: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"threshold must be in|method must be"):
            match(overlaps([[1]], [[1]]), threshold, **options)
        with pytest.raises(ValueError, match=r"threshold must be in|method must be"):
            InstanceMatching(thresholds=(threshold,), **options)

    @given(st.integers(1, 5), st.integers(1, 5), st.data())
    def test_best_pairs_have_the_highest_sum(self, n: int, m: int, data: st.DataObject) -> None:
        gain = data.draw(hnp.arrays(np.float64, (n, m), elements=st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0])))
        rows, columns = np.nonzero(gain)
        chosen = best_pairs(rows, columns, gain[rows, columns])
        assert len(set(rows[chosen].tolist())) == len(set(columns[chosen].tolist())) == chosen.size
        wide = gain if n <= m else gain.T
        most = max(sum(wide[range(len(wide)), list(p)]) for p in permutations(range(wide.shape[1]), len(wide)))
        assert gain[rows, columns][chosen].sum() == pytest.approx(most)


class TestInstanceMatching:
    def test_by_hand(self) -> None:
        prediction = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3]])
        target = np.array([[1, 1, 1, 0, 0, 2, 2, 2, 0]])  # IoU .75 and .667; prediction 3 is no object
        scores = scores_of(prediction, target, thresholds=(0.5, 0.7, 0.9))
        assert (scores.tp, scores.fp, scores.fn) == ((2, 1, 0), (1, 2, 3), (0, 1, 2))
        np.testing.assert_allclose(scores.ap, [2 / 3, 1 / 4, 0])
        np.testing.assert_allclose(scores.precision, [2 / 3, 1 / 3, 0])
        np.testing.assert_allclose(scores.recall, [1, 1 / 2, 0])
        np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 5, 0])
        assert scores.at(0.7) == 0.25
        assert scores.mean_ap == pytest.approx((2 / 3 + 1 / 4) / 3)

    def test_images_are_averaged_apart_from_the_pool(self) -> None:
        matching = InstanceMatching(thresholds=(0.5,))
        matching.update([[1, 2, 3]], [[1, 2, 3]])  # AP 1
        matching.update([[0, 0]], [[1, 0]])  # AP 0
        matching.update([[0, 0]], [[0, 0]])  # nothing: no image of objects
        scores = matching.compute()
        assert (scores.mean_ap, scores.mean_image_ap, matching.images) == (3 / 4, 1 / 2, 2)

    def test_nothing_has_no_figures(self) -> None:
        assert np.isnan(scores_of([[0]], [[0]]).mean_ap)

    @given(pairs_of_maps)
    def test_is_bounded_falls_with_the_threshold_and_swaps(self, maps: tuple[np.ndarray, np.ndarray]) -> None:
        scores, swapped = scores_of(*maps), scores_of(*maps[::-1])
        known = scores.ap[~np.isnan(scores.ap)]
        assert ((known >= 0) & (known <= 1)).all()
        assert (np.diff(known) <= 0).all()
        assert (scores.tp, scores.fp, scores.fn) == (swapped.tp, swapped.fn, swapped.fp)

    @given(pairs_of_maps, st.permutations(range(1, 5)))
    def test_names_of_labels_do_not_matter(self, maps: tuple[np.ndarray, np.ndarray], names: list[int]) -> None:
        renamed = np.array([0, *names])[maps[0]] * 1000
        assert scores_of(renamed, maps[1]).tp == scores_of(*maps).tp

    def test_thresholds_must_ascend(self) -> None:
        with pytest.raises(ValueError, match="ascending"):
            InstanceMatching(thresholds=(0.7, 0.5))
        with pytest.raises(ValueError, match="threshold must be one of"):
            scores_of([[1]], [[1]]).at(0.42)


def brute_aji(prediction: np.ndarray, target: np.ndarray) -> float:
    """Algorithm 1 of Kumar et al., line by line; an object that nothing touches adds its own pixels."""
    shared = union = 0
    used = set()
    for t in sorted(set(target.ravel().tolist()) - {0}):
        g = target == t
        best, best_iou = None, 0.0
        for p in sorted(set(prediction.ravel().tolist()) - {0}):
            s = prediction == p
            iou = (g & s).sum() / (g | s).sum()
            if iou > best_iou:
                best, best_iou = p, iou
        if best is None:
            union += g.sum()
        else:
            shared += (g & (prediction == best)).sum()
            union += (g | (prediction == best)).sum()
            used.add(best)
    union += sum((prediction == p).sum() for p in set(prediction.ravel().tolist()) - {0} - used)
    return float(shared / union) if union else float("nan")


class TestAggregatedJaccard:
    @given(pairs_of_maps)
    def test_agrees_with_the_published_algorithm(self, maps: tuple[np.ndarray, np.ndarray]) -> None:
        jaccard = AggregatedJaccard()
        jaccard.update(*maps)
        scores = jaccard.compute()
        assert scores.aji == pytest.approx(brute_aji(*maps), nan_ok=True)
        assert scores.image_aji == pytest.approx(scores.aji, nan_ok=True)
        assert np.isnan(scores.aji) or 0 <= scores.aji_plus <= 1

    def test_equal_maps_score_one(self) -> None:
        jaccard = AggregatedJaccard()
        jaccard.update([[1, 1, 0, 2]], [[7, 7, 0, 3]])
        scores = jaccard.compute()
        assert (scores.aji, scores.aji_plus, scores.images) == (1.0, 1.0, 1)

    def test_images_are_pooled_and_averaged(self) -> None:
        jaccard = AggregatedJaccard()
        jaccard.update([[1, 1, 1, 1]], [[1, 1, 1, 1]])
        jaccard.update([[1, 0]], [[0, 2]])
        scores = jaccard.compute()
        assert (scores.aji, scores.image_aji) == (4 / 6, 1 / 2)
