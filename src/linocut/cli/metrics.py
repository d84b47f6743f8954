"""`linocut metrics`: predicted label maps against true ones, with a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linocut.cli.console import Debug, in_words, is_folder, progress_bar, require_file, require_folder, require_outputs

if TYPE_CHECKING:
    from rich.table import Table

    from linocut.data.classes import Classes
    from linocut.engine.compare import CompareOptions
    from linocut.engine.pairing import Pairing
    from linocut.metrics.report import Report

Task = Literal["semantic", "instance"]

_MOST_LISTED = 10
_MOST_ROWS = 40
_SINGLE = (".html", ".htm", ".json", ".csv")


def metrics(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Predicted labels: a file or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="GT", help="True labels: a file or a folder.")],
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="JSON", help='Names: ["sky", …], {"0": "sky", …} or a pack\'s classes.json.'),
    ] = None,
    ignore: Annotated[
        list[int] | None, typer.Option("--ignore", metavar="LABEL", help="True pixels of this label do not count.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="REPORT",
            help="A folder for all of it, or one file: .html, .json or .csv (per class).",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="PATH", help="What the labels are of, to draw mistakes over.")
    ] = None,
    task: Annotated[
        Task, typer.Option("--task", help="What labels are: classes, or numbers of objects, with 0 for none.")
    ] = "semantic",
    boundary: Annotated[
        bool, typer.Option("--boundary", help="Measure edges too; each image is then held in memory whole.")
    ] = False,
    worst: Annotated[
        int, typer.Option("--worst", min=0, metavar="N", help="How many of the worst images to draw.")
    ] = 6,
    _debug: Debug = False,
) -> None:
    """Measure label maps against ground truth.

    Two files, or two folders whose files have the same names but for their
    endings. Labels are grey or palette PNG, TIFF or NPY, of any size. Without
    --classes every label that occurs is a class; with --task instance every
    label but 0 is an object.

    [bold]Examples[/bold]

    linocut metrics predictions/ truth/ --classes classes.json --ignore 255 -o report/

    linocut metrics predictions/ truth/ --images photos/ -o report.html

    linocut metrics prediction.png truth.png
    """
    _check_usage(prediction, target, classes, images, out)
    if ignore is not None and len(ignore) > 1:
        raise typer.BadParameter(f"one label can be left out, got {ignore}", param_hint="--ignore")
    if task == "instance" and boundary:
        raise typer.BadParameter("edges are measured of classes; leave out --task instance", param_hint="--boundary")
    from linocut.engine.compare import CompareOptions
    from linocut.engine.compare_files import write_report

    has_pictures = out is not None and out.suffix.lower() not in (".json", ".csv")
    options = CompareOptions(
        classes=_read_classes(classes),
        ignore=ignore[0] if ignore else None,
        boundary=boundary,
        worst=worst if has_pictures else 0,
        images=images,
        settings={
            "task": task,
            "classes": None if classes is None else str(classes),
            "boundary": boundary,
        },
    )
    report = _compare(task, prediction, target, options)
    written = None if out is None else write_report(report, out, single=not _is_report_folder(out))
    _print_report(report)
    if written is not None:
        typer.echo(f"report: {written}")


def _read_classes(path: Path | None) -> Classes | None:
    """The names of classes, if a file with them was given.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    from linocut.data.classes import read_classes

    try:
        return None if path is None else read_classes(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--classes") from error


def _compare(task: Task, prediction: Path, target: Path, options: CompareOptions) -> Report:
    """Pair the files and compare them, with a bar that tells how far it is."""
    from linocut.engine.compare import compare_classes
    from linocut.engine.compare_instances import compare_instances

    pairing = _pair(prediction, target)
    compare = compare_instances if task == "instance" else compare_classes
    with progress_bar("images") as bar:
        counting = bar.add_task("counting", total=len(pairing.pairs))

        def advance(done: float, _total: int) -> None:
            bar.update(counting, completed=done)

        return compare(pairing, options, prediction=str(prediction), target=str(target), progress=advance)


def _check_usage(prediction: Path, target: Path, classes: Path | None, images: Path | None, out: Path | None) -> None:
    """See that what is named is there and that the report can be written, before anything is counted.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    inputs = {"PRED": prediction, "GT": target, "--images": images}
    for hint, path in inputs.items():
        if path is not None and not is_folder(path, hint):
            require_file(path, hint)
    if classes is not None:
        require_file(classes, "--classes")
    if out is None:
        return
    if _is_report_folder(out):
        _require_report_folder(out, inputs)
    else:
        require_outputs({"--out": out}, {**inputs, "--classes": classes})


def _require_report_folder(out: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuse a folder that cannot be written into, or is an input.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    for hint, path in inputs.items():
        if path is not None and path.resolve() == out.resolve():
            raise typer.BadParameter(f"{out} is {hint}; give a folder of its own", param_hint="--out")
    require_folder(out, "--out")


def _is_report_folder(out: Path) -> bool:
    """Whether the name is that of a folder: it is one, or ends in none of the endings of a single file."""
    return is_folder(out, "--out") or out.suffix.lower() not in _SINGLE


def _pair(prediction: Path, target: Path) -> Pairing:
    """Which file belongs to which.

    Raises:
        typer.BadParameter: if there is nothing to compare, or two files of a pair differ in size.
    """
    from linocut.engine.pairing import pair_files

    try:
        return pair_files(prediction, target)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error), param_hint="PRED GT") from error


def _print_report(report: Report) -> None:
    """The headline figures and the classes, or thresholds, as tables."""
    from rich.console import Console

    console = Console()
    console.print(_headline(report))
    if report.classes:
        console.print(_class_table(report))
    if report.thresholds:
        console.print(_threshold_table(report))
    for note in report.notes:
        typer.echo(f"linocut: note: {note}", err=True)
    for names, what in ((report.missing, "target has no prediction"), (report.extra, "prediction has no target")):
        for name in names[:_MOST_LISTED]:
            typer.echo(f"linocut: warning: {what} and is not counted: {name}", err=True)
        if len(names) > _MOST_LISTED:
            typer.echo(f"linocut: warning: {what}: {len(names) - _MOST_LISTED:,} more", err=True)


def _headline(report: Report) -> Table:
    """The headline figures."""
    from rich.table import Table

    table = Table("", "", "", title=f"{len(report.images):,} images", title_justify="left", show_header=False)
    for score in report.scores:
        table.add_row(score.title, _figure(score.value), score.meaning)
    return table


def _class_table(report: Report) -> Table:
    """The classes; where there are many, those with the lowest IoU."""
    from rich.markup import escape
    from rich.table import Table

    rows = report.classes
    title = None
    if len(rows) > _MOST_ROWS:
        rows = tuple(sorted(rows, key=lambda row: (row.scores["iou"], row.label))[:_MOST_ROWS])
        title = f"the {_MOST_ROWS} classes of {len(report.classes):,} with the lowest IoU"
    table = Table(title=title, title_justify="left")
    for heading in ("class", "IoU", "precision", "recall", "F1", "pixels"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for row in rows:
        figures = (_figure(row.scores[key]) for key in ("iou", "precision", "recall", "f1"))
        table.add_row(escape(row.name), *figures, f"{row.target:,}")
    return table


def _threshold_table(report: Report) -> Table:
    """For instances, what was found at each threshold."""
    from rich.table import Table

    table = Table("IoU", "AP", "found", "false", "missed")
    for row in report.thresholds:
        table.add_row(f"{row['iou']:.2f}", _figure(row["ap"]), *(f"{row[key]:,}" for key in ("tp", "fp", "fn")))
    return table


def _figure(value: float) -> str:
    """A figure, or a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.4f}"
