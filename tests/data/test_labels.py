"""Label maps come back as the numbers that were stored, whatever the file, whole or in strips."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from linocut.data.labels import open_labels
from linocut.data.pixels import ImageError

RANDOM = np.random.default_rng(0)
WIDE = RANDOM.integers(0, 65_536, (61, 83)).astype(np.uint16)
NARROW = RANDOM.integers(0, 256, (61, 83)).astype(np.uint8)


def few_bits(depth: int) -> np.ndarray:
    return (NARROW & (2**depth - 1)).astype(np.uint8)


def assert_holds(path: Path, expected: np.ndarray) -> None:
    labels = open_labels(path)
    assert (labels.height, labels.width) == expected.shape
    assert labels.read().dtype == labels.dtype == labels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(labels.read(), expected)
    for rows in (1, 7, 16, 1000):
        strips = list(labels.strips(rows))
        assert [len(strip) for strip in strips[:-1]] == [rows] * (len(strips) - 1)
        np.testing.assert_array_equal(np.concatenate(strips), expected)


def grey_png(path: Path, values: np.ndarray, depth: int) -> None:
    """A grey PNG of few bits, which Pillow cannot write: rows without a filter, high bits first."""
    bits = np.unpackbits(values[..., np.newaxis], axis=2)[..., 8 - depth :].reshape(len(values), -1)
    write_png(path, values.shape, depth, b"".join(b"\0" + np.packbits(row).tobytes() for row in bits))


def write_png(path: Path, shape: tuple[int, ...], depth: int, rows: bytes, interlace: int = 0) -> None:
    header = struct.pack(">IIBBBBB", shape[1], shape[0], depth, 0, 0, 0, interlace)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_gives_indices(tmp_path: Path, depth: int) -> None:
    values = few_bits(depth)
    image = Image.new("P", (83, 61))
    image.putdata(values.ravel().tolist())
    image.putpalette(RANDOM.integers(0, 256, 3 * 2**depth).tolist())
    image.save(tmp_path / "a.png", bits=depth)
    assert_holds(tmp_path / "a.png", values)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits_is_not_stretched(tmp_path: Path, depth: int) -> None:
    grey_png(tmp_path / "a.png", few_bits(depth), depth)
    assert_holds(tmp_path / "a.png", few_bits(depth))


def test_wide_and_filtered_png(tmp_path: Path) -> None:
    # a slope, so that the encoder chooses filters that look at the row above
    slope = np.add.outer(np.arange(61), np.arange(83)).astype(np.uint16) * 300
    for values in (WIDE, slope, (slope // 300).astype(np.uint8)):
        cv2.imwrite(str(tmp_path / "a.png"), values)
        assert_holds(tmp_path / "a.png", values)


def test_an_interlaced_png_is_read_whole(tmp_path: Path) -> None:
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [NARROW[top::down, left::across] for left, top, across, down in passes]
    write_png(
        tmp_path / "a.png", NARROW.shape, 8, b"".join(b"\0" + row.tobytes() for p in parts for row in p), interlace=1
    )
    assert_holds(tmp_path / "a.png", NARROW)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 45), st.integers(0, 2**32 - 1))
def test_strips_join_to_the_whole(tmp_path_factory: Any, height: int, width: int, rows: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (height, width)).astype(np.uint8)
    path = tmp_path_factory.getbasetemp() / "joined.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(np.concatenate(list(open_labels(path).strips(rows))), values)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"rowsperstrip": 5},
        {"rowsperstrip": 5, "compression": "zlib"},
        {"tile": (16, 32)},
        {"tile": (16, 32), "compression": "zlib"},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4"])
def test_tiff(tmp_path: Path, layout: dict[str, Any], dtype: str) -> None:
    values = (NARROW if dtype == "u1" else WIDE).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, **layout)
    assert_holds(tmp_path / "a.tif", values)


def test_tiff_that_only_pillow_decodes(tmp_path: Path) -> None:
    Image.fromarray(NARROW).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert_holds(tmp_path / "a.tif", NARROW)


@pytest.mark.parametrize("dtype", ["?", "u1", "i8"])
def test_numpy_files_bmp_and_gif(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", NARROW.astype(dtype))
    assert_holds(tmp_path / "a.npy", NARROW.astype(dtype))
    for name in ("a.bmp", "a.gif"):
        Image.fromarray(NARROW).save(tmp_path / name)
        assert_holds(tmp_path / name, NARROW)


def test_a_strip_costs_a_strip(tmp_path: Path) -> None:
    """A picture of 64 MB is read in the memory of a few strips."""
    import tracemalloc

    Image.fromarray(np.zeros((8000, 8000), np.uint8)).save(tmp_path / "a.png", compress_level=1)
    tracemalloc.start()
    seen = sum(strip.size for strip in open_labels(tmp_path / "a.png").strips(100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 64_000_000
    assert peak < 16_000_000


def test_what_is_no_label_map_says_what_would_do(tmp_path: Path) -> None:
    colour = np.stack([NARROW] * 3, axis=2)
    for name in ("c.png", "c.tif", "c.bmp"):
        Image.fromarray(colour).save(tmp_path / name)
        with pytest.raises(ImageError, match=rf"{name}.* each class needs a number"):
            open_labels(tmp_path / name)
    Image.fromarray(colour).save(tmp_path / "c.jpg")
    with pytest.raises(ImageError, match=r"c\.jpg.*changes labels along edges; save labels as PNG"):
        open_labels(tmp_path / "c.jpg")
    tifffile.imwrite(tmp_path / "f.tif", NARROW.astype(np.float32))
    with pytest.raises(ImageError, match=r"float32, but labels are integers.*astype"):
        open_labels(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((5, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="5 pages"):
        open_labels(tmp_path / "p.tif")
    np.save(tmp_path / "s.npy", np.zeros((3, 8, 9), np.float32))
    with pytest.raises(ImageError, match=r"integers of shape \(height, width\), got float32 \(3, 8, 9\).*argmax"):
        open_labels(tmp_path / "s.npy")
    (tmp_path / "t.png").write_text("not a picture")
    with pytest.raises(ImageError, match="PNG, TIFF or NPY"):
        open_labels(tmp_path / "t.png")
    with pytest.raises(FileNotFoundError):
        open_labels(tmp_path / "none.png")


@pytest.mark.parametrize("harm", ["cut", "flip", "short"])
def test_damage_is_told(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(NARROW).save(path)
    data = bytearray(path.read_bytes())
    if harm == "cut":
        data = data[: len(data) // 2]
    elif harm == "flip":
        data[len(data) // 2] ^= 255
    else:
        data = data[:20]
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png' cannot be read as labels; it may be truncated or damaged"):
        list(open_labels(path).strips(10))


def test_rows_must_be_positive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", NARROW)
    with pytest.raises(ValueError, match="at least 1 row, got rows=0"):
        next(open_labels(tmp_path / "a.npy").strips(0))
