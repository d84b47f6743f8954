"""The options of everything: what is taken, what is refused, and that they cost nothing to import."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from linocut.vision.options import EverythingOptions


def test_the_defaults_are_taken() -> None:
    options = EverythingOptions()
    assert (options.points_per_side, options.point_grids, options.output_mode) == (32, None, "binary_mask")


def test_one_grid_a_layer_is_taken() -> None:
    grids = [np.array([[0.0, 1.0]]), np.array([[0.5, 0.5], [0.25, 0.75]])]
    options = EverythingOptions(points_per_side=None, point_grids=grids, crop_n_layers=1)
    assert options.point_grids is grids
    assert EverythingOptions(points_per_side=None, point_grids=np.full((1, 4, 2), 0.5)).points_per_side is None


def test_importing_them_loads_neither_torch_nor_numpy() -> None:
    code = "import sys; import linocut.vision.options; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "exactly one of points_per_side and point_grids"),
        ({"point_grids": [np.zeros((1, 2))]}, "exactly one of points_per_side and point_grids"),
        ({"points_per_side": 0}, "points_per_side must be >= 1, got 0"),
        ({"points_per_batch": 0}, "points_per_batch must be >= 1, got 0"),
        ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor must be >= 1"),
        ({"crop_n_layers": -1}, "crop_n_layers must be >= 0, got -1"),
        ({"crop_n_layers": 9}, r"crop_n_layers must be <= 8, got 9: layer i has 4\*\*i crops"),
        ({"min_mask_region_area": -5}, "min_mask_region_area must be >= 0"),
        ({"stability_score_offset": -1.0}, "stability_score_offset must be >= 0"),
        ({"pred_iou_thresh": 88}, "pred_iou_thresh must be 0 to 1, got 88"),
        ({"stability_score_thresh": math.nan}, "stability_score_thresh must be 0 to 1, got nan"),
        ({"box_nms_thresh": -0.1}, "box_nms_thresh must be 0 to 1"),
        ({"output_mode": "png"}, "output_mode must be one of binary_mask, uncompressed_rle, coco_rle, got 'png'"),
        ({"points_per_side": None, "point_grids": []}, "one grid a layer, 1 of them, got 0"),
        ({"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1}, "2 of them, got 1"),
        ({"points_per_side": None, "point_grids": [np.zeros((0, 2))]}, r"n >= 1, got shape \(0, 2\)"),
        ({"points_per_side": None, "point_grids": [np.zeros((4, 3))]}, r"got shape \(4, 3\)"),
        ({"points_per_side": None, "point_grids": [np.array([[0.5, 5.0]])]}, "0 to 1, got 0.5 to 5"),
        ({"points_per_side": None, "point_grids": [np.full((1, 2), np.nan)]}, "0 to 1, got nan to nan"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EverythingOptions(**options)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("points_per_side", 2.5, "an integer"),
        ("points_per_side", 4.0, "an integer"),
        ("points_per_side", "4", "an integer"),
        ("points_per_side", True, "an integer"),
        ("points_per_batch", 1.5, "an integer"),
        ("points_per_batch", None, "an integer"),
        ("crop_n_points_downscale_factor", 1.5, "an integer"),
        ("crop_n_layers", "1", "an integer"),
        ("min_mask_region_area", 0.5, "an integer"),
        ("pred_iou_thresh", "0.5", "a number"),
        ("stability_score_offset", None, "a number"),
        ("crop_overlap_ratio", False, "a number"),
    ],
)
def test_types_are_checked(name: str, value: object, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be {kind}, got {re.escape(repr(value))}$"):
        EverythingOptions(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    # in a process of its own: the tests' type checks hold against the annotations, which name Python's numbers
    options = "points_per_side=np.int64(4), crop_n_layers=np.uint8(8), pred_iou_thresh=np.float32(0.5)"
    code = f"import numpy as np; from linocut.vision.options import EverythingOptions; EverythingOptions({options})"
    subprocess.run([sys.executable, "-c", code], check=True)
