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
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from linocut.vision.masks import Mask
from linocut.vision.prompts import transfer

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


def image_mask(logits: Float[NDArray[np.float32], "256 256"], size: tuple[int, int]) -> Bool[NDArray[np.bool_], "h w"]:
    """SAM's low-resolution logits as a mask of an image of ``size`` (height, width): enlarged bilinearly, cut at 0.

    Cells that are not wholly image are not asked: their padding would eat into a mask at the image's border.
    """
    scale = LOW_SIDE / max(size)
    wide = logits
    for extent in size:  # rows first; the transpose then brings the columns to the front, and back again
        last = max(int(extent * scale), 1) - 1
        at = np.clip((np.arange(extent) + 0.5) * scale - 0.5, 0, last)
        low = at.astype(np.intp)
        high = np.minimum(low + 1, last)
        share = (at - low).astype(np.float32)[:, None]
        wide = (wide[low] * (1 - share) + wide[high] * share).T
    return wide > 0


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
