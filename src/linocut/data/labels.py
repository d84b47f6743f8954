"""Label maps as they are in files: the stored numbers and never the colours, in strips where they are large.

=========== =================================================================================================
file        what counts as the label of a pixel
=========== =================================================================================================
PNG, GIF,   the index into the palette, or the grey value as it is stored, of 1 to 16 bits
BMP
TIFF        the stored integer, of any type; strips, tiles, BigTIFF; one page, one channel
NPY         the stored integer or bool, of shape (height, width)
=========== =================================================================================================

Pictures of labels, in which each class has a colour, are refused, for what a colour means is not in the file; so are
JPEG and other lossy forms, which change labels along every edge. A PNG or TIFF is read strip by strip, an NPY file
where it lies, so what is compared may be larger than the memory; an interlaced PNG, GIF, BMP and a TIFF of one
compressed strip are decoded whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.data.pixels import ImageError
from linocut.data.png_bands import GREY, PALETTE, SIGNATURE, png_bands, read_header

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".bmp", ".gif")
"""The endings by which label maps are found in a folder; a photograph of the same name may lie beside them."""

STRIP_PIXELS = 1 << 22
"""Pixels read at a time: 4 MB of 8-bit labels, which stay in the cache of most processors while they are counted."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NPY = b"\x93NUMPY"
_HOW = (
    "each class needs a number: numpy.array(PIL.Image.open(path))[..., 0] keeps one channel, which is enough where all"
    " are the same; where classes are colours, translate each colour to its number and save that as grey"
)


@dataclass(frozen=True)
class LabelMap:
    """A label map in a file, of which the size is known and nothing is read yet.

    Attributes:
        path: the file.
        height: rows of pixels.
        width: pixels of a row.
        dtype: of the labels.
    """

    path: Path
    height: int
    width: int
    dtype: np.dtype[Any]
    _bands: Callable[[int], Iterator[NDArray[Any]]] = field(repr=False, compare=False)

    @property
    def size(self) -> str:
        """Width and height as text."""
        return f"{self.width} × {self.height}"

    def strips(self, rows: int | None = None) -> Iterator[NDArray[Any]]:
        """The labels from top to bottom.

        Args:
            rows: how many a strip has; by default as many as have ``STRIP_PIXELS`` pixels.

        Yields:
            (rows, width) integers, the last with what is left.

        Raises:
            ImageError: if the file is damaged.
            ValueError: if ``rows`` is less than 1.
        """
        count = max(1, STRIP_PIXELS // self.width) if rows is None else rows
        if count < 1:
            raise ValueError(f"a strip must have at least 1 row, got rows={count}")
        with _one_error(self.path):
            for strip in _of_equal_height(self._bands(count), count):
                yield strip.astype(self.dtype, copy=False)  # in this machine's order of bytes

    def read(self) -> NDArray[Any]:
        """All labels, (height, width) integers.

        Raises:
            ImageError: if the file is damaged.
        """
        return next(self.strips(self.height))


def open_labels(path: str | os.PathLike[str]) -> LabelMap:
    """Open a label map; the content decides what it is, not the name.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ImageError: if it is damaged, or holds colours, several pages or numbers that are no integers; the message says
            what would do.

    Example:
        >>> np.save("labels.npy", np.array([[0, 1, 1], [2, 2, 255]]))
        >>> labels = open_labels("labels.npy")
        >>> labels.size
        '3 × 2'
        >>> [strip.tolist() for strip in labels.strips(rows=1)]
        [[[0, 1, 1]], [[2, 2, 255]]]
    """
    file = Path(path)
    with _one_error(file), file.open("rb") as stream:
        magic = stream.read(8)
        if magic == SIGNATURE:
            stream.seek(0)
            header = read_header(stream)
            if header.colour not in (GREY, PALETTE):
                raise ImageError(f"{str(file)!r} is a picture in colours or with alpha, not a label map; {_HOW}")
            dtype = np.dtype(np.uint16 if header.depth == 16 else np.uint8)
            return LabelMap(file, header.height, header.width, dtype, partial(png_bands, file))
        if magic[:4] in _TIFF:
            from linocut.data.tiff_bands import describe_tiff, tiff_bands

            height, width, dtype = describe_tiff(file, _HOW)
            return LabelMap(file, height, width, dtype, lambda _: tiff_bands(file))
        if magic[:6] == _NPY:
            return _open_array(file)
        return _open_picture(file, magic)


def _open_array(path: Path) -> LabelMap:
    """An array that NumPy saved; it stays where it is."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 2 or array.dtype.kind not in "biu" or array.size == 0:
        raise ImageError(
            f"{str(path)!r} must hold integers of shape (height, width), got {array.dtype} {array.shape};"
            " of scores, save numpy.argmax over the classes; of several maps, one a file"
        )
    return LabelMap(
        path, array.shape[0], array.shape[1], array.dtype.newbyteorder("="), lambda _: iter((np.asarray(array),))
    )


def _open_picture(path: Path, magic: bytes) -> LabelMap:
    """A BMP or GIF; everything else is refused here."""
    from PIL import Image

    if not magic.startswith((b"BM", b"GIF8")):
        lossy = magic.startswith((b"\xff\xd8", b"RIFF"))
        why = "is JPEG or WebP, which changes labels along edges" if lossy else "is not a label map that can be read"
        raise ImageError(f"{str(path)!r} {why}; save labels as PNG, TIFF or NPY")
    with Image.open(path) as image:
        if image.mode not in ("1", "L", "P"):
            raise ImageError(f"{str(path)!r} is a picture in colours, not a label map; {_HOW}")
        width, height = image.size

    def bands(_: int) -> Iterator[NDArray[Any]]:
        with Image.open(path) as image:
            array = np.array(image)
        yield array.astype(np.uint8) if array.dtype == bool else array

    return LabelMap(path, height, width, np.dtype(np.uint8), bands)


def _of_equal_height(bands: Iterator[NDArray[Any]], rows: int) -> Iterator[NDArray[Any]]:
    """Bands of any height, cut and joined to strips of ``rows`` rows; what fits is not copied."""
    kept: list[NDArray[Any]] = []
    have = 0
    for band in bands:
        start = 0
        while start < len(band):
            piece = band[start : start + rows - have]
            kept.append(piece)
            have, start = have + len(piece), start + len(piece)
            if have == rows:
                yield kept[0] if len(kept) == 1 else np.concatenate(kept)
                kept, have = [], 0
    if kept:
        yield kept[0] if len(kept) == 1 else np.concatenate(kept)


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Make of every way in which a decoder fails one error that names the file.

    Raises:
        ImageError: in place of whatever a decoder raised.
    """
    try:
        yield
    except (ImageError, FileNotFoundError, PermissionError, IsADirectoryError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error, EOFError and more
        raise ImageError(f"{str(path)!r} cannot be read as labels; it may be truncated or damaged ({error})") from error
