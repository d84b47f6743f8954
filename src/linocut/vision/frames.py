"""Segment Anything's low-resolution masks, and masks as logits of the whole image.

SAM's frame around an image is a square as large as the image's long side, with the image at its left top; a
low-resolution mask divides it into 256 × 256 cells (Kirillov et al., *Segment Anything*, ICCV 2023, where the frame is
1024 pixels wide and the mask a quarter of that).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from linocut.data.boxes import bounding_box
from linocut.vision.masks import Mask
from linocut.vision.prompts import GivenMask, transfer
from linocut.vision.windows import fit

LOW_SIDE = 256
"""Side of a low-resolution mask, in cells."""

_NOWHERE = -20.0
"""The logit of pixels outside the window that was looked at: certainly background."""


@dataclass(frozen=True)
class _Frame:
    """SAM's square frame around an image: the long side, left and top aligned."""

    side: int
    x: int = 0
    y: int = 0


def frame_logits(mask: Mask) -> Float[NDArray[np.float32], "256 256"]:
    """A mask as SAM's low-resolution logits; padding and what was not looked at are background."""
    inside = torch.sigmoid(torch.from_numpy(mask.logits).float())[None, None]
    seen = transfer(inside, [mask.window], [_Frame(max(mask.size))], LOW_SIDE)
    logits: NDArray[np.float32] = torch.logit(seen[0, 0], eps=1e-6).numpy()
    return logits


def given_mask(logits: Float[NDArray[np.float32], "256 256"], size: tuple[int, int]) -> GivenMask:
    """SAM's low-resolution logits as a mask of an image of ``size`` (height, width): enlarged bilinearly, cut at 0.

    Only the pixels around the mask are worked out. Cells that are not wholly image are not asked: their padding would
    eat into a mask at the image's border.
    """
    scale = LOW_SIDE / max(size)
    asked = [max(int(extent * scale), 1) for extent in size]
    inside = logits[: asked[0], : asked[1]] > 0
    if not inside.any():
        return GivenMask.of(np.zeros((0, 0), dtype=bool), shape=size)
    x0, y0, x1, y1 = bounding_box(inside)
    wide, starts = logits, []
    # rows first; the transpose then brings the columns to the front, and back again
    for extent, cells, first, end in zip(size, asked, (y0, x0), (y1, x1), strict=True):
        # one cell more than the mask on either side: the interpolation reaches no farther
        start = max(int((first - 1) / scale), 0)
        stop = extent if end == cells else min(int((end + 1) / scale) + 1, extent)
        at = np.clip((np.arange(start, stop) + 0.5) * scale - 0.5, 0, cells - 1)
        low = at.astype(np.intp)
        high = np.minimum(low + 1, cells - 1)
        share = (at - low).astype(np.float32)[:, None]
        wide = (wide[low] * (1 - share) + wide[high] * share).T
        starts.append(start)
    return GivenMask.of(wide > 0, offset=(starts[1], starts[0]), shape=size)


def empty_mask(size: tuple[int, int]) -> Mask:
    """A mask of an image of ``size`` (height, width) that has no pixels and the score 0."""
    logits = np.full((LOW_SIDE, LOW_SIDE), _NOWHERE, dtype=np.float32)
    return Mask(logits, fit((0, 0, size[1], size[0]), size), size, score=0.0)


def image_logits(mask: Mask) -> Float[NDArray[np.float32], "h w"]:
    """A mask as logits of the whole image; above 0 exactly where ``mask.array`` is True."""
    height, width = mask.size
    cells, window = len(mask.logits), mask.window
    cell = window.side / cells
    # only the cells that the image reaches, and two more for the interpolation; an even number, as `rasterize` takes
    rows, columns = (min(cells, (int(e / cell) + 4) & ~1) for e in (height - window.y, width - window.x))
    part = np.ascontiguousarray(mask.logits[:rows, :columns], dtype=np.float32)
    shape = round(columns * cell), round(rows * cell)
    mode = cv2.INTER_LINEAR if cell >= 1 else cv2.INTER_AREA
    pixels = np.asarray(cv2.resize(part, shape, interpolation=mode))[: height - window.y, : width - window.x]
    out = np.full(mask.size, _NOWHERE, dtype=np.float32)
    out[window.y : window.y + pixels.shape[0], window.x : window.x + pixels.shape[1]] = pixels
    return out
