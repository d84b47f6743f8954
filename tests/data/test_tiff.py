"""TIFF files of every make, written by tifffile, Pillow and OpenCV, against the arrays they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from linocut.data.images import ImageError, open_image
from linocut.data.pixels import upright

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (37, 53, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (37, 53, 3), np.uint16)
GREY = RGB[..., 0]


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.dstack([grey] * 3)


def by_257(array: np.ndarray) -> np.ndarray:
    return np.rint(array / 257).astype(np.uint8)


def open_or_refuse(path: Path) -> np.ndarray | None:
    """None where the image is refused in the one way that is allowed."""
    try:
        return open_image(path, max_pixels=10**6)
    except ImageError:
        return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.tif"


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"tile": (16, 32)},
        {"rowsperstrip": 5},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (16, 16)},
    ],
)
@pytest.mark.parametrize("array", [RGB, RGB16], ids=["8", "16"])
def test_colour_in_every_layout(path: Path, layout: dict[str, Any], array: np.ndarray) -> None:
    stored = np.moveaxis(array, -1, 0) if layout.get("planarconfig") == "separate" else array
    tifffile.imwrite(path, stored, photometric="rgb", **layout)
    np.testing.assert_array_equal(open_image(path), array if array.dtype == np.uint8 else by_257(array))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY),
        (GREY > 100, (GREY > 100) * np.uint8(255)),
        (RGB16[..., 0], by_257(RGB16[..., 0])),
        ((RGB16[..., 0] >> 4), np.rint((RGB16[..., 0] >> 4) * (255 / 4095)).astype(np.uint8)),
        (RGB16[..., 0].astype(np.uint32) * 65537, by_257(RGB16[..., 0])),
        ((GREY / 255).astype(np.float32), GREY),
        (GREY / 255, GREY),
        (GREY[:, :1], GREY[:, :1]),
        (GREY[:1], GREY[:1]),
        (GREY[:1, :1], GREY[:1, :1]),
    ],
    ids=["8", "1", "16", "12 in 16", "32", "float32", "float64", "one wide", "one high", "one pixel"],
)
def test_grey(path: Path, array: np.ndarray, expected: np.ndarray) -> None:
    tifffile.imwrite(path, array, photometric="minisblack")
    np.testing.assert_array_equal(open_image(path), grey_to_rgb(expected))


def test_pages(path: Path) -> None:
    stack = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])
    tifffile.imwrite(path, stack, photometric="minisblack")
    np.testing.assert_array_equal(open_image(path), grey_to_rgb(GREY))
    np.testing.assert_array_equal(open_image(path, page=2), grey_to_rgb(stack[2]))
    with pytest.raises(ImageError, match="has 3 pages, so page must be < 3, got 3"):
        open_image(path, page=3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "group4", "packbits", "tiff_adobe_deflate"])
def test_compressions(path: Path, compression: str) -> None:
    image = Image.fromarray(GREY > 100 if compression == "group4" else cv2.GaussianBlur(RGB, (0, 0), 5))
    image.save(path, compression=compression)
    with Image.open(path) as other:
        np.testing.assert_array_equal(open_image(path), np.asarray(other.convert("RGB")))


def test_pages_that_tifffile_cannot_decode(path: Path) -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    pages[0].save(path, compression="tiff_lzw", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(open_image(path, page=1), RGB[::-1])


@pytest.mark.parametrize("page", [0, 1])
def test_deep_colour_that_tifffile_cannot_decode_keeps_its_depth(path: Path, page: int) -> None:
    twelve = RGB16 >> 4
    pages = [twelve[..., ::-1], twelve[::-1, :, ::-1]]
    assert cv2.imwritemulti(str(path), pages, [cv2.IMWRITE_TIFF_COMPRESSION, 5])  # LZW
    expected = np.rint(twelve[:: -1 if page else 1] * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(open_image(path, page=page), expected)


def test_float_colour_that_tifffile_cannot_decode(path: Path) -> None:
    assert cv2.imwrite(str(path), (RGB[..., ::-1] / 255).astype(np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(open_image(path), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("lzw", [False, True])
def test_orientation(path: Path, orientation: int, lzw: bool) -> None:
    if lzw:
        Image.fromarray(RGB).save(path, compression="tiff_lzw", tiffinfo={274: orientation})
    else:
        tifffile.imwrite(path, RGB, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(open_image(path), upright(RGB, orientation))


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_the_fourth_channel_is_what_the_file_says(path: Path, kind: str) -> None:
    alpha = np.full(GREY.shape, 128, np.uint8)
    tifffile.imwrite(path, np.dstack([RGB, alpha]), photometric="rgb", extrasamples=[kind])
    expected = {
        "unassalpha": np.rint((RGB * 128.0 + 255 * 127) / 255),
        "assocalpha": np.minimum(RGB + 127.0, 255),
        "unspecified": RGB,
    }[kind]
    np.testing.assert_array_equal(open_image(path), expected.astype(np.uint8))


def test_grey_with_alpha(path: Path) -> None:
    Image.fromarray(np.dstack([GREY, np.zeros_like(GREY)]), "LA").save(path)
    assert (open_image(path) == 255).all()


def test_bands_without_a_meaning_are_red_green_blue(path: Path) -> None:
    bands = np.dstack([RGB16, RGB16[..., 0]])
    for count in (3, 4):
        tifffile.imwrite(path, bands[..., :count], photometric="minisblack", planarconfig="contig")
        np.testing.assert_array_equal(open_image(path), by_257(RGB16))


@pytest.mark.parametrize("count", [2, 5, 40])
def test_other_numbers_of_bands_have_no_rule(path: Path, count: int) -> None:
    bands = np.repeat(GREY[..., None], count, axis=2)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match=f"{count} channels.*choose one or three"):
        open_image(path)


def test_volumes_have_no_rule(path: Path) -> None:
    tifffile.imwrite(
        path, np.zeros((16, 16, 16), np.uint8), photometric="minisblack", volumetric=True, tile=(16, 16, 16)
    )
    with pytest.raises(ImageError, match="16 planes"):
        open_image(path)


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "1"])
def test_colour_spaces_as_pillow_reads_them(path: Path, mode: str) -> None:
    Image.fromarray(RGB).convert(mode).save(path)
    with Image.open(path) as other:
        expected = np.asarray(other.convert("RGB")).astype(int)
    assert np.abs(open_image(path) - expected).max() <= (1 if mode == "CMYK" else 0)


def test_deep_inks(path: Path) -> None:
    inks = np.zeros((2, 2, 4), np.uint16)
    inks[0, 0] = (65535, 0, 0, 0)
    inks[1, 1, 3] = 65535
    tifffile.imwrite(path, inks, photometric="separated")
    assert open_image(path).tolist() == [[[0, 255, 255], [255, 255, 255]], [[255, 255, 255], [0, 0, 0]]]


def test_zero_as_white(path: Path) -> None:
    tifffile.imwrite(path, GREY, photometric="miniswhite")
    np.testing.assert_array_equal(open_image(path), grey_to_rgb(255 - GREY))
    tifffile.imwrite(path, GREY / 255, photometric="miniswhite")
    with pytest.raises(ImageError, match="0 as white"):
        open_image(path)


def test_the_range_reaches_files(path: Path) -> None:
    tifffile.imwrite(path, np.array([[-5.0, 0.0, 5.0]], np.float32), photometric="minisblack")
    with pytest.raises(ImageError, match=r"image\.tif' has floating-point values from -5 to 5"):
        open_image(path)
    assert open_image(path, value_range=(-5.0, 5.0))[0, :, 0].tolist() == [0, 128, 255]


def test_a_size_that_is_only_claimed_is_refused_unread(path: Path) -> None:
    tifffile.imwrite(path, GREY, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(50_000)
    with pytest.raises(ImageError, match="50000 × 50000 = 2,500,000,000 pixels, more than max_pixels"):
        open_image(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "layout",
    [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"rowsperstrip": 5, "compression": "zlib"}, "lzw", "lzw16"],
)
def test_truncated_files(path: Path, layout: Any, share: float) -> None:
    if layout == "lzw":
        Image.fromarray(RGB).save(path, compression="tiff_lzw")
    elif layout == "lzw16":
        cv2.imwrite(str(path), RGB16, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    else:
        tifffile.imwrite(path, RGB, photometric="rgb", **layout)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=r"image\.tif.*truncated or damaged"):
        open_image(path)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_fail_cleanly(path: Path, seed: int) -> None:
    tifffile.imwrite(path, RGB, photometric="rgb", rowsperstrip=5, compression="zlib" if seed % 2 else None)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    data[rng.integers(8, len(data), 60)] = rng.integers(0, 256, 60)
    header = 400  # the directory is at the beginning of what tifffile writes
    data[rng.integers(8, header, 4)] = rng.integers(0, 256, 4)
    path.write_bytes(data.tobytes())
    rgb = open_or_refuse(path)
    assert rgb is None or (rgb.dtype == np.uint8 and rgb.ndim == 3)
