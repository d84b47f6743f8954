"""The labels of a TIFF, a row of tiles or a strip at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from linocut.data.pixels import ImageError


def describe_tiff(path: Path, hint: str) -> tuple[int, int, np.dtype[Any]]:
    """Height, width and dtype of a TIFF of one page, one channel and integers.

    Args:
        path: the file.
        hint: what would do where it holds colours.

    Raises:
        ImageError: if it is anything else.
        Exception: whatever tifffile raises for a damaged file.
    """
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise ImageError(f"{str(path)!r} has {len(file.pages)} pages, but a label map has one; save each by itself")
        page = _page(file)
        if page.samplesperpixel != 1 or page.imagedepth != 1:
            raise ImageError(f"{str(path)!r} has {page.samplesperpixel} channels, so it is not a label map; {hint}")
        if page.dtype is None or page.dtype.kind not in "biu":
            raise ImageError(
                f"{str(path)!r} holds values of type {page.dtype}, but labels are integers; where they are whole,"
                " save array.astype(numpy.uint16)"
            )
        return page.imagelength, page.imagewidth, page.dtype


def tiff_bands(path: Path) -> Iterator[NDArray[Any]]:
    """The labels from top to bottom, in bands as high as the file's tiles or strips.

    Where the file is not compressed it is read where it lies. What tifffile cannot decode without its optional codecs
    (LZW), Pillow decodes, whole.

    Yields:
        (rows, width) integers.

    Raises:
        Exception: whatever tifffile or Pillow raise for a damaged file.
    """
    with tifffile.TiffFile(path) as file:
        page = _page(file)
        if page.is_memmappable:
            yield np.asarray(tifffile.memmap(path, mode="r", page=0)).reshape(page.imagelength, page.imagewidth)
            return
        if _can_decode(page):
            yield from _bands(page)
            return
    with Image.open(path) as image:
        yield np.array(image)


def _page(file: tifffile.TiffFile) -> tifffile.TiffPage:
    """The first page."""
    page = file.pages[0]
    if not isinstance(page, tifffile.TiffPage):
        raise TypeError("its first page has no description of its own")
    return page


def _can_decode(page: tifffile.TiffPage) -> bool:
    """Whether tifffile has the codec; it says so no sooner than at the first segment."""
    try:
        next(page.segments(maxworkers=1, buffersize=1), None)
    except Exception:  # the lack of a codec has no class of its own; a damaged file fails again, in Pillow
        return False
    return True


def _bands(page: tifffile.TiffPage) -> Iterator[NDArray[Any]]:
    """Rows of tiles, or strips, put together from the segments in their order."""
    height, width = page.imagelength, page.imagewidth
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    # one segment at a time, so that no more is held than the band
    segments = page.segments(maxworkers=1, buffersize=1)
    across = -(-width // page.tilewidth) if page.is_tiled else 1
    for top in range(0, height, rows):
        band = np.full((min(rows, height - top), width), page.nodata, page.dtype)
        for _ in range(across):
            data, (_, _, _, left, _), _ = next(segments)
            if data is not None:  # a segment that a sparse file leaves out
                piece = data[0, : len(band), : width - left, 0]
                band[: piece.shape[0], left : left + piece.shape[1]] = piece
        yield band
