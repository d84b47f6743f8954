"""One step of simulated interaction: prompts that fit their objects, targets that fit their windows."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from linocut.engine import rounds
from linocut.engine.rounds import Target, _truth, _with_clicks, edge_weight, first_prompt, first_window, run_step, see
from linocut.engine.samples import Crop
from linocut.vision.decoder import Look
from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import FineLook, SegmenterNet
from linocut.vision.prompts import Prompt
from linocut.vision.windows import Window, fit, plan

Mask = NDArray[np.bool_]
SIZE = (200, 240)


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = SIZE) -> Mask:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


TARGET = Target(rectangle(60, 40, 140, 100), None, 0)


@pytest.fixture(scope="module")
def net() -> SegmenterNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SegmenterNet(EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1))


def crops(count: int = 2, *, ignore: Mask | None = None) -> list[Crop]:
    """Pictures of 64 pixels with two squares each."""
    made = []
    for index in range(count):
        image = rng(index).integers(0, 60, (64, 64, 3)).astype(np.uint8)
        squares = [rectangle(8, 8, 30, 30, (60, 64)), rectangle(34, 20, 60, 50, (60, 64))]
        for value, square in enumerate(squares, start=1):
            image[:60][square] += np.uint8(90 * value)
        made.append(Crop(image, (60, 64), tuple(squares), ignore))
    return made


# -- what a window shows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [Window(0, 0, 0), Window(1, 32, 64), Window(0, 64, 48)], ids=str)
def test_a_window_sees_the_share_of_every_cell(window: Window) -> None:
    mask = rng().random(SIZE) < 0.5
    canvas = np.zeros((1024, 1024))
    canvas[: SIZE[0], : SIZE[1]] = mask
    part = canvas[window.y : window.y + window.side, window.x : window.x + window.side]
    cell = window.side // 64
    expected = part.reshape(64, cell, 64, cell).mean(axis=(1, 3))
    np.testing.assert_allclose(see(mask, window, 64), expected, atol=1e-6)


def test_a_window_finer_than_its_cells_repeats_pixels() -> None:
    mask = rng().random(SIZE) < 0.5
    seen = see(mask, Window(-1, 16, 32), 256)
    np.testing.assert_array_equal(seen, np.kron(mask[32:160, 16:144], np.ones((2, 2))))


def test_a_window_sees_nothing_outside_the_image() -> None:
    seen = see(np.ones(SIZE, bool), Window(0, -64, -32), 64)
    assert not seen[:8].any()
    assert not seen[:, :16].any()
    assert (seen[8 : 8 + 50, 16:] == 1).all()
    assert not see(np.ones(SIZE, bool), Window(0, 512, 0), 64).any()


def test_truth_counts_the_area_that_the_window_does_not_show() -> None:
    # a window of 128 pixels with cells of two; the object reaches 12 pixels past it
    truth = _truth([TARGET], [Window(-1, 0, 0)], 64)
    assert truth.target.shape == truth.weight.shape == (1, 64, 64)
    assert truth.target.sum() * 4 == 68 * 60
    assert truth.outside.tolist() == [12 * 60 / 4]
    assert _truth([TARGET], [Window(0, 0, 0)], 64).outside.tolist() == [0]


def test_truth_gives_no_weight_to_what_is_ignored_or_no_image() -> None:
    target = replace(TARGET, ignore=rectangle(0, 0, 128, 200))
    weight = _truth([target], [Window(0, 0, 0)], 64).weight[0]
    assert not weight[:, :32].any()
    assert (weight[:50, 32:60] == 1).all()
    assert not weight[50:].any()
    assert not weight[:, 60:].any()


def test_errors_near_an_edge_cost_more() -> None:
    weight = edge_weight(TARGET.mask.astype(np.float32))
    assert weight[70, 100] == weight[150, 200] == 1
    across = weight[70, 50:72]
    # halfway between the two pixels at the edge lies the most expensive point
    assert across.argmax() in (9, 10)
    assert across.max() == pytest.approx(1 + rounds._EDGE_GAIN, rel=0.05)
    assert (np.diff(across[:10]) >= 0).all()
    np.testing.assert_allclose(edge_weight(np.ones((20, 20), np.float32)), 1)


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_a_target_knows_its_size_and_box() -> None:
    assert TARGET.size == SIZE
    assert TARGET.box == (60.0, 40.0, 140.0, 100.0)


def test_first_prompts_are_clicks_inside_or_loose_boxes() -> None:
    prompts = [first_prompt(TARGET, rng(seed)) for seed in range(300)]
    for prompt in prompts:
        for x, y in prompt.points:
            assert TARGET.mask[int(y), int(x)]
        assert all(prompt.labels)
        if prompt.box is not None:
            loose = np.abs(np.array(prompt.box) - TARGET.box) / (80, 60, 80, 60)
            assert loose.max() <= 0.12 + 1e-9
        assert len(prompt.points) <= 1
    clicked = np.mean([not prompt.box for prompt in prompts])
    both = np.mean([bool(prompt.box and prompt.points) for prompt in prompts])
    # four of five are clicks, and eight in a hundred both
    assert abs(clicked - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 300)
    assert abs(both - 0.08) < 4 * np.sqrt(0.08 * 0.92 / 300)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (239, 199, 240, 200), (0, 0, 240, 200), (0, 7, 240, 8)])
def test_prompts_of_objects_at_the_border_stay_in_the_image(box: tuple[int, int, int, int]) -> None:
    target = Target(rectangle(*box), None, 0)
    for seed in range(50):
        prompt = first_prompt(target, rng(seed))
        assert prompt == prompt.check(SIZE)


def test_the_first_window_is_one_of_those_the_prompt_would_be_looked_at_through() -> None:
    click = Prompt(((100.5, 70.5),), (True,))
    planned = plan(click.positive, SIZE)
    drawn = [first_window(click, TARGET, rng(seed)) for seed in range(200)]
    assert set(drawn) == set(planned)
    # the object of 80 pixels fits the finest window; it is taken always but in 40 cases of 100, and then by chance
    share = np.mean([window == planned[0] for window in drawn])
    assert abs(share - (0.6 + 0.4 / len(planned))) < 4 * np.sqrt(0.8 * 0.2 / 200)
    box = Prompt(box=(60.0, 40.0, 140.0, 100.0))
    assert {first_window(box, TARGET, rng(seed)) for seed in range(5)} == {fit((60, 40, 140, 100), SIZE)}


def test_the_next_click_corrects_an_error_in_the_window() -> None:
    prompt, window = Prompt(((100.5, 70.5),), (True,)), Window(0, 0, 0)
    for found, positive in ((rectangle(60, 40, 100, 100), True), (rectangle(60, 40, 200, 100), False)):
        logits = np.full((256, 256), -1, np.float32)
        logits[:200, :240][found] = 1
        for seed in range(20):
            clicked = _with_clicks(prompt, TARGET, logits, window, 1, rng(seed))
            assert len(clicked.points) == 2
            ((x, y), sign) = next(
                (p, s) for p, s in zip(clicked.points, clicked.labels, strict=True) if p != prompt.points[0]
            )
            assert sign is positive
            assert TARGET.mask[int(y), int(x)] is np.bool_(positive)
            assert found[int(y), int(x)] != positive


def test_without_an_error_there_is_no_next_click() -> None:
    prompt = Prompt(((100.5, 70.5),), (True,))
    logits = np.full((256, 256), -1, np.float32)
    logits[:200, :240][TARGET.mask] = 1
    assert _with_clicks(prompt, TARGET, logits, Window(0, 0, 0), 3, rng()) is prompt
    # errors in what is ignored, or past the image, are none
    wrong = np.full((256, 256), -1, np.float32)
    wrong[200:] = 1
    ignoring = replace(TARGET, ignore=np.ones(SIZE, bool))
    assert _with_clicks(prompt, ignoring, wrong, Window(0, 0, 0), 3, rng()) is prompt
    wrong[:200, :240][TARGET.mask] = 1
    assert _with_clicks(prompt, TARGET, wrong, Window(0, 0, 0), 3, rng()) is prompt


def test_several_clicks_of_a_round_do_not_crowd() -> None:
    prompt, window = Prompt(((100.5, 70.5),), (True,)), Window(0, 0, 0)
    logits = np.full((256, 256), -1, np.float32)
    for seed in range(20):
        clicked = _with_clicks(prompt, TARGET, logits, window, 3, rng(seed))
        new = [p for p in clicked.points if p != prompt.points[0]]
        assert len(new) == 3
        apart = [max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a, b in combinations(new, 2)]
        assert min(apart) > rounds._REACH
    small = replace(TARGET, mask=rectangle(90, 60, 110, 80))
    # one click mends all of a small object
    assert len(_with_clicks(prompt, small, logits, window, 3, rng()).points) == 2


# -- the step ----------------------------------------------------------------------------------------------------------


def test_a_step_gives_a_loss_that_reaches_every_weight(net: SegmenterNet) -> None:
    net.zero_grad(set_to_none=True)
    for seed in range(3):
        result = run_step(net, crops(), rng(seed))
        assert torch.isfinite(result.loss)
        assert 0 <= result.first_iou <= 1
        assert 0 <= result.second_iou <= 1
        result.loss.backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    net.zero_grad(set_to_none=True)
    assert not missing


def test_a_step_is_decided_by_its_generator(net: SegmenterNet) -> None:
    with torch.no_grad():
        one, same, other = (run_step(net, crops(), rng(seed)) for seed in (1, 1, 2))
    assert float(one.loss) == float(same.loss)
    assert (one.first_iou, one.second_iou) == (same.first_iou, same.second_iou)
    assert float(one.loss) != float(other.loss)


@pytest.mark.parametrize("count", [1, 4])
def test_only_the_last_round_learns(net: SegmenterNet, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(rounds, "_ROUNDS", tuple(float(i == count - 1) for i in range(4)))
    monkeypatch.setattr(rounds, "_CLICKS", (1.0,))
    learning, clicks, remembered = [], [], []

    def spy(name: str) -> None:
        original = getattr(rounds, name)

        def wrapped(
            net: SegmenterNet,
            octaves: object,
            prompts: list[Prompt],
            targets: list[Target],
            generator: np.random.Generator,
            before: FineLook | None,
        ) -> object:
            learning.append(torch.is_grad_enabled())
            clicks.append(sum(len(prompt.points) for prompt in prompts))
            remembered.append(before is not None)
            return original(net, octaves, prompts, targets, generator, before)

        monkeypatch.setattr(rounds, name, wrapped)

    spy("_explore")
    spy("_learn")
    run_step(net, crops(), rng())
    assert learning == [False] * (count - 1) + [True]
    assert remembered == [False] + [True] * (count - 1)
    # a network that has learnt nothing gives errors enough for a click a round on every object
    assert [b - a for a, b in pairwise(clicks)] == [4] * (count - 1)


def test_a_round_goes_on_from_the_round_before_or_from_its_own_first_look() -> None:
    logits = torch.full((40, 256, 256), -3.0)
    logits[:, :64, :128] = 3.0
    old, new = [Window(0, 0, 0)] * 40, [Window(-1, 64, 64)] * 40
    first = torch.full((40, 1, 64, 64), 0.25)
    before = FineLook(old, Look(logits, logits, logits), logits, torch.zeros(40))
    masks, windows = rounds._remember(first, new, before, rng())
    kept = [window == old[0] for window in windows]
    assert 5 < sum(kept) < 35
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[:16, :32] = True
    for mask, remembered in zip(masks[:, 0], kept, strict=True):
        if remembered:
            assert torch.equal(mask > 0.5, inside)
        else:
            assert torch.equal(mask, first[0, 0])
    assert rounds._remember(first, new, None, rng()) == (first, new)


def test_labels_of_ignored_pixels_do_not_matter(net: SegmenterNet) -> None:
    ignore = rectangle(0, 52, 64, 60, (60, 64))
    known = crops(ignore=ignore)
    image, size, objects = known[0].image, known[0].size, known[0].objects

    def loss(extra: Mask) -> float:
        prompt = Prompt(((19.5, 19.5),), (True,))
        target = Target(objects[0] | extra, ignore, 0)
        with torch.no_grad():
            octaves = net.encoder(torch.from_numpy(image)[None].permute(0, 3, 1, 2).float() / 128)
            window = [Window(-1, 0, 0)]
            look = net.first_look(octaves, [prompt], window, [0], [size])
            truth = _truth([target], window, 64)
            return float(rounds.mask_loss(look.logits[:, 0].float(), truth.target, truth.weight))

    assert loss(rectangle(0, 53, 30, 59, (60, 64))) == loss(np.zeros((60, 64), bool))


def test_learning_on_one_batch_lowers_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_ROUNDS", (1.0,))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SegmenterNet(EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        result = run_step(net, crops(), rng(3))
        result.loss.backward()
        optimizer.step()
        losses.append(float(result.loss.detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
