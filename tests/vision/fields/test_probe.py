"""Marking inputs with NaN finds what the trace finds, and says so where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from linocut.vision import FieldError, GlobalOperationError, receptive_field

NETS = {
    "strided": nn.Sequential(nn.Conv2d(2, 2, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1)),
    "dilated": nn.Sequential(nn.Conv2d(2, 2, 3, dilation=2), nn.Conv2d(2, 2, 3, dilation=2)),
    "transposed": nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ConvTranspose2d(2, 2, 3, 2, 1)),
    "nearest": nn.Sequential(nn.Upsample(scale_factor=1.5), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
}


@pytest.mark.parametrize("name", NETS)
def test_probing_agrees_with_tracing(name: str) -> None:
    probed = receptive_field(NETS[name], (2, 32, 40), method="probe")
    assert probed == receptive_field(NETS[name], (2, 32, 40))


class Neighbour(nn.Module):
    """Has no rule: rows by index."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, torch.arange(x.shape[2]).clamp(max=x.shape[2] - 2) + 1]


def test_what_has_no_rule_is_measured() -> None:
    field = receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Neighbour()), (1, 12, 12), method="probe")
    assert field.input_range(4) == ((4, 6), (3, 5))
    assert field.axes[0].input_range(0) == (0, 2)
    assert field.input_range(11)[0] == (10, 11)


def test_what_is_global_is_an_error() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.GroupNorm(1, 1))
    with pytest.raises(GlobalOperationError, match="whole of axis 0 of the input, 12 long"):
        receptive_field(net, (1, 12, 12), method="probe")


def test_an_image_that_is_too_small_is_an_error() -> None:
    with pytest.raises(FieldError, match="give a larger input_size"):
        receptive_field(nn.Conv1d(1, 1, 9), (1, 12), method="probe")


class Hidden(nn.Module):
    """Turns NaN into a number, so that what it reads does not show."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(x.roll(1, 2)) + x


def test_a_network_that_hides_nan_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(FieldError, match="an operation hides NaN"):
        receptive_field(Hidden(), (1, 12, 12), method="probe")


def test_statistics_of_the_module_are_not_touched() -> None:
    norm = nn.BatchNorm2d(1)
    with pytest.raises(GlobalOperationError):
        receptive_field(norm, (1, 8, 8), method="probe")
    assert norm.running_mean is not None
    assert norm.running_mean.item() == 0


def test_arguments() -> None:
    with pytest.raises(FieldError, match="needs input_size"):
        receptive_field(nn.Conv1d(1, 1, 3), method="probe")
    with pytest.raises(ValueError, match="must be 'trace' or 'probe', got 'guess'"):
        receptive_field(nn.Conv1d(1, 1, 3), method="guess")
