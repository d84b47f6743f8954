"""The result of an evaluation: its figures, as JSON, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from linocut.data.files import atomic_path

MIN_AREA = 256

TABLE_HEADINGS = (
    "pack",
    "split",
    "objects",
    "NoC@80",
    "NoC@85",
    "NoC@90",
    "never 90",
    "IoU 1 click",
    "IoU 3 clicks",
    "IoU 5 clicks",
    "IoU box",
    "encode CPU-s",
    "click CPU-s",
)


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model on one split of one pack.

    Attributes:
        pack: the pack's name.
        split: the split's name.
        noc80: mean number of clicks to first reach IoU 0.80, `max_clicks` where it was never reached; noc85 and noc90
            likewise.
        fail90: share of objects, in [0, 1], that never reached 0.90.
        iou1: mean IoU after one click; iou3 and iou5 likewise. None where `max_clicks` is smaller.
        iou_box: mean IoU for the tight box of the object as the only prompt.
        objects: number of objects measured.
        seconds_encode: median process CPU seconds to encode one image.
        seconds_click: median process CPU seconds from one click to its mask.
        objects_too_small: objects of the whole split left out for having fewer than 256 pixels.
        max_clicks: the most clicks an object got.
        max_objects: how many objects were asked for, or None for all.
        seed: the seed of the sample.
        stuff: whether the stuff segments of a panoptic pack were measured too.
        iou_by_click: mean IoU after 1 … max_clicks clicks.
    """

    pack: str
    split: str
    noc80: float
    noc85: float
    noc90: float
    fail90: float
    iou1: float
    iou3: float | None
    iou5: float | None
    iou_box: float
    objects: int
    seconds_encode: float
    seconds_click: float
    objects_too_small: int
    max_clicks: int
    max_objects: int | None
    seed: int
    stuff: bool
    iou_by_click: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as a dict that `json.dumps` takes, one key an attribute."""
        return {**asdict(self), "iou_by_click": list(self.iou_by_click)}


def table_rows(evaluations: Sequence[Evaluation]) -> list[tuple[str, ...]]:
    """The figures as text, one row an evaluation, under `TABLE_HEADINGS`."""
    return [
        (
            e.pack,
            e.split,
            str(e.objects),
            *(f"{noc:.2f}" for noc in (e.noc80, e.noc85, e.noc90)),
            f"{e.fail90:.1%}",
            *("–" if value is None else f"{value:.3f}" for value in (e.iou1, e.iou3, e.iou5, e.iou_box)),
            f"{e.seconds_encode:.3f}",
            f"{e.seconds_click:.3f}",
        )
        for e in evaluations
    ]


def markdown_table(evaluations: Sequence[Evaluation]) -> str:
    """The figures as a Markdown table, one row an evaluation, and a note of what was measured how."""
    ruler = ("---", "---", *["---:"] * (len(TABLE_HEADINGS) - 2))
    lines = ["| " + " | ".join(row) + " |" for row in (TABLE_HEADINGS, ruler, *table_rows(evaluations))]
    notes = [
        f"{e.pack} {e.split}: at most {e.max_clicks} clicks, "
        + f"{e.objects_too_small} objects under {MIN_AREA} pixels left out"
        + (f", a sample with seed {e.seed}" if e.max_objects is not None else "")
        + (", stuff included" if e.stuff else "")
        + "."
        for e in evaluations
    ]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def check_plot(path: str | Path) -> None:
    """See that a plot can be drawn into a file of this name, before hours go into what it shall show.

    Raises:
        ValueError: if Matplotlib is not installed or does not know the format.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise ValueError('plots are drawn by Matplotlib: install it with pip install "linocut[plots]"') from error
    known = FigureCanvasAgg.get_supported_filetypes()
    if _format(path) not in known:
        raise ValueError(f"a plot's name must end in one of {', '.join(sorted(known))}, got {str(path)!r}")


def plot_iou_by_click(evaluations: Sequence[Evaluation], path: str | Path) -> None:
    """Draw mean IoU against clicks, one line an evaluation.

    Args:
        evaluations: at least one.
        path: where to write; the suffix says the format (``.png``, ``.svg``, ``.pdf``), PNG where there is none.

    Raises:
        ValueError: if there is nothing to draw, Matplotlib is not installed or does not know the format.
    """
    if not evaluations:
        raise ValueError("plot_iou_by_click needs at least one evaluation, got none")
    check_plot(path)
    # Matplotlib takes most of a second to import; the figure is built without pyplot, so no global state is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for e in evaluations:
        label = f"{e.pack} {e.split} (NoC@90 {e.noc90:.2f})"
        axes.plot(range(1, e.max_clicks + 1), e.iou_by_click, marker="o", markersize=3, label=label)
    axes.axhline(0.90, color="0.6", linestyle=":", linewidth=1)
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1), xlim=(0.5, max(e.max_clicks for e in evaluations) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=_format(path), dpi=150)


def _format(path: str | Path) -> str:
    """The format a plot's name asks for."""
    return Path(path).suffix.removeprefix(".").lower() or "png"
