"""Overlaps of all pairs, against counting them one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from linocut.data import overlap
from linocut.data.overlap import pairwise_intersections, pairwise_iou
from linocut.data.rle import encode_rle

both_forms = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
stacks = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=20))


@both_forms
@given(masks=stacks)
def test_intersections_are_the_common_pixels(form: str, masks: NDArray[np.bool_]) -> None:
    expected = [[int(np.count_nonzero(a & b)) for b in masks] for a in masks]
    common = pairwise_intersections(masks)
    assert common.dtype == np.int64
    assert common.shape == (len(masks), len(masks))
    assert common.tolist() == expected


def test_more_masks_than_a_block_and_empty_rows(form: str) -> None:
    # Masks in bands of rows: most pairs have no row in common, which the native kernel leaves out.
    rng = np.random.default_rng(0)
    masks = np.zeros((53, 40, 33), dtype=bool)
    for i, mask in enumerate(masks):
        mask[i % 37 : i % 37 + 5] = rng.random(mask[i % 37 : i % 37 + 5].shape) < 0.5
    flat = masks.reshape(53, -1).astype(np.int64)
    np.testing.assert_array_equal(pairwise_intersections(masks), flat @ flat.T)


def test_reference_adds_up_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_NATIVE", "0")
    masks = np.random.default_rng(1).random((5, 10, 13)) < 0.5
    whole = pairwise_intersections(masks)
    monkeypatch.setattr(overlap, "_EXACT_FLOAT32", 7)
    np.testing.assert_array_equal(pairwise_intersections(masks), whole)


def test_iou_is_that_of_pycocotools(form: str) -> None:
    masks = np.random.default_rng(2).random((6, 17, 19)) < np.linspace(0.1, 0.9, 6)[:, None, None]
    encoded = [encode_rle(mask) for mask in masks]
    expected = coco.iou(encoded, encoded, [0] * len(encoded))
    np.testing.assert_allclose(pairwise_iou(masks), expected, rtol=1e-6)


def test_empty_masks_have_iou_zero(form: str) -> None:
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[1] = True
    np.testing.assert_array_equal(pairwise_iou(masks), [[0, 0], [0, 1]])


def test_views_are_read_as_they_look(form: str) -> None:
    masks = np.random.default_rng(3).random((4, 8, 6)) < 0.5
    view = masks.transpose(0, 2, 1)[::-1]
    np.testing.assert_array_equal(pairwise_intersections(view), pairwise_intersections(view.copy()))


@pytest.mark.parametrize(
    ("masks", "kind", "message"),
    [
        (np.zeros((2, 2), dtype=bool), ValueError, r"shape \(n, h, w\), got \(2, 2\)"),
        (np.zeros((1, 2, 2), dtype=np.uint8), TypeError, r"bool array, got uint8"),
    ],
)
def test_bad_masks_are_refused(masks: NDArray[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        pairwise_intersections(masks)
