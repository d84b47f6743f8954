"""The rules by which values become eight-bit RGB, against values computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from linocut.data.pixels import ImageError, Pixels, split_channels, to_rgb8, upright


def grey_row(values: Any, dtype: Any, limits: tuple[float, float] | None = None) -> list[int]:
    """One row of grey values through the rules; all three channels must agree."""
    rgb = to_rgb8(Pixels(np.array([values], dtype)), "it", limits)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert (rgb == rgb[..., :1]).all()
    return [int(value) for value in rgb[0, :, 0]]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([False, True], bool, [0, 255]),
        ([0, 7, 255], np.uint8, [0, 7, 255]),
        ([0, 7, 255], np.uint16, [0, 7, 255]),  # 8 bits kept in 16
        ([0, 512, 1023], np.uint16, [0, 128, 255]),  # 10 bits
        ([0, 2048, 4095], np.uint16, [0, 128, 255]),  # 12 bits
        ([0, 8192, 16383], np.uint16, [0, 128, 255]),  # 14 bits
        ([0, 257, 257 * 128, 65535], np.uint16, [0, 1, 128, 255]),  # 16 bits
        ([0, 257, 257 * 128, 65535], ">u2", [0, 1, 128, 255]),
        ([0, 7, 255], np.int64, [0, 7, 255]),
        ([0, 2**31, 2**32 - 1], np.uint32, [0, 128, 255]),
        ([0, 2**19, 2**20 - 1], np.uint32, [0, 128, 255]),
        ([0, 2**63, 2**64 - 1], np.uint64, [0, 128, 255]),
        ([0.0, 0.25, 0.5, 1.0], np.float16, [0, 64, 128, 255]),
        ([0.0, 0.25, 0.5, 1.0], np.float32, [0, 64, 128, 255]),
        ([0.0, 0.25, 0.5, 1.0], np.float64, [0, 64, 128, 255]),
        ([-1e-6, 1.000001], np.float32, [0, 255]),  # resampling overshoots by a rounding error
    ],
)
def test_values(values: list[float], dtype: Any, expected: list[int]) -> None:
    assert grey_row(values, dtype) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_a_range_overrides_the_rules_and_clips(dtype: Any) -> None:
    assert grey_row([0, 20, 60, 120, 127], dtype, (20.0, 120.0)) == [0, 0, 102, 255, 255]


def test_a_range_makes_sense_of_negative_and_large_values() -> None:
    assert grey_row([-1000, 0, 1000], np.int16, (-1000.0, 1000.0)) == [0, 128, 255]
    assert grey_row([-1.0, 0.0, 1.0], np.float32, (-1.0, 1.0)) == [0, 128, 255]
    assert grey_row([0.0, 128.0, 255.0], np.float32, (0.0, 255.0)) == [0, 128, 255]


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5))), st.integers(0, 60000))
def test_scaling_never_turns_the_order_around(array: np.ndarray, low: int) -> None:
    result = to_rgb8(Pixels(array), "it", (float(low), low + 5000.0))[..., 0]
    order = np.argsort(array, axis=None)
    assert (np.diff(result.ravel()[order].astype(int)) >= 0).all()


def test_blocks_of_rows_join_without_seams() -> None:
    values = np.linspace(0, 1, 1500 * 1500).reshape(1500, 1500)
    expected = np.rint(values * 255).astype(np.uint8)
    np.testing.assert_array_equal(to_rgb8(Pixels(values), "it")[..., 1], expected)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limits", [None, (0.0, 1.0)])
def test_values_that_are_not_numbers(broken: float, limits: tuple[float, float] | None) -> None:
    with pytest.raises(ImageError, match=r"it has 1 NaN or infinite values out of 3.*nan_to_num"):
        grey_row([0.0, broken, 1.0], np.float32, limits)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([0.0, 255.0], np.float32, r"from 0 to 255, outside 0 to 1.*value_range=\(0, 255\)"),
        ([-0.5, 0.5], np.float64, r"from -0\.5 to 0\.5"),
        ([700.0, 700.0], np.float64, r"value_range=\(700, 701\)"),
        ([-3, 5], np.int16, r"negative values, from -3 to 5; .*value_range=\(-3, 5\) or --value-range -3,5"),
        ([1j, 0], np.complex64, "dtype complex64"),
        (["a", "b"], str, "dtype <U1"),
        ([None, 1], object, "dtype object"),
    ],
)
def test_values_without_a_rule(values: list[Any], dtype: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        grey_row(values, dtype)


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.0, 0.0), (0.0, np.nan), (0.0, np.inf), (1.0, 2.0, 3.0), ()])
def test_a_range_must_be_two_ascending_numbers(limits: Any) -> None:
    with pytest.raises(ValueError, match="value_range must be two"):
        grey_row([0, 1], np.uint8, limits)


def test_colour_is_scaled_by_one_depth_for_all_channels() -> None:
    rgb = to_rgb8(Pixels(np.array([[[4095, 1023, 0]]], np.uint16)), "it")
    assert rgb.tolist() == [[[255, 64, 0]]]


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        ([0, 128, 255], [255, 155, 55]),  # 155 = (55·128 + 255·127) / 255, rounded
        ([255, 255, 255], [55, 55, 55]),
    ],
)
def test_alpha_is_laid_over_white(alpha: list[int], expected: list[int]) -> None:
    for colour in (np.full((1, 3), 55, np.uint8), np.full((1, 3, 3), 55, np.uint8)):
        rgb = to_rgb8(Pixels(colour, np.array([alpha], np.uint8)), "it")
        assert rgb.shape == (1, 3, 3)
        assert rgb[0, :, 2].tolist() == expected


def test_premultiplied_alpha_gives_what_plain_alpha_gives() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (20, 20), np.uint8)
    colour = rng.integers(0, 256, (20, 20, 3), np.uint8)
    multiplied = np.rint(colour * (alpha[..., None] / 255)).astype(np.uint8)
    plain = to_rgb8(Pixels(colour, alpha), "it").astype(int)
    other = to_rgb8(Pixels(multiplied, alpha, premultiplied=True), "it").astype(int)
    assert np.abs(plain - other).max() <= 1


def test_alpha_has_its_own_depth() -> None:
    rgb = to_rgb8(Pixels(np.array([[0, 4095]], np.uint16), np.array([[65535, 0]], np.uint16)), "it")
    assert rgb[0, :, 0].tolist() == [0, 255]


def test_broken_alpha_is_named() -> None:
    with pytest.raises(ImageError, match="alpha channel of it has 1 NaN"):
        to_rgb8(Pixels(np.zeros((1, 1)), np.array([[np.nan]])), "it")


def test_right_arrays_are_not_copied_and_read_only_ones_are() -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    assert to_rgb8(Pixels(array), "it") is array
    array.flags.writeable = False
    assert to_rgb8(Pixels(array), "it").flags.writeable


def test_strided_input_becomes_contiguous() -> None:
    array = np.arange(2 * 6 * 4, dtype=np.uint8).reshape(2, 6, 4)[:, ::2, 2::-1]
    rgb = to_rgb8(Pixels(array), "it")
    assert rgb.flags.c_contiguous
    np.testing.assert_array_equal(rgb, array)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (7, 1, 1), (1, 7, 3), (3, 500, 3), (7, 5, 2), (4, 4, 4)])
def test_shapes_that_are_images(shape: tuple[int, ...]) -> None:
    pixels = split_channels(np.full(shape, 255, np.uint8), "it")
    rgb = to_rgb8(pixels, "it")
    assert rgb.shape == (*shape[:2], 3)
    assert (pixels.alpha is not None) == (len(shape) == 3 and shape[2] in (2, 4))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), "got 0 dimensions.*a single number"),
        ((5,), "got 1 dimensions"),
        ((2, 5, 5, 3), r"got 4 dimensions \(2×5×5×3\).*array\[0\]"),
        ((0, 5), "empty: its shape is 0×5"),
        ((5, 0, 3), "empty"),
        ((5, 5, 0), "empty"),
        ((3, 50, 60), r"channels first \(3×50×60\); pass numpy.moveaxis"),
        ((1, 50, 60), "channels first"),
        ((50, 60, 5), "5 channels"),
    ],
)
def test_shapes_that_are_not(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        split_channels(np.zeros(shape, np.uint8), "it")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_agrees_with_pillow(orientation: int) -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(array)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(array, orientation), np.asarray(ImageOps.exif_transpose(image)))
    np.testing.assert_array_equal(upright(array[..., 0], orientation), upright(array, orientation)[..., 0])


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_unknown_orientations_turn_nothing(orientation: int) -> None:
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(upright(array, orientation), array)
