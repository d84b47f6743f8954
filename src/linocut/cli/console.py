"""What every command shares: one-line errors with their exit codes, `--debug`, the model, and progress bars."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from linocut.vision.segmenter import Segmenter

FAILED, WRONG_USAGE = 1, 2

_DEBUG_KEY = "linocut.debug"


def _remember_debug(ctx: Any, value: bool) -> bool:
    """Keep the flag where the group finds it, and hand down one that came before the command.

    A context's meta is shared with its parent's.
    """
    ctx.meta[_DEBUG_KEY] = value or ctx.meta.get(_DEBUG_KEY, False)
    return bool(ctx.meta[_DEBUG_KEY])


Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show where an error comes from.",
        callback=_remember_debug,
        is_eager=True,
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Weights to use instead of the bundled ones (.safetensors)."),
]


class OneLineErrors(TyperGroup):
    """A command group whose every error is one line on stderr and an exit code: 1 something failed, 2 wrong usage."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command line and leave the process with its exit code."""
        try:
            result = super().main(*args, **{**extra, "standalone_mode": False})
        except Exception as error:  # whatever it is, the person at the terminal gets one line and a code
            code, message = _explain(error)
            typer.echo(f"linocut: error: {message}", err=True)
            sys.exit(code)
        sys.exit(result if isinstance(result, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command; without anything show the help, which is wrong usage all the same."""
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit(WRONG_USAGE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --debug print the traceback before the error goes on to `main`."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except Exception:
            if ctx.meta.get(_DEBUG_KEY):
                traceback.print_exc()
            raise


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code of an error and one line that says it."""
    say = getattr(error, "format_message", None)
    if say is not None:  # Typer's own, with the right exit code; their common class is not public
        return int(getattr(error, "exit_code", FAILED)), one_line(say())
    if isinstance(error, typer.Abort):
        return FAILED, "stopped"
    if isinstance(error, OSError) and error.filename is not None:
        return FAILED, one_line(f"{error.filename}: {error.strerror}")
    if isinstance(error, (ValueError, OSError)):  # the library's own words
        return FAILED, one_line(str(error))
    return FAILED, one_line(f"{type(error).__name__}: {error} (--debug shows where)")


def one_line(text: str) -> str:
    """The text with its line breaks and runs of spaces made single spaces."""
    return " ".join(text.split())


def require_file(path: Path, hint: str) -> None:
    """Refuse a path that is no file.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; a file is needed", param_hint=hint)
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint=hint)


def load_model(weights: Path | None) -> Segmenter:
    """The model, from a file or the bundled one; PyTorch is imported here and not before.

    Raises:
        typer.BadParameter: if the file of weights does not exist.
    """
    if weights is not None:
        require_file(weights, "--weights")
    import linocut

    return linocut.load(weights)


@contextmanager
def progress_bar(unit: str) -> Iterator[Progress]:
    """A bar on stderr with the number done, the time it took and the time left; stdout stays free for results."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield bar


def set_progress(bar: Progress, task: TaskID, done: int, total: int) -> None:
    """Move one task of a bar; with the bar and the task bound it is the callback that the library's loops call."""
    bar.update(task, completed=done, total=total)
