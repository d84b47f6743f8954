"""`linocut eval --task semantic`: a class for every pixel, measured against ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from linocut.cli.console import load_semantic_model, progress_bar, require_folder, require_outputs, set_progress

if TYPE_CHECKING:
    from linocut.engine.semantic_evaluate import SemanticEvaluation


def evaluate_classes(
    packs: Sequence[Path],
    split: str,
    weights: Path | None,
    json_path: Path | None,
    markdown: Path | None,
    pictures: Path | None,
) -> None:
    """Measure classes; the figures of every pack are written and printed as soon as they are there."""
    from linocut.data.files import write_atomic
    from linocut.engine.semantic_evaluate import evaluate_semantic

    require_outputs({"--json": json_path, "--markdown": markdown}, {"--weights": weights})
    if pictures is not None:
        require_folder(pictures, "--pictures")
    model = load_semantic_model(weights)
    done: list[SemanticEvaluation] = []
    for folder in packs:
        with progress_bar("images") as bar:
            task = bar.add_task(folder.name, total=None)
            shown = None if pictures is None else pictures / folder.name if len(packs) > 1 else pictures
            done.append(
                evaluate_semantic(model, folder, split=split, pictures=shown, progress=partial(set_progress, bar, task))
            )
        if json_path is not None:
            figures = [each.to_json() for each in done]
            text = json.dumps(figures if len(packs) > 1 else figures[0], indent=2)
            write_atomic(json_path, f"{text}\n".encode())
        if markdown is not None:
            write_atomic(markdown, "\n".join(each.markdown() for each in done).encode())
        _print(done[-1])
    if pictures is not None:
        typer.echo(f"pictures: {pictures}")


def _print(done: SemanticEvaluation) -> None:
    """Print the headline and a row a class."""
    from rich.console import Console
    from rich.table import Table

    from linocut.engine.semantic_evaluate import CLASS_HEADINGS

    head = ", ".join(f"{name} {value}" for name, value in done.headline())
    table = Table(CLASS_HEADINGS[0], title=f"{done.pack} {done.split}, {done.images} images", caption=head)
    for name in CLASS_HEADINGS[1:]:
        table.add_column(name, justify="right")
    for row in done.class_rows():
        table.add_row(*row)
    Console().print(table)
