"""`linocut eval`: clicks and boxes, or classes, measured against ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linocut.cli.console import (
    Debug,
    Task,
    Weights,
    in_words,
    load_model,
    progress_bar,
    require_outputs,
    set_progress,
)
from linocut.cli.evaluate_classes import evaluate_classes

if TYPE_CHECKING:
    from linocut.engine.evaluation import Evaluation

_OF_OTHERS = {
    Task.PROMPTS: ("pictures",),
    Task.SEMANTIC: ("max_objects", "max_clicks", "seed", "stuff", "plot"),
}


def evaluate(
    ctx: typer.Context,
    packs: Annotated[
        list[Path], typer.Argument(metavar="PACK_DIR", help="Packs: folders with manifest.csv, images and labels.")
    ],
    task: Annotated[Task, typer.Option(help="What the weights were trained for.")] = Task.PROMPTS,
    split: Annotated[str, typer.Option(help="Which split: train, val or test.")] = "test",
    max_objects: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Measure a sample of N objects a pack, spread over its images."),
    ] = None,
    max_clicks: Annotated[int, typer.Option(min=1, metavar="N", help="The most clicks an object gets.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    stuff: Annotated[bool, typer.Option("--stuff", help="In panoptic packs measure stuff (sky, grass) too.")] = False,
    weights: Weights = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the figures: an object for one pack, a list for several."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures as a Markdown table.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw mean IoU against clicks (.png, .svg, .pdf).")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --task semantic: write predictions, truth and errors of every image."),
    ] = None,
    _debug: Debug = False,
) -> None:
    """Measure a model by the standard protocol of interactive segmentation, or of semantic segmentation.

    Clicks fall at the centre of the largest error region; NoC@90 is the mean
    number of clicks until the IoU reaches 0.90. Objects under 256 pixels are
    left out and counted. With --task semantic: PA, MPA, MIoU and FWIoU of the
    whole split and IoU, recall and precision of every class.

    [bold]Examples[/bold]

    linocut eval data/coco200 --json coco200.json

    linocut eval data/coco200 data/dsb2018 --max-objects 200 --plot both.png

    linocut eval --task semantic data/camvid --weights runs/street/weights.safetensors --pictures seen/
    """
    _require_options_of(task, ctx)
    # before the model is loaded, and before hours go into figures that could not be written
    for folder in packs:
        _require_pack(folder, split)
    if task is Task.SEMANTIC:
        evaluate_classes(packs, split, weights, json_path, markdown, pictures)
        return
    from linocut.engine.evaluate import evaluate as run

    require_outputs({"--json": json_path, "--markdown": markdown, "--plot": plot}, {"--weights": weights})
    if plot is not None:
        _require_plot(plot)
    model = load_model(weights)
    done: list[Evaluation] = []
    with progress_bar("objects") as bar:
        for folder in packs:
            row = bar.add_task(folder.name, total=None)
            result = run(
                model,
                folder,
                split=split,
                max_objects=max_objects,
                max_clicks=max_clicks,
                seed=seed,
                stuff=stuff,
                progress=partial(set_progress, bar, row),
            )
            done.append(result)
            # after every pack, so that a later failure costs nothing done
            _write(done, json_path, markdown, plot, several=len(packs) > 1)
    _print_table(done)


def _require_pack(folder: Path, split: str) -> None:
    """Refuse a folder that is no pack or has no such split.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    from linocut.data.packs import read_pack

    try:
        read_pack(folder, split)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error), param_hint="PACK_DIR") from error


def _require_options_of(task: Task, ctx: typer.Context) -> None:
    """Refuse an option that the task does not know.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    for name in _OF_OTHERS[task]:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} is not for --task {task.value}", param_hint=option)


def _require_plot(plot: Path) -> None:
    """Refuse a plot that cannot be drawn.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    from linocut.engine.evaluation import check_plot

    try:
        check_plot(plot)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--plot") from error


def _write(
    done: Sequence[Evaluation], json_path: Path | None, markdown: Path | None, plot: Path | None, *, several: bool
) -> None:
    """Write the files that were asked for; the JSON is a list if several packs were, however many are done."""
    from linocut.data.files import write_atomic
    from linocut.engine.evaluation import markdown_table, plot_iou_by_click

    if json_path is not None:
        figures = [e.to_json() for e in done]
        text = json.dumps(figures if several else figures[0], indent=2)
        write_atomic(json_path, f"{text}\n".encode())
    if markdown is not None:
        write_atomic(markdown, markdown_table(done).encode())
    if plot is not None:
        plot_iou_by_click(done, plot)


def _print_table(done: Sequence[Evaluation]) -> None:
    """Print the figures, one column a pack."""
    from rich.console import Console
    from rich.table import Table

    from linocut.engine.evaluation import TABLE_HEADINGS, table_rows

    # One column a pack: the dozen figures of a row would not fit in a terminal.
    columns = table_rows(done)
    table = Table("", *(f"{pack} {split}" for pack, split, *_ in columns))
    for heading, *figures in list(zip(TABLE_HEADINGS, *columns, strict=True))[2:]:
        table.add_row(heading, *figures)
    Console().print(table)
