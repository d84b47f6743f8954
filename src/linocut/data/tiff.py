"""Reading one page of a TIFF file.

tifffile reads what microscopes and satellites write: tiles, strips, planes, 16 bits, floating point, BigTIFF. Without
its optional codecs it cannot undo LZW, JPEG and fax compression; then Pillow is asked, or for colours of more than 8
bits, of which Pillow would keep the upper 8, OpenCV.

Channels are understood as the file declares them. A grey file with three or four channels and no word on what the
further ones mean, as satellite tools write them, is taken as red, green, blue and one that is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from linocut.data.pil import check_size, open_header, read_frame
from linocut.data.pixels import ImageError, Pixels, upright

_MAX_CHANNELS = 16  # beyond that the file is a spectrum, not a picture, and decoding all of it could fill the memory
_COLOURS = {
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.YCBCR: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
_ALPHA = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)


def read_tiff(path: Path, name: str, page: int, max_pixels: int | None) -> Pixels:
    """Decode one page of a TIFF file.

    Args:
        path: the file.
        name: what to call it in errors.
        page: which page, from 0, in the order of the file.
        max_pixels: refuse larger pages; None for no limit.

    Returns:
        Its values, upright.

    Raises:
        ImageError: if there is no such page, it is too large, or its channels make no picture.
        Exception: whatever the decoder raises for a damaged file.
    """
    with tifffile.TiffFile(path) as file:
        frame = _page(file, name, page)
        check_size(frame.imagewidth, frame.imagelength, max_pixels, name)
        count, alpha = _channels(frame, name)
        try:
            array = _stored(frame)
        except Exception:  # "no codec" has no class of its own; if the file is damaged, the others will say so
            return _decode_elsewhere(path, frame, name, page, alpha)
        pixels = _interpret(array, frame, name, count, alpha)
        if pixels.colour.shape[:2] != (frame.imagelength, frame.imagewidth):
            raise ValueError("its directory contradicts itself")
        turn = int(frame.tags.valueof("Orientation", default=1))
    opacity = None if pixels.alpha is None else upright(pixels.alpha, turn)
    return Pixels(upright(pixels.colour, turn), opacity, pixels.premultiplied)


def _page(file: tifffile.TiffFile, name: str, page: int) -> tifffile.TiffPage:
    """A page by its number."""
    try:
        frame = file.pages[page]
    except IndexError:
        count = len(file.pages)
        if count == 0:
            raise ValueError("it has no page") from None
        raise ImageError(f"{name} has {count} page{'s' * (count > 1)}, so page must be < {count}, got {page}") from None
    if not isinstance(frame, tifffile.TiffPage):
        raise ImageError(f"page {page} of {name} has no description of its own")
    return frame


def _channels(frame: tifffile.TiffPage, name: str) -> tuple[int, int | None]:
    """How many channels hold colour, and which holds alpha.

    Raises:
        ImageError: if the channels make no picture.
        ValueError: if they are fewer than the colours.
    """
    samples, extra = frame.samplesperpixel, frame.extrasamples
    if frame.imagedepth > 1 or samples > _MAX_CHANNELS:
        raise ImageError(
            f"{name} holds {frame.imagedepth} planes of {samples} channels, not one picture;"
            " read it with tifffile, choose one or three, and open the array"
        )
    photometric = PHOTOMETRIC(frame.photometric)
    colours = _COLOURS.get(photometric, samples)
    if samples < colours:
        raise ValueError(f"it declares {photometric.name} and {samples} channels")
    alpha = next((colours + place for place, kind in enumerate(extra) if kind in _ALPHA), None)
    if photometric == PHOTOMETRIC.MINISBLACK and alpha is None and samples > 1:
        if samples not in (3, 4):
            raise ImageError(
                f"{name} has {samples} channels and does not say what they mean;"
                " read it with tifffile, choose one or three, and open the array"
            )
        colours = 3
    return colours, alpha


def _stored(frame: tifffile.TiffPage) -> NDArray[Any]:
    """The values as stored, (H, W, C).

    Raises:
        ValueError: if they are in a colour space that Pillow must convert.
        Exception: whatever tifffile raises.
    """
    jpeg = frame.compression in (COMPRESSION.JPEG, COMPRESSION.OJPEG)  # decoding which gives RGB
    if frame.photometric not in _COLOURS or (frame.photometric == PHOTOMETRIC.YCBCR and not jpeg):
        raise ValueError(f"no conversion from {frame.photometric}")
    array: NDArray[Any] = frame.asarray()
    if frame.axes == "SYX":
        return np.moveaxis(array, 0, -1)
    return array if frame.axes == "YXS" else array.reshape(frame.imagelength, frame.imagewidth, 1)


def _interpret(array: NDArray[Any], frame: tifffile.TiffPage, name: str, colours: int, alpha: int | None) -> Pixels:
    """Turn stored values (H, W, C) into grey or RGB."""
    colour = array[..., 0] if colours == 1 else array[..., :colours]
    opacity = None if alpha is None else array[..., alpha]
    premultiplied = EXTRASAMPLE.ASSOCALPHA in frame.extrasamples
    if frame.photometric == PHOTOMETRIC.MINISWHITE:
        if colour.dtype.kind not in "bu":
            raise ImageError(f"{name} is stored with 0 as white and values of type {colour.dtype}, which has no rule")
        colour = ~colour
    elif frame.photometric == PHOTOMETRIC.PALETTE and frame.colormap is not None:
        colour = (frame.colormap.T >> 8).astype(np.uint8)[colour]
    elif frame.photometric == PHOTOMETRIC.SEPARATED:
        colour = _ink_to_light(colour, name)
    return Pixels(colour, opacity, premultiplied)


def _ink_to_light(inks: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """CMYK (H, W, 4) to RGB, each ink taking away its share of the light; without colour profiles."""
    if inks.shape[2] != 4 or inks.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} has {inks.shape[2]} inks of type {inks.dtype}; only CMYK of 8 or 16 bits is read")
    light = 255 - (inks if inks.dtype == np.uint8 else (inks >> 8).astype(np.uint8))
    product = light[..., :3].astype(np.uint16) * light[..., 3:]
    return ((product + 127) // 255).astype(np.uint8)


def _decode_elsewhere(path: Path, frame: tifffile.TiffPage, name: str, page: int, alpha: int | None) -> Pixels:
    """The page as OpenCV or Pillow reads it, upright.

    Raises:
        ValueError: if it is not a picture for them either.
        Exception: whatever they raise.
    """
    if frame.photometric == PHOTOMETRIC.RGB and frame.samplesperpixel in (3, 4) and frame.bitspersample > 8:
        found, frames = cv2.imreadmulti(str(path), start=page, count=1, flags=cv2.IMREAD_UNCHANGED)
        if not found:
            raise ValueError("neither tifffile nor OpenCV can decode it")
        array = np.asarray(frames[0])  # blue, green, red, alpha
        opacity = None if alpha is None else array[..., alpha]
        return Pixels(array[..., 2::-1], opacity, EXTRASAMPLE.ASSOCALPHA in frame.extrasamples)
    with path.open("rb") as file:
        image = open_header(file, path)
        if image is None:
            raise ValueError("neither tifffile nor Pillow can decode it")
        return read_frame(image, name, page)
