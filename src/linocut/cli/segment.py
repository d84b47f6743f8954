"""`linocut segment`: one object of one image, by points and a box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from linocut.cli.console import (
    Debug,
    MaxPixels,
    Page,
    ValueLimits,
    Weights,
    load_model,
    parse_numbers,
    require_file,
    require_outputs,
)
from linocut.data.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from linocut.vision.masks import Mask
    from linocut.vision.prompts import Prompt


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
    return Point(*parse_numbers(text, "X,Y in pixels", "320,240"))


def parse_box(text: str) -> Box:
    """Read ``X0,Y0,X1,Y1``.

    Raises:
        typer.BadParameter: if it is not four finite numbers with X0 < X1 and Y0 < Y1.
    """
    box = Box(*parse_numbers(text, "X0,Y0,X1,Y1 in pixels", "10,20,200,180"))
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise typer.BadParameter(f"a box must have X0 < X1 and Y0 < Y1, got {text}")
    return box


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
        Path | None,
        typer.Option("--json", metavar="FILE", help="The mask in COCO's words: predicted_iou, area, bbox, RLE …"),
    ] = None,
    page: Page = 0,
    value_range: ValueLimits = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
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
    for picture in (out, overlay):
        if picture is not None and picture.suffix.lower() != ".png":
            raise typer.BadParameter(f"pictures are written as PNG; give a name that ends in .png, got {picture}")
    require_file(image, "IMAGE")
    if not any(outputs):
        raise typer.BadParameter("give at least one output: -o mask.png, --overlay look.png or --json mask.json")
    require_outputs({"--out": out, "--overlay": overlay, "--json": json_path}, {"IMAGE": image, "--weights": weights})
    import numpy as np

    from linocut.data.files import write_atomic
    from linocut.data.images import open_image
    from linocut.data.overlay import overlay as draw
    from linocut.data.overlay import write_png

    pixels = open_image(image, page=page, value_range=value_range, max_pixels=max_pixels)
    _check_inside(pixels.shape[1], pixels.shape[0], points + off, box)
    model = load_model(weights)
    prompt = _build_prompt(points, off, box)
    mask = model.decode(model.encode(pixels), [prompt])[0]
    if out is not None:
        write_png(out, np.where(mask.array, np.uint8(255), np.uint8(0)))
    if overlay is not None:
        write_png(overlay, draw(pixels, mask.array, points=prompt.points, labels=prompt.labels, box=prompt.box))
    if json_path is not None:
        asked = {"points": points, "negative": off, "box": box}
        text = json.dumps({"image": str(image), "prompt": asked, **_describe(mask)}, indent=2)
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


def _build_prompt(points: list[Point], off: list[Point], box: Box | None) -> Prompt:
    """All that was said about the object; a whole number means that pixel's centre, as in `Session.click`."""
    from linocut.vision.prompts import Prompt

    places = tuple(tuple(value + 0.5 * value.is_integer() for value in point) for point in points + off)
    labels = (True,) * len(points) + (False,) * len(off)
    return Prompt.of(places or None, labels or None, box)


def _describe(mask: Mask) -> dict[str, Any]:
    """The mask in COCO's words, as `everything` writes them: its box is (x, y, width, height) in pixels."""
    x0, y0, x1, y1 = mask.bbox
    return {
        "predicted_iou": float(mask.score),
        "stability_score": float(mask.stability),
        "area": int(mask.area),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": mask.rle(),
    }
