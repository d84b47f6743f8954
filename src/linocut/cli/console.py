"""What every command shares: one-line errors with their exit codes, options, the model, and progress bars."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from linocut.vision.segmenter import Segmenter
    from linocut.vision.semantic import SemanticSegmenter

FAILED, WRONG_USAGE, STOPPED = 1, 2, 130

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


class Task(str, Enum):
    """What a model is trained for."""

    PROMPTS = "prompts"
    SEMANTIC = "semantic"


class ValueRange(NamedTuple):
    """The values of an image that become black and white."""

    low: float
    high: float


def parse_numbers(text: str, form: str, example: str) -> list[float]:
    """Read finite numbers with commas between them, as many as a form such as ``X,Y`` has.

    Raises:
        typer.BadParameter: if it is anything else.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != form.count(",") + 1 or not all(abs(value) < float("inf") for value in values):
        raise typer.BadParameter(f"expected {form}, such as {example}, got {text!r}")
    return values


def parse_value_range(text: str) -> ValueRange:
    """Read ``LOW,HIGH``.

    Raises:
        typer.BadParameter: if it is not two finite numbers with LOW < HIGH.
    """
    limits = ValueRange(*parse_numbers(text, "LOW,HIGH", "0,4095"))
    if limits.low >= limits.high:
        raise typer.BadParameter(f"a range of values must have LOW < HIGH, got {text}")
    return limits


Page = Annotated[int, typer.Option("--page", min=0, metavar="N", help="Which page of a multi-page TIFF, from 0.")]
ValueLimits = Annotated[
    ValueRange | None,
    typer.Option(
        "--value-range",
        metavar="LOW,HIGH",
        parser=parse_value_range,
        help="The values that become black and white, say 0,4095 for a 12-bit camera; needed for float outside 0 … 1.",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        "--max-pixels",
        min=1,
        metavar="N",
        help="Refuse larger images; each pixel takes 50 to 85 bytes of memory.",
    ),
]


class OneLineErrors(TyperGroup):
    """A command group whose every error is one line on stderr and an exit code.

    The codes are 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """

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
            with when_stopped("stopped"):
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
    if isinstance(error, (ValueError, OSError)):
        return FAILED, in_words(error)
    return FAILED, one_line(f"{type(error).__name__}: {error} (--debug shows where)")


def in_words(error: Exception) -> str:
    """What an error says, on one line: the library's own words, or the system's with the file's name before them."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(str(error))


@contextmanager
def when_stopped(text: str) -> Iterator[None]:
    """Make of Ctrl-C one line on stderr and the exit code 130, as of other programs that a signal stopped.

    Raises:
        typer.Exit: with the code, if it was pressed.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"linocut: {text}", err=True)
        raise typer.Exit(STOPPED) from None


def one_line(text: str) -> str:
    """The text with its line breaks and runs of spaces made single spaces."""
    return " ".join(text.split())


def require_file(path: Path, hint: str) -> None:
    """Refuse a path that is no file.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    if is_folder(path, hint):
        raise typer.BadParameter(f"{path} is a folder; a file is needed", param_hint=hint)
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist", param_hint=hint)


def is_folder(path: Path, hint: str) -> bool:
    """Whether a path is a folder.

    Raises:
        typer.BadParameter: if the system cannot say, as of a name that is too long for it.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise typer.BadParameter(in_words(error), param_hint=hint) from error


def require_folder(path: Path, hint: str) -> None:
    """Refuse a folder that cannot be made or written into, before hours go into what it shall hold.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    from linocut.data.files import check_folder

    try:
        check_folder(path)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def require_outputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuse names at which no file can be written, or one would be written over an input or another output.

    Args:
        outputs: by option; None is one that was not asked for.
        inputs: by option or argument.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    asked = {hint: path for hint, path in outputs.items() if path is not None}
    for hint, path in asked.items():
        if is_folder(path, hint):
            raise typer.BadParameter(f"{path} is a folder; name a file in it", param_hint=hint)
        for other, source in inputs.items():
            if source is not None and _is_same(path, source):
                raise typer.BadParameter(f"{path} would be written over {other}; give another name", param_hint=hint)
    for (one, path), (other, second) in combinations(asked.items(), 2):
        if _is_same(path, second):
            raise typer.BadParameter(f"{second} is {one} already; give another name", param_hint=other)


def _is_same(path: Path, other: Path) -> bool:
    """Whether two paths are one file, however they are written."""
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def load_model(weights: Path | None) -> Segmenter:
    """The model, from a file or the bundled one; PyTorch is imported here and not before.

    Raises:
        typer.BadParameter: if the file of weights does not exist.
    """
    if weights is not None:
        require_file(weights, "--weights")
    import linocut

    return linocut.load(weights)


def load_semantic_model(weights: Path | None) -> SemanticSegmenter:
    """The model that gives every pixel a class, from a file or the bundled one.

    Raises:
        typer.BadParameter: if the file does not exist or holds no such model.
    """
    if weights is not None:
        require_file(weights, "--weights")
    from linocut.vision.semantic import load_semantic

    try:
        return load_semantic(weights)
    except ValueError as error:
        raise typer.BadParameter(in_words(error), param_hint="--weights") from error


@contextmanager
def progress_bar(unit: str) -> Iterator[Progress]:
    """A bar on stderr with the number done, the time it took and the time left; stdout stays free for results.

    The time left is worked out from all that was done since the bar appeared: a step may take minutes, and Rich by
    itself forgets what is older than half a minute.
    """
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
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=float("inf")) as bar:
        yield bar


def set_progress(bar: Progress, task: TaskID, done: int, total: int) -> None:
    """Move one task of a bar; with the bar and the task bound it is the callback that the library's loops call."""
    bar.update(task, completed=done, total=total)
