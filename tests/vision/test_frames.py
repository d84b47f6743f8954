"""SAM's low-resolution frame: there and back again."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from linocut.vision.frames import empty_mask, frame_logits, given_mask, image_logits
from linocut.vision.masks import Mask
from linocut.vision.windows import Window, place

PLACES = {
    "small image": (Window(0, 0, 0), (90, 120)),
    "cells of a pixel": (Window(0, 16, 32), (300, 400)),
    "finer than pixels": (Window(-1, 208, 160), (300, 400)),
    "upright": (Window(1, 0, 256), (900, 500)),
    "whole image": (Window(2, 0, 0), (700, 1000)),
    "past the border": (Window(0, 192, 96), (300, 400)),
}
everywhere = pytest.mark.parametrize("place", list(PLACES))


def disc(cells: int = 256) -> NDArray[np.float32]:
    """Logits of a disc in the middle of the window, with a soft edge."""
    at = np.arange(cells) - (cells - 1) / 2
    return ((cells / 5 - np.hypot(at[:, None], at[None])) / 2).astype(np.float32)


def make(place: str) -> Mask:
    window, size = PLACES[place]
    return Mask(disc(), window, size, score=0.5)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


@everywhere
def test_logits_of_the_image_are_positive_exactly_in_the_mask(place: str) -> None:
    mask = make(place)
    logits = image_logits(mask)
    assert logits.shape == mask.size
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, mask.array)


@pytest.mark.parametrize("seed", range(5))
def test_they_are_for_any_mask_at_any_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.standard_normal((256, 256)).astype(np.float32), (0, 0), 5)
    size = int(rng.integers(1, 900)), int(rng.integers(1, 900))
    for level in (-1, 0, 1):
        window = place(level, (rng.uniform(0, size[1]), rng.uniform(0, size[0])), size)
        mask = Mask(noise, window, size, score=0.5)
        np.testing.assert_array_equal(image_logits(mask) > 0, mask.array)


@everywhere
def test_a_mask_comes_back_from_the_frame(place: str) -> None:
    mask = make(place)
    low = frame_logits(mask)
    assert low.shape == (256, 256)
    assert low.dtype == np.float32
    # a cell of the frame is up to four pixels wide: half of one all round the disc
    assert iou(given_mask(low, mask.size).array, mask.array) > 0.9


def test_the_frame_is_the_long_side_with_the_image_at_its_left_top() -> None:
    # a rectangle of pixels 128 to 256, 64 to 128 of an image of 512 x 256: cells are two pixels wide
    logits = np.full((256, 256), -8, np.float32)
    logits[32:64, 64:128] = 8
    low = frame_logits(Mask(logits, Window(1, 0, 0), (256, 512), score=0.5))
    ys, xs = np.nonzero(low > 0)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (64, 127, 32, 63)
    assert (low[128:] < 0).all()


@pytest.mark.parametrize("size", [(300, 400), (401, 300), (100, 77), (1000, 640), (256, 256)])
def test_a_mask_of_the_whole_image_reaches_its_border(size: tuple[int, int]) -> None:
    level = 0
    while Window(level, 0, 0).side < max(size):
        level += 1
    inside = np.full((256, 256), -9, np.float32)
    cell = Window(level, 0, 0).side / 256
    inside[: int(np.ceil(size[0] / cell)), : int(np.ceil(size[1] / cell))] = 9
    low = frame_logits(Mask(inside, Window(level, 0, 0), size, score=0.5))
    assert given_mask(low, size).array.all()


def test_enlarging_is_bilinear_with_the_centres_kept() -> None:
    low = cv2.GaussianBlur(np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32), (0, 0), 3)
    exact = cv2.resize(low, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    differs = given_mask(low, (1024, 1024)).array != (exact > 0)
    assert not differs[np.abs(exact) > 1e-5].any()


def test_a_long_strip_needs_no_square() -> None:
    # as a square it would be ten thousand million pixels
    assert given_mask(np.ones((256, 256), np.float32), (2, 100_000)).array.all()


@pytest.mark.parametrize("size", [(512, 512), (300, 400), (900, 500), (100, 77)])
def test_only_the_pixels_around_the_mask_are_worked_out(size: tuple[int, int]) -> None:
    """The same pixels as of the mask with a far corner set, for which all of the image is enlarged."""
    rng = np.random.default_rng(0)
    limit = [max(int(extent * 256 / max(size)), 1) for extent in size]
    for _ in range(50):
        low = np.full((256, 256), -1, np.float32)
        y, x = (int(rng.integers(8, cells - 8)) for cells in limit)
        low[y : y + 6, x : x + 4] = rng.uniform(-1, 9, (6, 4))
        low[y + 2, x + 1] = 200.0  # reaches almost into the next cell
        corners = low.copy()
        corners[0, 0] = corners[limit[0] - 1, limit[1] - 1] = 1e-3
        given, whole = given_mask(low, size), given_mask(corners, size).array
        reach = 2 + max(size) // 256
        whole[:reach, :reach] = whole[-2 * reach :, -2 * reach :] = False
        inside = given.array
        inside[-2 * reach :, -2 * reach :] = False
        np.testing.assert_array_equal(inside, whole)


def test_a_mask_input_in_a_huge_image_costs_what_the_object_does() -> None:
    low = np.full((256, 256), -1, np.float32)
    low[128, 128] = 1
    # a quarter of a million pixels a side: the whole array would take 62 GB
    given = given_mask(low, (250_000, 250_000))
    assert given.size == (250_000, 250_000)
    assert 900 < given.pixels.shape[0] < 1000
    assert abs(given.y + given.pixels.shape[0] / 2 - 128.5 * 250_000 / 256) < 2


def test_nothing_above_zero_is_an_empty_mask() -> None:
    given = given_mask(np.zeros((256, 256), np.float32), (30, 40))
    assert (given.pixels.shape, given.size) == ((0, 0), (30, 40))
    # what lies in the padding alone is nothing
    low = np.full((256, 256), -1, np.float32)
    low[200:] = 1
    assert not given_mask(low, (30, 40)).pixels.size


@pytest.mark.parametrize("size", [(1, 1), (30, 40), (3000, 2000)])
def test_the_empty_mask(size: tuple[int, int]) -> None:
    mask = empty_mask(size)
    assert (mask.area, mask.score, mask.stability, mask.size) == (0, 0.0, 0.0, size)
    assert (frame_logits(mask) < 0).all()
    assert (image_logits(mask) < 0).all()
