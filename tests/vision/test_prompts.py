"""Prompts: what is refused, what order means, and how masks move between windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch

from linocut.vision.decoder import GRID
from linocut.vision.prompts import GivenMask, Prompt, extents, to_window, transfer
from linocut.vision.windows import Window

SIZE = (300, 400)


@dataclass(frozen=True)
class Frame:
    """A square of any side."""

    side: int
    x: int = 0
    y: int = 0


def test_of_reads_arrays() -> None:
    prompt = Prompt.of(np.array([[1, 2], [3.5, 4]]), [1, 0], box=[[5, 6, 7, 8]], mask=np.eye(3, dtype=np.uint8))
    assert prompt.points == ((1.0, 2.0), (3.5, 4.0))
    assert prompt.labels == (True, False)
    assert prompt.box == (5.0, 6.0, 7.0, 8.0)
    assert prompt.mask is not None
    np.testing.assert_array_equal(prompt.mask.array, np.eye(3, dtype=bool))
    assert Prompt.of(mask=prompt.mask).mask is prompt.mask
    assert prompt.positive == [(1.0, 2.0)]


def test_points_without_labels_are_positive() -> None:
    assert Prompt.of([[1, 2], [3, 4]]).labels == (True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": [1, 2]}, r"points must have shape \(n, 2\) as x, y, got \(2,\)"),
        ({"points": [[1, 2, 3]]}, r"got \(1, 3\)"),
        ({"points": [[1, math.nan]]}, "points must be finite"),
        ({"points": [[1, 2]], "labels": [2]}, "labels must be one 1"),
        ({"points": [[1, 2]], "labels": [1, 1]}, "labels must be one 1"),
        ({"labels": [1]}, "labels must be one 1"),
        ({"box": [1, 2, 3]}, "box must be x0, y0, x1, y1, got 3 numbers"),
        ({"box": [5, 5, 5, 9]}, "x0 < x1"),
        ({"box": [9, 5, 5, 9]}, "x0 < x1"),
        ({"box": [0, 0, math.inf, 9]}, "finite"),
        ({"mask": np.ones((1, 3, 3), bool)}, r"mask must have shape \(H, W\), got \(1, 3, 3\)"),
    ],
)
def test_of_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompt.of(**arguments)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(), "needs a positive point, a box or a mask, got nothing"),
        (Prompt(((1, 1),), (False,)), "got only negative points"),
        (Prompt.of(mask=np.zeros(SIZE, bool)), "got an empty mask"),
        (Prompt(((400.5, 1),), (True,)), r"point \(400.5, 1\) lies outside the image, which is 400 x 300 pixels"),
        (Prompt(((1, -0.5),), (True,)), "outside the image"),
        (Prompt(((1, 1), (1, 301)), (True, False)), "outside the image"),
        (Prompt(((math.nan, 1),), (True,)), "outside the image"),
        (Prompt(box=(401, 0, 500, 9)), "touch the image, which is 400 x 300 pixels"),
        (Prompt(box=(5, 5, 5, 9)), r"box \(5, 5, 5, 9\) must have x0 < x1 and y0 < y1"),
        (Prompt(box=(5, 5, math.nan, 9)), "finite"),
        (Prompt.of(mask=np.ones((400, 300), bool)), r"mask must have the image's shape \(300, 400\), got \(400, 300\)"),
    ],
)
def test_check_refuses(prompt: Prompt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prompt.check(SIZE)


def test_every_point_has_a_label() -> None:
    for points, labels in ((((5.0, 5.0),), ()), ((), (True,))):
        with pytest.raises(ValueError, match=f"one label a point, got {len(points)} points and {len(labels)} labels"):
            Prompt(points, labels)


def test_an_array_is_no_mask_of_a_prompt_before_it_is_made_one() -> None:
    with pytest.raises(TypeError, match=r"mask must be a GivenMask, got ndarray; Prompt.of\(mask=array\) makes one"):
        Prompt(mask=np.ones(SIZE, bool))


def test_what_names_an_object() -> None:
    empty, full = GivenMask.of(np.zeros(SIZE, bool)), GivenMask.of(np.ones(SIZE, bool))
    for prompt in (Prompt(((1, 1),), (True,)), Prompt(box=(0, 0, 9, 9)), Prompt(((1, 1),), (False,), mask=full)):
        assert prompt.names_object
    for prompt in (Prompt(), Prompt(((1, 1),), (False,)), Prompt(mask=empty), Prompt(((1, 1),), (False,), mask=empty)):
        assert not prompt.names_object


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_given_mask_is_its_smallest_rectangle(dtype: type) -> None:
    array = np.zeros(SIZE, dtype)
    array[100:140, 30:90] = 1
    array[120, 91] = dtype(3)
    given = GivenMask.of(array)
    assert (given.x, given.y, given.pixels.shape, given.size) == (30, 100, (40, 62), SIZE)
    np.testing.assert_array_equal(given.array, array != 0)
    # of a part of the image, wherever that is cut off
    part = GivenMask.of(array[90:150, 20:100], offset=(20, 90), shape=SIZE)
    assert (part.x, part.y, part.size) == (30, 100, SIZE)
    np.testing.assert_array_equal(part.pixels, given.pixels)


def test_an_empty_mask_is_given_too() -> None:
    for given in (GivenMask.of(np.zeros(SIZE, bool)), GivenMask.of(np.zeros((0, 0), bool), shape=SIZE)):
        assert (given.pixels.shape, given.size) == ((0, 0), SIZE)
        assert not given.array.any()


@pytest.mark.parametrize("value", [0.5, 1.0, math.nan])
def test_probabilities_are_no_mask(value: float) -> None:
    """Cast to bool, all above 0 would be foreground, and NaN."""
    with pytest.raises(TypeError, match=r"bools or integers, got float32; threshold first, as in mask > 0.5"):
        Prompt.of(mask=np.full(SIZE, value, np.float32))


def test_a_part_of_a_mask_must_lie_in_the_image() -> None:
    for offset in ((-1, 0), (0, -1), (396, 0), (0, 296)):
        with pytest.raises(ValueError, match=r"at offset .* must lie inside shape \(300, 400\)"):
            GivenMask.of(np.ones((5, 5), bool), offset=offset, shape=SIZE)


@pytest.mark.parametrize(
    ("box", "level"),
    [((33, 41, 128, 140), -1), ((77, 101, 270, 300), 0), ((3, 5, 399, 299), 1), ((300, 205, 400, 300), -1)],
    ids=str,
)
def test_a_given_mask_becomes_the_share_of_every_cell(box: tuple[int, int, int, int], level: int) -> None:
    x0, y0, x1, y1 = box
    canvas = np.zeros((1024, 1024), np.float32)
    canvas[y0:y1, x0:x1] = np.random.default_rng(0).random((y1 - y0, x1 - x0)) < 0.4
    given = GivenMask.of(canvas[: SIZE[0], : SIZE[1]] > 0)
    window = given.window
    assert window.level == level
    part = canvas[window.y : window.y + window.side, window.x : window.x + window.side]
    expected = cv2.resize(part, (GRID, GRID), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(given.cover, expected, rtol=0, atol=1e-6)


def test_a_given_mask_is_looked_through_once_for_all_clicks() -> None:
    given = GivenMask.of(np.ones(SIZE, bool))
    cover = given.cover
    for x in (5, 50):
        checked = Prompt(((x, 5),), (True,), mask=given).check(SIZE)
        assert checked.mask is not None
        assert checked.mask.cover is cover


def test_check_puts_points_in_one_order() -> None:
    points, labels = ((5.0, 1.0), (1.0, 9.0), (1.0, 2.0), (1.0, 2.0)), (True, False, True, False)
    results = set()
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        checked = Prompt(tuple(points[i] for i in order), tuple(labels[i] for i in order)).check(SIZE)
        results.add((checked.points, checked.labels))
    assert len(results) == 1
    ((ordered, signs),) = results
    assert sorted(zip(points, labels, strict=True)) == list(zip(ordered, signs, strict=True))


def test_check_clips_a_box_to_the_image() -> None:
    assert Prompt(box=(-10, -5, 500, 200)).check(SIZE).box == (0.0, 0.0, 400.0, 200.0)


def test_an_empty_mask_beside_a_click_says_nothing() -> None:
    checked = Prompt.of([(1, 1)], mask=np.zeros(SIZE, bool)).check(SIZE)
    assert checked.mask is None
    assert checked.ambiguous


def test_only_a_single_click_is_ambiguous() -> None:
    click = ((1.0, 1.0),)
    assert Prompt(click, (True,)).ambiguous
    assert not Prompt(click * 2, (True, False)).ambiguous
    assert not Prompt(click, (True,), box=(0, 0, 9, 9)).ambiguous
    assert not Prompt.of(click, mask=np.ones(SIZE, bool)).ambiguous
    assert not Prompt(box=(0, 0, 9, 9)).ambiguous


def test_to_window_gives_coordinates_of_the_unit_square() -> None:
    prompts = [Prompt(((64, 32), (16, 144)), (True, False), box=(16, 16, 80, 48)), Prompt(((250, 250),), (True,))]
    window = to_window(prompts, [Window(-1, 16, 16), Window(0, 144, 48)], [SIZE, SIZE])
    np.testing.assert_allclose(window.points[0], [[48 / 128, 16 / 128], [0, 1]])
    np.testing.assert_allclose(window.points[1, 0], [106 / 256, 202 / 256])
    assert window.labels.tolist() == [[1, 0], [1, -1]]
    np.testing.assert_allclose(window.boxes, [[0, 0, 64 / 128, 32 / 128], [0, 0, 0, 0]])
    np.testing.assert_allclose(window.inside[1], [-144 / 256, -48 / 256, 1.0, 252 / 256])
    assert window.zoomed.tolist() == [1.0, 0.0]
    assert not window.mask.any()


def test_padding_leaves_no_trace_in_the_maps() -> None:
    from linocut.vision.decoder import discs

    window = to_window(
        [Prompt(((1, 1),), (True,)), Prompt(((1, 1), (9, 9)), (True, True))], [Window(0, 0, 0)] * 2, [SIZE] * 2
    )
    alone = to_window([Prompt(((1, 1),), (True,))], [Window(0, 0, 0)], [SIZE])
    assert torch.equal(discs(window, GRID)[:1], discs(alone, GRID))


def test_to_window_hands_the_mask_on_as_minus_one_to_one() -> None:
    mask = torch.rand(1, 1, GRID, GRID)
    window = to_window([Prompt(((1, 1),), (True,))], [Window(0, 0, 0)], [SIZE], mask)
    assert torch.equal(window.mask, mask * 2 - 1)


def paint(window: Window | Frame, cells: int) -> torch.Tensor:
    """A rectangle of image pixels 96 to 160, 64 to 192 as seen through a window whose cells divide it."""
    step = window.side / cells
    centers = np.arange(cells) * step + step / 2
    columns, rows = centers + window.x, centers + window.y
    inside = ((rows > 64) & (rows < 192))[:, None] & ((columns > 96) & (columns < 160))[None]
    return torch.from_numpy(inside.astype(np.float32))[None, None]


@pytest.mark.parametrize("source", [Window(0, 0, 0), Window(0, 32, 48), Window(1, 0, 0), Window(2, -64, -128)], ids=str)
@pytest.mark.parametrize("target", [Window(0, 16, 0), Window(1, 32, 32), Window(2, 0, -64)], ids=str)
def test_transfer_agrees_with_painting_in_the_target(source: Window, target: Window) -> None:
    moved = transfer(paint(source, 256), [source], [target])
    direct = paint(target, GRID)
    # both grids divide the rectangle, so only the cells at its edge may differ, by the interpolation
    assert moved.shape == direct.shape
    edge = torch.nn.functional.max_pool2d(direct, 3, 1, 1) != -torch.nn.functional.max_pool2d(-direct, 3, 1, 1)
    assert (moved - direct)[~edge].abs().max() < 1e-5
    # the mass is kept: the area in pixels
    assert float(moved.sum()) * (target.side / GRID) ** 2 == pytest.approx(64 * 128, rel=0.02)


def test_transfer_to_the_same_window_changes_nothing() -> None:
    mask = torch.rand(1, 1, GRID, GRID)
    torch.testing.assert_close(transfer(mask, [Window(1, 32, 64)], [Window(1, 32, 64)]), mask, rtol=0, atol=1e-5)


def test_transfer_sees_nothing_outside_the_source() -> None:
    moved = transfer(torch.ones(1, 1, GRID, GRID), [Window(0, 0, 0)], [Window(0, 128, 0)])
    assert torch.equal(moved[..., :31], torch.ones(1, 1, GRID, 31))
    assert not moved[..., 33:].any()


@pytest.mark.parametrize("level", range(6, 11))
def test_transfer_reaches_any_coarseness(level: int) -> None:
    # from the finest window into that of a huge image, where one cell is larger than all of the source
    target = Window(level, 0, 0)
    moved = transfer(torch.ones(1, 1, GRID, GRID), [Window(-1, 0, 0)], [target])
    cell = target.side // GRID
    assert float(moved[0, 0, 0, 0]) == pytest.approx(min(1.0, (128 / cell) ** 2), rel=1e-5)
    assert float(moved.sum()) * cell**2 == pytest.approx(128**2, rel=1e-5)


def test_transfer_into_a_square_of_any_side() -> None:
    # 256 cells of 4 pixels into 64 cells of 18.75: four are averaged at a time, which does not divide 256 / 64 evenly
    moved = transfer(paint(Window(2, 0, 0), 256), [Window(2, 0, 0)], [Frame(1200)])
    direct = paint(Frame(1200), GRID)
    assert float(((moved > 0.5) != (direct > 0.5)).sum()) <= 4
    assert float(moved.sum()) * (1200 / GRID) ** 2 == pytest.approx(64 * 128, rel=0.05)


def test_a_rim_of_padding_does_not_shift_the_mask() -> None:
    # 64 cells averaged by three: 64 is not a multiple of three
    source, target = Window(0, 0, 0), Frame(48 * GRID // 4)
    mask = torch.zeros(1, 1, GRID, GRID)
    mask[..., 24:48, 24:48] = 1
    moved = transfer(mask, [source], [target])
    ys, xs = torch.nonzero(moved[0, 0] > 0.5, as_tuple=True)
    assert (xs.min().item(), xs.max().item(), ys.min().item(), ys.max().item()) == (8, 15, 8, 15)


def test_extents_are_boxes_in_image_pixels() -> None:
    masks = torch.zeros(3, GRID, GRID)
    masks[0, 3:5, 10:20] = 0.6
    masks[1, 3:5, 10:20] = 0.5
    masks[2] = 1
    windows = [Window(0, 32, 64), Window(0, 0, 0), Window(-1, 16, 0)]
    assert extents(masks, windows) == [(32 + 40, 64 + 12, 32 + 80, 64 + 20), None, (16, 0, 144, 128)]
