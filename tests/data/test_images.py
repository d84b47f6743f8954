"""Opening images of every kind: against arrays they were made from, or against an independent decoder."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

import linocut
from linocut.data.images import ImageError, open_image

RNG = np.random.default_rng(11)
RGB = RNG.integers(0, 256, (37, 53, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (37, 53, 3), np.uint16)
SMOOTH = cv2.GaussianBlur(RGB, (0, 0), 4)
GREY = RGB[..., 0]


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes) -> Path:
    """A PNG by the letter of its specification, for kinds that no library at hand writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def open_or_refuse(path: Path) -> np.ndarray | None:
    """None where the image is refused in the one way that is allowed."""
    try:
        return open_image(path, max_pixels=10**6)
    except ImageError:
        return None


class TestFormats:
    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif"])
    def test_lossless_formats_give_the_pixels_back(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path / name, Image.fromarray(RGB), **({"lossless": True} if name == "a.webp" else {}))
        result = open_image(path)
        np.testing.assert_array_equal(result, RGB)
        assert result.dtype == np.uint8
        assert result.flags.c_contiguous
        assert result.flags.writeable

    def test_jpeg_agrees_with_opencv(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.fromarray(SMOOTH), quality=95, subsampling=0)
        other = cv2.imread(str(path))[..., ::-1]
        assert np.abs(open_image(path).astype(int) - other).max() <= 2  # two implementations of the cosine transform

    def test_lossy_webp_agrees_with_opencv(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.webp", Image.fromarray(SMOOTH), quality=90)
        np.testing.assert_array_equal(open_image(path), cv2.imread(str(path))[..., ::-1])

    def test_gif_gives_its_first_frame_and_others_when_asked(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (9, 5), colour) for colour in ("red", "lime", "blue")]
        path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
        assert (open_image(path) == (255, 0, 0)).all()
        assert (open_image(path, page=2) == (0, 0, 255)).all()
        with pytest.raises(ImageError, match="has 3 pages, so page must be < 3, got 3"):
            open_image(path, page=3)

    def test_a_photo_has_one_page(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(RGB))
        with pytest.raises(ImageError, match="has 1 page, so page must be < 1, got 1"):
            open_image(path, page=1)

    def test_the_content_decides_and_not_the_name(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.jpg", Image.fromarray(RGB), format="PNG")
        np.testing.assert_array_equal(open_image(path), RGB)

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, tmp_path: Path, suffix: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH), exif=exif)
        with Image.open(path) as other:
            np.testing.assert_array_equal(open_image(path), np.asarray(ImageOps.exif_transpose(other)))

    def test_damaged_exif_does_not_cost_the_picture(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(RGB), exif=b"this is no EXIF block")
        np.testing.assert_array_equal(open_image(path), RGB)

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
    def test_one_pixel_wide(self, tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
        path = save(tmp_path / f"a.{suffix}", Image.new("RGB", size, "white"))
        result = open_image(path)
        assert result.shape == (size[1], size[0], 3)
        assert (result >= 254).all()


class TestModes:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"])
    def test_opaque_modes_as_pillow_converts_them(self, mode: str) -> None:
        image = Image.frombytes("LAB", (53, 37), RGB.tobytes()) if mode == "LAB" else Image.fromarray(RGB).convert(mode)
        np.testing.assert_array_equal(open_image(image), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "La", "RGBa"])
    def test_transparent_modes_lie_on_white(self, mode: str) -> None:
        alpha = RNG.integers(0, 256, GREY.shape, np.uint8)
        image = Image.fromarray(np.dstack([RGB, alpha]), "RGBA")
        image = image.convert({"La": "LA", "PA": "P"}.get(mode, mode)).convert(mode)
        rgba = image.convert({"La": "LA"}.get(mode, "RGBA")).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB")).astype(int)
        assert np.abs(open_image(image) - expected).max() <= 1

    @pytest.mark.parametrize("mode", ["L", "RGB", "P"])
    def test_a_transparent_colour_lies_on_white(self, tmp_path: Path, mode: str) -> None:
        image = Image.new(mode, (4, 1), 0)
        image.putpixel((1, 0), 255 if mode != "RGB" else (255, 0, 0))
        key = (0, 0, 0) if mode == "RGB" else 0
        path = save(tmp_path / "a.png", image, transparency=key)
        with Image.open(path) as other:
            rgba = other.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        np.testing.assert_array_equal(open_image(path), np.asarray(expected))
        assert open_image(path)[0, 0].tolist() == [255, 255, 255]

    def test_grey_of_sixteen_bits(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(RGB16[..., 0]))
        np.testing.assert_array_equal(open_image(path)[..., 2], np.rint(RGB16[..., 0] / 257))

    @pytest.mark.parametrize("bits", [12, 16])
    def test_colour_of_sixteen_bits_keeps_them(self, tmp_path: Path, bits: int) -> None:
        values = RGB16 >> (16 - bits)
        cv2.imwrite(str(tmp_path / "a.png"), values[..., ::-1])
        np.testing.assert_array_equal(open_image(tmp_path / "a.png"), np.rint(values * (255 / (2**bits - 1))))

    def test_transparent_colour_of_sixteen_bits(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), np.dstack([RGB16[..., ::-1], np.full_like(RGB16[..., 0], 32768)]))
        assert np.abs(open_image(tmp_path / "a.png") - (RGB16 / 257 * 128 / 255 + 127)).max() <= 1

    def test_transparent_grey_of_sixteen_bits(self, tmp_path: Path) -> None:
        values = np.dstack([RGB16[..., 0], np.full_like(RGB16[..., 0], 65535)]).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        path = png(tmp_path / "a.png", 53, 37, 16, 4, rows)
        np.testing.assert_array_equal(open_image(path)[..., 1], np.rint(RGB16[..., 0] / 257))

    @pytest.mark.parametrize("mode", ["I;16", "I"])
    def test_a_transparent_value_in_grey_of_sixteen_bits(self, tmp_path: Path, mode: str) -> None:
        values = np.array([[0, 6000, 65535, 6001]], np.uint16)
        image = Image.fromarray(values)
        path = save(tmp_path / "a.png", image, transparency=0)
        with Image.open(path) as other:
            assert other.info["transparency"] == 0
        np.testing.assert_array_equal(open_image(path)[0, :, 1], [255, 23, 255, 23])
        deep = Image.fromarray(values.astype(np.int32) if mode == "I" else values)
        deep.info["transparency"] = 6000
        np.testing.assert_array_equal(open_image(deep)[0, :, 1], [0, 255, 255, 23])

    def test_deep_png_with_orientation(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), RGB16[..., ::-1])
        data = (tmp_path / "a.png").read_bytes()
        exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
        (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
        expected = np.rint(np.rot90(RGB16, -1) / 257)
        np.testing.assert_array_equal(open_image(tmp_path / "a.png"), expected)

    def test_floats_of_pillow(self) -> None:
        np.testing.assert_array_equal(open_image(Image.fromarray(GREY / np.float32(255)))[..., 0], GREY)

    def test_integers_of_pillow(self) -> None:
        np.testing.assert_array_equal(open_image(Image.fromarray(GREY.astype(np.int32)))[..., 0], GREY)

    def test_orientation_of_a_pillow_image(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = save(tmp_path / "a.png", Image.fromarray(RGB), exif=exif)
        with Image.open(path) as image:
            np.testing.assert_array_equal(open_image(image), np.rot90(RGB, -1))


class TestArrays:
    def test_a_right_array_is_not_copied(self) -> None:
        assert open_image(RGB) is RGB

    def test_what_numpy_can_read_is_an_array(self) -> None:
        class Tensor:
            def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
                return RGB

        np.testing.assert_array_equal(open_image(Tensor()), RGB)

    def test_memory_maps(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", RGB)
        result = open_image(np.load(tmp_path / "a.npy", mmap_mode="r"))
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, RGB)

    def test_range(self) -> None:
        assert open_image(np.array([[-5.0, 0.0, 5.0]]), value_range=(-5.0, 5.0))[0, :, 1].tolist() == [0, 128, 255]

    def test_channels_first(self) -> None:
        with pytest.raises(ImageError, match=r"the array seems to have its channels first \(3×37×53\)"):
            open_image(np.moveaxis(RGB, -1, 0))

    @pytest.mark.parametrize("source", [RGB, Image.fromarray(RGB)])
    def test_pages_are_for_files(self, source: Any) -> None:
        with pytest.raises(ImageError, match="only files have pages"):
            open_image(source, page=1)

    @pytest.mark.parametrize("source", [None, 3, [[1, 2], [3, 4]], b"data", object()])
    def test_other_things(self, source: Any) -> None:
        with pytest.raises(TypeError, match=f"path, an array or a Pillow image, got {type(source).__name__}"):
            open_image(source)

    @pytest.mark.parametrize("page", [-1, -5])
    def test_negative_pages(self, page: int) -> None:
        with pytest.raises(ValueError, match=f"page must be >= 0, got {page}"):
            open_image(RGB, page=page)

    def test_pages_may_be_integers_of_numpy(self) -> None:
        assert open_image(RGB, page=np.int64(0)) is RGB


class TestPaths:
    def test_kinds_of_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Named:
            def __fspath__(self) -> str:
                return str(tmp_path / "a.png")

        save(tmp_path / "a.png", Image.fromarray(RGB))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for source in ("a.png", Path("a.png"), Named(), "~/a.png", tmp_path / "a.png"):
            np.testing.assert_array_equal(open_image(source), RGB)

    @pytest.mark.parametrize("name", ["~x.jpg", "~nosuch/x.png", "a~/x.png"])
    def test_only_the_home_folder_is_expanded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match=f"there is no file '{name}'"):
            open_image(name)
        Path(name).parent.mkdir(exist_ok=True)
        save(Path(name), Image.fromarray(RGB), format="PNG")
        np.testing.assert_array_equal(open_image(name), RGB)

    def test_without_a_home_folder_the_path_stands_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def expanduser(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "expanduser", expanduser)
        with pytest.raises(FileNotFoundError, match=r"there is no file '~/x\.png'"):
            open_image("~/x.png")

    def test_a_name_that_no_file_system_takes(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="cannot be looked up: File name too long"):
            open_image(tmp_path / ("n" * 300 + ".png"))

    def test_missing_file_with_a_near_name(self, tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").touch()
        with pytest.raises(FileNotFoundError, match=r"no file '.*phto\.jpg'; did you mean 'photo\.jpg'\?"):
            open_image(tmp_path / "phto.jpg")

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nor is there a folder '.*nowhere'"):
            open_image(tmp_path / "nowhere" / "photo.jpg")

    def test_missing_file_by_a_relative_path_names_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match=f"no file 'photo.jpg' in '{tmp_path}'"):
            open_image("photo.jpg")

    def test_addresses(self) -> None:
        with pytest.raises(FileNotFoundError, match="download the image first"):
            open_image("https://example.org/photo.jpg")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="is a folder; name one image in it"):
            open_image(tmp_path)

    def test_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        with pytest.raises(ImageError, match=r"a\.png' is empty \(0 bytes\)"):
            open_image(tmp_path / "a.png")

    def test_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ImageError, match="not an ordinary file"):
            open_image(tmp_path / "pipe")

    def test_null_character(self) -> None:
        with pytest.raises(ImageError, match="null character"):
            open_image("a\0.png")

    @pytest.mark.parametrize(
        "content", [b"a", b"hello, this is text\n", b"%PDF-1.7\n", b"\0" * 100, b"RIFF\0\0\0\0WAVEfmt "]
    )
    def test_not_an_image(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(
            ImageError, match="not an image of a kind that can be read: PNG, JPEG, WEBP, BMP, GIF, TIFF"
        ):
            open_image(tmp_path / "a.png")

    def test_formats_that_could_start_other_programs_are_not_tried(self, tmp_path: Path) -> None:
        (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
        with pytest.raises(ImageError, match="not an image"):
            open_image(tmp_path / "a.eps")


class TestDamage:
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
    def test_truncated_files(self, tmp_path: Path, suffix: str, share: float) -> None:
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(RGB))
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match=r"a\.\w+' is not a readable \w+ file; it may be truncated or damaged"):
            open_image(path)

    def test_truncated_deep_png(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        cv2.imwrite(str(path), RGB16)
        path.write_bytes(path.read_bytes()[:4000])
        with pytest.raises(ImageError, match="truncated or damaged"):
            open_image(path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
    @pytest.mark.filterwarnings("ignore")  # Pillow warns of oddities in what it can still read
    def test_damaged_files_fail_cleanly(self, tmp_path: Path, suffix: str) -> None:
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(SMOOTH))
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for seed in range(60):
            rng = np.random.default_rng(seed)
            data = whole.copy()
            data[rng.integers(0, min(len(data), 60 if seed % 2 else len(data)), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(data.tobytes())
            result = open_or_refuse(path)
            assert result is None or (result.dtype == np.uint8 and result.shape[2] == 3)

    def test_a_closed_pillow_image(self, tmp_path: Path) -> None:
        with Image.open(save(tmp_path / "a.png", Image.fromarray(RGB))) as image:
            pass
        with pytest.raises(ImageError, match="Pillow cannot decode the image"):
            open_image(image)


class TestSize:
    def test_a_bomb_is_refused_unread(self, tmp_path: Path) -> None:
        path = png(tmp_path / "bomb.png", 30_000, 30_000, 1, 0, b"")
        with pytest.raises(
            ImageError,
            match=r"30000 × 30000 = 900,000,000 pixels, more than max_pixels=200,000,000; "
            r"raise it, by max_pixels=900000000 or --max-pixels 900000000",
        ):
            open_image(path)

    def test_a_bomb_in_a_pillow_image_is_refused_unread(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(RGB))
        with Image.open(path) as image, pytest.raises(ImageError, match="the image has 53 × 37"):
            open_image(image, max_pixels=1000)

    def test_pillows_own_limit_neither_warns_nor_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        path = save(tmp_path / "a.png", Image.fromarray(RGB))
        np.testing.assert_array_equal(open_image(path), RGB)
        assert Image.MAX_IMAGE_PIXELS == 100

    def test_the_limit_is_exact_and_can_be_lifted(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", Image.fromarray(RGB))
        assert open_image(path, max_pixels=37 * 53).shape == RGB.shape
        assert open_image(path, max_pixels=None).shape == RGB.shape
        with pytest.raises(ImageError, match=r"53 × 37 = 1,961 pixels, more than max_pixels=1,960; raise it, by"):
            open_image(path, max_pixels=37 * 53 - 1)


def test_the_package_exports_it() -> None:
    assert linocut.open_image is open_image


def test_it_imports_without_the_layers_above() -> None:
    code = "import sys, linocut.data.images; print(sorted({'torch', 'tifffile', 'linocut.vision'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
