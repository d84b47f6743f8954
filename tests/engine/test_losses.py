"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from linocut.engine.losses import dice, mask_loss, normalized_focal, true_iou


def grid(*values: float) -> Tensor:
    """One mask of one row."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)


ONES = grid(1, 1)
LOG3 = math.log(3)  # the logit of 3/4


def test_focal_is_cross_entropy_weighted_by_the_error_squared_with_mean_weight_one() -> None:
    # p = 3/4 and 1/2 for a target of 1: errors 1/4 and 1/2, so the weights 1/16 and 1/4 become 2/5 and 8/5
    loss = normalized_focal(grid(LOG3, 0), grid(1, 1), ONES)
    expected = (2 / 5 * -math.log(3 / 4) + 8 / 5 * -math.log(1 / 2)) / 2
    assert loss.item() == pytest.approx(expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    loss = normalized_focal(grid(LOG3, 0), grid(0, 1), ONES, gamma=0.0)
    assert loss.item() == pytest.approx((-math.log(1 / 4) - math.log(1 / 2)) / 2)


def test_the_normaliser_is_a_constant_to_the_gradient() -> None:
    logits, target = grid(LOG3, 0.5, -1), grid(1, 0, 0)
    moving = logits.clone().requires_grad_()
    normalized_focal(moving, target, torch.ones_like(target)).sum().backward()
    p = torch.sigmoid(logits)
    weight = (p - target).abs() ** 2
    # d(cross-entropy)/d(logit) = p − target, times the weights as numbers
    expected = weight / weight.mean() * (p - target) / 3
    torch.testing.assert_close(moving.grad, expected, rtol=1e-6, atol=1e-9)


def test_a_mask_that_is_right_costs_nothing() -> None:
    logits, target = grid(40, -40), grid(1, 0)
    assert mask_loss(logits, target, ONES).item() == pytest.approx(0, abs=1e-6)


def test_dice_by_hand() -> None:
    # |A| = 3/4 + 1/2, |B| = 1, overlap 3/4
    loss = dice(grid(LOG3, 0), grid(1, 0), ONES)
    assert loss.item() == pytest.approx(1 - (2 * 3 / 4 + 1) / (5 / 4 + 1 + 1))


def test_an_empty_mask_of_an_empty_target_is_right() -> None:
    assert dice(grid(-40, -40), grid(0, 0), ONES).item() == pytest.approx(0, abs=1e-9)


def test_mask_loss_is_the_sum() -> None:
    arguments = grid(0.3, -2), grid(1, 0.5), grid(1, 0.5)
    expected = normalized_focal(*arguments) + dice(*arguments)
    torch.testing.assert_close(mask_loss(*arguments), expected)


@pytest.mark.parametrize("loss", [normalized_focal, dice, mask_loss])
def test_what_is_not_known_does_not_count(loss: object) -> None:
    assert callable(loss)
    weight = grid(1, 1, 0)
    one = loss(grid(0.3, -1, 5), grid(1, 0, 0), weight)
    other = loss(grid(0.3, -1, -7), grid(1, 0, 1), weight)
    short = loss(grid(0.3, -1), grid(1, 0), grid(1, 1))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, short)


@pytest.mark.parametrize("loss", [normalized_focal, dice, mask_loss])
def test_nothing_known_is_no_error_and_no_gradient(loss: object) -> None:
    assert callable(loss)
    logits = grid(0.3, -1).requires_grad_()
    value = loss(logits, grid(1, 0), grid(0, 0))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert not logits.grad.any()


def test_losses_are_one_number_a_mask() -> None:
    logits, target = torch.randn(3, 4, 5), torch.rand(3, 4, 5).round()
    weight = torch.ones(3, 4, 5)
    together = mask_loss(logits, target, weight)
    assert together.shape == (3,)
    for index in range(3):
        one = slice(index, index + 1)
        torch.testing.assert_close(together[one], mask_loss(logits[one], target[one], weight[one]))


def test_true_iou_by_hand() -> None:
    nothing_outside = torch.zeros(1, dtype=torch.float64)
    assert true_iou(grid(1, 1, -1), grid(1, 0, 1), grid(1, 1, 1), nothing_outside).item() == pytest.approx(1 / 3)
    assert true_iou(grid(1, -1), grid(1, 0), ONES, nothing_outside).item() == 1
    assert true_iou(grid(-1, -1), grid(1, 0), ONES, nothing_outside).item() == 0
    # half covered cells count half: overlap 1/2 of a union of 1
    assert true_iou(grid(1, -1), grid(0.5, 0), ONES, nothing_outside).item() == pytest.approx(0.5)


def test_what_lies_outside_the_window_is_missed() -> None:
    outside = torch.tensor([3.0], dtype=torch.float64)
    assert true_iou(grid(1, -1), grid(1, 0), ONES, outside).item() == pytest.approx(1 / 4)


def test_true_iou_leaves_out_what_is_not_known() -> None:
    nothing_outside = torch.zeros(1, dtype=torch.float64)
    assert true_iou(grid(1, 1), grid(1, 0), grid(1, 0), nothing_outside).item() == 1


def test_true_iou_of_nothing_is_zero() -> None:
    assert true_iou(grid(-1, -1), grid(0, 0), ONES, torch.zeros(1, dtype=torch.float64)).item() == 0
