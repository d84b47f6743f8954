"""A mask as the decoder gives it: logits in a window, turned into pixels only where and when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from linocut.data.boxes import bounding_box
from linocut.data.polygons import mask_to_polygons
from linocut.data.rle import encode_rle
from linocut.vision.windows import Window

Crop = tuple[NDArray[np.bool_], int, int]
"""Pixels (h, w) of the smallest rectangle that holds a mask, and its left and top in the image."""

Candidates: TypeAlias = "Sequence[Mask] | Callable[[], Sequence[Mask]]"

_NOTHING: Crop = (np.zeros((0, 0), dtype=bool), 0, 0)


class Mask:
    """One object, cut out.

    The logits of its window are kept, in half precision (bfloat16, in which they may have been computed, has fewer
    digits): so a mask in a huge image costs no more than one in a small one until :attr:`array` is asked for.

    Pickled or deep-copied it is data and nothing else: candidates that were not asked for before are left out, because
    working them out takes the model and the encoded image.

    Args:
        logits: (n, n) floating point over the window, cut at 0.
        window: where the logits lie.
        size: (height, width) of the image.
        score: predicted IoU, 0 to 1.
        candidates: the alternatives, smallest first, or a function that works them out when they are asked for.
        stability_offset: how far the cut is moved for the stability score, see :func:`stability`.

    Attributes:
        logits: (n, n) float16.
        window: where the logits lie.
        size: (height, width) of the image.
        score: predicted IoU, 0 to 1.
        stability: IoU of the mask cut at +offset with the mask cut at −offset, 0 to 1 (SAM's stability score, but for
            the unit of the offset).
    """

    def __init__(
        self,
        logits: Float[NDArray[np.floating[Any]], "n n"],
        window: Window,
        size: tuple[int, int],
        *,
        score: float,
        candidates: Candidates = (),
        stability_offset: float = 0.5,
    ) -> None:
        # a copy: a row of a batch would keep the whole batch in memory
        self.logits = np.array(logits, dtype=np.float16)
        self.window = window
        self.size = size
        self.score = score
        self.stability = stability(logits, stability_offset)
        self._candidates = candidates
        self._other_pixels: Crop | None = None

    @property
    def candidates(self) -> tuple[Mask, ...]:
        """The alternatives, smallest first (subpart, part, whole); empty for an alternative itself.

        They cost as much as the mask itself and are worked out when first asked for.
        """
        if callable(self._candidates):
            self._candidates = self._candidates()
        self._candidates = tuple(self._candidates)
        return self._candidates

    @cached_property
    def _crop(self) -> Crop:
        """The smallest rectangle with the mask: pixels, left, top."""
        return self._other_pixels or rasterize(self.logits, self.window, self.size)

    def with_pixels(self, pixels: NDArray[np.bool_], x: int, y: int) -> Mask:
        """The same mask with other pixels: ``pixels`` (h, w) with its left top corner at (x, y)."""
        return self._but(_other_pixels=tighten(pixels, x, y))

    def with_candidates(self, candidates: Candidates) -> Mask:
        """The same mask with other alternatives, smallest first, or a function that works them out."""
        return self._but(_candidates=candidates)

    def _but(self, **changes: Any) -> Mask:
        """A copy with other attributes, whose pixels are yet to be worked out."""
        other = self.__copy__()
        vars(other).update(changes)
        vars(other).pop("area", None)
        vars(other).pop("_crop", None)
        return other

    def __copy__(self) -> Mask:
        other = Mask.__new__(Mask)
        vars(other).update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | ({"_candidates": ()} if callable(self._candidates) else {})

    def drop_pixels(self) -> None:
        """Free the pixels that were worked out for this mask and its candidates; asked for, they are made again."""
        known = () if callable(self._candidates) else self._candidates
        for mask in (self, *known):
            vars(mask).pop("_crop", None)

    @property
    def crop(self) -> NDArray[np.bool_]:
        """(h, w) bool, the mask inside its bounding box; (0, 0) if it is empty."""
        return self._crop[0]

    @property
    def array(self) -> NDArray[np.bool_]:
        """(H, W) bool, the mask over the whole image."""
        full = np.zeros(self.size, dtype=bool)
        crop, x, y = self._crop
        full[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return full

    @property
    def bbox(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels, x1 and y1 exclusive; all zero if the mask is empty."""
        crop, x, y = self._crop
        return x, y, x + crop.shape[1], y + crop.shape[0]

    @cached_property
    def area(self) -> int:
        """Pixels in the mask."""
        return int(np.count_nonzero(self._crop[0]))

    def polygon(self, *, tolerance: float = 0.0) -> list[NDArray[np.float64]]:
        """Rings of (x, y) in image coordinates, outer rings and holes.

        Args:
            tolerance: how far, in pixels, a simplified ring may stray; 0 keeps every corner.
        """
        crop, x, y = self._crop
        if not crop.size:
            return []
        return [ring + np.array([x, y], dtype=np.float64) for ring in mask_to_polygons(crop, tolerance=tolerance)]

    def rle(self, *, compressed: bool = True) -> dict[str, Any]:
        """COCO's run-length encoding of the whole image's mask, at the cost of its bounding box.

        Args:
            compressed: whether ``counts`` is COCO's string or the list of run lengths.
        """
        crop, x, y = self._crop
        return encode_rle(crop, offset=(x, y), shape=self.size, compressed=compressed)

    def __repr__(self) -> str:
        return f"Mask(area={self.area}, bbox={self.bbox}, score={self.score:.2f}, stability={self.stability:.2f})"


def stability(logits: Float[NDArray[np.floating[Any]], "h w"], offset: float = 0.5) -> float:
    """IoU of the mask cut at ``+offset`` with the one cut at ``−offset``; 0 for an empty mask.

    The offset is in units of the mask's own mean logit inside it: how sure the network is everywhere depends on the
    loss it was trained with, how fast that falls off at the edge says how well the edge is known.
    """
    inside = logits > 0
    if not inside.any():
        return 0.0
    cut = offset * float(logits[inside].mean(dtype=np.float64))
    return int(np.count_nonzero(logits > cut)) / int(np.count_nonzero(logits > -cut))


def rasterize(logits: Float[NDArray[np.floating[Any]], "n n"], window: Window, size: tuple[int, int]) -> Crop:
    """Logits of a window as pixels of the image.

    Only the cells around the mask are enlarged (bilinearly, centres kept); a window finer than the pixels is averaged.

    Args:
        logits: (n, n) over the window, cut at 0.
        window: where they lie; parts outside the image are left out.
        size: (height, width) of the image.

    Returns:
        The mask's smallest rectangle (h, w) bool, and its left and top in the image.
    """
    inside = logits > 0
    if not inside.any():
        return _NOTHING
    x0, y0, x1, y1 = bounding_box(inside)
    cells = logits.shape[0]
    # two cells of margin: the interpolation at the mask's edge must see its neighbours; even, for windows finer than
    # pixels, whose cells are averaged in pairs
    r0, c0 = (max(first - 2, 0) & ~1 for first in (y0, x0))
    r1, c1 = (min((end + 3) & ~1, cells) for end in (y1, x1))
    part = np.ascontiguousarray(logits[r0:r1, c0:c1], dtype=np.float32)
    cell = window.side / cells
    shape = round(part.shape[1] * cell), round(part.shape[0] * cell)
    mode = cv2.INTER_LINEAR if cell >= 1 else cv2.INTER_AREA
    pixels = np.asarray(cv2.resize(part, shape, interpolation=mode)) > 0
    x, y = window.x + round(c0 * cell), window.y + round(r0 * cell)
    pixels = pixels[max(-y, 0) : max(size[0] - y, 0), max(-x, 0) : max(size[1] - x, 0)]
    return tighten(pixels, max(x, 0), max(y, 0))


def tighten(pixels: NDArray[np.bool_], x: int, y: int) -> Crop:
    """Pixels at (x, y) cut down to their smallest rectangle; (0, 0) pixels at (0, 0) if there are none."""
    if not pixels.any():
        return _NOTHING
    x0, y0, x1, y1 = bounding_box(pixels)
    return np.ascontiguousarray(pixels[y0:y1, x0:x1]), x + x0, y + y0


def clean(mask: Mask, min_area: int) -> Mask:
    """Fill holes and drop islands of fewer than ``min_area`` pixels; the largest island stays, however small."""
    if min_area <= 0 or not mask.crop.size:
        return mask
    x0, y0 = mask.bbox[:2]
    pixels = np.pad(mask.crop, 1)
    labels, areas = _regions(~pixels)
    # the rim is part of the background outside, which is no hole however little of it lies in the bounding box
    holes = [i for i, area in areas.items() if area < min_area and i != labels[0, 0]]
    pixels[np.isin(labels, holes)] = True
    labels, areas = _regions(pixels)
    largest = max(areas, key=areas.__getitem__)
    pixels[np.isin(labels, [i for i, area in areas.items() if area < min_area and i != largest])] = False
    return mask.with_pixels(pixels[1:-1, 1:-1], x0, y0)


def _regions(pixels: NDArray[np.bool_]) -> tuple[NDArray[np.int32], dict[int, int]]:
    """8-connected regions: their labels, from 1, and the area of each."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    return np.asarray(labels), {i: int(stats[i, cv2.CC_STAT_AREA]) for i in range(1, count)}
