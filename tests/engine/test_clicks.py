"""Simulated clicks on shapes whose centres are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from linocut.engine.clicks import center, next_click, random_click

Mask = NDArray[np.bool_]
EMPTY = np.zeros((40, 60), bool)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Mask:
    mask = EMPTY.copy()
    mask[y0:y1, x0:x1] = True
    return mask


def disc(x: int, y: int, radius: float) -> Mask:
    ys, xs = np.indices(EMPTY.shape)
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)


def depth(mask: Mask) -> NDArray[np.float64]:
    """The exact distance of every pixel to the nearest outside the mask or the image."""
    return np.asarray(distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1])


@pytest.mark.parametrize(("x", "y", "radius"), [(30, 20, 12), (15, 25, 7.5), (50, 9, 3)])
def test_the_centre_of_a_disc(x: int, y: int, radius: float) -> None:
    assert center(disc(x, y, radius)) == (x, y)


def test_the_centre_of_an_odd_square() -> None:
    assert center(rectangle(10, 5, 21, 16)) == (15, 10)


def test_the_centre_of_a_ring_lies_in_the_ring() -> None:
    ring = disc(30, 20, 15) & ~disc(30, 20, 7)
    x, y = center(ring)
    assert ring[y, x]
    assert abs(np.hypot(x - 30, y - 20) - 11) < 1.5


def test_the_border_of_the_image_is_an_edge() -> None:
    assert center(np.ones((21, 21), bool)) == (10, 10)
    x, y = center(rectangle(0, 0, 21, 40))
    assert x == 10
    assert 10 <= y < 30


def test_a_single_pixel_is_its_own_centre() -> None:
    assert center(rectangle(7, 3, 8, 4)) == (7, 3)


def test_nothing_has_no_centre() -> None:
    with pytest.raises(ValueError, match="the region has no pixels"):
        center(EMPTY)


@given(arrays(bool, (12, 17)).filter(np.any))
def test_no_pixel_is_deeper_than_the_centre(mask: Mask) -> None:
    x, y = center(mask)
    exact = depth(mask)
    assert exact[y, x] == pytest.approx(exact.max(), abs=1e-4)


@pytest.mark.parametrize("seed", range(40))
def test_the_centre_of_an_irregular_shape_is_exact(seed: int) -> None:
    """Distances summed up from steps of a 5 × 5 mask now and then put another pixel first."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((60, 80)), (0, 0), 4)
    mask = noise > np.median(noise)
    x, y = center(mask)
    exact = depth(mask)
    assert exact[y, x] == pytest.approx(exact.max(), abs=1e-4)


def test_the_first_click_is_at_the_centre_of_the_object() -> None:
    assert next_click(EMPTY, disc(30, 20, 9)) == (30, 20, True)


def test_the_largest_error_is_clicked_whatever_its_sign() -> None:
    target = disc(15, 20, 10)
    missed_part, extra_part = disc(15, 20, 6), disc(45, 20, 9)
    assert next_click(target & ~missed_part | extra_part, target) == (45, 20, False)
    assert next_click(target & ~missed_part, target) == (15, 20, True)
    assert next_click(target | disc(45, 20, 3), target) == (45, 20, False)


def test_the_deeper_error_wins_over_the_wider_one() -> None:
    line, square = rectangle(0, 0, 60, 2), rectangle(20, 20, 29, 29)
    assert line.sum() > square.sum()
    assert next_click(EMPTY, line | square) == (24, 24, True)
    assert next_click(line, square) == (24, 24, True)
    assert next_click(square, line) == (24, 24, False)


def test_equal_errors_give_a_positive_click() -> None:
    result = next_click(rectangle(30, 10, 39, 19), rectangle(10, 10, 19, 19))
    assert result == (14, 14, True)


def test_no_error_no_click() -> None:
    target = disc(30, 20, 9)
    assert next_click(target, target) is None
    assert next_click(EMPTY, EMPTY) is None


def test_ignored_pixels_are_no_error() -> None:
    target = disc(15, 20, 10) | disc(45, 20, 6)
    assert next_click(EMPTY, target, ignore=rectangle(0, 0, 30, 40)) == (45, 20, True)
    assert next_click(EMPTY, target, ignore=~EMPTY) is None


@given(arrays(bool, (9, 11)), arrays(bool, (9, 11)), st.integers(0, 2**32))
def test_a_click_says_what_the_target_is(prediction: Mask, target: Mask, seed: int) -> None:
    for result in (next_click(prediction, target), random_click(prediction, target, np.random.default_rng(seed))):
        if result is None:
            assert (prediction == target).all()
        else:
            x, y, positive = result
            assert prediction[y, x] != target[y, x]
            assert target[y, x] == positive


def test_random_clicks_avoid_the_edge() -> None:
    target = disc(30, 20, 15)
    exact = depth(target)
    clicks = [random_click(EMPTY, target, np.random.default_rng(seed)) for seed in range(200)]
    depths = [exact[click[1], click[0]] for click in clicks if click is not None]
    assert len(depths) == 200
    assert min(depths) >= 0.1 * exact.max() - 0.1
    # half of them are the deepest point
    assert 0.4 < np.mean(np.array(depths) > exact.max() - 0.1) < 0.7
    assert len({click[:2] for click in clicks if click is not None}) > 50


def test_random_clicks_choose_a_kind_of_error_by_its_size() -> None:
    target, prediction = rectangle(0, 0, 30, 40), rectangle(30, 0, 60, 20)
    signs = []
    for seed in range(300):
        click = random_click(prediction, target, np.random.default_rng(seed))
        assert click is not None
        signs.append(click[2])
    # 1200 pixels are missed and 600 too many: two of three, with a standard error of 0.027
    assert abs(np.mean(signs) - 2 / 3) < 4 * 0.027


def test_random_clicks_are_decided_by_the_generator() -> None:
    target = disc(30, 20, 15)
    assert random_click(EMPTY, target, np.random.default_rng(3)) == random_click(
        EMPTY, target, np.random.default_rng(3)
    )
