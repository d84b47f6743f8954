"""Thinning of masks to lines one pixel wide.

Source: Guo and Hall, "Parallel thinning with two-subiteration algorithms", Communications of the ACM 32(3), 1989, in
the form that MATLAB documents for ``bwmorph(mask, 'thin', Inf)``, which the BSDS benchmark uses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from linocut.metrics.overlaps import as_mask

BoolArray = npt.NDArray[np.bool_]

# Neighbours x1 … x8 as (row, column) steps: east, then counter-clockwise.
_STEPS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def thin(mask: npt.ArrayLike) -> BoolArray:
    """Take pixels off a mask until nothing more can be taken without breaking or shortening it.

    In turns, a pixel goes if all of these hold, x1 … x8 being its neighbours from the east counter-clockwise: they are
    one connected part (X_H = 1); 2 ≤ min(n1, n2) ≤ 3, n1 and n2 counting them in pairs; and in the first turn
    (x2 ∨ x3 ∨ ¬x8) ∧ x1 = 0, in the second (x6 ∨ x7 ∨ ¬x4) ∧ x5 = 0.

    Args:
        mask: bool (h, w).

    Returns:
        bool (h, w), a subset of the mask.

    Raises:
        TypeError: if the mask is not bool.
        ValueError: if it has not two axes.

    Example:
        >>> thin(np.ones((3, 5), bool)).astype(int).tolist()
        [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    """
    pixels = as_mask(mask, "mask")
    if pixels.ndim != 2:
        raise ValueError(f"mask must have the shape (h, w), got {pixels.shape}")
    padded = np.ascontiguousarray(np.pad(pixels, 1)).view(np.uint8)
    flat = padded.ravel()  # a view
    steps = [row * padded.shape[1] + column for row, column in _STEPS]
    remaining = np.flatnonzero(flat)
    changed = True
    while changed:
        changed = False
        for removable in _REMOVABLE:
            code = np.zeros(remaining.size, np.uint8)
            for bit, step in enumerate(steps):
                code |= flat[remaining + step] << bit
            goes = removable[code]
            if goes.any():
                changed = True
                flat[remaining[goes]] = 0
                remaining = remaining[~goes]
    return padded[1:-1, 1:-1].astype(np.bool_)


def _tables() -> tuple[BoolArray, BoolArray]:
    """For each of the two turns, whether a pixel goes, by the bits of its neighbours."""
    codes = np.arange(256)
    x = [(codes >> bit & 1).astype(np.bool_) for bit in range(8)]  # x[0] is x1
    following = [x[(k + 1) % 8] for k in range(8)]
    crossings = sum((~x[k] & (following[k] | x[(k + 2) % 8])).astype(int) for k in (0, 2, 4, 6))
    n1 = sum((x[k] | following[k]).astype(int) for k in (0, 2, 4, 6))
    n2 = sum((x[k] | following[k]).astype(int) for k in (1, 3, 5, 7))
    fewest = np.minimum(n1, n2)
    common = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    first = ~((x[1] | x[2] | ~x[7]) & x[0])
    second = ~((x[5] | x[6] | ~x[3]) & x[4])
    return common & first, common & second


_REMOVABLE = _tables()
