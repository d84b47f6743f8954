"""`linocut train`: weights from packs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.models import OptionInfo

from linocut.cli.console import Debug, Task, in_words, progress_bar, when_stopped

if TYPE_CHECKING:
    from linocut.engine.loop import Loop, Progress

Run = "the run"
Fine = "fine tuning of the training (see linocut.engine.settings.LoopConfig)"
Prompts = "--task prompts (see linocut.engine.train.TrainConfig)"
Semantic = "--task semantic (see linocut.engine.semantic_train.SemanticTrainConfig)"


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


def parse_whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers with commas between them, as many as there are.

    Raises:
        typer.BadParameter: if one is not a whole number of at least 1.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) >= 1 for part in parts):
        raise typer.BadParameter(f"expected whole numbers >= 1 with commas, such as 3,6,12, got {text!r}")
    return tuple(int(part) for part in parts)


def _whole_numbers(text: str) -> OptionInfo:
    option: OptionInfo = typer.Option(
        metavar="N,N,…", parser=parse_whole_numbers, help=text, rich_help_panel=Semantic, show_default=False
    )
    return option


def train(
    data: Annotated[Path, typer.Option(metavar="DIR", help="A folder of packs, or one pack.", rich_help_panel=Run)],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The run's folder: checkpoint, weights, log.csv.", rich_help_panel=Run)
    ],
    task: Annotated[
        Task, typer.Option(help="Objects from clicks and boxes, or a class for every pixel.", rich_help_panel=Run)
    ] = Task.PROMPTS,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.", rich_help_panel=Run)
    ] = False,
    steps: Annotated[int | None, _setting("Optimiser steps in all.", Run, least=1)] = None,
    mixer: Annotated[str | None, _setting("The global mixer, by name.", Run, "NAME")] = None,
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
    objects: Annotated[int | None, _setting("Objects a step.", Prompts, least=1)] = None,
    pack_weight: Annotated[
        list[PackWeight] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            parser=parse_pack_weight,
            help="How often a pack is drawn; may be repeated. Packs not named have the weight 1.",
            rich_help_panel=Prompts,
            show_default=False,
        ),
    ] = None,
    val_batches: Annotated[int | None, _setting("Batches a validation takes.", Prompts, least=1)] = None,
    images: Annotated[int | None, _setting("Crops a step.", Semantic, least=1)] = None,
    side: Annotated[int | None, _setting("Side of a crop in pixels.", Semantic, least=32)] = None,
    rates: Annotated[Any, _whole_numbers("Dilations at stride 16, beside each other; 1,1,1 for none.")] = None,
    dilations: Annotated[Any, _whole_numbers("Dilations at stride 8, one block each; 1,1 for none.")] = None,
    scale: Annotated[float | None, _setting("Enlarge images so many times for use.", Semantic, "X", least=0.1)] = None,
    _debug: Debug = False,
) -> None:
    """Train a model on the train splits of packs, watching the val splits.

    --task semantic gives every pixel one of a pack's classes. Its encoder
    begins with the bundled weights; its pack has kind semantic and a
    classes.json.

    A run that was stopped, by Ctrl-C too (exit code 130), goes on with
    --resume as if it had not been.

    [bold]Examples[/bold]

    linocut train --data data --out runs/first --steps 20000

    linocut train --data data --out runs/first --steps 20000 --resume

    linocut train --task semantic --data data/camvid --out runs/street
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
        "images": images,
        "side": side,
        "rates": rates,
        "dilations": dilations,
        "scale": scale,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    with when_stopped(
        f"stopped; with --resume the training goes on from the last checkpoint in {out}, if there is one"
    ):
        weights = _run(_prepare(task, data, out, resume, settings))
    typer.echo(f"weights: {weights}")


def _prepare(task: Task, data: Path, out: Path, resume: bool, settings: dict[str, Any]) -> Loop[Any, Any]:
    """Set the training up, before a bar is drawn.

    Raises:
        typer.BadParameter: if there are no packs, a setting is of another task or out of range, a file is missing, or
            there is nothing to resume or something to overwrite.
    """
    from linocut.engine.settings import find_packs

    try:
        find_packs(data)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error), param_hint="--data") from error
    config_type, trainer_type = _parts(task)
    known = {field.name for field in fields(config_type)}
    for name in settings:
        if name not in known:
            option = "--pack-weight" if name == "pack_weights" else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{option} is not for --task {task.value}", param_hint=option)
    try:
        trainer: Loop[Any, Any] = trainer_type(config_type(data=str(data), out=str(out), **settings), resume=resume)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(in_words(error)) from error
    return trainer


def _parts(task: Task) -> tuple[Any, Any]:
    """The settings and the trainer of a task."""
    if task is Task.SEMANTIC:
        from linocut.engine import semantic_train

        return semantic_train.SemanticTrainConfig, semantic_train.SemanticTrainer
    from linocut.engine import train as prompts

    return prompts.TrainConfig, prompts.Trainer


def _run(trainer: Loop[Any, Any]) -> Path:
    """Train under a progress bar; a line for every validation stays on the screen, or in a log."""
    with progress_bar("steps") as bar:
        task = bar.add_task("training", total=trainer.config.steps, completed=trainer.step)
        tell = _teller(bar.console.print)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.step, description=tell(progress))

        return trainer.run(report)


def _teller(say: Callable[[str], None]) -> Callable[[Progress], str]:
    """A function that says how a step went, with the last validation, and prints a line for every validation."""
    last = ""

    def tell(progress: Progress) -> str:
        nonlocal last
        text, validation = progress.in_words(), progress.validation_in_words()
        if validation is not None:
            last = f", {validation.short}"
            say(f"step {progress.step}: {text}; {validation.full}")
        return text + last

    return tell
