"""Windows: where they lie, which are looked through, and that cutting them out is plain slicing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from linocut.vision.encoder import BASE, MULTIPLE, Octave, octave_count
from linocut.vision.windows import (
    FINEST,
    MAX_WINDOWS,
    Window,
    WindowFeatures,
    _Slices,
    cut,
    fit,
    gather,
    level_for,
    place,
    plan,
    top_level,
)

STRIDES = {"pixels": 1, "stride2": 2, "stride4": 4, "stride8": 8, "stride16": 16}
CHANNELS = {"pixels": 3, "stride2": 2, "stride4": 4, "stride8": 3, "stride16": 5}
SIZE = (300, 600)
MIXED = [
    Window(1, 64, 32),
    Window(-1, 16, 48),
    Window(0, 320, 0),
    Window(2, 0, 0),
    Window(-1, 560, 240),
    Window(0, 400, 160),
    Window(1, 0, 0),
]

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)


def pyramid(size: tuple[int, int], batch: int = 2, dtype: torch.dtype = torch.float64) -> list[Octave]:
    """Random features of the shapes that the encoder gives."""
    generator = torch.Generator().manual_seed(0)
    octaves = []
    for level in range(octave_count(*size)):
        padded = [math.ceil(extent / (MULTIPLE << level)) * MULTIPLE for extent in size]
        maps = {
            name: torch.randn(
                batch, CHANNELS[name], *(p // stride for p in padded), generator=generator, dtype=dtype
            ).contiguous(memory_format=torch.channels_last)
            for name, stride in STRIDES.items()
        }
        octaves.append(Octave(**maps))
    return octaves


def naive(octaves: Sequence[Octave], name: str, window: Window, image: int) -> Tensor:
    """One window of one map: pad a lot, slice, enlarge if the window is finer than the pixels."""
    stride, level = STRIDES[name], max(window.level, 0)
    source = getattr(octaves[level], name)[image]
    side, unit = window.side // (stride << level), stride << level
    rim = 1024 // unit
    x, y = window.x // unit + rim, window.y // unit + rim
    part = functional.pad(source, (rim,) * 4)[None, :, y : y + side, x : x + side]
    if window.level < 0:
        part = functional.interpolate(part, scale_factor=1 << -window.level, mode="bilinear", align_corners=False)
    return part[0]


@pytest.mark.parametrize(("level", "side"), [(-1, 128), (0, 256), (1, 512), (5, 8192)])
def test_a_level_up_doubles_the_side(level: int, side: int) -> None:
    assert Window(level, 0, 0).side == side


@given(sizes)
def test_the_top_window_covers_the_image(size: tuple[int, int]) -> None:
    top = top_level(size)
    window = place(top, (size[1] / 3, size[0] / 3), size)
    assert (window.x, window.y) == (0, 0)
    assert window.side >= max(size)
    assert top == 0 or Window(top - 1, 0, 0).side < max(size)


@given(sizes, st.data())
def test_a_window_lies_on_the_grid_and_around_its_centre(size: tuple[int, int], data: st.DataObject) -> None:
    level = data.draw(st.integers(FINEST, top_level(size)))
    center = data.draw(st.floats(0, size[1])), data.draw(st.floats(0, size[0]))
    window = place(level, center, size)
    step = 16 << max(level, 0)
    for start, middle, extent in ((window.x, center[0], size[1]), (window.y, center[1], size[0])):
        assert start % step == 0
        assert start >= 0
        # past the image only by less than a step, or where the image is smaller than the window
        assert start + window.side < extent + step or start == 0
        assert start <= middle <= start + window.side
        inside = step <= start and start + window.side <= extent - step
        assert not inside or abs(start + window.side / 2 - middle) <= step / 2


def test_a_window_at_the_border_moves_into_the_image() -> None:
    assert place(0, (0.0, 0.0), (1000, 1000)) == Window(0, 0, 0)
    assert place(0, (1000.0, 500.0), (1000, 1000)) == Window(0, 752, 368)
    assert place(1, (1000.0, 1000.0), (1000, 1000)) == Window(1, 512, 512)


@pytest.mark.parametrize(
    ("extent", "level"), [(0, -1), (102.4, -1), (103, 0), (204.8, 0), (205, 1), (819.2, 2), (820, 2), (5000, 2)]
)
def test_the_finest_level_with_a_margin_of_a_quarter(extent: float, level: int) -> None:
    assert level_for(extent, (1000, 700)) == level


@given(sizes, st.data())
def test_fit_holds_its_box(size: tuple[int, int], data: st.DataObject) -> None:
    xs = sorted(data.draw(st.tuples(st.floats(0, size[1]), st.floats(0, size[1]))))
    ys = sorted(data.draw(st.tuples(st.floats(0, size[0]), st.floats(0, size[0]))))
    window = fit((xs[0], ys[0], xs[1], ys[1]), size)
    assert window.x <= xs[0] <= xs[1] <= window.x + window.side
    assert window.y <= ys[0] <= ys[1] <= window.y + window.side


@given(sizes, st.data())
def test_a_plan_goes_from_fine_to_the_whole_image(size: tuple[int, int], data: st.DataObject) -> None:
    points = data.draw(st.lists(st.tuples(st.floats(0, size[1]), st.floats(0, size[0])), min_size=1, max_size=5))
    windows = plan(points, size)
    levels = [window.level for window in windows]
    assert 1 <= len(levels) <= MAX_WINDOWS
    assert levels == sorted(set(levels))
    assert levels[-1] == top_level(size)
    assert len(points) > 1 or levels[0] == FINEST
    for window in windows:
        assert all(
            window.x <= x <= window.x + window.side and window.y <= y <= window.y + window.side for x, y in points
        )


@pytest.mark.parametrize("side", [200, 1000, 10_000, 1_000_000])
def test_the_work_of_a_click_does_not_grow_with_the_image(side: int) -> None:
    assert len(plan([(side / 2, side / 2)], (side, side))) <= MAX_WINDOWS


@pytest.mark.parametrize("name", STRIDES)
def test_cutting_is_slicing(name: str) -> None:
    octaves = pyramid(SIZE)
    batch = [0, 1, 1, 0, 0, 1, 1]
    features = gather(cut(octaves, MIXED, batch))
    part = getattr(features, name)
    assert part.shape == (len(MIXED), CHANNELS[name], BASE // STRIDES[name], BASE // STRIDES[name])
    for row, window, image in zip(part, MIXED, batch, strict=True):
        torch.testing.assert_close(row, naive(octaves, name, window, image), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "window", [Window(0, -128, -64), Window(0, 512, 256), Window(-1, -16, 0), Window(1, -256, 128)], ids=str
)
def test_outside_the_image_there_is_nothing(window: Window) -> None:
    octaves = pyramid(SIZE)
    features = gather(cut(octaves, [window], [1]))
    for name in STRIDES:
        torch.testing.assert_close(getattr(features, name)[0], naive(octaves, name, window, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [Window(0, 2048, 0), Window(0, 0, -512), Window(-1, -256, -256)], ids=str)
def test_a_window_wholly_outside_is_empty(window: Window) -> None:
    features = gather(cut(pyramid(SIZE), [window], [0]))
    assert not any(getattr(features, name).any() for name in STRIDES)


def test_a_coarse_look_cuts_no_fine_features() -> None:
    octaves = pyramid(SIZE)
    coarse = gather(cut(octaves, MIXED, [0] * len(MIXED), fine=False), fine=False)
    whole = gather(cut(octaves, MIXED, [0] * len(MIXED)))
    assert coarse.pixels.numel() == coarse.stride2.numel() == 0
    for name in ("stride4", "stride8", "stride16"):
        assert torch.equal(getattr(coarse, name), getattr(whole, name))


def test_windows_of_mixed_levels_come_back_in_their_order() -> None:
    octaves = pyramid(SIZE)
    together = gather(cut(octaves, MIXED, [0] * len(MIXED)))
    for index, window in enumerate(MIXED):
        alone = gather(cut(octaves, [window], [0]))
        for name in STRIDES:
            assert torch.equal(getattr(together, name)[index], getattr(alone, name)[0])


def test_cut_groups_by_level() -> None:
    groups = cut(pyramid(SIZE), MIXED, [0] * len(MIXED))
    assert [indices for indices, _ in groups] == [[1, 4], [2, 5], [0, 6], [3]]
    assert all(isinstance(features, WindowFeatures) for _, features in groups)


def test_the_gradient_of_slices_agrees_with_finite_differences() -> None:
    source = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    corners = [(0, 1, 2), (1, -2, -1), (0, 3, 4), (0, 0, 2), (1, 9, 9)]
    assert torch.autograd.gradcheck(lambda x: _Slices.apply(x, 4, corners), source)


def test_gradients_of_overlapping_windows_add_up_as_autograd_s_own() -> None:
    batch = [0, 1, 1, 0, 0, 1, 1]
    gradients = []
    for ours in (True, False):
        octaves = pyramid(SIZE)
        leaves = [getattr(octave, f.name).requires_grad_() for octave in octaves for f in fields(Octave)]
        features = gather(cut(octaves, MIXED, batch)) if ours else None
        loss = torch.zeros((), dtype=torch.float64)
        for name in STRIDES:
            part = (
                getattr(features, name)
                if features is not None
                else torch.stack([naive(octaves, name, w, b) for w, b in zip(MIXED, batch, strict=True)])
            )
            weight = torch.linspace(-1, 1, part.numel(), dtype=torch.float64).reshape(part.shape)
            loss = loss + (part * weight).sum()
        loss.backward()
        gradients.append([leaf.grad for leaf in leaves])
    for slices, autograd in zip(*gradients, strict=True):
        torch.testing.assert_close(slices, autograd, rtol=0, atol=1e-9)


def test_cutting_is_the_same_with_and_without_gradient() -> None:
    octaves = pyramid(SIZE)
    plain = gather(cut(octaves, MIXED, [0] * len(MIXED)))
    for octave in octaves:
        for name in STRIDES:
            getattr(octave, name).requires_grad_()
    learning = gather(cut(octaves, MIXED, [0] * len(MIXED)))
    for name in STRIDES:
        assert torch.equal(getattr(plain, name), getattr(learning, name).detach())
