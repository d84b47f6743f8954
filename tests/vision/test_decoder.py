"""The decoder: prompts drawn as maps, exactly; and windows that do not see each other."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from linocut.vision.decoder import (
    FINE,
    GRID,
    SLOTS,
    MaskDecoder,
    PromptAttention,
    WindowPrompt,
    areas,
    click_discs,
    discs,
    hear,
    prompt_maps,
)
from linocut.vision.encoder import EncoderConfig
from linocut.vision.windows import WindowFeatures

CONFIG = EncoderConfig(channels16=32, channels8=24, channels4=16)


@pytest.fixture(scope="module")
def decoder() -> MaskDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskDecoder(CONFIG).eval()


def features(count: int) -> WindowFeatures:
    generator = torch.Generator().manual_seed(1)

    def draw(channels: int, side: int) -> Tensor:
        return torch.randn(count, channels, side, side, generator=generator)

    return WindowFeatures(
        draw(3, 256), draw(16, 128), draw(CONFIG.channels4, 64), draw(CONFIG.channels8, 32), draw(CONFIG.channels16, 16)
    )


def prompt(
    points: list[list[tuple[float, float]]],
    labels: list[list[int]],
    *,
    boxes: list[tuple[float, float, float, float]] | None = None,
    mask: Tensor | None = None,
) -> WindowPrompt:
    count = len(points)
    return WindowPrompt(
        torch.tensor(points, dtype=torch.float32).reshape(count, -1, 2),
        torch.tensor(labels).reshape(count, -1),
        torch.zeros(count, 4) if boxes is None else torch.tensor(boxes, dtype=torch.float32),
        torch.zeros(count, 1, GRID, GRID) if mask is None else mask,
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, 4),
        torch.zeros(count),
    )


THREE = prompt(
    [[(0.5, 0.25), (0.1, 0.9)], [(0.2, 0.2), (0.0, 0.0)], [(0.7, 0.7), (0.3, 0.1)]],
    [[1, 0], [1, -1], [1, 1]],
    boxes=[(0, 0, 0, 0), (0.1, 0.1, 0.6, 0.5), (0, 0, 0, 0)],
)


def rows(part: WindowPrompt | WindowFeatures, index: slice | list[int]) -> WindowPrompt | WindowFeatures:
    return replace(part, **{field.name: getattr(part, field.name)[index] for field in fields(part)})


def test_a_disc_peaks_at_its_click_and_falls_as_a_gaussian() -> None:
    # the centre of the cell in column 10, row 20
    maps = discs(prompt([[(10.5 / GRID, 20.5 / GRID)]], [[1]]), GRID)
    assert maps.shape == (1, 2, GRID, GRID)
    positive, negative = maps[0]
    assert not negative.any()
    assert positive[20, 10] == 1
    sigma = 1.5  # cells
    for dx, dy in ((1, 0), (0, -2), (3, 2)):
        expected = math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        assert positive[20 + dy, 10 + dx].item() == pytest.approx(expected, rel=1e-4)


def test_a_disc_is_as_large_at_every_resolution() -> None:
    clicks = prompt([[(0.5, 0.5)]], [[1]])
    masses = [float(discs(clicks, side).sum()) / side**2 for side in (64, 128, 256)]
    assert masses[0] == pytest.approx(masses[1], rel=1e-3)
    assert masses[1] == pytest.approx(masses[2], rel=1e-3)


def test_positive_and_negative_discs_lie_apart_and_overlaps_take_the_maximum() -> None:
    at = (10.5 / GRID, 20.5 / GRID)
    near = (11.5 / GRID, 20.5 / GRID)
    both = discs(prompt([[at, near]], [[1, 1]]), GRID)[0, 0]
    single = [discs(prompt([[p]], [[1]]), GRID)[0, 0] for p in (at, near)]
    assert torch.equal(both, torch.maximum(*single))
    mixed = discs(prompt([[at, near]], [[1, 0]]), GRID)[0]
    assert torch.equal(mixed[0], single[0])
    assert torch.equal(mixed[1], single[1])


def test_a_click_outside_the_window_shows_its_rim_only() -> None:
    near, far = (discs(prompt([[(x, 0.5)]], [[1]]), GRID)[0, 0] for x in (-0.5 / GRID, -1.0))
    assert 0.5 < near[:, 0].max() < 1
    assert not far.any()


def test_an_area_is_the_share_of_every_cell_that_the_box_covers() -> None:
    # a grid of four cells; the box covers half of the second column, the third and half of the fourth
    cover = areas(torch.tensor([[0.375, 0.0, 0.875, 0.25]]), 4)
    assert cover.shape == (1, 1, 4, 4)
    assert cover[0, 0].tolist() == [[0, 0.5, 1, 0.5], [0] * 4, [0] * 4, [0] * 4]


def test_an_area_counts_only_what_lies_inside() -> None:
    assert areas(torch.tensor([[-3.0, -1.0, 9.0, 2.0]]), 4).tolist() == [[[[1.0] * 4] * 4]]
    assert not areas(torch.tensor([[0.0] * 4, [2.0, 2.0, 3.0, 3.0]]), 4).any()


def test_a_thin_box_covers_its_part_of_one_cell() -> None:
    assert areas(torch.tensor([[0.25, 0.25, 0.3125, 0.5]]), 4)[0, 0, 1, 1] == 0.25


def test_prompt_maps_hold_clicks_box_mask_image_and_zoom() -> None:
    mask = torch.rand(1, 1, GRID, GRID) * 2 - 1
    given = replace(
        prompt([[(0.5, 0.5), (0.1, 0.1)]], [[1, 0]], boxes=[(0.0, 0.0, 0.5, 0.5)], mask=mask),
        inside=torch.tensor([[0.0, 0.0, 1.0, 0.5]]),
        zoomed=torch.ones(1),
    )
    maps = prompt_maps(given)
    assert maps.shape == (1, 6, GRID, GRID)
    assert torch.equal(maps[:, :2], discs(given, GRID))
    assert torch.equal(maps[:, 2:3], areas(given.boxes, GRID))
    assert torch.equal(maps[:, 3:4], mask)
    assert maps[0, 4].mean() == 0.5
    assert (maps[0, 5] == 1).all()


def plain_attention(
    module: PromptAttention, tokens: Tensor, evidence: Tensor, kinds: list[int], distance: Tensor
) -> Tensor:
    """The formula of the docstring for one window, head by head: tokens (l, c), evidence (p, c), distance (l, p)."""
    normed = module.norm(tokens)
    width = tokens.shape[1] // module.heads
    key, value = module.key_value(evidence + module.kind[kinds]).chunk(2, dim=-1)
    query = module.query(normed)
    parts = []
    for head in range(module.heads):
        own = slice(head * width, (head + 1) * width)
        scores = query[:, own] @ key[:, own].T / math.sqrt(width)
        scores = scores - torch.nn.functional.softplus(module.slope[head]) * distance
        shares = torch.cat([scores, module.none[head].expand(len(tokens), 1)], dim=1).softmax(1)[:, :-1]
        parts.append(shares @ value[:, own])
    return tokens + module.out(torch.cat(parts, dim=1))


@torch.no_grad()
def test_prompt_attention_is_its_formula() -> None:
    torch.manual_seed(0)
    module, side = PromptAttention(16), 8
    module.none.uniform_(-1, 1)
    x, area = torch.randn(1, 16, side, side), torch.rand(1, 1, side, side)
    clicks = prompt([[(0.3, 0.7), (0.9, 0.2)]], [[1, 0]])
    tokens = x[0].flatten(1).T
    weights = torch.cat([click_discs(clicks.points, side)[0], area[0]]).flatten(1)
    evidence = weights @ module.norm(tokens) / weights.sum(1, keepdim=True)
    centers = torch.tensor([((i % side + 0.5) / side, (i // side + 0.5) / side) for i in range(side**2)])
    distance = torch.cat([torch.cdist(centers, clicks.points[0]), torch.zeros(side**2, 1)], dim=1)
    expected = plain_attention(module, tokens, evidence, [1, 0, 2], distance)
    torch.testing.assert_close(module(x, hear(clicks, area))[0].flatten(1).T, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prompt_attention_without_evidence_only_adds_a_constant() -> None:
    torch.manual_seed(0)
    module, x = PromptAttention(16), torch.randn(1, 16, 8, 8)
    added = module(x, hear(prompt([[(-9.0, -9.0)]], [[1]]), torch.zeros(1, 1, 8, 8))) - x
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added), rtol=0, atol=1e-5)


@torch.no_grad()
def test_prompt_attention_reaches_the_whole_window() -> None:
    torch.manual_seed(0)
    module, x, nothing = PromptAttention(16), torch.randn(1, 16, 8, 8), torch.zeros(1, 1, 8, 8)
    clicked, none = (module(x, hear(prompt([[(0.2, 0.2)]], [[label]]), nothing)) for label in (1, -1))
    assert (clicked != none).any(dim=1).all()


@torch.no_grad()
def test_of_clicks_that_look_alike_the_nearest_decides() -> None:
    torch.manual_seed(0)
    module = PromptAttention(16)
    module.slope.fill_(50.0)
    x, nothing = torch.ones(1, 16, 8, 8), torch.zeros(1, 1, 8, 8)
    left, right = (0.2, 0.5), (0.8, 0.5)
    both = module(x, hear(prompt([[left, right]], [[1, 0]]), nothing))
    one, other = (module(x, hear(prompt([[p]], [[s]]), nothing)) for p, s in ((left, 1), (right, 0)))
    torch.testing.assert_close(both[..., :3], one[..., :3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[..., 5:], other[..., 5:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_look_has_the_shapes_it_says(decoder: MaskDecoder) -> None:
    windows = features(3)
    look = decoder(windows, THREE, sharp=True)
    assert look.logits.shape == (3, SLOTS, GRID, GRID)
    assert look.iou.shape == (3, SLOTS)
    assert ((look.iou > 0) & (look.iou < 1)).all()
    assert decoder.refine(windows, THREE, look).shape == (3, 1, FINE, FINE)


@torch.no_grad()
def test_a_batch_is_its_members_one_by_one(decoder: MaskDecoder) -> None:
    windows = features(3)
    look = decoder(windows, THREE, sharp=True)
    fine = decoder.refine(windows, THREE, look)
    for index in range(3):
        one_window, one_prompt = rows(windows, [index]), rows(THREE, [index])
        one = decoder(one_window, one_prompt, sharp=True)
        torch.testing.assert_close(one.logits[0], look.logits[index], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.iou[0], look.iou[index], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoder.refine(one_window, one_prompt, one)[0], fine[index], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_order_of_the_points_means_nothing(decoder: MaskDecoder) -> None:
    points, labels = [(0.5, 0.25), (0.1, 0.9), (0.6, 0.6), (0.52, 0.25)], [1, 0, 1, 0]
    order = [2, 0, 3, 1]
    windows = features(1)
    one = decoder(windows, prompt([points], [labels]), sharp=True)
    other = decoder(windows, prompt([[points[i] for i in order]], [[labels[i] for i in order]]), sharp=True)
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.iou, other.iou, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_padding_points_change_nothing(decoder: MaskDecoder) -> None:
    windows = features(1)
    one = decoder(windows, prompt([[(0.5, 0.25)]], [[1]]), sharp=True)
    padded = decoder(windows, prompt([[(0.5, 0.25), (-9.0, -9.0), (0.3, 0.3)]], [[1, -1, -1]]), sharp=True)
    torch.testing.assert_close(one.logits, padded.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", ["point", "sign", "box", "mask"])
@torch.no_grad()
def test_every_kind_of_prompt_is_heard(decoder: MaskDecoder, what: str) -> None:
    windows = features(1)
    base = prompt([[(0.5, 0.25)]], [[1]])
    other = {
        "point": prompt([[(0.25, 0.5)]], [[1]]),
        "sign": prompt([[(0.5, 0.25)]], [[0]]),
        "box": prompt([[(0.5, 0.25)]], [[1]], boxes=[(0.2, 0.2, 0.7, 0.7)]),
        "mask": prompt([[(0.5, 0.25)]], [[1]], mask=torch.ones(1, 1, GRID, GRID)),
    }[what]
    assert (decoder(windows, base, sharp=True).logits != decoder(windows, other, sharp=True).logits).any()


@torch.no_grad()
def test_the_fine_step_adds_to_the_coarse_mask(decoder: MaskDecoder) -> None:
    windows = features(2)
    given = rows(THREE, [0, 1])
    look = decoder(windows, given, sharp=True)
    correction = decoder.fine.out
    weight, bias = correction.weight.clone(), correction.bias.clone()
    torch.nn.init.zeros_(correction.weight)
    torch.nn.init.zeros_(correction.bias)
    fine = decoder.refine(windows, given, look)
    correction.weight.copy_(weight)
    correction.bias.copy_(bias)
    enlarged = torch.nn.functional.interpolate(look.logits[:, :1], scale_factor=4, mode="bilinear")
    assert torch.equal(fine, enlarged)
    assert (decoder.refine(windows, given, look) != enlarged).any()


def test_predicted_iou_does_not_move_the_masks(decoder: MaskDecoder) -> None:
    decoder.zero_grad(set_to_none=True)
    decoder(features(1), prompt([[(0.5, 0.25)]], [[1]]), sharp=False).iou.sum().backward()
    assert decoder.masks.weight.grad is None
    assert decoder.quality[0].weight.grad is not None
    decoder.zero_grad(set_to_none=True)


def test_gradients_reach_every_weight(decoder: MaskDecoder) -> None:
    decoder.zero_grad(set_to_none=True)
    windows = features(3)
    look = decoder(windows, THREE, sharp=True)
    loss = look.logits.square().mean() + look.iou.mean() + decoder.refine(windows, THREE, look).square().mean()
    loss.backward()
    missing = [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]
    decoder.zero_grad(set_to_none=True)
    assert not missing
