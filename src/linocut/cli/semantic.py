"""`linocut semantic`: a class for every pixel of an image, or of every image in a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from linocut.cli.console import (
    FAILED,
    Debug,
    MaxPixels,
    Page,
    ValueLimits,
    Weights,
    in_words,
    is_folder,
    load_semantic_model,
    progress_bar,
    require_file,
    require_folder,
)
from linocut.data.limits import DEFAULT_MAX_PIXELS


def semantic(
    source: Annotated[Path, typer.Argument(metavar="IMAGE_OR_FOLDER", help="An image, or a folder of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where to write.")],
    page: Page = 0,
    value_range: ValueLimits = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    weights: Weights = None,
    _debug: Debug = False,
) -> None:
    """Give every pixel one of the classes a network was trained on (linocut train --task semantic).

    Writes OUT/labels (PNG, the pixel is the label value), OUT/overlays and
    OUT/classes.json. The bundled network knows street scenes: sky, building,
    pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist. An
    image that cannot be read is reported and the exit code is 1.

    [bold]Examples[/bold]

    linocut semantic street.jpg -o seen/

    linocut semantic photos/ -o seen/ --weights runs/street/weights.safetensors
    """
    if not is_folder(source, "IMAGE_OR_FOLDER"):
        require_file(source, "IMAGE_OR_FOLDER")
    from linocut.data.images import ImageError, open_image
    from linocut.engine.semantic_folder import classify_image, plan_semantic, write_classes

    try:
        jobs = plan_semantic(source, out)
    except ValueError as error:
        raise typer.BadParameter(in_words(error), param_hint="IMAGE_OR_FOLDER") from error
    model = load_semantic_model(weights)
    require_folder(out, "--out")
    read = partial(open_image, page=page, value_range=value_range, max_pixels=max_pixels)
    write_classes(model, out)
    failed = 0
    with progress_bar("images") as bar:
        task = bar.add_task("semantic", total=len(jobs))
        for job in jobs:
            bar.advance(task)
            try:
                image = read(job.source)
            except (ImageError, OSError) as error:
                failed += 1
                typer.echo(f"linocut: error: {in_words(error)}", err=True)
                continue
            classify_image(model, job, image)
    typer.echo(f"{len(jobs) - failed} done, {failed} failed: {out}")
    if failed:
        raise typer.Exit(FAILED)
