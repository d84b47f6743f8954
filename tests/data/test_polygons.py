"""Polygons: every pixel comes back, areas are exact, rings are simple, and foreign polygons are filled by the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from skimage.measure import grid_points_in_poly

from linocut.data.polygons import mask_to_polygons, polygons_to_mask

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))
FALLING = np.eye(2, dtype=bool)
# a loop of pixels that closes only at a corner: its border comes to that corner twice
LOOP = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool)
LADDER = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], dtype=bool)


def signed_area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def disc(radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:64, :64]
    return (x - 31.5) ** 2 + (y - 31.5) ** 2 < radius**2


@given(mask=masks)
@example(mask=FALLING)
@example(mask=~FALLING)
@example(mask=LOOP)
@example(mask=LADDER)
def test_round_trip_is_exact(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(polygons_to_mask(mask_to_polygons(mask), mask.shape), mask)


@given(mask=masks)
@example(mask=LOOP)
def test_signed_areas_add_up_to_the_pixels(mask: NDArray[np.bool_]) -> None:
    assert sum(map(signed_area, mask_to_polygons(mask))) == np.count_nonzero(mask)


@given(mask=masks)
@example(mask=FALLING)
@example(mask=LOOP)
@example(mask=LADDER)
def test_rings_are_simple_and_turn_at_every_corner(mask: NDArray[np.bool_]) -> None:
    for ring in mask_to_polygons(mask):
        assert ring.dtype == np.float64
        assert len({(x, y) for x, y in ring.tolist()}) == len(ring)
        steps = np.roll(ring, -1, axis=0) - ring
        horizontal = steps[:, 1] == 0
        assert np.all(horizontal != (steps[:, 0] == 0)), "every step is horizontal or vertical"
        assert np.all(horizontal != np.roll(horizontal, 1)), "no corner lies on a straight line"


def test_one_pixel_is_its_square() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    (ring,) = mask_to_polygons(mask)
    assert ring.tolist() == [[2, 1], [3, 1], [3, 2], [2, 2]]


def test_hole_runs_the_other_way() -> None:
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 1] = False
    assert sorted(signed_area(ring) for ring in mask_to_polygons(mask)) == [-1, 9]


def test_pixels_that_touch_at_a_corner_are_parted() -> None:
    assert [signed_area(ring) for ring in mask_to_polygons(FALLING)] == [1, 1]
    assert sorted(signed_area(ring) for ring in mask_to_polygons(LOOP)) == [-1, 8]


def test_nothing_gives_no_ring_and_no_ring_gives_nothing() -> None:
    assert mask_to_polygons(np.zeros((5, 6), dtype=bool)) == []
    assert not polygons_to_mask([], (5, 6)).any()


def test_integer_masks_are_taken_as_not_zero() -> None:
    labels = np.array([[0, 3], [-1, 0]])
    np.testing.assert_array_equal(polygons_to_mask(mask_to_polygons(labels), (2, 2)), labels != 0)


@pytest.mark.parametrize("tolerance", [0.8, 2.0])
def test_tolerance_bounds_how_far_the_border_moves(tolerance: float) -> None:
    mask = disc(25)
    rings = mask_to_polygons(mask, tolerance=tolerance)
    assert sum(map(len, rings)) < sum(map(len, mask_to_polygons(mask))) / 2
    # a ring within the tolerance fills nothing outside a disc so much larger, and all of one so much smaller; a pixel's
    # corner is up to 0.71 from the circle that its centre is tested against
    filled = polygons_to_mask(rings, mask.shape)
    reach = tolerance + 0.71
    assert np.all(filled[disc(25 - reach)])
    assert not np.any(filled[~disc(25 + reach)])


def test_rings_that_shrink_to_nothing_are_dropped() -> None:
    assert mask_to_polygons(np.ones((1, 1), dtype=bool), tolerance=10.0) == []


def on_an_edge(ring: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixel centres lie on an edge of a ring."""
    y, x = np.indices(shape) + 0.5
    found = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        on_line = (x - x0) * (y1 - y0) == (y - y0) * (x1 - x0)
        found |= on_line & (min(x0, x1) <= x) & (x <= max(x0, x1)) & (min(y0, y1) <= y) & (y <= max(y0, y1))
    return found


@given(
    ring=arrays(
        np.float64,
        st.tuples(st.integers(3, 7), st.just(2)),
        # odd sixty-fourths: no corner is a pixel centre
        elements=st.integers(-64, 640).map(lambda n: (2 * n + 1) / 128),
    )
)
def test_filling_agrees_with_point_in_polygon(ring: NDArray[np.float64]) -> None:
    # skimage asks for every point whether it is inside; its points are our pixel centres, in (row, column)
    expected = grid_points_in_poly((10, 9), ring[:, ::-1] - 0.5)
    # of a centre right on an edge either may say what it likes; all numbers here are exact
    decided = ~on_an_edge(ring, (10, 9))
    np.testing.assert_array_equal(polygons_to_mask([ring], (10, 9))[decided], expected[decided])


@given(
    x=st.floats(-2, 12, width=32),
    y=st.floats(-2, 12, width=32),
    dx=st.floats(-1e3, 1e3, width=32),
    reverse=st.booleans(),
)
def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none(
    x: float, y: float, dx: float, reverse: bool
) -> None:
    top, bottom = (x + dx, y - 100), (x - dx, y + 100)
    far = 1e4
    left = [(-far, -200), (top[0], -200), top, bottom, (bottom[0], 300), (-far, 300)]
    right = [(far, -200), (top[0], -200), top, bottom, (bottom[0], 300), (far, 300)]
    sides = [polygons_to_mask([side[::-1] if reverse else side], (11, 12)) for side in (left, right)]
    assert np.all(sides[0] ^ sides[1])


def test_centres_on_an_edge_belong_to_the_left_and_upper_side() -> None:
    square = [(0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)]
    expected = np.zeros((4, 4), dtype=bool)
    expected[:2, :2] = True
    np.testing.assert_array_equal(polygons_to_mask([square], (4, 4)), expected)


def test_rings_inside_rings_follow_the_even_odd_rule() -> None:
    nested = [[(k, k), (9 - k, k), (9 - k, 9 - k), (k, 9 - k)] for k in (0, 2, 4)]
    assert polygons_to_mask(nested, (9, 9))[4].astype(int).tolist() == [1, 1, 0, 0, 1, 0, 0, 1, 1]


def test_what_lies_outside_the_image_is_cut_off() -> None:
    ring = [(-1e9, -50.0), (3.0, -50.0), (3.0, 50.0), (-1e9, 50.0)]
    np.testing.assert_array_equal(polygons_to_mask([ring], (2, 5)), [[1, 1, 1, 0, 0]] * 2)
    assert polygons_to_mask([ring], (0, 5)).shape == (0, 5)


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        ([(0, 0), (1, 1)], r"ring 1 must have the shape \(n, 2\) with n >= 3, got \(2, 2\)"),
        ([0, 0, 1, 0, 1, 1], r"got \(6,\)"),
        ([(0, 0, 0)] * 3, r"got \(3, 3\)"),
        ([(0, 0), (np.nan, 1), (1, 1)], r"ring 1 has a coordinate that is not finite"),
        ([(0, 0), (np.inf, 1), (1, 1)], r"not finite"),
        ([(0, 0), (1e300, 1), (1, 1)], r"beyond 1e\+15"),
    ],
)
def test_bad_ring_is_named(ring: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        polygons_to_mask([[(0, 0), (1, 0), (1, 1)], ring], (4, 4))


def test_bad_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape must be \(height, width\)"):
        polygons_to_mask([], (-1, 4))


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        (np.zeros((2, 2)), TypeError, "threshold first"),
        (np.zeros((2, 2, 2), dtype=bool), ValueError, r"shape \(h, w\), got \(2, 2, 2\)"),
    ],
)
def test_bad_mask_is_refused(mask: NDArray[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        mask_to_polygons(mask)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_bad_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance must be"):
        mask_to_polygons(np.ones((2, 2), dtype=bool), tolerance=tolerance)
