"""Bounding boxes of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from linocut.data.boxes import bounding_box


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_the_box_holds_every_pixel_and_touches_one_on_each_side(mask: NDArray[np.bool_]) -> None:
    ys, xs = np.nonzero(mask)
    if len(xs):
        assert bounding_box(mask) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    else:
        with pytest.raises(ValueError, match="an empty mask has no bounding box"):
            bounding_box(mask)


def test_a_mask_without_any_area_is_empty() -> None:
    with pytest.raises(ValueError, match=r"got a mask of \(0, 7\)"):
        bounding_box(np.zeros((0, 7), bool))
