"""Colour jitter and copy-paste: what they change and what they leave."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from linocut.engine.augment import jitter, paste

Image = NDArray[np.uint8]


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(30))
def test_jitter_keeps_shape_and_dtype_and_the_image_itself(seed: int) -> None:
    image = picture()
    before = image.copy()
    out = jitter(image, rng(seed))
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(image, before)


def test_jitter_is_decided_by_the_generator() -> None:
    np.testing.assert_array_equal(jitter(picture(), rng(5)), jitter(picture(), rng(5)))
    assert (jitter(picture(), rng(5)) != jitter(picture(), rng(6))).any()


def test_jitter_moves_no_edges() -> None:
    image = np.full((40, 40, 3), 40, np.uint8)
    image[10:30, 10:30] = (200, 170, 150)
    for seed in range(40):
        out = jitter(image, rng(seed)).astype(np.float32)
        inside, outside = out[14:26, 14:26].mean(axis=(0, 1)), out[:6].mean(axis=(0, 1))
        # whatever happens to the colours, the square stays where it was and stays visible
        assert np.abs(inside - outside).max() > 20
        middle = (inside + outside) / 2
        channel = int(np.abs(inside - outside).argmax())
        seen = (out[..., channel] > middle[channel]) == bool(inside[channel] > middle[channel])
        assert seen[12:28, 12:28].mean() > 0.98
        assert seen[:8].mean() < 0.02


def test_jitter_is_sometimes_grey_and_sometimes_inverted() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = (220, 140, 90)
    outs = [jitter(image, rng(seed)) for seed in range(300)]
    grey = np.mean([np.ptp(out.astype(int), axis=2).max() == 0 for out in outs])
    inverted = np.mean([out[:, :6].mean() > out[:, 10:].mean() for out in outs])
    # one in ten and one in twenty-five, with standard errors of 0.017 and 0.011
    assert abs(grey - 0.1) < 4 * 0.017
    assert abs(inverted - 0.04) < 4 * 0.011


OBJECT = np.zeros((50, 70), bool)
OBJECT[10:40, 20:50] = True
OBJECT[30:40, 20:30] = False


def red_donor() -> Image:
    donor = np.zeros((50, 70, 3), np.uint8)
    donor[OBJECT] = (255, 0, 0)
    return donor


@pytest.mark.parametrize("seed", range(20))
def test_paste_covers_what_lies_below(seed: int) -> None:
    image = picture()
    masks = [np.zeros((60, 80), bool) for _ in range(2)]
    masks[0][:30], masks[1][30:] = True, True
    before = [image.copy(), *(mask.copy() for mask in masks)]
    out, after = paste(image, masks, red_donor(), OBJECT, rng(seed))
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert len(after) == 3
    pasted = after[-1]
    assert pasted.dtype == np.bool_
    # every pixel is in exactly one: the two that covered everything, and what was pasted over them
    np.testing.assert_array_equal(np.sum(after, axis=0), np.ones((60, 80)))
    for old, new in zip(masks, after[:2], strict=True):
        np.testing.assert_array_equal(new, old & ~pasted)
    for old, new in zip(before, [image, *masks], strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("seed", range(20))
def test_paste_changes_pixels_only_at_the_object(seed: int) -> None:
    image = picture()
    out, after = paste(image, [], red_donor(), OBJECT, rng(seed))
    changed = (out != image).any(axis=2)
    ys, xs = np.nonzero(after[-1])
    # the softened edge reaches a few pixels out
    near = np.zeros_like(changed)
    near[max(ys.min() - 4, 0) : ys.max() + 5, max(xs.min() - 4, 0) : xs.max() + 5] = True
    assert not (changed & ~near).any()
    assert changed[after[-1]].mean() > 0.9


@pytest.mark.parametrize("seed", range(20))
def test_paste_keeps_the_object_s_form_and_scales_it_into_the_image(seed: int) -> None:
    _, after = paste(picture(), [], red_donor(), OBJECT, rng(seed))
    ys, xs = np.nonzero(after[-1])
    height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
    # as wide as high, a quarter to nine tenths of the short side, and one ninth of it, a corner, missing
    assert abs(int(height) - int(width)) <= 1
    assert 0.25 * 60 - 1 <= height <= 0.9 * 60 + 1
    assert after[-1].sum() / (height * width) == pytest.approx(8 / 9, abs=0.05)


def test_paste_mirrors_half_of_the_objects() -> None:
    corners = []
    for seed in range(100):
        _, after = paste(picture(), [], red_donor(), OBJECT, rng(seed))
        ys, xs = np.nonzero(after[-1])
        corners.append(not after[-1][ys.max(), xs.min()])
    assert 0.3 < np.mean(corners) < 0.7


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (7, 5)])
def test_paste_into_a_tiny_image(size: tuple[int, int]) -> None:
    for seed in range(10):
        out, after = paste(picture(*size), [np.ones(size, bool)], red_donor(), OBJECT, rng(seed))
        assert out.shape == (*size, 3)
        assert (after[0] ^ after[1]).all()
