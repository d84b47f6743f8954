"""The charts of a report: bars, heat maps of a confusion matrix and a histogram, as HTML and SVG text.

A heat map is a table, so that it is read out cell by cell, and copied into a spreadsheet, like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 60
"""Classes that a heat map shows; of more, those with the most pixels."""

MOST_NUMBERS = 24
"""Up to so many classes the cells hold their numbers."""

_MOST_CONFUSIONS = 12
_STRONG = 0.55  # from here on the colour needs a light text on it
_FEWEST_IN_HISTOGRAM = 10


def number(value: float) -> str:
    """A figure with four digits behind the point, or a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.4f}"


def share(value: float) -> str:
    """A share in percent, with as many digits as it needs."""
    if math.isnan(value):
        return "–"
    percent = 100 * value
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"


def bar(value: float) -> str:
    """A bar from 0 to a value in [0, 1]; the number stands beside it, so it is not read out."""
    if math.isnan(value):
        return "<span class=track aria-hidden=true></span>"
    width = 100 * min(max(value, 0.0), 1.0)
    return f'<span class=track aria-hidden=true><span class=fill style="width:{width:.2f}%"></span></span>'


def normalise(counts: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
    """A confusion matrix as shares of its rows (axis 1) or columns (axis 0); NaN where one is empty.

    Args:
        counts: (K, K) pixels, rows the truth.
        axis: over which the shares add up to 1.

    Returns:
        (K, K) in [0, 1].

    Example:
        >>> normalise(np.array([[3, 1], [0, 4]]), axis=1)
        array([[0.75, 0.25],
               [0.  , 1.  ]])
    """
    totals = counts.sum(axis=axis, keepdims=True).astype(np.float64)
    totals[totals == 0] = np.nan
    shares: NDArray[np.float64] = counts / totals
    return shares


def heat_maps(counts: NDArray[np.int64], names: Sequence[str], colours: Sequence[str]) -> str:
    """The matrix normalised by rows, by columns, and as it is; one is shown, and radio buttons choose which.

    Args:
        counts: (K, K) pixels, rows the truth.
        names: of the K classes.
        colours: of the K classes, ``#rrggbb``.
    """
    kept = list(range(len(names)))
    note = ""
    if len(kept) > MOST_CLASSES:
        order = np.argsort(-(counts.sum(axis=0) + counts.sum(axis=1)), kind="stable")
        kept = sorted(order[:MOST_CLASSES].tolist())
        note = f"<p>The {MOST_CLASSES} classes with the most pixels, of {len(names):,}; shares are of all classes.</p>"
    inner = np.ix_(kept, kept)
    views = (
        ("recall", "By truth (rows add up to 100 %)", normalise(counts, axis=1)[inner]),
        ("precision", "By prediction (columns add up to 100 %)", normalise(counts, axis=0)[inner]),
        ("count", "Pixels", counts[inner]),
    )
    shown = [names[place] for place in kept], [colours[place] for place in kept]
    radios = "".join(
        f"<label><input type=radio name=heat value={key}{' checked' * int(key == 'recall')}> {title}</label>"
        for key, title, _ in views
    )
    maps = "".join(_heat_map(key, title, values, *shown) for key, title, values in views)
    return (
        "<p>Rows are the truth, columns what was predicted. Normalised by truth, the diagonal is each class's recall;"
        " by prediction, its precision. Blue is right, orange is wrong.</p>"
        f"{note}<fieldset class=choice><legend>Normalised</legend>{radios}</fieldset>{maps}"
    )


def _heat_map(
    key: str, title: str, values: NDArray[np.float64] | NDArray[np.int64], names: Sequence[str], colours: Sequence[str]
) -> str:
    """One view of the matrix as a table with coloured cells."""
    numbers = len(names) <= MOST_NUMBERS
    strength = values if key != "count" else np.log1p(values) / max(1.0, float(np.log1p(values.max(initial=0))))
    heads = "".join(
        f'<th scope=col title="{escape(name)}"><span><i class=swatch style="background:{colour}"></i>'
        f"{escape(name)}</span></th>"
        for name, colour in zip(names, colours, strict=True)
    )
    rows = []
    for row, name in enumerate(names):
        cells = "".join(
            _heat_cell(values[row, column], float(strength[row, column]), name, names[column], right=row == column)
            for column in range(len(names))
        )
        swatch = f'<i class=swatch style="background:{colours[row]}"></i>'
        rows.append(f"<tr><th scope=row>{swatch}{escape(name)}</th>{cells}</tr>")
    kind = "heat" if numbers else "heat dense"
    return (
        f'<div class="scroll view {key}" tabindex=0 role=region aria-label="Confusion matrix: {title}">'
        f'<table class="{kind}"><caption>{title}</caption><thead><tr><td class=corner>truth ↓ predicted →</td>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat_cell(value: float | np.integer, strength: float, truth: str, predicted: str, *, right: bool) -> str:
    """A cell: its colour says how much, its text too, and pointing at it tells of what."""
    if math.isnan(value):
        return "<td class=none>–</td>"
    whole = isinstance(value, np.integer)
    exact = f"{value:,}" if whole else share(float(value))
    brief = _brief(int(value)) if whole else _percent(float(value))
    if not right:
        strength = math.sqrt(strength)  # a mistake of one in a hundred is to be seen
    kind = ("right" if right else "wrong") + " strong" * int(strength > _STRONG)
    tip = escape(f"{truth} → {predicted}: {exact}")
    return f'<td class="{kind}" style="--v:{strength:.4f}" title="{tip}">{brief}</td>'


def _percent(value: float) -> str:
    """A share in percent that fits a cell: nothing for none, and no 0 or 100 that is not one."""
    if value == 0:
        return ""
    if value < 0.005:
        return "&lt;1"
    if 0.995 <= value < 1:
        return "&gt;99"
    return f"{100 * value:.0f}"


def _brief(count: int) -> str:
    """A count that fits a cell."""
    if count == 0:
        return ""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            scaled = count / limit
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return str(count)


def confusions_table(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """The largest mistakes in words, as a list; nothing where there are none."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    total = int(wrong.sum())
    if not total:
        return "<p>Not one pixel is taken for another class.</p>"
    rows_total = counts.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    items = []
    for place in order:
        row, column = divmod(int(place), len(names))
        pixels = int(wrong[row, column])
        if not pixels:
            break
        items.append(
            f"<li><b>{escape(names[row])}</b> taken for <b>{escape(names[column])}</b>: "
            f"{share(pixels / int(rows_total[row]))} of it, {share(pixels / total)} of all mistakes</li>"
        )
    return f"<h3>The largest mistakes</h3><ol class=mistakes>{''.join(items)}</ol>"


def histogram(values: Sequence[float], title: str, axis: str, bins: int = 20) -> str:
    """How many images have which score, as SVG; scores are in [0, 1], those not defined are left out.

    Nothing where there are few images, for the table says it better.
    """
    defined = np.array([value for value in values if not math.isnan(value)])
    if defined.size < _FEWEST_IN_HISTOGRAM:
        return ""
    heights, _ = np.histogram(defined.clip(0, 1), bins=bins, range=(0, 1))
    median = float(np.median(defined))
    width, height, foot = 640, 120, 22
    step, tallest = width / bins, int(heights.max())
    bars = "".join(
        f'<rect x="{place * step + 1:.1f}" y="{height - height * count / tallest:.1f}" width="{step - 2:.1f}" '
        f'height="{height * count / tallest:.1f}"><title>{place / bins:.2f} to {(place + 1) / bins:.2f}: '
        f"{count} image{'s' * (count != 1)}</title></rect>"
        for place, count in enumerate(heights.tolist())
        if count
    )
    ticks = "".join(
        f'<text x="{width * tick / 5:.0f}" y="{height + 16}" text-anchor="{anchor}">{tick / 5:.1f}</text>'
        for tick, anchor in enumerate(["start", *["middle"] * 4, "end"])
    )
    said = escape(f"{title}: median {median:.3f}, lowest {defined.min():.3f}, highest {defined.max():.3f}")
    return (
        f'<figure class=histogram><svg viewBox="0 0 {width} {height + foot}" role=img aria-label="{said}">'
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}"/>{bars}{ticks}</svg>'
        f"<figcaption>{said}. Across: {escape(axis)}; up: images, at most {tallest}.</figcaption></figure>"
    )
