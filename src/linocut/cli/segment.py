"""`linocut segment`: one object of one image, by points and a box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from linocut.cli.console import Debug, Weights, load_model, require_file

if TYPE_CHECKING:
    from linocut.vision.masks import Mask
    from linocut.vision.session import Session


_EXAMPLES = {"X,Y": "320,240", "X0,Y0,X1,Y1": "10,20,200,180"}


class Point(NamedTuple):
    """A place in the image, in pixels."""

    x: float
    y: float


class Box(NamedTuple):
    """A box in the image, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float


def parse_point(text: str) -> Point:
    """Read ``X,Y``.

    Raises:
        typer.BadParameter: if it is not two finite numbers.
    """
    return Point(*_numbers(text, "X,Y"))


def parse_box(text: str) -> Box:
    """Read ``X0,Y0,X1,Y1``.

    Raises:
        typer.BadParameter: if it is not four finite numbers with X0 < X1 and Y0 < Y1.
    """
    box = Box(*_numbers(text, "X0,Y0,X1,Y1"))
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise typer.BadParameter(f"a box must have X0 < X1 and Y0 < Y1, got {text}")
    return box


def _numbers(text: str, form: str) -> list[float]:
    """Comma-separated finite numbers, as many as the form has."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != form.count(",") + 1 or not all(abs(value) < float("inf") for value in values):
        raise typer.BadParameter(f"expected {form} in pixels, such as {_EXAMPLES[form]}, got {text!r}")
    return values


def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="PNG, JPEG, WebP, BMP, GIF or TIFF.")],
    point: Annotated[
        list[Point] | None,
        typer.Option(
            "--point", "-p", metavar="X,Y", parser=parse_point, help="A point on the object; may be repeated."
        ),
    ] = None,
    negative: Annotated[
        list[Point] | None,
        typer.Option("--negative", "-n", metavar="X,Y", parser=parse_point, help="A point off it; may be repeated."),
    ] = None,
    box: Annotated[
        Box | None,
        typer.Option("--box", "-b", metavar="X0,Y0,X1,Y1", parser=parse_box, help="A box around the object."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="The mask as PNG: 255 object, 0 the rest.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(metavar="FILE", help="The mask drawn over the image.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Score, box, area and COCO RLE of the mask.")
    ] = None,
    page: Annotated[int, typer.Option(min=0, help="Which page of a multi-page TIFF, from 0.")] = 0,
    weights: Weights = None,
    _debug: Debug = False,
) -> None:
    """Cut one object out of an image.

    Coordinates are pixels, x to the right and y down, from 0,0 in the
    upper left corner.

    [bold]Examples[/bold]

    linocut segment photo.jpg --point 320,240 -o mask.png

    linocut segment photo.jpg --point 320,240 --negative 400,250 -o mask.png --overlay overlay.png

    linocut segment photo.jpg --box 100,80,420,390 -o mask.png --json mask.json
    """
    points, off, outputs = point or [], negative or [], (out, overlay, json_path)
    if not points and box is None:
        raise typer.BadParameter("give at least one --point or a --box: something must say which object is meant")
    if not any(outputs):
        raise typer.BadParameter("give at least one output: -o, --overlay or --json")
    for picture in (out, overlay):
        if picture is not None and picture.suffix.lower() != ".png":
            raise typer.BadParameter(f"pictures are written as PNG; give a name that ends in .png, got {picture}")
    require_file(image, "IMAGE")
    import numpy as np

    from linocut.data.files import write_atomic
    from linocut.data.images import open_image
    from linocut.data.overlay import overlay as draw
    from linocut.data.overlay import write_png

    pixels = open_image(image, page=page)
    _check_inside(pixels.shape[1], pixels.shape[0], points + off, box)
    session = load_model(weights).open(pixels)
    mask = _prompt(session, points, off, box)
    if out is not None:
        write_png(out, np.where(mask.array, np.uint8(255), np.uint8(0)))
    if overlay is not None:
        asked = session.prompt
        write_png(overlay, draw(pixels, mask.array, points=asked.points, labels=asked.labels, box=asked.box))
    if json_path is not None:
        prompt = {"points": points, "negative": off, "box": box}
        text = json.dumps({"image": str(image), "prompt": prompt, **_describe(mask)}, indent=2)
        write_atomic(json_path, f"{text}\n".encode())
    written = ", ".join(str(path) for path in outputs if path is not None)
    typer.echo(f"{mask.area} pixels, predicted IoU {mask.score:.2f}: {written}")


def _check_inside(width: int, height: int, points: list[Point], box: Box | None) -> None:
    """Refuse prompts outside the image; a box may end at its edge.

    Raises:
        typer.BadParameter: wrong usage, exit code 2.
    """
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise typer.BadParameter(f"point {x:g},{y:g} lies outside the image, which is {width} x {height} pixels")
    if box is not None and not (box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height):
        text = ",".join(f"{value:g}" for value in box)
        raise typer.BadParameter(f"box {text} reaches outside the image, which is {width} x {height} pixels")


def _prompt(session: Session, points: list[Point], off: list[Point], box: Box | None) -> Mask:
    """Give the session every prompt; the last mask answers all of them."""
    masks = [] if box is None else [session.box(*box)]
    masks += [session.click(x, y) for x, y in points]
    masks += [session.click(x, y, positive=False) for x, y in off]
    return masks[-1]


def _describe(mask: Mask) -> dict[str, Any]:
    """The mask as JSON: its box is (x0, y0, x1, y1) in pixels, its segmentation COCO's RLE."""
    return {
        "score": float(mask.score),
        "stability": float(mask.stability),
        "area": int(mask.area),
        "bbox": list(mask.bbox),
        "segmentation": mask.rle(),
    }
