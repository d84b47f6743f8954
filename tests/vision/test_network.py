"""Where the second look looks."""

from __future__ import annotations

import pytest
import torch

from linocut.vision.network import channels_last, second_window
from linocut.vision.prompts import Prompt
from linocut.vision.segmenter import Segmenter
from linocut.vision.windows import Window, top_level

SIZE = (1000, 2000)


def holds(window: Window, x: float, y: float) -> bool:
    return window.x <= x <= window.x + window.side and window.y <= y <= window.y + window.side


def test_it_holds_what_was_found() -> None:
    window = second_window(Prompt(((500.0, 500.0),), (True,)), (450.0, 460.0, 530.0, 520.0), SIZE)
    assert window.level == -1
    assert holds(window, 450, 460)
    assert holds(window, 530, 520)


def test_it_holds_the_box_and_every_positive_point_beside_it() -> None:
    prompt = Prompt(((500.0, 500.0), (900.0, 500.0)), (True, True), box=(300.0, 300.0, 320.0, 320.0))
    window = second_window(prompt, (490.0, 490.0, 510.0, 510.0), SIZE)
    assert window.level == 2
    assert all(holds(window, x, y) for x, y in ((500, 500), (900, 500), (300, 300), (320, 320), (490, 510)))


def test_a_negative_point_does_not_widen_it() -> None:
    prompt = Prompt(((500.0, 500.0), (1900.0, 900.0)), (True, False))
    assert second_window(prompt, (480.0, 480.0, 520.0, 520.0), SIZE).level == -1


def test_where_nothing_was_found_it_stays_with_the_prompt() -> None:
    assert second_window(Prompt(((500.0, 500.0),), (True,)), None, SIZE).level == -1
    assert second_window(Prompt(box=(300.0, 300.0, 700.0, 400.0)), None, SIZE).level == 1


def test_without_anything_it_sees_the_whole_image() -> None:
    assert second_window(Prompt(), None, SIZE) == Window(top_level(SIZE), 0, 0)


def test_channels_last_changes_the_layout_and_nothing_else(untrained: Segmenter) -> None:
    before = {name: value.clone() for name, value in untrained.net.state_dict().items()}
    net = channels_last(untrained.net)
    assert net is untrained.net
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
        if parameter.ndim == 4:
            assert parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("level", [-1, 0, 1])
def test_a_second_look_sees_only_its_own_window(untrained: Segmenter, level: int) -> None:
    image = torch.randint(0, 256, (512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    octaves = untrained.encode(image).octaves
    source = Window(level, 0, 0)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:30, 20:30] = 1
    look = untrained.net.second_look(octaves, [Prompt(((1.0, 1.0),), (True,))], mask, [source], [0], [(512, 512)])
    assert look.windows == [second_window(Prompt(((1.0, 1.0),), (True,)), _extent(source), (512, 512))]
    assert look.logits.shape == (1, 256, 256)
    assert look.iou.shape == (1,)


def _extent(window: Window) -> tuple[float, float, float, float]:
    cell = window.side / 64
    return window.x + 20 * cell, window.y + 20 * cell, window.x + 30 * cell, window.y + 30 * cell
