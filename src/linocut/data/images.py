"""Opening images: whatever a picture comes as, an array that is always the same kind.

:func:`open_image` is the one door. What values become is said in :mod:`linocut.data.pixels`. Colour profiles are not
applied.
"""

from __future__ import annotations

import difflib
import operator
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image

from linocut.data.limits import DEFAULT_MAX_PIXELS
from linocut.data.pil import FORMATS, check_size, open_header, read_frame
from linocut.data.pixels import ImageError, Pixels, split_channels, to_rgb8

__all__ = ["DEFAULT_MAX_PIXELS", "ImageError", "open_image"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_image(
    source: object,
    *,
    page: SupportsIndex = 0,
    value_range: Sequence[float] | None = None,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
) -> UInt8[NDArray[np.uint8], "height width 3"]:
    """Open an image as eight-bit RGB.

    Files may be PNG, JPEG, WebP, BMP, GIF or TIFF (strips, tiles, planes, pages, BigTIFF); the content decides, not the
    name. The EXIF or TIFF orientation is applied. Grey is repeated three times, alpha is laid over white, palettes and
    CMYK become RGB, and bool, 16-bit, 32-bit and floating-point values become 0 … 255 by the rules of
    :mod:`linocut.data.pixels`.

    Args:
        source: a path, in which a leading ``~/`` is the home folder; an array, or an object that gives one by
            ``__array__`` such as a tensor (not a list), (H, W) or (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB,
            4 RGB and alpha; or an image of Pillow's, which is taken at its current frame.
        page: which page of a TIFF or frame of an animation, from 0; files only.
        value_range: the values that become black and white, for instance ``(0, 4095)`` for a 12-bit camera; by
            default the rules decide.
        max_pixels: refuse larger images of files before decoding them; None for no limit. The default is what the
            memory of a laptop bears when the image is encoded: see :mod:`linocut.data.limits`.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous. An array that is already so, and can be written to, is returned itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ImageError: if it is no image, damaged, empty or too large, or holds values or channels without a rule.
        TypeError: if ``source`` is nothing of the above, or ``page`` is not an integer.
        ValueError: if ``page`` is negative or ``value_range`` is not two ascending numbers.

    Example:
        >>> import numpy as np
        >>> open_image(np.array([[0.0, 0.5, 1.0]]))[..., 0]
        array([[  0, 128, 255]], dtype=uint8)
    """
    number = operator.index(page)
    if number < 0:
        raise ValueError(f"page must be >= 0, got {number}")
    if isinstance(source, (str, os.PathLike)):
        path = _expand_home(os.fsdecode(source))
        name = repr(str(path))
        pixels = _read_file(path, name, number, max_pixels)
    elif isinstance(source, Image.Image) or hasattr(source, "__array__"):
        name = "the image" if isinstance(source, Image.Image) else "the array"
        if number:
            raise ImageError(f"only files have pages, but page={number} was asked of {name}; choose it before")
        pixels = _read_memory(source, name, max_pixels)
    else:
        raise TypeError(f"an image must be a path, an array or a Pillow image, got {type(source).__name__}")
    return to_rgb8(pixels, name, value_range)


def _expand_home(text: str) -> Path:
    """A path with the home folder in place of a leading ``~/``.

    Nothing else is expanded, for ``~x.jpg`` is a file's name; nor is this where there is no home folder.
    """
    path = Path(text)
    if path.parts[:1] == ("~",):
        with suppress(RuntimeError):
            return path.expanduser()
    return path


def _read_memory(source: Any, name: str, max_pixels: int | None) -> Pixels:
    """The values of an array or of a Pillow image."""
    if not isinstance(source, Image.Image):
        return split_channels(np.asarray(source), name)
    check_size(*source.size, max_pixels, name)
    try:
        return read_frame(source, name)
    except Exception as error:
        raise ImageError(f"Pillow cannot decode {name}; it may be damaged, or its file closed ({error})") from error


def _read_file(path: Path, name: str, page: int, max_pixels: int | None) -> Pixels:
    """The values of an image file; every way in which a decoder fails becomes one error."""
    try:
        _check_file(path, name)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:  # a name longer than the file system takes, a drive that does not answer
        raise ImageError(f"{name} cannot be looked up: {error.strerror}; give a path that can be opened") from error
    kind = "image"
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic in _TIFF_MAGIC:
                kind = "TIFF"
                # Imported here because it takes longer to load than a photograph does, and few images need it.
                from linocut.data.tiff import read_tiff

                return read_tiff(path, name, page, max_pixels)
            image = open_header(file, path)
            if image is None:
                raise ImageError(f"{name} is not an image of a kind that can be read: {', '.join(FORMATS)}")
            kind = image.format or kind
            check_size(*image.size, max_pixels, name)
            return read_frame(image, name, page, path)
    except (ImageError, PermissionError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, EOFError and more
        raise ImageError(f"{name} is not a readable {kind} file; it may be truncated or damaged ({error})") from error


def _check_file(path: Path, name: str) -> None:
    """See that there is a file with something in it.

    Raises:
        FileNotFoundError: with the nearest name in its folder, if there is one.
        ImageError: if it is a folder, a device or empty.
    """
    if "\0" in str(path):
        raise ImageError(f"{name} is not a path: it has a null character")
    if path.is_dir():
        raise ImageError(f"{name} is a folder; name one image in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {name}{_suggestion(path)}")
    if not path.is_file():
        raise ImageError(f"{name} is not an ordinary file, but a device, pipe or socket")
    if path.stat().st_size == 0:
        raise ImageError(f"{name} is empty (0 bytes)")


def _suggestion(path: Path) -> str:
    """What may have been meant by a path that does not exist."""
    if str(path).startswith(("http:/", "https:/", "s3:/", "gs:/")):
        return "; addresses are not opened: download the image first"
    if not path.parent.is_dir():
        return f"; nor is there a folder {str(path.parent)!r}"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return "" if path.is_absolute() else f" in {str(Path.cwd())!r}"
