"""`linocut demo`: the bundled samples, clicked, boxed and cut whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from linocut.cli.console import Debug, Weights, load_model


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the pictures go.")] = Path("demo-out"),
    weights: Weights = None,
    _debug: Debug = False,
) -> None:
    """Try Linocut on the bundled samples: a click, a box and everything on each.

    Saves pictures side by side and prints one table with times.

    [bold]Example[/bold]

    linocut demo -o demo-out
    """
    from linocut.demo import run_demo

    run_demo(load_model(weights), out)
