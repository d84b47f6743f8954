"""Losses: of promptable segmentation, one number a mask, so that the best of several can be chosen; and of classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
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


def class_weights(pixels: Int64[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """Weights of the cross-entropy that lift rare classes, 1 / ln(1.1 + share), scaled to the mean 1 over pixels.

    The form is ENet's (Paszke et al., 2016, section 5.2, with 1.02 where we take 1.1: weights between 1.3 and 10.5).

    Args:
        pixels: how many pixels each class has.
    """
    share = pixels / pixels.sum()
    weights = 1 / torch.log(1.1 + share)
    return weights / (weights * share).sum()


def semantic_loss(
    logits: Float[Tensor, "b classes h w"], target: Int64[Tensor, "b h w"], weights: Float[Tensor, " classes"]
) -> Float[Tensor, ""]:
    """Weighted cross-entropy plus one minus the mean soft IoU of the classes that are there.

    The soft IoU of a class, Σ p·t / Σ (p + t − p·t) over the pixels of the batch, is what mean IoU measures with p in
    place of the decision (Rahman & Wang, *Optimizing Intersection-over-Union*, ISVC 2016).

    Args:
        logits: one a class.
        target: class indices; negative ones are left out.
        weights: of the classes, in the cross-entropy.
    """
    known = target >= 0
    if not known.any():
        return logits.sum() * 0
    entropy = functional.cross_entropy(logits, target.where(known, -100), weights)
    soft = logits.softmax(1) * known[:, None]
    truth = functional.one_hot(target.clamp_min(0), logits.shape[1]).permute(0, 3, 1, 2) * known[:, None]
    overlap, either = (soft * truth).sum((0, 2, 3)), soft.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    there = truth.amax((0, 2, 3)) > 0
    iou = overlap / (either - overlap).clamp_min(_EPSILON)
    return entropy + 1 - iou[there].mean()
