"""A PNG of one channel, some rows at a time: what it holds may be larger than the memory.

A PNG is one stream of compressed rows, each stored as its difference from the row above. It is inflated as far as it is
needed; the rows of a band, behind the last row of the band before, are put into a small PNG of their own, and Pillow
decodes that. So what decodes a band is what decodes a whole picture, and a band costs the memory of a band.

Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5, 7 and 9.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3

_LEVELS = b"".join(bytes((value, value, value)) for value in range(256))  # a palette, for grey of few bits


@dataclass(frozen=True)
class PngHeader:
    """What a PNG says of itself.

    Attributes:
        width: in pixels.
        height: in pixels.
        depth: bits of a channel: 1, 2, 4, 8 or 16.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        interlaced: the rows come in seven passes, so that a band cannot be had before all is read.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool


def read_header(file: BinaryIO) -> PngHeader:
    """Read the first chunk of a PNG, from the start of the file.

    Raises:
        ValueError: if it is none.
    """
    start = file.read(29)
    if len(start) < 29 or start[:8] != SIGNATURE or start[12:16] != b"IHDR":
        raise ValueError("it does not begin as a PNG does")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", start[16:29])
    if width < 1 or height < 1:
        raise ValueError(f"it says that it has {width} × {height} pixels")
    return PngHeader(width, height, depth, colour, interlace != 0)


def png_bands(path: Path, rows: int) -> Iterator[NDArray[Any]]:
    """The values of a PNG with a palette or of grey, ``rows`` rows at a time; the last band may have fewer.

    Values are those stored: indices into the palette, and grey as it is, not stretched to 255 where it has few bits.

    Args:
        path: the file.
        rows: how many a band has, at least 1. An interlaced file comes as one band.

    Yields:
        (rows, width) uint8 or uint16.

    Raises:
        ValueError: if the file is no such PNG, is damaged or ends early.
    """
    with path.open("rb") as file:
        header = read_header(file)
        if header.colour not in (GREY, PALETTE):
            raise ValueError(f"it has several channels (colour type {header.colour})")
        if header.interlaced:
            file.seek(0)
            yield _stored(Image.open(file), header)
            return
        stride = 1 + (header.width * header.depth + 7) // 8
        stream = _Inflated(file)
        above = b""  # the last row of the band before, as it is without a filter
        for top in range(0, header.height, rows):
            count = min(rows, header.height - top)
            filtered = above + stream.take(count * stride)
            picture = _small_png(header, count + bool(above), filtered)
            band = _stored(Image.open(io.BytesIO(picture)), header)[-count:]
            above = b"\0" + _packed(band[-1], header.depth)
            yield band


class _Inflated:
    """The rows of a PNG as they come out of its compressed chunks, in pieces of any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._chunks = _image_data(file)
        self._stream = zlib.decompressobj()
        self._pending = b""

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            ValueError: if there are not so many, or what there is cannot be inflated.
        """
        parts, lacking = [], count
        while lacking:
            if not self._pending:
                self._pending = next(self._chunks, b"")
                if not self._pending:
                    raise ValueError("it ends before its last row")
            try:
                part = self._stream.decompress(self._pending, lacking)
            except zlib.error as error:
                raise ValueError(f"its pixels cannot be inflated ({error})") from error
            self._pending = self._stream.unconsumed_tail
            parts.append(part)
            lacking -= len(part)
        return b"".join(parts)


def _image_data(file: BinaryIO) -> Iterator[bytes]:
    """The contents of the IDAT chunks, each held against its checksum; an empty one is passed over."""
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            file.seek(length + 4, io.SEEK_CUR)
            continue
        data, check = file.read(length), file.read(4)
        if len(data) < length or check != struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))):
            raise ValueError("the checksum of its pixels does not fit them")
        if data:
            yield data


def _small_png(header: PngHeader, rows: int, filtered: bytes) -> bytes:
    """A PNG of some rows. Grey of fewer than 8 bits gets a palette, for Pillow stretches grey and leaves indices."""
    colour = PALETTE if header.depth < 8 else header.colour
    size = struct.pack(">IIBBBBB", header.width, rows, header.depth, colour, 0, 0, 0)
    palette = _chunk(b"PLTE", _LEVELS[: 3 << header.depth]) if colour == PALETTE else b""
    pixels = _chunk(b"IDAT", zlib.compress(filtered, 0))
    return b"".join((SIGNATURE, _chunk(b"IHDR", size), palette, pixels, _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _stored(image: Image.Image, header: PngHeader) -> NDArray[Any]:
    """The values as they are in the file, out of Pillow's, which stretches grey of 2 and 4 bits to 255."""
    array = np.array(image)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if image.mode == "L" and header.depth < 8:
        return array // np.uint8(255 // (2**header.depth - 1))
    return array.astype(np.uint16) if header.depth == 16 else array


def _packed(row: NDArray[Any], depth: int) -> bytes:
    """The bytes of a row in a PNG: the high bits first."""
    if depth == 16:
        return row.astype(">u2").tobytes()
    if depth == 8:
        return row.tobytes()
    return np.packbits(np.unpackbits(row[:, np.newaxis], axis=1)[:, 8 - depth :]).tobytes()
