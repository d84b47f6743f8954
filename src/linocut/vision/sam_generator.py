"""Segment Anything's automatic mask generator over Linocut; its other names are in :mod:`linocut.vision.sam`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.vision.everything import segment_everything
from linocut.vision.options import EverythingOptions
from linocut.vision.sam import SamPredictor
from linocut.vision.segmenter import Segmenter


class SamAutomaticMaskGenerator:
    """The official ``SamAutomaticMaskGenerator`` over :meth:`Segmenter.everything`.

    The arguments have SAM's names and order, and are described in :class:`linocut.vision.options.EverythingOptions`.
    SAM's defaults hold but for three: ``pred_iou_thresh``, ``stability_score_thresh`` and ``stability_score_offset``
    are Linocut's own (SAM: 0.88, 0.95, 1.0), because its scores are calibrated differently.

    Args:
        model: a segmenter.
        points_per_side: points of the grid along each side; None takes ``point_grids``.
        points_per_batch: prompts decoded at once.
        pred_iou_thresh: least predicted IoU of a mask, 0 to 1.
        stability_score_thresh: least stability score, 0 to 1.
        stability_score_offset: how far the cut is moved for it, in units of the mask's mean logit inside it.
        box_nms_thresh: box IoU above which the mask with the lower score goes.
        crop_n_layers: further layers of grids in crops of the image.
        crop_nms_thresh: box IoU above which the mask of the coarser layer goes.
        crop_overlap_ratio: how much the crops of a layer overlap, as a share of the image's short side.
        crop_n_points_downscale_factor: layer i has points_per_side / factor**i points a side in each crop.
        point_grids: grids of (x, y) in 0 to 1, one a layer, in place of ``points_per_side``.
        min_mask_region_area: holes and islands of fewer pixels are filled or removed.
        output_mode: ``binary_mask``, ``uncompressed_rle`` or ``coco_rle``.
        mask_nms_thresh: Linocut's own: mask IoU above which the mask with the lower score goes.

    Attributes:
        options: all of them but the model.
        predictor: a :class:`SamPredictor` of the model.

    Raises:
        TypeError: for an option that does not exist, or one that should be a number and is none.
        ValueError: for a value out of range.

    Example:
        >>> import linocut
        >>> generator = linocut.SamAutomaticMaskGenerator(linocut.load(), points_per_side=2, pred_iou_thresh=0.0)
        >>> records = generator.generate(np.zeros((96, 128, 3), np.uint8))
        >>> all(record["segmentation"].shape == (96, 128) for record in records)
        True
    """

    def __init__(
        self,
        model: Segmenter,
        points_per_side: int | None = EverythingOptions.points_per_side,
        points_per_batch: int = EverythingOptions.points_per_batch,
        pred_iou_thresh: float = EverythingOptions.pred_iou_thresh,
        stability_score_thresh: float = EverythingOptions.stability_score_thresh,
        stability_score_offset: float = EverythingOptions.stability_score_offset,
        box_nms_thresh: float = EverythingOptions.box_nms_thresh,
        crop_n_layers: int = EverythingOptions.crop_n_layers,
        crop_nms_thresh: float = EverythingOptions.crop_nms_thresh,
        crop_overlap_ratio: float = EverythingOptions.crop_overlap_ratio,
        crop_n_points_downscale_factor: int = EverythingOptions.crop_n_points_downscale_factor,
        point_grids: Sequence[NDArray[np.float64]] | None = None,
        min_mask_region_area: int = EverythingOptions.min_mask_region_area,
        output_mode: str = EverythingOptions.output_mode,
        *,
        mask_nms_thresh: float = EverythingOptions.mask_nms_thresh,
    ) -> None:
        self.predictor = SamPredictor(model)
        self.options = EverythingOptions(
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            box_nms_thresh=box_nms_thresh,
            mask_nms_thresh=mask_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            min_mask_region_area=min_mask_region_area,
            output_mode=output_mode,
        )

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Masks of everything in an image.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            One record a mask, largest first: ``segmentation``, ``area``, ``bbox`` (x, y, width, height),
            ``predicted_iou``, ``point_coords``, ``stability_score`` and ``crop_box``.

        Raises:
            ValueError: for another shape or dtype.
        """
        return segment_everything(self.predictor.model, image, self.options).records()
