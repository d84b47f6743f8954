"""The options of :meth:`Segmenter.everything`: checked values and nothing else.

Importing this loads neither PyTorch nor NumPy, so that the command line can show the defaults without waiting for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CROP_LAYERS = 8
"""Layer 8 has 65,536 crops: more than any image needs."""

_INTEGERS = ("points_per_batch", "crop_n_points_downscale_factor", "crop_n_layers", "min_mask_region_area")
_SHARES = (
    "pred_iou_thresh",
    "stability_score_thresh",
    "box_nms_thresh",
    "mask_nms_thresh",
    "crop_nms_thresh",
    "crop_overlap_ratio",
)
_OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclass(frozen=True)
class EverythingOptions:
    """Options of :meth:`Segmenter.everything`, named as in Segment Anything.

    Attributes:
        points_per_side: points of the grid along each side; None takes ``point_grids``.
        points_per_batch: prompts decoded at once.
        pred_iou_thresh: least predicted IoU of a mask, 0 to 1.
        stability_score_thresh: least stability score, 0 to 1.
        stability_score_offset: how far the cut is moved for it, in units of the mask's mean logit inside it.
        box_nms_thresh: of first-look masks whose boxes overlap more than this (IoU) the one with the best score stays.
        mask_nms_thresh: the same for finished masks, by their pixels.
        crop_n_layers: further layers of grids in crops of the image, 2**i by 2**i of them in layer i; 8 at most. The
            image is not encoded again: the embedding has its full resolution already.
        crop_nms_thresh: box IoU above which the mask of the coarser layer goes.
        crop_overlap_ratio: how much the crops of a layer overlap, as a share of the image's short side.
        crop_n_points_downscale_factor: layer i has points_per_side / factor**i points a side in each crop.
        point_grids: grids of (x, y) in 0 to 1, one a layer, in place of ``points_per_side``.
        min_mask_region_area: holes and islands of fewer pixels are filled or removed; 0 leaves them.
        output_mode: what ``records`` holds: ``binary_mask``, ``uncompressed_rle`` or ``coco_rle``.

    Raises:
        TypeError: for a value that should be an integer, or a number, and is none.
        ValueError: for a value out of range.

    Example:
        >>> EverythingOptions(points_per_side=16).output_mode
        'binary_mask'
        >>> EverythingOptions(points_per_side=2.5)
        Traceback (most recent call last):
        TypeError: points_per_side must be an integer, got 2.5
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.5
    stability_score_thresh: float = 0.5
    stability_score_offset: float = 0.5
    box_nms_thresh: float = 0.7
    mask_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[NDArray[np.float64]] | None = None
    min_mask_region_area: int = 0
    output_mode: str = "binary_mask"

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ValueError("exactly one of points_per_side and point_grids must be given; set the other to None")
        self._check_types()
        if self.points_per_side is not None and self.points_per_side < 1:
            raise ValueError(f"points_per_side must be >= 1, got {self.points_per_side}")
        for name in ("points_per_batch", "crop_n_points_downscale_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("crop_n_layers", "min_mask_region_area", "stability_score_offset"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.crop_n_layers > MAX_CROP_LAYERS:
            raise ValueError(
                f"crop_n_layers must be <= {MAX_CROP_LAYERS}, got {self.crop_n_layers}: layer i has 4**i crops"
            )
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
        if self.output_mode not in _OUTPUT_MODES:
            raise ValueError(f"output_mode must be one of {', '.join(_OUTPUT_MODES)}, got {self.output_mode!r}")
        if self.point_grids is not None:
            self._check_grids(self.point_grids)

    def _check_types(self) -> None:
        """See that integers are integers and numbers numbers, of Python or NumPy; True and False are neither."""
        integers = _INTEGERS if self.points_per_side is None else ("points_per_side", *_INTEGERS)
        for name in (*integers, *_SHARES, "stability_score_offset"):
            value, whole = getattr(self, name), name in integers
            if not isinstance(value, Integral if whole else Real) or isinstance(value, bool):
                raise TypeError(f"{name} must be {'an integer' if whole else 'a number'}, got {value!r}")

    def _check_grids(self, grids: Sequence[NDArray[np.float64]]) -> None:
        """See that there is one grid a layer, and that each is points of 0 to 1."""
        import numpy as np

        if len(grids) != self.crop_n_layers + 1:
            raise ValueError(
                f"point_grids must hold one grid a layer, {self.crop_n_layers + 1} of them, got {len(grids)}"
            )
        for grid in map(np.asarray, grids):
            if grid.ndim != 2 or grid.shape[1] != 2 or not len(grid):
                raise ValueError(f"a point grid must be (n, 2) points (x, y), n >= 1, got shape {grid.shape}")
            if not ((grid >= 0) & (grid <= 1)).all():
                raise ValueError(f"a point grid must hold points of 0 to 1, got {grid.min():g} to {grid.max():g}")
