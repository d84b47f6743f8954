"""`linocut train`: weights from packs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from linocut.cli.console import Debug


def train(
    data: Annotated[Path, typer.Option(metavar="DIR", help="A folder of packs, or one pack.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The run's folder: checkpoints, log and weights.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Crops a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")] = None,
    mixer: Annotated[str | None, typer.Option(help="The global mixer, by name.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed gives the same weights.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    debug: Debug = False,
) -> None:
    """Train a model on the train splits of packs, watching the val splits.

    [bold]Examples[/bold]

    linocut train --data data --out runs/first --steps 20000

    linocut train --data data --out runs/first --resume
    """
