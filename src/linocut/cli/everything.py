"""`linocut everything`: every object of an image, or of every image in a folder."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.models import OptionInfo

from linocut.cli.console import (
    FAILED,
    Debug,
    MaxPixels,
    Page,
    ValueLimits,
    Weights,
    is_folder,
    load_model,
    one_line,
    progress_bar,
    require_file,
    require_folder,
    set_progress,
    when_stopped,
)
from linocut.data.limits import DEFAULT_MAX_PIXELS
from linocut.vision.options import EverythingOptions

if TYPE_CHECKING:
    from linocut.engine.batch import Failure, Plan, Read

Grid = "how the image is asked"
Quality = "what is kept"
Crops = "crops of large images"
_DEFAULT = EverythingOptions()


def _number(text: str, panel: str, least: float, most: float | None = None, shown: str | None = None) -> OptionInfo:
    """A field of `EverythingOptions`; `shown` stands for a default that is not the parameter's, or has many digits."""
    option: OptionInfo = typer.Option(
        help=text, metavar="N", rich_help_panel=panel, min=least, max=most, show_default=shown or True
    )
    return option


def everything(
    source: Annotated[
        Path, typer.Argument(metavar="IMAGE_OR_FOLDER", help="One image, or a folder with its subfolders.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="The output folder.")],
    points_per_side: Annotated[
        int | None, _number("Points along each side of the grid.", Grid, 1, shown=str(_DEFAULT.points_per_side))
    ] = None,
    points_per_batch: Annotated[
        int, _number("Points decoded at once: memory against speed.", Grid, 1)
    ] = _DEFAULT.points_per_batch,
    point_grids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: for each crop layer a list of \\[x, y] in 0 … 1, instead of --points-per-side.",
            rich_help_panel=Grid,
        ),
    ] = None,
    pred_iou_thresh: Annotated[float, _number("Least predicted IoU.", Quality, 0, 1)] = _DEFAULT.pred_iou_thresh,
    stability_score_thresh: Annotated[
        float, _number("Least stability score.", Quality, 0, 1)
    ] = _DEFAULT.stability_score_thresh,
    stability_score_offset: Annotated[
        float, _number("How far the cut-off is moved to measure stability.", Quality, 0)
    ] = _DEFAULT.stability_score_offset,
    box_nms_thresh: Annotated[
        float, _number("Overlap of boxes (IoU) above which the worse is dropped.", Quality, 0, 1)
    ] = _DEFAULT.box_nms_thresh,
    mask_nms_thresh: Annotated[
        float, _number("As --box-nms-thresh, of the masks.", Quality, 0, 1)
    ] = _DEFAULT.mask_nms_thresh,
    min_mask_region_area: Annotated[
        int, _number("Fill holes and drop islands smaller than this, in pixels.", Quality, 0)
    ] = _DEFAULT.min_mask_region_area,
    crop_n_layers: Annotated[
        int, _number("Layers of crops; layer i has 4^i of them.", Crops, 0)
    ] = _DEFAULT.crop_n_layers,
    crop_nms_thresh: Annotated[
        float, _number("As --box-nms-thresh, between crops.", Crops, 0, 1)
    ] = _DEFAULT.crop_nms_thresh,
    crop_overlap_ratio: Annotated[
        float,
        _number(
            "Overlap of neighbouring crops, as a share of the image.",
            Crops,
            0,
            1,
            shown=f"{_DEFAULT.crop_overlap_ratio:.3f}",
        ),
    ] = _DEFAULT.crop_overlap_ratio,
    crop_n_points_downscale_factor: Annotated[
        int, _number("Layer i has its points a side divided by this to the power i.", Crops, 1)
    ] = _DEFAULT.crop_n_points_downscale_factor,
    output_mode: Annotated[
        Literal["coco_rle", "uncompressed_rle"],
        typer.Option(metavar="MODE", help="How masks are written in the JSON files: coco_rle or uncompressed_rle."),
    ] = "coco_rle",
    page: Page = 0,
    value_range: ValueLimits = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    weights: Weights = None,
    debug: Debug = False,
) -> None:
    """Cut every object out of an image, or out of every image in a folder.

    Writes OUT/labels (PNG), OUT/overlays, OUT/coco (COCO JSON with RLE, one an
    image) and OUT/annotations.json, all of them merged. Stop it with Ctrl-C
    (exit code 130), run it again, and it skips the images that are done; an
    image that cannot be read is reported at the end and the exit code is 1.
    Outputs of earlier runs that lie in the folder are not taken for images.

    [bold]Examples[/bold]

    linocut everything photo.jpg -o cut/

    linocut everything photos/ -o cut/ --points-per-side 16 --pred-iou-thresh 0.8
    """
    if not is_folder(source, "IMAGE_OR_FOLDER"):
        require_file(source, "IMAGE_OR_FOLDER")
    if weights is not None:
        require_file(weights, "--weights")
    if point_grids is not None and points_per_side is not None:
        raise typer.BadParameter("--points-per-side and --point-grids exclude each other")
    given = {
        "points_per_side": points_per_side,
        "points_per_batch": points_per_batch,
        "pred_iou_thresh": pred_iou_thresh,
        "stability_score_thresh": stability_score_thresh,
        "stability_score_offset": stability_score_offset,
        "box_nms_thresh": box_nms_thresh,
        "mask_nms_thresh": mask_nms_thresh,
        "min_mask_region_area": min_mask_region_area,
        "crop_n_layers": crop_n_layers,
        "crop_nms_thresh": crop_nms_thresh,
        "crop_overlap_ratio": crop_overlap_ratio,
        "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
        "point_grids": None if point_grids is None else _read_grids(point_grids),
        "output_mode": output_mode,
    }
    options = {name: value for name, value in given.items() if value is not None}
    arguments = _as_arguments(options)
    with when_stopped("stopped; the same command goes on from here"):
        from linocut.data.images import open_image

        settings = {"options": options, "page": page, "value_range": value_range, **_fingerprint(weights)}
        plan = _plan(source, out, settings)
        read = partial(open_image, page=page, value_range=value_range, max_pixels=max_pixels)
        failures = _run(plan, arguments, read, weights, debug=debug)
    _print_failures(failures, debug=debug)
    if failures:
        raise typer.Exit(FAILED)


def _plan(source: Path, out: Path, settings: dict[str, Any]) -> Plan:
    """See what is to do, and that it can be written, before the model is loaded.

    Raises:
        typer.BadParameter: if there is nothing to cut or nowhere to write.
    """
    import linocut
    from linocut.engine.batch import plan_batch

    try:
        plan = plan_batch(source, out, {"linocut": linocut.__version__, **settings})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="IMAGE_OR_FOLDER") from error
    require_folder(out, "--out")
    return plan


def _run(
    plan: Plan, arguments: dict[str, Any], read: Read, weights: Path | None, *, debug: bool
) -> tuple[Failure, ...]:
    """Cut and say what was done; gives the images that failed.

    Raises:
        OutputError: if outputs cannot be written; what failed before is printed first.
    """
    from linocut.engine.batch import OutputError, run_batch

    cut = partial(load_model(weights).everything, **arguments)
    done, total = len(plan.done), len(plan.done) + len(plan.todo)
    try:
        with progress_bar("images") as bar:
            task = bar.add_task("everything", total=total, completed=done)
            failures = run_batch(plan, cut, read=read, progress=partial(set_progress, bar, task))
    except OutputError as error:
        _print_failures(error.failures, debug=debug)
        raise
    typer.echo(f"{len(plan.todo) - len(failures)} cut, {done} done before, {len(failures)} failed: {plan.out}")
    return failures


def _print_failures(failures: Iterable[Failure], *, debug: bool) -> None:
    """One line for every image that failed; with --debug its traceback too."""
    for failure in failures:
        if debug:
            traceback.print_exception(failure.error)
        text = str(failure.error)
        named = text if str(failure.source) in text else f"{failure.source}: {text}"
        typer.echo(f"linocut: error: {one_line(named)}", err=True)


def _as_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options as `Segmenter.everything` takes them: point grids are arrays there, and lists in the records.

    Raises:
        typer.BadParameter: if they do not go together.
    """
    import numpy as np

    arguments = dict(options)
    if "point_grids" in options:
        arguments["point_grids"] = [np.asarray(grid, float) for grid in options["point_grids"]]
        arguments["points_per_side"] = None
    try:
        EverythingOptions(**arguments)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return arguments


def _fingerprint(weights: Path | None) -> dict[str, str]:
    """What tells one model from another: the content of its weights, and the type of number it computes in."""
    from linocut.vision.precision import resolve
    from linocut.vision.weights import bundled_path

    content = (bundled_path() if weights is None else weights).read_bytes()
    return {"weights": hashlib.sha256(content).hexdigest(), "dtype": str(resolve("auto"))}


def _read_grids(path: Path) -> list[Any]:
    """Read the point grids, one a crop layer.

    Raises:
        typer.BadParameter: if the file is missing, is not JSON, or holds anything but points in 0 … 1.
    """
    require_file(path, "--point-grids")
    wrong = typer.BadParameter(f"{path} must hold a list of lists of [x, y] in 0 … 1", param_hint="--point-grids")
    try:
        grids = json.loads(path.read_text(encoding="utf-8"))
        good = grids and all(grid and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in grid) for grid in grids)
    except (ValueError, TypeError) as error:
        raise wrong from error
    if not good:
        raise wrong
    return list(grids)
