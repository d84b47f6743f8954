"""Boxes: where in an image a mask lies."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray


def bounding_box(mask: Bool[NDArray[np.bool_], "h w"]) -> tuple[int, int, int, int]:
    """The smallest box that holds a mask.

    Args:
        mask: (h, w) bool.

    Returns:
        x0, y0, x1, y1 in pixels, x1 and y1 exclusive.

    Raises:
        ValueError: if the mask is empty.

    Example:
        >>> bounding_box(np.array([[False, False, False], [False, True, True]]))
        (1, 1, 3, 2)
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        raise ValueError(f"an empty mask has no bounding box, got a mask of {mask.shape} without a pixel in it")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
