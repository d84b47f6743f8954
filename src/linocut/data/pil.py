"""Reading pictures with Pillow, without losing what it would lose.

Left to itself, Pillow refuses large pictures by a limit of the whole process, cuts 16-bit colour to 8 bits, and knows
dozens of formats, some of which start other programs. So files are opened by the readers listed here and no others.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from linocut.data.pixels import ImageError, Pixels, upright

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_ORIENTATION = 0x0112
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow would clip them to 8 bits with their transparency
_DIRECT = ("1", "L", "RGB", "F", *_DEEP_GREY)
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


def open_header(file: BinaryIO, path: Path) -> Image.Image | None:
    """Read what a picture says of itself, but not yet its pixels.

    ``Image.open`` would warn of, or refuse, large pictures by ``Image.MAX_IMAGE_PIXELS``; our own limit is an argument.

    Args:
        file: the open file.
        path: where it is, for the readers that look at the name.

    Returns:
        The image with its size and mode, or None if it is in no format of ``FORMATS``.
    """
    Image.init()
    prefix = file.read(16)
    for name in FORMATS:
        reader, accepts = Image.OPEN[name]
        if accepts is not None and accepts(prefix) is True:
            file.seek(0)
            return reader(file, str(path))
    return None


def check_size(width: int, height: int, max_pixels: int | None, name: str) -> None:
    """Refuse an image by its size, before its pixels are decoded.

    Raises:
        ImageError: if there are no pixels, or more than ``max_pixels``.
    """
    if width < 1 or height < 1:
        raise ImageError(f"{name} is empty: {width} × {height} pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} × {height} = {width * height:,} pixels, more than max_pixels={max_pixels:,};"
            f" raise it, by max_pixels={width * height} or --max-pixels {width * height}, if the file is trusted and"
            " there is memory for it (6 bytes a pixel to read it, 50 to 85 to encode it)"
        )


def read_frame(image: Image.Image, name: str, page: int = 0, path: Path | None = None) -> Pixels:
    """Decode a picture.

    Args:
        image: from :func:`open_header`, or any image of Pillow's.
        name: what to call it in errors.
        page: which frame of an animation or page of a TIFF; 0 leaves the image at the frame where it is.
        path: the file that it is read from, if it is one.

    Returns:
        Its values, upright.

    Raises:
        ImageError: if there is no such page.
        Exception: whatever Pillow's reader raises for a damaged file.
    """
    if page:
        count = getattr(image, "n_frames", 1)
        if page >= count:
            raise ImageError(f"{name} has {count} page{'s' * (count > 1)}, so page must be < {count}, got {page}")
        image.seek(page)
    image.load()
    pixels = _deep_colour(path) if path is not None and _is_deep_colour(image, path) else _values(image)
    turn = _orientation(image)
    alpha = None if pixels.alpha is None else upright(pixels.alpha, turn)
    return Pixels(upright(pixels.colour, turn), alpha, pixels.premultiplied)


def _is_deep_colour(image: Image.Image, path: Path) -> bool:
    """Whether the file is a PNG with several channels of 16 bits, of which Pillow keeps the upper 8."""
    if image.format != "PNG":
        return False
    with path.open("rb") as file:
        depth, kind = file.read(26)[24:26]  # IHDR: bit depth, colour type (0 is grey, 3 a palette)
    return depth == 16 and kind in (2, 4, 6)


def _deep_colour(path: Path) -> Pixels:
    """The values of a 16-bit PNG as OpenCV reads them, not yet upright.

    Raises:
        ValueError: if OpenCV cannot read it.
    """
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("OpenCV cannot decode it")
    values = np.asarray(array)
    return Pixels(values[..., 2::-1], values[..., 3] if values.shape[2] == 4 else None)


def _values(image: Image.Image) -> Pixels:
    """The values of a decoded image, with palettes and other colour spaces turned into RGB."""
    mode = image.mode
    if mode in _DEEP_GREY and "transparency" in image.info:
        grey = np.array(image)
        return Pixels(grey, grey != image.info["transparency"])
    if mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[mode])
    elif mode in ("PA", "P") or "transparency" in image.info:
        has_alpha = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    elif mode not in (*_DIRECT, "LA", "RGBA"):
        image = image.convert("RGB")
    array = np.array(image)
    if image.mode == "LA":
        return Pixels(array[..., 0], array[..., 1])
    if image.mode == "RGBA":
        return Pixels(array[..., :3], array[..., 3])
    return Pixels(array)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block, in whatever way, must not cost the picture
        return 1
