"""The pictures show the sets they are given."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from torch import nn

from linocut.vision import effective_receptive_field, receptive_field
from linocut.vision.fields.algebra import window
from linocut.vision.fields.plots import draw_effective, draw_growth, draw_taps


def test_taps_are_drawn_and_counted() -> None:
    axes = Figure().subplots()
    draw_taps(axes, receptive_field(nn.Conv2d(1, 1, 3, dilation=2)), "rate 2")
    assert axes.get_title() == "rate 2: 36% of 5 × 5"  # 9 of 25
    assert axes.collections[0].get_array().sum() == 9


def test_the_box_is_the_theoretical_field() -> None:
    net, axes = nn.Conv2d(1, 1, 3), Figure().subplots()
    draw_effective(axes, effective_receptive_field(net, (1, 9, 9), at=(2, 4)), receptive_field(net, (1, 9, 9)))
    (box,) = axes.patches
    assert box.get_xy().min(0).tolist() == [3.5, 1.5]
    assert box.get_xy().max(0).tolist() == [6.5, 4.5]


def test_growth_joins_every_sample_to_those_it_reads() -> None:
    axes = Figure().subplots()
    draw_growth(axes, [window(2, padding=1), window(2, dilation=2, padding=2)])
    assert axes.get_title() == "2 layers: 4 samples"
    assert len(axes.lines) == 2 + 2 * 2


def test_what_is_no_map_is_an_error() -> None:
    line, axes = receptive_field(nn.Conv1d(1, 1, 3), (1, 9)), Figure().subplots()
    with pytest.raises(ValueError, match="two axes, got 1"):
        draw_taps(axes, line, "")
    with pytest.raises(ValueError, match="of a map, got 1 axes"):
        draw_effective(axes, effective_receptive_field(nn.Conv1d(1, 1, 3), (1, 9)), line)
