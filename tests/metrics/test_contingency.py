"""Pairs of labels of two maps: beside a loop over pixels, for every range of labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from linocut.metrics import contingency

pytestmark = pytest.mark.usefixtures("isa")

DTYPES = [np.bool_, *(np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64))]


def brute_force(prediction: NDArray[Any], target: NDArray[Any]) -> list[tuple[int, int, int]]:
    """One pixel after the other, in order."""
    pairs = Counter(zip(map(int, target.ravel().tolist()), map(int, prediction.ravel().tolist()), strict=True))
    return [(*pair, count) for pair, count in sorted(pairs.items())]


def listed(prediction: Any, target: Any) -> list[tuple[int, int, int]]:
    pairs = contingency(prediction, target)
    assert all(column.dtype == np.int64 for column in pairs)
    return list(zip(*(column.tolist() for column in pairs), strict=True))


@pytest.mark.parametrize("of_target", DTYPES)
@pytest.mark.parametrize("of_prediction", DTYPES)
def test_labels_of_the_whole_range(of_prediction: Any, of_target: Any) -> None:
    rng = np.random.default_rng(0)

    def labels(dtype: Any) -> NDArray[Any]:
        if dtype is np.bool_:
            return rng.random((40, 50)) < 0.5
        limits = np.iinfo(dtype)
        values = np.array([limits.min, 0, 1, min(limits.max, 2**63 - 1)], dtype)
        return np.repeat(rng.choice(values, (40, 10)), 5, axis=1)

    prediction, target = labels(of_prediction), labels(of_target)
    assert listed(prediction, target) == brute_force(prediction, target)


@pytest.mark.parametrize("high", [1, 30, 255, 256, 300, 5000, 2**31, 2**62])
@pytest.mark.parametrize("low", [0, -3, -(2**62)])
def test_instances(high: int, low: int) -> None:
    """Runs of labels of small, larger and very large ranges: in a table, and by hashing."""
    rng = np.random.default_rng(1)
    maps = [np.repeat(rng.integers(low, high, 700, endpoint=True), rng.integers(1, 250, 700))[:70_003] for _ in "pt"]
    assert listed(*maps) == brute_force(*maps)


def test_many_pairs() -> None:
    """No label twice: the table of pairs grows again and again."""
    rng = np.random.default_rng(2)
    prediction, target = rng.permutation(50_000), rng.permutation(50_000) * 2**33
    assert listed(prediction, target) == brute_force(prediction, target)


@given(st.integers(1, 300).flatmap(lambda n: hnp.arrays(np.int32, (2, n), elements=st.integers(-4, 4))))
def test_margins_are_the_areas(maps: NDArray[np.int32]) -> None:
    pairs = contingency(*maps)
    for labels, column in ((maps[0], pairs.prediction), (maps[1], pairs.target)):
        names, areas = np.unique(labels, return_counts=True)
        sums = {name: int(pairs.counts[column == name].sum()) for name in names.tolist()}
        assert sums == dict(zip(names.tolist(), areas.tolist(), strict=True))


def test_layouts_agree() -> None:
    rng = np.random.default_rng(3)
    for high in (9, 2**40):
        prediction, target = rng.integers(0, high, (300, 400)), rng.integers(0, high, (400, 300)).T
        expected = brute_force(prediction, target)
        assert listed(prediction, target) == expected
        assert listed(np.asfortranarray(prediction), target) == expected
        assert listed(prediction.astype(">i8"), target) == expected


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"prediction must be a label map .* got float64"):
        contingency(np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(4,\)"):
        contingency(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(ValueError, match=r"at least one label, got shape \(0,\)"):
        contingency(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match=rf"target must hold labels below 2\*\*63, got {2**63}"):
        contingency(np.zeros(1, int), np.array([2**63], np.uint64))
