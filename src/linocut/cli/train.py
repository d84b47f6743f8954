"""`linocut train`: weights from packs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.models import OptionInfo

from linocut.cli.console import Debug, in_words, progress_bar, when_stopped

if TYPE_CHECKING:
    from linocut.engine.train import Progress, Trainer

Run = "the run"
Fine = "fine tuning of the training (see linocut.engine.train.TrainConfig)"


def _setting(text: str, panel: str, metavar: str = "N", least: float | None = None) -> OptionInfo:
    """A field of `TrainConfig`; one that is not given keeps its default."""
    option: OptionInfo = typer.Option(help=text, metavar=metavar, rich_help_panel=panel, min=least, show_default=False)
    return option


class PackWeight(NamedTuple):
    """How often a pack is drawn."""

    name: str
    weight: float


def parse_pack_weight(text: str) -> PackWeight:
    """Read ``NAME=WEIGHT``.

    Raises:
        typer.BadParameter: if it is not a name and a number.
    """
    name, _, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not name or not math.isfinite(weight):
        raise typer.BadParameter(f"expected NAME=WEIGHT, such as coco200=2.5, got {text!r}")
    return PackWeight(name, weight)


def train(
    data: Annotated[Path, typer.Option(metavar="DIR", help="A folder of packs, or one pack.", rich_help_panel=Run)],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The run's folder: checkpoint, weights, log.csv.", rich_help_panel=Run)
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.", rich_help_panel=Run)
    ] = False,
    steps: Annotated[int | None, _setting("Optimiser steps in all.", Run, least=1)] = None,
    objects: Annotated[int | None, _setting("Objects a step.", Run, least=1)] = None,
    mixer: Annotated[str | None, _setting("The global mixer, by name.", Run, "NAME")] = None,
    pack_weight: Annotated[
        list[PackWeight] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            parser=parse_pack_weight,
            help="How often a pack is drawn; may be repeated. Packs not named have the weight 1.",
            rich_help_panel=Run,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, _setting("Decides initial weights, batches and clicks.", Run, least=0)] = None,
    imagenet: Annotated[
        str | None, _setting('ImageNet weights of the trunk; "" starts from random ones.', Run, "FILE")
    ] = None,
    start: Annotated[
        str | None, _setting("Linocut weights to go on from, in place of ImageNet's.", Run, "FILE")
    ] = None,
    learning_rate: Annotated[float | None, _setting("Peak learning rate of the new layers.", Fine, least=0)] = None,
    trunk_rate: Annotated[float | None, _setting("The trunk learns so many times as fast.", Fine, least=0)] = None,
    frozen_steps: Annotated[int | None, _setting("First steps with the trunk left alone.", Fine, least=0)] = None,
    warmup: Annotated[int | None, _setting("Steps of linear warm-up.", Fine, least=0)] = None,
    cooldown: Annotated[int | None, _setting("Last steps, over which the rate falls to 0.", Fine, least=0)] = None,
    weight_decay: Annotated[float | None, _setting("AdamW's.", Fine, least=0)] = None,
    average: Annotated[float | None, _setting("Decay of the average of the weights.", Fine, least=0)] = None,
    dtype: Annotated[str | None, _setting("auto, float32 or bfloat16.", Fine, "NAME")] = None,
    save_every: Annotated[int | None, _setting("Steps between checkpoints.", Fine, least=1)] = None,
    val_every: Annotated[int | None, _setting("Steps between validations.", Fine, least=1)] = None,
    val_batches: Annotated[int | None, _setting("Batches a validation takes.", Fine, least=1)] = None,
    _debug: Debug = False,
) -> None:
    """Train a model on the train splits of packs, watching the val splits.

    A run that was stopped, by Ctrl-C too (exit code 130), goes on with
    --resume as if it had not been.

    [bold]Examples[/bold]

    linocut train --data data --out runs/first --steps 20000

    linocut train --data data --out runs/first --steps 20000 --resume
    """
    given = {
        "steps": steps,
        "objects": objects,
        "mixer": mixer,
        "pack_weights": dict(pack_weight) if pack_weight else None,
        "seed": seed,
        "imagenet": imagenet,
        "start": start,
        "dtype": dtype,
        "learning_rate": learning_rate,
        "trunk_rate": trunk_rate,
        "frozen_steps": frozen_steps,
        "warmup": warmup,
        "cooldown": cooldown,
        "weight_decay": weight_decay,
        "average": average,
        "save_every": save_every,
        "val_every": val_every,
        "val_batches": val_batches,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    with when_stopped(
        f"stopped; with --resume the training goes on from the last checkpoint in {out}, if there is one"
    ):
        weights = _run(_prepare(data, out, resume, settings))
    typer.echo(f"weights: {weights}")


def _prepare(data: Path, out: Path, resume: bool, settings: dict[str, Any]) -> Trainer:
    """Set the training up, before a bar is drawn.

    Raises:
        typer.BadParameter: if there are no packs, a setting is out of range, a file is missing, or there is nothing to
            resume or something to overwrite.
    """
    from linocut.engine import train as engine

    try:
        engine.find_packs(data)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error), param_hint="--data") from error
    try:
        config = engine.TrainConfig(data=str(data), out=str(out), **settings)
        return engine.Trainer(config, resume=resume)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error)) from error


def _run(trainer: Trainer) -> Path:
    """Train under a progress bar; a line for every validation stays on the screen, or in a log."""
    with progress_bar("steps") as bar:
        task = bar.add_task("training", total=trainer.config.steps, completed=trainer.step)
        tell = _teller(bar.console.print)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.step, description=tell(progress))

        return trainer.run(report)


def _teller(say: Callable[[str], None]) -> Callable[[Progress], str]:
    """A function that says how a step went, with the last validation's IoU, and prints a line for every validation."""
    val_iou = ""

    def tell(progress: Progress) -> str:
        nonlocal val_iou
        text = f"loss {progress.loss:.3f}, train IoU {progress.first_iou:.2f}"
        if progress.val_first_iou is not None:
            val_iou = f", val IoU {progress.val_first_iou:.2f}"
            say(
                f"step {progress.step}: {text}; val loss {progress.val_loss:.3f}, IoU after one click "
                f"{progress.val_first_iou:.3f}, after two {progress.val_second_iou:.3f}"
            )
        return text + val_iou

    return tell
