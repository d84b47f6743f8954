"""The faults that the pictures of docs/metrics.md show are the faults they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.metrics_samples import CLASSES, FAULTS, classes_of, joined, names, objects_of, too_wide
from benchmarks.metrics_samples import without_the_smaller_half as without_half


def test_every_sample_has_its_classes() -> None:
    seen = {name: sorted(np.unique(classes_of(name, objects_of(name))).tolist()) for name in names()}
    assert {CLASSES[label] for labels in seen.values() for label in labels} == set(CLASSES)
    assert seen["astronaut"] == [0, CLASSES.index("helmet"), CLASSES.index("head")]


def test_faults() -> None:
    objects = np.zeros((9, 20), np.int32)
    objects[2:7, 2:5], objects[2:7, 5:9], objects[4:5, 14:16] = 1, 2, 3
    assert sorted(np.unique(without_half(objects)).tolist()) == [0, 1, 2]
    wide = too_wide(objects, 1)
    assert (wide[objects > 0] == objects[objects > 0]).all()
    assert np.count_nonzero(wide) == 7 * 9 + 3 * 4
    assert joined(objects).max() == 2
    assert ((joined(objects) > 0) == (objects > 0)).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_keep_the_shape(fault: str) -> None:
    objects = objects_of("nuclei-stained")
    assert FAULTS[fault](objects).shape == objects.shape
