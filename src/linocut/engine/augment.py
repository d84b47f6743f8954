"""Colour jitter and copy-paste, in NumPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from linocut.data.boxes import bounding_box

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def jitter(image: Image, rng: np.random.Generator) -> Image:
    """Random gain, offset, gamma and saturation; sometimes grey, inverted, blurred or noisy.

    Args:
        image: (H, W, 3) uint8.
        rng: decides everything.
    """
    x = image.astype(np.float32) / 255
    x = x ** float(np.exp(rng.uniform(-0.4, 0.4)))
    x = x * rng.uniform(0.75, 1.3) + rng.uniform(-0.12, 0.12)
    x = x * (1 + rng.uniform(-0.08, 0.08, size=3)).astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * (0.0 if rng.random() < 0.1 else rng.uniform(0.6, 1.4))
    if rng.random() < 0.04:
        x = 1 - x
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.5)))
    if rng.random() < 0.15:
        x = x + rng.normal(0, rng.uniform(0.01, 0.05), size=x.shape)
    return np.asarray(np.clip(x * 255 + 0.5, 0, 255), np.uint8)


def paste(
    image: Image, masks: list[Mask], donor: Image, mask: Mask, rng: np.random.Generator
) -> tuple[Image, list[Mask]]:
    """Copy an object of another image in (Ghiasi et al., *Simple Copy-Paste*, CVPR 2021).

    The object is scaled to between a quarter and nine tenths of the crop, its edge softened by a pixel; the masks it
    covers lose what it covers.

    Args:
        image: (H, W, 3) uint8, not changed.
        masks: the objects of the image, each (H, W) bool.
        donor: the other image.
        mask: (H, W) bool, the object in it, as large as the donor and not empty.
        rng: decides scale, place and side.

    Returns:
        The new image and masks, the pasted one last.
    """
    x0, y0, x1, y1 = bounding_box(mask)
    box = slice(y0, y1), slice(x0, x1)
    patch, shape = donor[box], mask[box].astype(np.float32)
    factor = rng.uniform(0.25, 0.9) * min(image.shape[:2]) / max(shape.shape)
    size = max(1, round(shape.shape[1] * factor)), max(1, round(shape.shape[0] * factor))
    patch = np.asarray(cv2.resize(patch, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR))
    shape = np.asarray(cv2.resize(shape, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR))
    if rng.random() < 0.5:
        patch, shape = patch[:, ::-1], shape[:, ::-1]
    y = int(rng.integers(image.shape[0] - size[1] + 1))
    x = int(rng.integers(image.shape[1] - size[0] + 1))
    place = slice(y, y + size[1]), slice(x, x + size[0])
    alpha = cv2.GaussianBlur(np.ascontiguousarray(shape), (0, 0), 0.7)[..., None]
    out = image.copy()
    out[place] = np.asarray(alpha * jitter(np.ascontiguousarray(patch), rng) + (1 - alpha) * out[place] + 0.5, np.uint8)
    covered = np.zeros(image.shape[:2], bool)
    covered[place] = shape > 0.5
    return out, [m & ~covered for m in masks] + [covered]
