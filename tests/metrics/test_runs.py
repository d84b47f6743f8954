"""Masks as runs: the three ways in agree, and so do both ways to count what pairs share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linocut.metrics.runs import _reference_shared, runs_of_counts, runs_of_labels, runs_of_masks, shared_pixels

from .coco_cases import counts

stacks = st.integers(0, 4).flatmap(lambda n: hnp.arrays(np.bool_, (n, 5, 6)))


@given(stacks)
def test_stacks_and_counts_agree(stack: np.ndarray) -> None:
    a, b = runs_of_masks(stack, "F"), runs_of_counts(counts(stack), 30)
    np.testing.assert_array_equal(a.bounds, b.bounds)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_array_equal(a.areas, stack.sum((1, 2)))
    np.testing.assert_array_equal(runs_of_masks(stack).areas, a.areas)


@given(hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 3)), st.sampled_from(["C", "F"]))
def test_label_maps_and_stacks_agree(labels: np.ndarray, order: str) -> None:
    names, runs = runs_of_labels(labels * 50, order)
    assert names.tolist() == sorted(set((labels * 50).ravel().tolist()) - {0})
    expected = runs_of_masks(np.array([labels * 50 == name for name in names], bool).reshape(-1, 5, 6), order)
    np.testing.assert_array_equal(runs.bounds, expected.bounds)
    np.testing.assert_array_equal(runs.offsets, expected.offsets)


@given(stacks, stacks)
def test_pairs_share_what_both_masks_hold(first: np.ndarray, second: np.ndarray) -> None:
    a, b = runs_of_masks(first), runs_of_masks(second)
    rows, columns = np.nonzero(np.ones((len(a), len(b)), bool))
    expected = (first[rows] & second[columns]).sum((1, 2))
    np.testing.assert_array_equal(shared_pixels(a, b, rows, columns), expected)
    np.testing.assert_array_equal(_reference_shared(a, b, rows, columns), expected)


def test_an_image_without_pixels_has_no_runs() -> None:
    names, runs = runs_of_labels(np.zeros((0, 3), int))
    assert (names.size, len(runs)) == (0, 0)


def test_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"\(n, h, w\)"):
        runs_of_masks(np.ones((2, 2), bool))
    with pytest.raises(TypeError, match="masks must be a bool array"):
        runs_of_masks(np.ones((1, 2, 2)))
    with pytest.raises(TypeError, match="flat list of integers"):
        runs_of_counts([[]], 4)
