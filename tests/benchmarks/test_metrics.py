"""The pairs of maps that the confusion matrix is timed on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import metrics


@pytest.mark.parametrize("num_classes", metrics.CLASSES)
@pytest.mark.parametrize("kind", metrics.PAIRS)
def test_pairs_are_maps_of_the_classes_on_which_we_count_what_numpy_counts(kind: str, num_classes: int) -> None:
    prediction, target = metrics.PAIRS[kind](num_classes, 256)
    assert prediction.dtype == target.dtype == np.uint8
    assert prediction.shape == target.shape == (256, 256)
    expected = metrics.bincount(prediction, target, num_classes)
    np.testing.assert_array_equal(metrics.linocut(prediction, target, num_classes), expected)
    np.testing.assert_array_equal(metrics.bincount_bytes(prediction, target, num_classes), expected)


def test_a_real_prediction_is_mostly_right_and_its_target_comes_in_runs() -> None:
    prediction, target = metrics.real_pair(150, 256)
    assert 0.5 < np.mean(prediction == target) < 1
    assert np.mean(target[:, 1:] == target[:, :-1]) > 0.9
    assert len(np.unique(target)) > 20


def test_the_known_difference_is_what_its_docstring_says() -> None:
    pytest.importorskip("torchmetrics")
    ours, theirs = metrics.known_difference().values()
    assert ours == pytest.approx(11 / 21)
    assert theirs == pytest.approx(((2 / 3 + 1 / 2) / 2 + (3 / 4 + 0) / 2) / 2)
