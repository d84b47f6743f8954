"""Masks as run lengths: COCO's format, bit for bit that of pycocotools.

A mask of h rows and w columns is read column by column, and the lengths of its runs are listed, background first. COCO
stores them as a list of integers (``counts: [3, 2, …]``, "uncompressed") or as a string: each run as its difference
from the run two places before (the first three as they are), in groups of five bits, low bits first; bit 5 of a group
says that more follow, and 48 is added to make a printable character.

Nothing is transposed on the way. Pixels that differ from the one above are found row by row, in the order in which the
mask lies in memory, and only these few are put in column order; filling runs the other way. So the cost is one pass
over the mask and a little for each border pixel.

Source: Lin et al., *Microsoft COCO: Common Objects in Context*, ECCV 2014; the format is defined by pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import ArrayLike, NDArray

from linocut import native

_GROUP_BITS = 5
_GROUP_MASK = 0x1F
_MAX_GROUPS = 13  # 13 · 5 = 65 bits hold any int64
_SIGN_BIT = 0x10
_MORE_BIT = 0x20
_FIRST_CHAR = 48
_LAST_CHAR = 48 + 63
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def encode_rle(
    mask: ArrayLike,
    *,
    offset: tuple[int, int] = (0, 0),
    shape: tuple[int, int] | None = None,
    compressed: bool = True,
) -> dict[str, Any]:
    """Encode a mask, or a mask known only inside a rectangle of a larger image.

    Args:
        mask: bool or integer (h, w); every value that is not 0 is foreground.
        offset: (x, y) of the mask's left top pixel in the image.
        shape: (height, width) of the image; by default the mask is the whole image. With it the cost is that of the
            rectangle, however large the image.
        compressed: whether ``counts`` is the string or the list of integers.

    Returns:
        ``{"size": [height, width], "counts": str | list[int]}``, which JSON can hold and pycocotools reads.

    Raises:
        TypeError: if ``mask`` holds neither bools nor integers.
        ValueError: if ``mask`` has not two axes or does not lie inside ``shape``.

    Example:
        >>> encode_rle(np.array([[False, True], [False, True]]))
        {'size': [2, 2], 'counts': '22'}
        >>> encode_rle(np.array([[True]]), offset=(1, 0), shape=(2, 3), compressed=False)
        {'size': [2, 3], 'counts': [2, 1, 3]}
    """
    pixels = _as_bool(mask)
    if shape is None:
        if offset != (0, 0):
            raise ValueError(f"offset {offset} needs shape, the (height, width) of the image")
        size, counts = pixels.shape, _mask_to_counts(pixels)
    else:
        size, counts = shape, _placed_counts(pixels, offset, shape)
    height, width = (int(side) for side in size)
    return {"size": [height, width], "counts": _counts_to_string(counts) if compressed else counts.tolist()}


def decode_rle(rle: Mapping[str, Any]) -> Bool[NDArray[np.bool_], "h w"]:
    """Decode COCO run lengths.

    Args:
        rle: ``size`` [h, w] and ``counts``, a compressed string (str or bytes) or a list of runs.

    Returns:
        bool (h, w), C-contiguous.

    Raises:
        TypeError: if ``rle`` is no mapping, or ``counts`` is neither a string nor a list of integers.
        ValueError: if a key is missing, the string is malformed, a run is negative, or the runs do not add up to h · w.

    Example:
        >>> decode_rle({"size": [2, 2], "counts": "22"}).tolist()
        [[False, True], [False, True]]
    """
    if not isinstance(rle, Mapping):
        raise TypeError(f"run lengths must be a mapping with 'size' and 'counts', got {type(rle).__name__}")
    missing = [key for key in ("size", "counts") if key not in rle]
    if missing:
        raise ValueError(f"run lengths need 'size' and 'counts'; {' and '.join(missing)} missing, got {sorted(rle)}")
    h, w = _read_size(rle["size"])
    counts = _read_counts(rle["counts"])
    if counts.size and counts.min() < 0:
        place = int(np.argmax(counts < 0))
        raise ValueError(f"runs must be >= 0, got {counts[place]} at place {place}")
    total = sum(counts.tolist())  # Python's integers: a malicious list cannot overflow them
    if h * w > _MOST:
        raise ValueError(f"size [{h}, {w}] is more than an array can hold")
    if total != h * w:
        raise ValueError(f"runs must add up to h * w = {h} * {w} = {h * w}, got {total}")
    core = native.core()
    mask = _reference_mask(counts, h, w) if core is None else core.counts_to_mask(counts, h, w)
    return mask.view(np.bool_)


def _as_bool(values: ArrayLike) -> Bool[NDArray[np.bool_], "h w"]:
    mask = np.asarray(values)
    if mask.dtype.kind not in "bui":
        raise TypeError(f"a mask must hold bools or integers, got {mask.dtype}; threshold first, as in mask > 0.5")
    if mask.ndim != 2:
        raise ValueError(f"a mask must have the shape (h, w), got {mask.shape}")
    return np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0)


def _read_size(size: object) -> tuple[int, int]:
    sides = np.asarray(size)
    if sides.shape != (2,) or sides.dtype.kind not in "ui" or int(sides.min()) < 0:
        raise ValueError(f"size must be [height, width], two integers >= 0, got {size!r}")
    return int(sides[0]), int(sides[1])


def _read_counts(counts: object) -> Int64[NDArray[np.int64], " runs"]:
    if isinstance(counts, (str, bytes)):
        return _string_to_counts(counts if isinstance(counts, str) else counts.decode("latin-1"))
    if not isinstance(counts, (list, tuple, np.ndarray)):
        raise TypeError(f"counts must be a string or a list of integers, got {type(counts).__name__}")
    runs = np.asarray(counts)
    if runs.size == 0:
        return np.zeros(0, dtype=np.int64)
    if runs.ndim != 1 or runs.dtype.kind not in "ui":
        raise TypeError(f"counts must be a flat list of integers below 2**63, got shape {runs.shape}, {runs.dtype}")
    if int(runs.max()) > _MOST:
        raise ValueError(f"runs must be below 2**63, got {runs.max()}")
    return np.ascontiguousarray(runs, dtype=np.int64)


def _mask_to_counts(mask: Bool[NDArray[np.bool_], "h w"]) -> Int64[NDArray[np.int64], " runs"]:
    core = native.core()
    return _reference_counts(mask) if core is None else core.mask_to_counts(mask.view(np.uint8)).view(np.int64)


def _reference_counts(mask: Bool[NDArray[np.bool_], "h w"]) -> Int64[NDArray[np.int64], " runs"]:
    h, w = mask.shape
    if mask.size == 0:
        return np.zeros(1, dtype=np.int64)
    flips = np.empty_like(mask)
    np.not_equal(mask[1:], mask[:-1], out=flips[1:])
    flips[0, 0] = mask[0, 0]
    np.not_equal(mask[0, 1:], mask[-1, :-1], out=flips[0, 1:])
    rows, columns = np.nonzero(flips)
    places = np.sort(columns * h + rows)
    return np.diff(places, prepend=0, append=h * w)


def _reference_mask(counts: Int64[NDArray[np.int64], " runs"], h: int, w: int) -> UInt8[NDArray[np.uint8], "h w"]:
    places = np.cumsum(counts[:-1])
    # A place named twice flips twice, which is not at all; one past the end flips nothing.
    places, times = np.unique(places[places < h * w], return_counts=True)
    places = places[times % 2 == 1]
    mask = np.zeros((h, w), dtype=np.uint8)
    if mask.size == 0:
        return mask
    mask[places % h, places // h] = 1
    # The first row holds values, which depend on all flips before; the rows below hold differences.
    mask[0] = np.searchsorted(places, np.arange(w) * h, side="right") % 2
    return np.bitwise_xor.accumulate(mask, axis=0)


def _placed_counts(
    mask: Bool[NDArray[np.bool_], "h w"], offset: tuple[int, int], shape: tuple[int, int]
) -> Int64[NDArray[np.int64], " runs"]:
    (h, w), (x, y), (height, width) = mask.shape, offset, shape
    if not (0 <= x <= width - w and 0 <= y <= height - h):
        raise ValueError(
            f"the mask must lie inside the image, got a mask of (h, w) = {(h, w)} at (x, y) = {(x, y)} in an image of "
            f"(height, width) = {(height, width)}"
        )
    # A rim of background where the image goes on, so that every run that ends at the rectangle's edge is seen to end.
    top, bottom, right = min(y, 1), min(height - y - h, 1), min(width - x - w, 1)
    rimmed = np.pad(mask, ((top, bottom), (0, right)))
    flips = np.cumsum(_mask_to_counts(rimmed)[:-1])
    columns, rows = np.divmod(flips, max(rimmed.shape[0], 1))
    # A flip in the rim's top row ends a run at the foot of the column before: it belongs to row 0 of the image.
    rows = np.where(rows == 0, 0, rows + y - top)
    return np.diff((columns + x) * height + rows, prepend=0, append=height * width)


def _counts_to_string(counts: Int64[NDArray[np.int64], " runs"]) -> str:
    core = native.core()
    return _reference_string(counts) if core is None else core.counts_to_string(counts)


def _string_to_counts(text: str) -> Int64[NDArray[np.int64], " runs"]:
    core = native.core()
    try:
        # outside ASCII a character is not a byte, and both forms must name the same place
        if core is None or not text.isascii():
            return _reference_parse(text)
        return core.string_to_counts(text).view(np.int64)
    except ValueError as error:
        raise ValueError(f"malformed run-length string: {error}") from None


def _reference_string(counts: Int64[NDArray[np.int64], " runs"]) -> str:
    codes = bytearray()
    runs = counts.tolist()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group = value & _GROUP_MASK
            value >>= _GROUP_BITS
            more = value != (-1 if group & _SIGN_BIT else 0)
            codes.append(_FIRST_CHAR + (group | _MORE_BIT if more else group))
    return codes.decode("ascii")


def _reference_parse(text: str) -> Int64[NDArray[np.int64], " runs"]:
    runs: list[int] = []
    value = groups = 0
    for at, char in enumerate(text):
        code = ord(char) - _FIRST_CHAR
        if not 0 <= code <= _LAST_CHAR - _FIRST_CHAR:
            raise ValueError(f"not a run-length character at character {at}")
        if groups == _MAX_GROUPS:
            raise ValueError(f"a run has more than {_MAX_GROUPS} characters at character {at}")
        value |= (code & _GROUP_MASK) << (_GROUP_BITS * groups)
        groups += 1
        if code & _MORE_BIT:
            continue
        if code & _SIGN_BIT:
            value -= 1 << (_GROUP_BITS * groups)
        run = value + runs[-2] if len(runs) > 2 else value
        if not (_LEAST <= value <= _MOST and _LEAST <= run <= _MOST):
            raise ValueError(f"a run overflows 64 bits at character {at}")
        runs.append(run)
        value = groups = 0
    if groups:
        raise ValueError(f"the text ends inside a run at character {len(text)}")
    return np.array(runs, dtype=np.int64)
