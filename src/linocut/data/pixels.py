"""From whatever values an image holds to eight-bit RGB, by fixed rules.

=================== ===================================================================================================
values              what they become
=================== ===================================================================================================
one bit, bool       0 and 255
8-bit unsigned      themselves
wider integers      scaled so that ``2**bits - 1`` is white. ``bits`` is the smallest of 8, 10, 12, 14 and 16 (above 16:
                    of all whole numbers) that holds the largest value, since cameras store 10, 12 or 14 bits in 16-bit
                    words. Negative values have no such rule: give ``value_range``.
floating point      0 to 1, times 255. Values outside have no such rule: give ``value_range``. NaN and infinity never
                    have one.
any of them         with ``value_range=(low, high)``: low to high becomes 0 to 255, values outside are clipped.
=================== ===================================================================================================

Results are rounded to the nearest integer. Grey is repeated three times. Alpha lays the image over white, as a viewer
with a white page shows it.

``bits`` is found from the whole image. A dark corner that is cut out and opened alone may therefore get a smaller one
and come out brighter. Where a series must be treated alike, give ``value_range``, say ``(0, 4095)`` for a 12-bit
camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

_DEPTHS = (8, 10, 12, 14, *range(16, 65))
_FLOAT_SLACK = 1e-4  # resampling in single precision gives 1.0000001 for white
_BLOCK = 1 << 20  # values converted at a time, so that a huge image needs no second copy in double precision


class ImageError(ValueError):
    """An image cannot be read or used; the message names it, says why and what would do."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """The values of an image, before they are made eight-bit.

    Attributes:
        colour: (H, W) grey or (H, W, 3) red, green, blue; any real dtype.
        alpha: (H, W) opacity, or None if all is opaque.
        premultiplied: the colours are already multiplied by the opacity.
    """

    colour: NDArray[Any]
    alpha: NDArray[Any] | None = None
    premultiplied: bool = False


def split_channels(array: NDArray[Any], name: str) -> Pixels:
    """Tell colour from alpha in an array by its shape.

    Args:
        array: (H, W) or (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        name: what to call the image in errors.

    Raises:
        ImageError: if the array is empty or has another shape.
    """
    shape = "×".join(map(str, array.shape))
    if array.ndim not in (2, 3):
        raise ImageError(
            f"{name} must have the shape (height, width) or (height, width, channels), got {array.ndim} dimensions"
            f" ({shape or 'a single number'}); pass one image at a time, for instance array[0]"
        )
    if array.size == 0:
        raise ImageError(f"{name} is empty: its shape is {shape}")
    if array.ndim == 2:
        return Pixels(array)
    channels = array.shape[2]
    if channels > 4:
        if array.shape[0] <= 4:
            raise ImageError(
                f"{name} seems to have its channels first ({shape}); pass numpy.moveaxis(array, 0, -1),"
                " which is (height, width, channels)"
            )
        raise ImageError(
            f"{name} has {channels} channels ({shape}), but only 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha)"
            " have a meaning here; choose one or three of them, for instance array[..., :3]"
        )
    if channels == 3:
        return Pixels(array)
    colour = array[..., 0] if channels < 3 else array[..., :3]
    return Pixels(colour, None if channels == 1 else array[..., -1])


def to_rgb8(
    pixels: Pixels, name: str, limits: Sequence[float] | None = None
) -> UInt8[NDArray[np.uint8], "height width 3"]:
    """Make eight-bit RGB of any values by the rules above.

    Args:
        pixels: the values.
        name: what to call the image in errors.
        limits: the values that become 0 and 255, instead of those the rules give.

    Returns:
        (H, W, 3) uint8, C-contiguous. It is ``pixels.colour`` itself if that is already so and can be written to.

    Raises:
        ImageError: if the values are not real numbers, not finite, or outside of what the rules cover.
        ValueError: if ``limits`` are not two finite numbers in ascending order.
    """
    colour = pixels.colour
    given = None if limits is None else _checked_limits(limits)
    _check_values(colour, name)
    low, high = given or _natural_limits(colour, name)
    eight_bit = _scale(colour, low, high)
    if pixels.alpha is not None:
        _check_values(pixels.alpha, f"the alpha channel of {name}")
        opacity = _scale(pixels.alpha, *_natural_limits(pixels.alpha, f"the alpha channel of {name}"))
        eight_bit = _over_white(eight_bit, opacity, pixels.premultiplied)
    if eight_bit.ndim == 2:
        eight_bit = np.repeat(eight_bit[..., np.newaxis], 3, axis=2)
    return np.require(eight_bit, requirements=["C_CONTIGUOUS", "WRITEABLE"])


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn an image as its EXIF or TIFF orientation says.

    Args:
        array: (H, W) or (H, W, C), as stored.
        orientation: 1 to 8; anything else, which broken cameras write, counts as 1.

    Returns:
        A view with the top of the picture first.

    Source:
        TIFF Revision 6.0 (Adobe, 1992), p. 36, tag 274.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _checked_limits(limits: Sequence[float]) -> tuple[float, float]:
    """The limits as floats."""
    try:
        low, high = (float(value) for value in limits)
    except (TypeError, ValueError):
        raise ValueError(f"value_range must be two numbers (low, high), got {limits!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"value_range must be two finite numbers (low, high) with low < high, got {limits!r}")
    return low, high


def _check_values(array: NDArray[Any], name: str) -> None:
    """See that the values are real and finite."""
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} must hold bool, integer or floating-point values, got the dtype {array.dtype}")
    if array.dtype.kind != "f":
        return
    broken = 0
    for rows in _row_slices(array.shape):
        broken += int(np.count_nonzero(~np.isfinite(array[rows])))
    if broken:
        raise ImageError(
            f"{name} has {broken:,} NaN or infinite values out of {array.size:,}; replace them first,"
            " for instance by numpy.nan_to_num(array)"
        )


def _natural_limits(array: NDArray[Any], name: str) -> tuple[float, float]:
    """The values that are black and white if nobody says otherwise."""
    if array.dtype.kind == "b":
        return 0.0, 1.0
    if array.dtype == np.uint8:
        return 0.0, 255.0
    low, high = array.min().item(), array.max().item()
    black, white = f"{low:.6g}", f"{max(high, low + 1):.6g}"
    hint = (
        f"say what is black and what is white by value_range=({black}, {white}) or --value-range {black},{white},"
        " or by other limits"
    )
    if array.dtype.kind == "f":
        if low < -_FLOAT_SLACK or high > 1.0 + _FLOAT_SLACK:
            raise ImageError(f"{name} has floating-point values from {low:.6g} to {high:.6g}, outside 0 to 1; {hint}")
        return 0.0, 1.0
    if low < 0:
        raise ImageError(f"{name} has negative values, from {low} to {high}; {hint}")
    return 0.0, float(2 ** next(depth for depth in _DEPTHS if high < 2**depth) - 1)


def _scale(array: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map low … high to 0 … 255, rounded and clipped."""
    if array.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return array
    if array.dtype in (np.uint8, np.uint16):
        table = _linear(np.arange(np.iinfo(array.dtype).max + 1, dtype=np.float64), low, high)
        return np.asarray(table[array])
    result = np.empty(array.shape, np.uint8)
    for rows in _row_slices(array.shape):
        result[rows] = _linear(array[rows].astype(np.float64), low, high)
    return result


def _linear(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """The map of :func:`_scale` for values in double precision."""
    return np.rint(np.clip((values - low) * (255.0 / (high - low)), 0.0, 255.0)).astype(np.uint8)


def _over_white(colour: NDArray[np.uint8], opacity: NDArray[np.uint8], premultiplied: bool) -> NDArray[np.uint8]:
    """Lay the image over a white page."""
    if opacity.min() == 255:
        return colour
    result = np.empty(colour.shape, np.uint8)
    weights = opacity.reshape(opacity.shape + (1,) * (colour.ndim - 2))
    for rows in _row_slices(colour.shape):
        weight = weights[rows].astype(np.uint16)
        if premultiplied:
            result[rows] = np.minimum(colour[rows] + (255 - weight), 255)
        else:
            result[rows] = (colour[rows] * weight + 255 * (255 - weight) + 127) // 255
    return result


def _row_slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut an array of a shape into groups of rows of about ``_BLOCK`` values."""
    step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)
