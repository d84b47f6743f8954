"""Pictures of receptive fields; need the extra ``plots``.

Each function draws into axes of Matplotlib that it is given, so that pictures can be put together freely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from linocut.vision.fields.algebra import AxisField
from linocut.vision.fields.effective import EffectiveField
from linocut.vision.fields.receptive_field import ReceptiveField

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#1d3557"


def draw_effective(axes: Axes, effective: EffectiveField, field: ReceptiveField) -> None:
    """The gradient's share of each pixel as heat, and the theoretical field as a box around it.

    Args:
        axes: to draw into.
        effective: of a map (two axes).
        field: of the same module; the box is that of the same output.

    Raises:
        ValueError: if the field has not two axes, or the output depends on nothing.
    """
    ranges = [span for span in field.input_range(effective.output) if span is not None]
    if effective.map.ndim != 2 or len(ranges) != 2:
        raise ValueError(f"expected the field of an output of a map, got {effective.map.ndim} axes and {ranges}")
    (top, bottom), (left, right) = ranges
    axes.imshow(np.sqrt(effective.map.numpy()), cmap="magma")  # the root shows the faint tails too
    box = ([left - 0.5, right + 0.5, right + 0.5, left - 0.5], [top - 0.5, top - 0.5, bottom + 0.5, bottom + 0.5])
    axes.fill(*box, fill=False, edgecolor="white", linestyle="--")
    axes.set_title(f"{field.size[0]} × {field.size[1]} in theory, {effective.size():.0f} in effect", fontsize=9)


def draw_taps(axes: Axes, field: ReceptiveField, title: str) -> None:
    """Which pixels around it an output reads (dark), and which it leaves out: the grid of stacked dilations.

    Args:
        axes: to draw into.
        field: of a map (two axes); of output 0.
        title: above the picture.

    Raises:
        ValueError: if the field has not two axes.
    """
    if len(field.axes) != 2:
        raise ValueError(f"expected a field with two axes, got {len(field.axes)}")
    rows, columns = (_read(axis) for axis in field.axes)
    both = np.outer(rows, columns)
    axes.pcolormesh(both, cmap="Blues", vmin=0, vmax=1.2, edgecolors="lightgrey", linewidth=0.3)
    axes.set_aspect("equal")
    axes.set_title(f"{title}: {both.mean():.0%} of {len(rows)} × {len(columns)}", fontsize=9)


def draw_growth(axes: Axes, layers: Sequence[AxisField], outputs: int = 1) -> None:
    """How a stack sees: every layer's samples on a line, the input at the bottom, joined to the ones they read.

    Args:
        axes: to draw into.
        layers: from the input up, each by itself, as :func:`linocut.vision.fields.algebra.window` gives them.
        outputs: the last so many outputs, up to index 0.
    """
    read = set(range(1 - outputs, 1))
    for level in range(len(layers), 0, -1):
        below: set[int] = set()
        for index in read:
            for tap in layers[level - 1].at(index):
                axes.plot([tap, index], [level - 1, level], color=_INK, linewidth=0.6)
                below.add(tap)
        axes.scatter(list(read), [level] * len(read), s=12, color=_INK, zorder=3)
        read = below
    axes.scatter(list(read), [0] * len(read), s=12, color=_INK, zorder=3)
    axes.set_yticks(range(len(layers) + 1), ["input", *(f"layer {level + 1}" for level in range(len(layers)))])
    axes.set_title(f"{len(layers)} layers: {max(read) - min(read) + 1} samples", fontsize=9)


def _read(axis: AxisField) -> np.ndarray:
    """1 for every index from the first to the last tap of output 0 that is read, else 0."""
    taps = axis.at(0)
    return np.array([index in taps for index in range(taps.low, taps.high + 1)], dtype=float)
