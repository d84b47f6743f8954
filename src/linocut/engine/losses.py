"""Losses of promptable segmentation, one number a mask, so that the best of several can be chosen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-6


def normalized_focal(
    logits: Float[Tensor, "n h w"], target: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"], gamma: float = 2.0
) -> Float[Tensor, " n"]:
    """Focal loss scaled so that its weights average one (Sofiiuk et al., *AdaptIS*, ICCV 2019).

    The normaliser is a constant to the gradient: differentiating through it would cancel the loss's own gradient.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    with torch.no_grad():
        hard = (torch.sigmoid(logits) - target).abs() ** gamma * weight
        hard = hard * weight.sum((1, 2), keepdim=True) / hard.sum((1, 2), keepdim=True).clamp_min(_EPSILON)
    return (hard * entropy).sum((1, 2)) / weight.sum((1, 2)).clamp_min(_EPSILON)


def dice(
    logits: Float[Tensor, "n h w"], target: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """1 − 2|A∩B| / (|A| + |B|) with soft sets (Milletari et al., *V-Net*, 3DV 2016)."""
    soft = torch.sigmoid(logits) * weight
    target = target * weight
    overlap = (soft * target).sum((1, 2))
    return 1 - (2 * overlap + 1) / (soft.sum((1, 2)) + target.sum((1, 2)) + 1)


def mask_loss(
    logits: Float[Tensor, "n h w"], target: Float[Tensor, "n h w"], weight: Float[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Normalised focal plus Dice."""
    return normalized_focal(logits, target, weight) + dice(logits, target, weight)


def true_iou(
    logits: Float[Tensor, "n h w"],
    target: Float[Tensor, "n h w"],
    weight: Float[Tensor, "n h w"],
    outside: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """IoU of the thresholded masks with the whole object.

    Args:
        logits: the masks, cut at 0.
        target: coverage of every cell by the object, 0 to 1.
        weight: 0 where nothing is known.
        outside: the object's area outside the window, in cells.
    """
    mask = (logits > 0).float() * weight
    target = target * weight
    overlap = (mask * target).sum((1, 2))
    return overlap / (mask.sum((1, 2)) + target.sum((1, 2)) + outside - overlap).clamp_min(_EPSILON)
