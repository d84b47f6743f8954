"""Pictures of masks: objects in colour over their image, with the prompts that found them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Int32, UInt8
from numpy.typing import NDArray
from PIL import Image

from linocut.data.files import atomic_path

POSITIVE = (0, 200, 83)
NEGATIVE = (229, 40, 40)
WHITE = (255, 255, 255)

_GOLDEN_ANGLE = 137.50776  # degrees: consecutive multiples of it never come close to each other for long
_FIRST_HUE = 255.0
_LIGHTNESS = (0.66, 0.78, 0.56)  # in turn, so that two colours of similar hue differ in lightness
_CHROMA = 0.19
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def overlay(
    image: NDArray[Any],
    masks: NDArray[Any] | Sequence[NDArray[Any]] | None,
    *,
    alpha: float = 0.45,
    outline: bool = True,
    points: NDArray[Any] | Sequence[Sequence[float]] = (),
    labels: NDArray[Any] | Sequence[bool] | Sequence[int] | None = None,
    box: NDArray[Any] | Sequence[float] | None = None,
) -> UInt8[NDArray[np.uint8], "height width 3"]:
    """Draw objects and prompts over an image.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        masks: one object, (H, W) bool; several, a sequence of (H, W) bool or (N, H, W) bool, the smaller on top; a
            label map, (H, W) integers with 0 for none; or None.
        alpha: opacity of the colours, 0 (only the outlines) to 1.
        outline: draw the objects' boundaries in full colour.
        points: (n, 2) clicks, x and y in pixels.
        labels: (n,) true for positive clicks (green), false for negative ones (red); all positive by default.
        box: (x0, y0, x1, y1) in pixels.

    Returns:
        (H, W, 3) uint8 RGB. The same object number has the same colour in every picture; lines and dots grow with the
        image.

    Raises:
        ValueError: if an array has the wrong shape or type, or ``alpha`` is not in 0 … 1.

    Example:
        >>> picture = overlay(np.zeros((80, 60, 3), np.uint8), np.ones((80, 60), bool), points=[(30, 40)])
        >>> picture.shape
        (80, 60, 3)
    """
    _check_image(image)
    picture = image.copy() if masks is None else draw_labels(image, as_label_map(masks), alpha=alpha, outline=outline)
    _draw_box(picture, box)
    _draw_points(picture, points, labels)
    return picture


def draw_labels(
    image: NDArray[Any], label_map: NDArray[Any], *, alpha: float = 0.45, outline: bool = True
) -> UInt8[NDArray[np.uint8], "height width 3"]:
    """Draw the objects of a label map over an image.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        label_map: (H, W) integers, 0 where there is no object.
        alpha: opacity of the colours, 0 to 1.
        outline: draw the objects' boundaries in full colour.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: if an array has the wrong shape or type, or ``alpha`` is not in 0 … 1.
    """
    _check_image(image)
    _check_label_map(label_map)
    if label_map.shape != image.shape[:2]:
        raise ValueError(f"masks are {label_map.shape} (height, width), but the image is {image.shape[:2]}")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in 0 … 1, got {alpha}")
    colours = object_colours(int(label_map.max(initial=0)) + 1)[label_map]
    covered = label_map > 0
    picture = image.copy()
    mixed = np.asarray(cv2.addWeighted(image, 1.0 - alpha, colours, alpha, 0.0))
    np.copyto(picture, mixed, where=covered[..., np.newaxis])
    if outline:
        rim = _rims(label_map, _line_width(image)) & covered
        np.copyto(picture, colours, where=rim[..., np.newaxis])
    return picture


def object_colours(count: int) -> UInt8[NDArray[np.uint8], "count 3"]:
    """Colours of objects 0 … count − 1 that differ clearly from one number to the next; 0, no object, is black.

    Hues are a golden angle apart in OKLCH, where equal steps look equal.

    Returns:
        (count, 3) uint8 RGB.
    """
    number = np.arange(-1, count - 1)
    lightness = np.asarray(_LIGHTNESS)[number % len(_LIGHTNESS)]
    hue = _FIRST_HUE + _GOLDEN_ANGLE * number.astype(np.float64)
    colours = oklch_to_rgb(lightness, np.full(count, _CHROMA), hue)
    colours[:1] = 0
    return colours


def oklch_to_rgb(
    lightness: Float64[NDArray[np.float64], " n"],
    chroma: Float64[NDArray[np.float64], " n"],
    hue: Float64[NDArray[np.float64], " n"],
) -> UInt8[NDArray[np.uint8], "n 3"]:
    """Colours by how they look, as sRGB; what sRGB cannot show is clipped.

    Args:
        lightness: (n,) 0 to 1.
        chroma: (n,) 0, grey, to about 0.3.
        hue: (n,) degrees.

    Returns:
        (n, 3) uint8 RGB.

    Source:
        Björn Ottosson, "A perceptual color space for image processing", 2020.
    """
    a, b = chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    linear = np.clip(_CONES_TO_RGB @ cones**3, 0.0, 1.0)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.rint(255 * gamma.T).astype(np.uint8)
    return colours


def as_label_map(masks: NDArray[Any] | Sequence[NDArray[Any]]) -> Int32[NDArray[np.int32], "height width"]:
    """Lay masks over each other, the smaller on top.

    Args:
        masks: (H, W) bool, a sequence of such or (N, H, W) bool, or a label map already, (H, W) integers.

    Returns:
        (H, W) int32: 0 for none, i for the i-th mask, counted from 1.

    Raises:
        ValueError: if masks differ in shape, are not bool, or there are none to tell the size.
    """
    if isinstance(masks, np.ndarray) and masks.ndim == 2:
        if masks.dtype == bool:
            return masks.astype(np.int32)
        _check_label_map(masks)
        return masks.astype(np.int32)
    if len(masks) == 0:
        raise ValueError("no masks were given, so their size is unknown; pass None or a label map of zeros")
    label_map = np.zeros(np.shape(masks[0]), np.int32)
    for mask in masks:
        if mask.ndim != 2 or mask.dtype != bool or mask.shape != label_map.shape:
            raise ValueError(
                f"every mask must be bool of one shape (height, width), got {mask.dtype} {mask.shape}"
                f" beside {label_map.shape}"
            )
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    for place in sorted(range(len(masks)), key=lambda place: -areas[place]):
        label_map[masks[place]] = place + 1
    return label_map


def label_map_to_png(label_map: NDArray[Any], path: str | os.PathLike[str]) -> None:
    """Write a label map as a PNG whose pixel values are the labels, whole or not at all.

    It is grey, of 8 bits up to label 255 and of 16 bits up to 65535, which every label tool reads.

    Args:
        label_map: (H, W) integers or bool, 0 where there is no object.
        path: the file to write.

    Raises:
        ValueError: if it is no label map, is empty, or has more labels than a PNG can hold.
    """
    values = label_map.astype(np.uint8) if label_map.dtype == bool else label_map
    _check_label_map(values)
    if values.size == 0:
        raise ValueError(f"a label map must have pixels, got the shape {values.shape}")
    highest = int(values.max())
    if highest > np.iinfo(np.uint16).max:
        raise ValueError(f"a PNG holds labels up to 65535, got {highest}; save numpy.save(path, label_map) instead")
    write_png(path, values.astype(np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16))


def write_png(path: str | os.PathLike[str], pixels: NDArray[Any]) -> None:
    """Write a PNG, whole or not at all, whatever the name ends in; missing folders are made.

    Args:
        path: the file to write.
        pixels: (H, W) uint8 or uint16 grey, or (H, W, 3) uint8 RGB.

    Raises:
        OSError: if the file cannot be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _check_image(image: NDArray[Any]) -> None:
    """See that it is an RGB image."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"the image must be (height, width, 3) uint8, got {image.dtype} {image.shape}; linocut.open_image makes one"
        )


def _check_label_map(label_map: NDArray[Any]) -> None:
    """See that it is a label map."""
    if label_map.ndim != 2 or label_map.dtype.kind not in "iu":
        raise ValueError(f"a label map must be (height, width) integers, got {label_map.dtype} {label_map.shape}")
    if label_map.min(initial=0) < 0:
        raise ValueError(f"labels must be >= 0, got {label_map.min()}")


def _line_width(image: NDArray[np.uint8]) -> int:
    """Pixels that look like a thin line in an image of this size."""
    longest: int = max(image.shape[:2])
    return max(1, round(longest / 300))


def _rims(label_map: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Where labels change, ``width`` pixels to each side."""
    rims = np.zeros(label_map.shape, np.uint8)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        change = label_map[one] != label_map[other]
        rims[one] |= change
        rims[other] |= change
    if width > 1:
        rims = np.asarray(
            cv2.dilate(rims, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width - 1, 2 * width - 1)))
        )
    return rims.astype(bool)


def _draw_points(picture: NDArray[np.uint8], points: Any, labels: Any) -> None:
    """Dots with white rims, in place."""
    places = np.asarray(points, np.float64).reshape(-1, 2)
    positive = np.ones(len(places), bool) if labels is None else np.asarray(labels).astype(bool)
    if positive.shape != (len(places),):
        raise ValueError(f"labels must be one for each of the {len(places)} points, got the shape {positive.shape}")
    radius = 1.8 * _line_width(picture) + 1.8
    for (x, y), is_positive in zip(places, positive, strict=True):
        for size, colour in ((radius * 1.5, WHITE), (radius, POSITIVE if is_positive else NEGATIVE)):
            # OpenCV takes sixteenths of pixels where it is told of 4 fractional bits, and counts from pixel centres.
            centre = round((x - 0.5) * 16), round((y - 0.5) * 16)
            cv2.circle(picture, centre, round(size * 16), colour, cv2.FILLED, cv2.LINE_AA, 4)


def _draw_box(picture: NDArray[np.uint8], box: Any) -> None:
    """A rectangle with a white rim, in place."""
    if box is None:
        return
    corners = np.asarray(box, np.float64)
    if corners.shape != (4,):
        raise ValueError(f"box must be (x0, y0, x1, y1), got {box!r}")
    x0, y0, x1, y1 = (round(float(value)) for value in corners)
    width = _line_width(picture)
    for size, colour in ((width + 3, WHITE), (width + 1, POSITIVE)):
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, size)
