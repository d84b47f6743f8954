"""The application: its commands, `--version` and the entry point."""

from __future__ import annotations

from typing import Annotated

import typer

from linocut.cli.console import Debug, OneLineErrors
from linocut.cli.demo import demo
from linocut.cli.evaluate import evaluate
from linocut.cli.everything import everything
from linocut.cli.metrics import metrics
from linocut.cli.segment import segment
from linocut.cli.semantic import semantic
from linocut.cli.train import train

app = typer.Typer(
    cls=OneLineErrors,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> bool:
    """Print the version and stop, if that was asked for."""
    if value:
        import linocut

        typer.echo(f"linocut {linocut.__version__}")
        raise typer.Exit
    return value


@app.callback()
def linocut_command(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    _debug: Debug = False,
) -> None:
    """Segment anything in images of any size, on the machine you have.

    Exit codes: 0 all right, 1 something failed, 2 wrong usage (a bad option,
    a missing input, a point outside the image, no prompt), 130 stopped by
    Ctrl-C.

    [bold]Examples[/bold]

    linocut segment photo.jpg --point 320,240 -o mask.png

    linocut everything photos/ -o cut/

    linocut metrics predictions/ truth/ -o report

    linocut demo
    """


app.command()(segment)
app.command()(everything)
app.command()(semantic)
app.command()(train)
app.command("eval")(evaluate)
app.command()(metrics)
app.command()(demo)


def main() -> None:
    """Run the command line given to this process."""
    app()
