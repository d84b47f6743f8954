"""The Segmenter: what holds for every image, size, prompt and order."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch.utils.flop_counter import FlopCounterMode

from linocut.vision.encoder import MULTIPLE, Embedding, Octave, octave_count
from linocut.vision.masks import Mask
from linocut.vision.prompts import GivenMask, Prompt
from linocut.vision.segmenter import CANDIDATES, Segmenter, _alike, _area, _Candidate
from linocut.vision.windows import MAX_WINDOWS, Window, fit, top_level

Image = NDArray[np.uint8]

# Centres of seven coins of the photograph, small and large, in the middle and at the border: (x, y) of the pixel.
COINS = ((335, 43), (155, 51), (45, 125), (205, 124), (212, 193), (46, 260), (360, 270))


def click(x: float, y: float) -> Prompt:
    return Prompt(((x + 0.5, y + 0.5),), (True,))


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def flat_embedding(height: int, width: int) -> Embedding:
    """What an encoder of the narrow network would give for an empty image of any size, at no cost."""
    channels = {1: 3, 2: 16, 4: 16, 8: 24, 16: 32}
    octaves = []
    for level in range(octave_count(height, width)):
        padded = [-(-extent // (MULTIPLE << level)) * MULTIPLE for extent in (height, width)]
        octaves.append(
            Octave(*(torch.zeros(1, c, 1, 1).expand(1, c, padded[0] // s, padded[1] // s) for s, c in channels.items()))
        )
    return Embedding(tuple(octaves), (height, width))


# -- what the network has learnt ----------------------------------------------------------------------------------


def test_a_click_on_a_coin_cuts_the_coin(model: Segmenter, coins_embedding: Embedding) -> None:
    masks = model.decode(coins_embedding, [click(*at) for at in COINS])
    for (x, y), mask in zip(COINS, masks, strict=True):
        assert mask.array[y, x]
        # the coins are 36 to 60 pixels wide
        assert 800 < mask.area < 4000
        x0, y0, x1, y1 = mask.bbox
        assert 0.75 < mask.area / ((x1 - x0) * (y1 - y0) * np.pi / 4) < 1.25
    for i, a in enumerate(masks):
        assert all(iou(a.array, b.array) < 0.1 for b in masks[:i])


@pytest.fixture(scope="module")
def enlarged_coins(model: Segmenter, coins: Image) -> dict[int, Embedding]:
    """The photograph enlarged, by how much."""
    return {factor: model.encode(cv2.resize(coins, None, fx=factor, fy=factor)) for factor in (2, 3)}


@pytest.mark.parametrize("prompted", ["click", "box"])
def test_one_object_at_three_image_sizes_gives_one_mask(
    model: Segmenter, coins_embedding: Embedding, enlarged_coins: dict[int, Embedding], prompted: str
) -> None:
    boxes = [mask.bbox for mask in model.decode(coins_embedding, [click(*at) for at in COINS])]

    def cut(embedding: Embedding, factor: int) -> list[NDArray[np.bool_]]:
        prompts = [
            Prompt(((x * factor + factor / 2, y * factor + factor / 2),), (True,))
            if prompted == "click"
            else Prompt(box=tuple(float(edge * factor) for edge in box))
            for (x, y), box in zip(COINS, boxes, strict=True)
        ]
        return [mask.array for mask in model.decode(embedding, prompts)]

    small = cut(coins_embedding, 1)
    for factor, embedding in enlarged_coins.items():
        large = cut(embedding, factor)
        enlarged = [np.kron(mask, np.ones((factor, factor), bool)) for mask in small]
        agreement = [iou(a, b) for a, b in zip(enlarged, large, strict=True)]
        # a border that lies half a pixel off all round costs a coin of 40 pixels 5 %, at this image's size; the
        # first weights reach 0.86 and 0.90, and a click that drowned in the larger image would give next to nothing
        assert min(agreement) > 0.7
        assert np.mean(agreement) > 0.8


def test_a_shift_of_the_image_shifts_the_mask(model: Segmenter, coins: Image) -> None:
    patch = coins[100:240, 100:260]
    inside = ((75, 75), (120, 80), (70, 20))

    def cut(x: int, y: int) -> list[NDArray[np.bool_]]:
        canvas = np.full((512, 512, 3), 127, np.uint8)
        canvas[y : y + 140, x : x + 160] = patch
        masks = model.decode(model.encode(canvas), [click(x + px, y + py) for px, py in inside])
        assert all(mask.area > 100 for mask in masks)
        return [np.roll(mask.array, (-y, -x), axis=(0, 1)) for mask in masks]

    still = cut(176, 176)
    # 16 · 2**top pixels: the coarsest window's tokens move by whole steps. What is left is the rim of the image, which
    # the patch comes nearer to, and that the whole image's window stays where it is
    for dx, dy in ((32, 0), (0, 64), (-64, 32)):
        assert all(iou(a, b) > 0.9 for a, b in zip(still, cut(176 + dx, 176 + dy), strict=True))


def test_a_negative_click_takes_its_place_out(model: Segmenter, coins: Image, coins_embedding: Embedding) -> None:
    (x, y), (nx, ny) = COINS[3], COINS[4]
    both = np.zeros(coins.shape[:2], bool)
    both[100:215, 180:240] = True
    prompt = Prompt.of([(x + 0.5, y + 0.5), (nx + 0.5, ny + 0.5)], (True, False), mask=both)
    mask = model.decode(coins_embedding, [prompt])[0].array
    assert mask[y, x]
    assert not mask[ny, nx]


# -- what holds whatever it has learnt ------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, (300.0, 10.0, 370.0, 80.0)])
def test_the_order_of_clicks_does_not_change_a_bit(
    model: Segmenter, coins_embedding: Embedding, box: tuple[float, float, float, float] | None
) -> None:
    points, labels = ((335.0, 43.0), (320.0, 40.0), (276.0, 53.0), (350.0, 50.0)), (True, True, False, True)
    results = []
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        prompt = Prompt(tuple(points[i] for i in order), tuple(labels[i] for i in order), box)
        results.append(model.decode(coins_embedding, [prompt])[0])
    for other in results[1:]:
        np.testing.assert_array_equal(other.logits, results[0].logits)
        assert other.score == results[0].score
        for a, b in zip(other.candidates, results[0].candidates, strict=True):
            np.testing.assert_array_equal(a.logits, b.logits)


def test_a_batch_is_its_prompts_one_by_one(model: Segmenter, coins: Image, coins_embedding: Embedding) -> None:
    given = np.zeros(coins.shape[:2], bool)
    given[30:70, 130:180] = True
    prompts = [
        click(335, 43),
        Prompt(box=(20.0, 100.0, 70.0, 150.0)),
        Prompt(((155.5, 51.5), (216.5, 52.5)), (True, False)),
        Prompt.of(mask=given),
        click(360, 270),
        Prompt(((155.5, 51.5),), (True,), box=(130.0, 30.0, 180.0, 80.0)),
    ]
    together = model.decode(coins_embedding, prompts)
    assert len(together) == len(prompts)
    for prompt, mask in zip(prompts, together, strict=True):
        alone = model.decode(coins_embedding, [prompt])[0]
        assert mask.window == alone.window
        # convolutions may round differently in batches of different sizes
        np.testing.assert_allclose(mask.logits, alone.logits, atol=0.01, rtol=0.01)
        assert mask.score == pytest.approx(alone.score, abs=1e-3)
        assert iou(mask.array, alone.array) > 0.99


def test_many_prompts_are_answered_in_order_and_in_batches(untrained: Segmenter) -> None:
    points = [(float(x), float(y)) for x in range(20, 180, 40) for y in range(20, 240, 20)]
    seen: list[int] = []
    hook = untrained.net.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].stride8)))
    masks = untrained.decode(flat_embedding(240, 180), [Prompt((point,), (True,)) for point in points])
    hook.remove()
    assert len(masks) == len(points) == 44
    # memory is bounded by the batch, not by the number of prompts
    assert max(seen) <= 16 * MAX_WINDOWS
    for (x, y), mask in zip(points, masks, strict=True):
        assert mask.window.x <= x <= mask.window.x + mask.window.side
        assert mask.window.y <= y <= mask.window.y + mask.window.side


def test_nothing_asked_nothing_answered(model: Segmenter, coins_embedding: Embedding) -> None:
    assert model.decode(coins_embedding, []) == []


@pytest.mark.parametrize(
    "prompt", [click(335, 43), Prompt(box=(20.0, 100.0, 70.0, 150.0)), Prompt(((1.0, 1.0), (9.0, 9.0)), (True, True))]
)
def test_three_candidates_from_the_smallest_to_the_largest(
    model: Segmenter, coins_embedding: Embedding, prompt: Prompt
) -> None:
    mask = model.decode(coins_embedding, [prompt])[0]
    assert len(mask.candidates) == CANDIDATES == 3
    areas = [candidate.area for candidate in mask.candidates]
    assert areas == sorted(areas)
    assert any(np.array_equal(mask.logits, candidate.logits) for candidate in mask.candidates)
    assert all(not candidate.candidates for candidate in mask.candidates)
    assert all(0 <= m.score <= 1 and 0 <= m.stability <= 1 for m in (mask, *mask.candidates))


def test_what_lies_outside_the_image_does_not_make_a_candidate_larger() -> None:
    large, small = np.full((2, 256, 256), -1, np.float32)
    large[:100, :100] = 1
    small[:100, :60] = small[:100, 150:] = 1
    areas = [_area(Mask(logits, Window(0, 16, 0), (100, 120), score=0.5)) for logits in (small, large)]
    assert areas == [60 * 100, 100 * 100]
    # cells of four pixels; the image cuts the last ones
    assert _area(Mask(large, Window(2, 0, 0), (390, 1000), score=0.5)) == 98 * 100 * 4**2


def test_alternatives_cost_nothing_until_they_are_asked_for(
    model: Segmenter, coins_embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    original = model.net.second_look

    def spy(octaves: Any, prompts: Any, masks: torch.Tensor, *rest: Any) -> Any:
        looks.append(len(masks))
        return original(octaves, prompts, masks, *rest)

    monkeypatch.setattr(model.net, "second_look", spy)
    mask = model.decode(coins_embedding, [click(335, 43)])[0]
    assert looks == [1]
    first = mask.candidates
    assert looks == [1, CANDIDATES - 1]
    assert mask.candidates is first
    mask.with_candidates(()).drop_pixels()
    assert looks == [1, CANDIDATES - 1]


def test_the_first_look_that_promises_most_goes_on(model: Segmenter, coins_embedding: Embedding) -> None:
    asked = click(335, 43)
    with torch.inference_mode():
        best = max(model._first(coins_embedding, [asked])[0], key=lambda c: c.iou)
        expected = model._second(coins_embedding, [asked], [best])[0]
    assert np.array_equal(model.decode(coins_embedding, [asked])[0].logits, expected.logits)


def test_as_many_candidates_as_asked_for(model: Segmenter, coins_embedding: Embedding) -> None:
    for count in (1, 2, 5):
        assert len(model.decode(coins_embedding, [click(335, 43)], candidates=count)[0].candidates) == count
    with pytest.raises(ValueError, match="candidates must be >= 1, got 0"):
        model.decode(coins_embedding, [click(335, 43)], candidates=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 33), (128, 128), (257, 40)])
def test_images_of_any_size_are_cut(untrained: Segmenter, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    embedding = untrained.encode(image)
    height, width = size
    corners = [(0.0, 0.0), (float(width), float(height)), (width / 2, height / 2)]
    prompts = [Prompt((corner,), (True,)) for corner in corners]
    prompts += [Prompt(box=(0.0, 0.0, float(width), float(height))), Prompt.of(mask=np.ones(size, bool))]
    for mask in untrained.decode(embedding, prompts):
        assert mask.array.shape == size
        assert np.isfinite(mask.logits).all()


def test_a_view_of_an_image_is_as_good_as_a_copy(untrained: Segmenter, coins: Image) -> None:
    view = coins[::-1, ::2, ::-1]
    a, b = untrained.encode(view), untrained.encode(view.copy())
    assert torch.equal(a.octaves[0].stride16, b.octaves[0].stride16)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 6), np.uint8), r"got shape \(5, 6\)"),
        (np.zeros((5, 6, 4), np.uint8), r"got shape \(5, 6, 4\)"),
        (np.zeros((0, 6, 3), np.uint8), "non-empty"),
        (np.zeros((5, 0, 3), np.uint8), "non-empty"),
    ],
)
def test_encode_refuses_what_is_no_image(untrained: Segmenter, image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        untrained.encode(image)


def modes() -> dict[str, Any]:
    """One grey picture in every mode and array that says the same."""
    grey = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    opaque = np.full((40, 50, 1), 255, np.uint8)
    plain = PilImage.fromarray(grey)
    return {
        "pil L": plain,
        "pil RGB": plain.convert("RGB"),
        "pil RGBA": plain.convert("RGBA"),
        "pil LA": plain.convert("LA"),
        "pil P": plain.convert("P"),
        "uint8 grey": grey,
        "uint8 grey with an axis": grey[..., None],
        "uint8 RGB": rgb,
        "uint8 RGBA": np.concatenate([rgb, opaque], axis=2),
        "uint16": grey.astype(np.uint16) * 257,
        "float": grey.astype(np.float32) / 255,
        "tensor": torch.from_numpy(rgb),
    }


@pytest.mark.parametrize("mode", list(modes()))
def test_every_mode_of_an_image_opens(untrained: Segmenter, mode: str) -> None:
    reference = untrained.open(modes()["uint8 RGB"]).click(25, 20)
    mask = untrained.open(modes()[mode]).click(25, 20)
    np.testing.assert_array_equal(mask.logits, reference.logits)


@pytest.mark.parametrize("mode", ["1", "CMYK", "HSV", "YCbCr", "LAB", "I;16", "I", "F"])
def test_modes_that_change_the_values_open_too(untrained: Segmenter, mode: str) -> None:
    plain = modes()["pil RGB"]
    source = plain.convert("L").convert(mode) if mode in ("I;16", "I", "F", "1") else plain.convert(mode)
    if mode == "F":
        source = source.point(lambda value: value / 255)
    assert untrained.open(source).click(25, 20).array.shape == (40, 50)


def test_a_path_opens(untrained: Segmenter, tmp_path: Any) -> None:
    rgb = modes()["uint8 RGB"]
    PilImage.fromarray(rgb).save(tmp_path / "photo.png")
    np.testing.assert_array_equal(untrained.open(tmp_path / "photo.png").image, rgb)
    np.testing.assert_array_equal(untrained.open(str(tmp_path / "photo.png")).image, rgb)


@pytest.mark.parametrize(
    "prompt",
    [
        click(600, 600),
        Prompt(((600.5, 600.5), (700.5, 640.5)), (True, False)),
        Prompt(box=(500.0, 500.0, 700.0, 650.0)),
        Prompt.of([(600.5, 600.5)], mask=np.kron([[0, 1], [0, 0]], np.ones((512, 512), np.uint8))),
    ],
    ids=["click", "clicks", "box", "mask"],
)
def test_the_work_of_a_prompt_does_not_depend_on_the_image(untrained: Segmenter, prompt: Prompt) -> None:
    work = []
    for side in (1024, 4096, 65_536):
        asked = prompt
        if prompt.mask is not None:
            # a crop of the image: as a whole, the largest would take 4 GB
            given = GivenMask.of(prompt.mask.pixels, offset=(512, 0), shape=(side, side))
            assert given.pixels.nbytes == 512 * 512
            asked = Prompt(prompt.points, prompt.labels, mask=given)
        windows: list[int] = []
        hook = untrained.net.decoder.register_forward_pre_hook(
            lambda _, inputs, seen=windows: seen.append(len(inputs[0].stride8))
        )
        with FlopCounterMode(display=False) as counter:
            untrained.decode(flat_embedding(side, side), [asked])
        hook.remove()
        assert sum(windows) <= MAX_WINDOWS + CANDIDATES
        work.append((windows, counter.get_total_flops()))
    assert work[0][1] > 0
    assert all(other == work[0] for other in work[1:])


def test_a_given_mask_is_seen_as_finely_as_it_deserves(untrained: Segmenter) -> None:
    # 40 pixels in an image of 8192: as 64 cells over the whole image they would be a third of one cell
    given = GivenMask.of(np.ones((40, 30), bool), offset=(3000, 5000), shape=(8192, 8192))
    mask = untrained.decode(flat_embedding(8192, 8192), [Prompt(mask=given)])[0]
    assert mask.window == fit((3000.0, 5000.0, 3030.0, 5040.0), (8192, 8192))
    assert mask.window.side == 128


def test_a_part_that_fills_its_window_is_not_the_whole() -> None:
    def candidate(window: Window, logits: torch.Tensor) -> _Candidate:
        return _Candidate(window, logits, 0.5, single=False)

    everywhere = torch.full((64, 64), 5.0)
    part, whole = candidate(Window(0, 256, 256), everywhere), candidate(Window(2, 0, 0), everywhere)
    assert not _alike(part, whole)
    assert not _alike(whole, part)
    quarter = torch.full((64, 64), -5.0)
    quarter[16:32, 16:32] = 5
    assert _alike(part, candidate(Window(2, 0, 0), quarter))
    assert _alike(candidate(Window(2, 0, 0), quarter), part)
    assert not _alike(part, candidate(Window(2, 0, 0), quarter.T.flip(0)))


def test_a_click_in_an_enormous_image(untrained: Segmenter) -> None:
    side = 300_000
    mask = untrained.decode(flat_embedding(side, side), [Prompt(((123_456.0, 234_567.0),), (True,))])[0]
    assert mask.size == (side, side)
    assert top_level((side, side)) > 10


def test_the_device_is_the_cpu(untrained: Segmenter) -> None:
    assert untrained.device == torch.device("cpu")
    for device in ("cpu", torch.device("cpu"), untrained.device):
        assert untrained.to(device=device) is untrained
        assert untrained.to(device) is untrained
    for device in ("cuda", "cuda:0", torch.device("cuda"), "mps", 0, None, torch.float16):
        with pytest.raises(ValueError, match=r"device must be 'cpu', got .*: Linocut computes on the CPU alone"):
            untrained.to(device)


def test_the_dtype_is_chosen(monkeypatch: pytest.MonkeyPatch, untrained: Segmenter) -> None:
    net = deepcopy(untrained.net)
    monkeypatch.setenv("LINOCUT_DTYPE", "float32")
    assert Segmenter(net).dtype == torch.float32
    monkeypatch.setenv("LINOCUT_DTYPE", "float16")
    with pytest.raises(ValueError, match="LINOCUT_DTYPE must be float32 or bfloat16, got 'float16'"):
        Segmenter(net)
    monkeypatch.delenv("LINOCUT_DTYPE")
    assert Segmenter(net).dtype in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="dtype must be auto, float32 or bfloat16, got 'int8'"):
        Segmenter(net, dtype="int8")


def test_bfloat16_cuts_the_same_object(model: Segmenter, coins: Image, coins_embedding: Embedding) -> None:
    import linocut

    half = linocut.load(dtype="bfloat16")
    masks = half.decode(half.encode(coins), [click(*at) for at in COINS])
    exact = model.decode(coins_embedding, [click(*at) for at in COINS])
    assert np.mean([iou(a.array, b.array) for a, b in zip(masks, exact, strict=True)]) > 0.9
