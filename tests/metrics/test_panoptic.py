"""Panoptic quality: the paper's numbers by hand, a plain reading of its definition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linocut.metrics import PanopticQuality

segments = hnp.arrays(np.uint8, (4, 6), elements=st.integers(0, 5))
classes_of = st.dictionaries(st.integers(1, 5), st.sampled_from([10, 20, 30]), min_size=5, max_size=5)


def plain(
    prediction: np.ndarray, target: np.ndarray, guessed: dict[int, int], wanted: dict[int, int], crowd: set[int]
) -> dict[int, list[float]]:
    """Σ IoU, TP, FP, FN of each class, pixel set by pixel set."""
    sums = {cls: [0.0, 0, 0, 0] for cls in (10, 20, 30)}
    void = target == 0
    matched_p, matched_t = set(), set()
    present_p, present_t = (set(m.ravel().tolist()) - {0} for m in (prediction, target))
    for p in present_p:
        for t in present_t - crowd:
            a, b = prediction == p, target == t
            union = ((a & ~void) | b).sum()
            iou = (a & b).sum() / union if union else 0
            if guessed[p] == wanted[t] and iou > 0.5:
                sums[wanted[t]][0] += iou
                sums[wanted[t]][1] += 1
                matched_p.add(p)
                matched_t.add(t)
    for t in present_t - matched_t - crowd:
        sums[wanted[t]][3] += 1
    for p in present_p - matched_p:
        excused = void | np.isin(target, [t for t in crowd if wanted.get(t) == guessed[p]])
        if ((prediction == p) & excused).sum() / (prediction == p).sum() <= 0.5:
            sums[guessed[p]][2] += 1
    return sums


def quality(*update: object, crowd: tuple[int, ...] = ()) -> PanopticQuality:
    found = PanopticQuality(classes=(10, 20, 30), things=(10, 20))
    found.update(*update, crowd=crowd)
    return found


@given(segments, segments, classes_of, classes_of, st.sets(st.integers(1, 5), max_size=2))
def test_agrees_with_the_definition(
    prediction: np.ndarray, target: np.ndarray, guessed: dict[int, int], wanted: dict[int, int], crowd: set[int]
) -> None:
    found = quality(prediction, target, guessed, wanted, crowd=tuple(crowd))
    scores = found.compute()
    sums = plain(prediction, target, guessed, wanted, crowd)
    for k, cls in enumerate((10, 20, 30)):
        iou, tp, fp, fn = sums[cls]
        assert (scores.tp[k], scores.fp[k], scores.fn[k]) == (tp, fp, fn)
        if tp + fp + fn:
            assert scores.pq[k] == pytest.approx(iou / (tp + fp / 2 + fn / 2))
            assert scores.pq[k] == pytest.approx(scores.sq[k] * scores.rq[k])
            assert 0 <= scores.pq[k] <= scores.rq[k] <= 1
        else:
            assert np.isnan([scores.pq[k], scores.sq[k], scores.rq[k]]).all()


def test_three_classes_by_hand() -> None:
    # class 10: one match of IoU 3/4; class 20: a miss and an invention; class 30 absent
    prediction, target = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[4, 4, 4, 4, 5, 6]])
    scores = quality(prediction, target, {1: 10, 2: 20}, {4: 10, 5: 20, 6: 20}).compute()
    np.testing.assert_allclose(scores.pq, [0.75, 0, np.nan])
    np.testing.assert_allclose(scores.sq, [0.75, 0, np.nan])
    np.testing.assert_allclose(scores.rq, [1, 0, np.nan])
    assert (scores.tp, scores.fp, scores.fn) == ((1, 0, 0), (0, 1, 0), (0, 2, 0))
    assert (scores.all.pq, scores.all.classes) == (0.375, 2)
    assert (scores.things.pq, scores.things.classes) == (0.375, 2)
    assert np.isnan(scores.stuff.pq)
    assert scores.stuff.classes == 0


def test_void_counts_for_no_union_and_excuses() -> None:
    scores = quality([[1, 1, 1, 2, 2]], [[3, 3, 0, 0, 0]], {1: 10, 2: 20}, {3: 10}).compute()
    assert scores.pq[0] == 1.0  # the third pixel of segment 1 is void
    assert scores.fp == (0, 0, 0)  # segment 2 lies on void


def test_half_on_void_is_not_excused() -> None:
    scores = quality([[1, 1]], [[0, 3]], {1: 20}, {3: 10}).compute()
    assert scores.fp == (0, 1, 0)


def test_every_crowd_of_a_class_excuses() -> None:
    # panopticapi would remember one of the two crowds and count an error
    scores = quality([[1, 1, 1, 1, 1]], [[3, 3, 4, 5, 5]], {1: 10}, {3: 10, 4: 10, 5: 20}, crowd=(3, 4)).compute()
    assert scores.fp == (0, 0, 0)
    other = quality([[1, 1, 1, 1, 1]], [[3, 3, 4, 5, 5]], {1: 20}, {3: 10, 4: 10, 5: 20}, crowd=(3, 4)).compute()
    assert other.fp == (0, 1, 0)


def test_equal_segmentations_score_one_whatever_their_labels() -> None:
    target = np.array([[1, 1, 2], [3, 3, 2]])
    scores = quality(np.array([0, 9, 700, 4])[target], target, {9: 10, 700: 20, 4: 30}, {1: 10, 2: 20, 3: 30}).compute()
    assert scores.pq.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (([[1, 2]], [[1, 1]], {1: 10}, {1: 10}), "prediction holds the label 2, which has no class; given are .1."),
        (([[1, 1]], [[1, 7]], {1: 10}, {1: 10}), "target holds the label 7"),
        (([[1]], [[1]], {1: 10}, {1: 99}), r"label 1 of target has the class 99, none of \(10, 20, 30\)"),
        (([[1]], [[1, 1]], {1: 10}, {1: 10}), "one shape"),
        (([[-1]], [[1]], {1: 10}, {1: 10}), "labels >= 0"),
    ],
)
def test_says_what_is_wrong(update: tuple[object, ...], words: str) -> None:
    found = PanopticQuality(classes=(10, 20, 30))
    with pytest.raises(ValueError, match=words):
        found.update(*update)
    assert found.to_json() == PanopticQuality(classes=(10, 20, 30)).to_json()


def test_classes_must_make_sense() -> None:
    with pytest.raises(ValueError, match="ascending"):
        PanopticQuality(classes=(2, 1))
    with pytest.raises(ValueError, match=r"things must be classes, got \[3\] beyond"):
        PanopticQuality(classes=(1, 2), things=(3,))
