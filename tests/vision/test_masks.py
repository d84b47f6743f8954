"""Masks: pixels only where they are asked for, and the same pixels as the long way round."""

from __future__ import annotations

import pickle
from copy import copy, deepcopy

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from linocut.data.polygons import polygons_to_mask
from linocut.data.rle import decode_rle
from linocut.vision.masks import Mask, clean, rasterize, stability, tighten
from linocut.vision.windows import Window

CELLS = 256
WINDOWS = {
    "finer than pixels": (Window(-1, 48, 32), (300, 400)),
    "one cell a pixel": (Window(0, 48, 32), (300, 400)),
    "coarser than pixels": (Window(1, 64, 0), (700, 900)),
    "coarse": (Window(2, 0, 64), (1000, 1200)),
    "past the right and lower border": (Window(0, 304, 160), (300, 400)),
    "past the left and upper border": (Window(0, -80, -32), (300, 400)),
    "larger than the image": (Window(0, 0, 0), (57, 91)),
    "one pixel high": (Window(0, 16, 0), (1, 200)),
}
everywhere = pytest.mark.parametrize("place", list(WINDOWS))


def blobs(seed: int = 0, *, threshold: float = 0.3) -> NDArray[np.float32]:
    """Smooth random logits that half precision holds: several pieces with holes, some at the border of the window."""
    noise = np.random.default_rng(seed).standard_normal((CELLS, CELLS)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 9)
    return np.asarray((smooth / smooth.std() - threshold) * 4, dtype=np.float16).astype(np.float32)


def make(place: str, logits: NDArray[np.float32] | None = None) -> Mask:
    window, size = WINDOWS[place]
    return Mask(blobs() if logits is None else logits, window, size, score=0.8)


def enlarged(logits: NDArray[np.float32], window: Window, size: tuple[int, int]) -> NDArray[np.float32]:
    """Logits of every pixel of the image, the whole window enlarged by PyTorch; −9 outside it."""
    image = torch.full(size, -9.0)
    whole = torch.from_numpy(logits)[None, None]
    if window.level < 0:
        pixels = torch.nn.functional.avg_pool2d(whole, 1 << -window.level)[0, 0]
    else:
        pixels = torch.nn.functional.interpolate(whole, (window.side,) * 2, mode="bilinear", align_corners=False)[0, 0]
    y0, x0 = max(window.y, 0), max(window.x, 0)
    y1, x1 = min(window.y + window.side, size[0]), min(window.x + window.side, size[1])
    image[y0:y1, x0:x1] = pixels[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x]
    return image.numpy()


@everywhere
@pytest.mark.parametrize("seed", range(3))
def test_rasterizing_agrees_with_enlarging_the_whole_window(place: str, seed: int) -> None:
    logits = blobs(seed)
    window, size = WINDOWS[place]
    expected = enlarged(logits, window, size)
    array = make(place, logits).array
    assert array.shape == size
    assert array.any()
    # a pixel may only differ where rounding decides
    assert not (array != (expected > 0))[np.abs(expected) > 1e-4].any()


@everywhere
def test_crop_box_area_and_array_agree(place: str) -> None:
    mask = make(place)
    array = mask.array
    ys, xs = np.nonzero(array)
    assert mask.bbox == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    x0, y0, x1, y1 = mask.bbox
    np.testing.assert_array_equal(mask.crop, array[y0:y1, x0:x1])
    assert mask.area == array.sum()
    assert str(mask.area) in repr(mask)


@everywhere
def test_a_few_cells_are_found_wherever_they_are(place: str) -> None:
    window, size = WINDOWS[place]
    rng = np.random.default_rng(1)
    for _ in range(20):
        logits = np.full((CELLS, CELLS), -0.5, np.float32)
        y, x = rng.integers(0, CELLS - 4, 2)
        logits[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = 3
        expected = enlarged(logits, window, size)
        differs = (make(place, logits).array != (expected > 0)) & (np.abs(expected) > 1e-4)
        assert not differs.any()


def test_a_mask_that_fills_its_window_fills_the_image() -> None:
    full = np.ones((CELLS, CELLS), np.float32)
    assert Mask(full, Window(1, 0, 0), (300, 500), score=1.0).array.all()
    assert Mask(full, Window(-1, 16, 0), (300, 500), score=1.0).bbox == (16, 0, 144, 128)


@pytest.mark.parametrize(
    "logits",
    [np.full((CELLS, CELLS), -1, np.float32), np.zeros((CELLS, CELLS), np.float32)],
    ids=["negative", "zero"],
)
def test_an_empty_mask(logits: NDArray[np.float32]) -> None:
    mask = make("one cell a pixel", logits)
    assert mask.area == 0
    assert mask.bbox == (0, 0, 0, 0)
    assert mask.crop.shape == (0, 0)
    assert not mask.array.any()
    assert mask.array.shape == (300, 400)
    assert mask.polygon() == []
    assert not decode_rle(mask.rle()).any()
    assert decode_rle(mask.rle()).shape == (300, 400)


def test_a_mask_outside_the_image_is_empty() -> None:
    logits = np.full((CELLS, CELLS), -1, np.float32)
    logits[200:, 200:] = 1
    mask = make("larger than the image", logits)
    assert mask.area == 0
    assert mask.bbox == (0, 0, 0, 0)


@everywhere
def test_polygons_are_the_mask(place: str) -> None:
    mask = make(place)
    rings = mask.polygon()
    np.testing.assert_array_equal(polygons_to_mask(rings, mask.size), mask.array)


def test_a_tolerance_thins_the_polygon_out() -> None:
    mask = make("coarse")
    exact, simple = mask.polygon(), mask.polygon(tolerance=2.0)
    assert 0 < sum(map(len, simple)) < sum(map(len, exact)) / 4
    other = polygons_to_mask(simple, mask.size)
    assert (other & mask.array).sum() / (other | mask.array).sum() > 0.95


@everywhere
@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_the_mask(place: str, *, compressed: bool) -> None:
    mask = make(place)
    rle = mask.rle(compressed=compressed)
    assert rle["size"] == list(mask.size)
    assert isinstance(rle["counts"], str if compressed else list)
    np.testing.assert_array_equal(decode_rle(rle), mask.array)


def test_other_pixels_keep_scores() -> None:
    mask = make("one cell a pixel")
    pixels = np.zeros((10, 12), bool)
    pixels[2:5, 3:9] = True
    other = mask.with_pixels(pixels, 100, 50)
    assert other.bbox == (103, 52, 109, 55)
    assert other.area == 18
    assert other.array.sum() == 18
    assert (other.score, other.stability, other.size) == (mask.score, mask.stability, mask.size)
    assert mask.area != 18


def test_logits_are_kept_in_half_precision_and_apart_from_their_batch() -> None:
    batch = np.stack([blobs(seed) for seed in range(3)])
    mask = make("one cell a pixel", batch[1])
    assert mask.logits.dtype == np.float16
    np.testing.assert_array_equal(mask.logits, batch[1])
    assert not np.shares_memory(mask.logits, batch)
    assert mask.logits.base is None


def test_other_candidates_keep_the_mask() -> None:
    mask, smaller = make("coarse"), make("coarse", blobs(threshold=1.0))
    other = mask.with_candidates([smaller, mask])
    assert other.candidates == (smaller, mask)
    assert mask.candidates == ()
    assert np.shares_memory(other.logits, mask.logits)
    np.testing.assert_array_equal(other.array, mask.array)
    assert (other.score, other.stability, other.area) == (mask.score, mask.stability, mask.area)


def test_a_pickled_mask_leaves_out_what_was_not_worked_out() -> None:
    asked: list[str] = []
    network = np.zeros(10_000_000, np.uint8)

    def work_out() -> list[Mask]:
        asked.append(f"{len(network)} weights")
        return [make("coarse", blobs(1))]

    mask = make("coarse").with_candidates(work_out)
    data = pickle.dumps(mask)
    assert len(data) < 256 * 256 * 2 + 5000
    for other in (pickle.loads(data), deepcopy(mask)):  # noqa: S301 (our own)
        assert other.candidates == ()
        np.testing.assert_array_equal(other.array, mask.array)
        assert (other.score, other.stability, other.area) == (mask.score, mask.stability, mask.area)
    assert asked == []
    assert len(mask.candidates) == 1


def test_a_pickled_mask_keeps_the_candidates_there_are() -> None:
    mask = make("coarse").with_candidates(lambda: [make("coarse", blobs(1))])
    (candidate,) = mask.candidates
    (other,) = pickle.loads(pickle.dumps(mask)).candidates  # noqa: S301 (our own)
    np.testing.assert_array_equal(other.array, candidate.array)


def test_a_copy_can_still_work_its_candidates_out() -> None:
    mask = make("coarse").with_candidates(lambda: [make("coarse", blobs(1))])
    for other in (copy(mask), mask.with_pixels(np.ones((3, 3), bool), 5, 5)):
        assert len(other.candidates) == 1


def test_dropped_pixels_are_the_same_when_asked_for_again() -> None:
    drawn_over = make("coarse").with_pixels(np.ones((7, 9), bool), 30, 40)
    mask = make("coarse").with_candidates([make("coarse", blobs(1)), drawn_over])
    pieces = (mask, *mask.candidates)
    before = [(piece.array, piece.area) for piece in pieces]
    crops = [piece.crop for piece in pieces]
    mask.drop_pixels()
    for piece, (array, area), crop in zip(pieces, before, crops, strict=True):
        np.testing.assert_array_equal(piece.array, array)
        assert piece.area == area
        assert piece is drawn_over or piece.crop is not crop


def test_a_huge_image_costs_nothing_until_the_whole_array_is_asked_for() -> None:
    logits = np.full((CELLS, CELLS), -1, np.float32)
    logits[100:120, 100:130] = 1
    # a quarter of a million pixels a side: the whole array would take 62 GB
    mask = Mask(logits, Window(0, 100_000, 200_000), (250_000, 250_000), score=1.0)
    assert mask.area == 600
    assert mask.bbox == (100_100, 200_100, 100_130, 200_120)
    assert mask.crop.all()
    np.testing.assert_array_equal(mask.polygon()[0].min(axis=0), [100_100, 200_100])
    assert sum(mask.rle(compressed=False)["counts"][1::2]) == 600


def test_stability_is_the_share_that_a_firmer_cut_leaves() -> None:
    logits = np.full((9, 9), -5, np.float32)
    logits[2, 2:5] = (4, 1, 1)
    logits[3, 2:5] = -1.5
    # the mean inside is 2: half of it leaves one cell of three, and a cut at −1 adds none; twice it adds three cells
    assert stability(logits, 0.51) == 1 / 3
    assert stability(logits, 0.9) == 1 / 6
    assert stability(logits, 0.1) == 1.0
    assert stability(logits, 2.1) == 0.0
    assert stability(np.full((4, 4), -5, np.float32)) == 0.0
    assert Mask(logits, Window(0, 0, 0), (9, 9), score=0.5, stability_offset=0.1).stability == 1.0


def test_stability_does_not_depend_on_how_sure_a_network_is() -> None:
    logits = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    assert stability(logits * 8) == stability(logits)


def test_tighten_cuts_to_the_smallest_rectangle() -> None:
    pixels = np.zeros((6, 7), bool)
    pixels[2, 3] = pixels[4, 5] = True
    crop, x, y = tighten(pixels, 10, 20)
    assert (x, y) == (13, 22)
    assert crop.tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert crop.flags["C_CONTIGUOUS"]
    assert tighten(np.zeros((3, 3), bool), 5, 6)[1:] == (0, 0)


def test_rasterize_gives_the_rectangle_and_its_place() -> None:
    logits = np.full((CELLS, CELLS), -1, np.float32)
    logits[10:20, 30:50] = 1
    crop, x, y = rasterize(logits, Window(0, 64, 32), (300, 400))
    assert (x, y, crop.shape) == (94, 42, (10, 20))


def drawn(*rows: str) -> Mask:
    """A mask with these pixels at (10, 20)."""
    return make("one cell a pixel").with_pixels(np.array([[c == "#" for c in row] for row in rows]), 10, 20)


def picture(mask: Mask) -> list[str]:
    return ["".join("#" if pixel else "." for pixel in row) for row in mask.crop]


RING = ("#####", "#...#", "#.#.#", "#...#", "#####")


def test_cleaning_fills_holes_and_drops_islands() -> None:
    mask = drawn("######..", "#..###..", "#..###..", "######.#")
    assert picture(clean(mask, 5)) == ["######"] * 4
    assert clean(mask, 5).bbox == (10, 20, 16, 24)
    assert clean(mask, 5).score == mask.score
    # a hole of four pixels and an island of one: neither has fewer than the least that is asked for
    assert picture(clean(mask, 1)) == picture(mask)
    assert picture(clean(mask, 4)) == ["######", "#..###", "#..###", "######"]


def test_cleaning_looks_at_holes_before_islands() -> None:
    # a ring around its own middle: the hole has eight pixels with the island in it, and the island one
    assert picture(clean(drawn(*RING), 9)) == ["#####"] * 5
    assert picture(clean(drawn(*RING), 8)) == ["#####", "#...#", "#...#", "#...#", "#####"]


def test_cleaning_leaves_the_background_outside_alone() -> None:
    # within the bounding box there is less of it than min_area, but it is no hole
    mask = drawn("##", "#.")
    assert picture(clean(mask, 1000)) == ["##", "#."]
    assert clean(mask, 1000).area == 3


def test_cleaning_keeps_the_largest_island_however_small() -> None:
    assert picture(clean(drawn("##..#", "##..."), 1000)) == ["##", "##"]


def test_cleaning_takes_corners_for_neighbours() -> None:
    diagonal = drawn("#..", ".#.", "..#")
    assert picture(clean(diagonal, 3)) == picture(diagonal)


def test_cleaning_nothing() -> None:
    mask = make("one cell a pixel", np.full((CELLS, CELLS), -1, np.float32))
    assert clean(mask, 10) is mask
    ring = drawn(*RING)
    assert clean(ring, 0) is ring
