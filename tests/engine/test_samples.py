"""Batches: functions of seed and step, balanced over packs, with objects that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from linocut.engine import samples
from linocut.engine.samples import MIN_AREA, Crop, SampleSource

PackWriter = Callable[..., Path]


def source(
    *folders: Path, seed: int = 0, objects: int = 8, split: str = "train", weights: dict[str, float] | None = None
) -> SampleSource:
    names = [str(folder) for folder in folders]
    return SampleSource(names, split=split, seed=seed, objects_per_batch=objects, pack_weights=weights)


def same(a: list[Crop], b: list[Crop]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.image, y.image)
        and x.size == y.size
        and len(x.objects) == len(y.objects)
        and all(np.array_equal(m, n) for m, n in zip(x.objects, y.objects, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def test_a_batch_is_decided_by_seed_and_step_alone(write_pack: PackWriter) -> None:
    folder = write_pack()
    one, other = source(folder), source(folder)
    batches = [one.batch(step) for step in range(4)]
    # in another order, so that nothing is left over from the batch before
    for step in (3, 0, 2, 1):
        assert same(other.batch(step), batches[step])
    assert not same(batches[0], batches[1])
    assert not same(source(folder, seed=1).batch(0), batches[0])


def test_a_batch_holds_crops_of_one_size_with_as_many_objects(write_pack: PackWriter) -> None:
    drawn = source(write_pack())
    sides = Counter()
    for step in range(40):
        crops = drawn.batch(step)
        side = crops[0].image.shape[0]
        sides[side] += 1
        assert len(crops) == {256: 4, 384: 2, 512: 1}[side]
        for crop in crops:
            height, width = crop.size
            assert crop.image.shape == (side, side, 3)
            assert crop.image.dtype == np.uint8
            assert len(crop.objects) == 8 // len(crops)
            assert 0 < height <= side
            assert 0 < width <= side
            assert (crop.image[height:] == 127).all()
            assert (crop.image[:, width:] == 127).all()
            for mask in crop.objects:
                assert mask.shape == (height, width)
                assert mask.dtype == np.bool_
                assert mask.sum() >= MIN_AREA
    # 55, 30 and 15 in a hundred
    assert sides[256] > sides[384] > sides[512] > 0


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_few_objects_take_few_crops(write_pack: PackWriter, objects: int) -> None:
    drawn = source(write_pack(), objects=objects)
    for step in range(10):
        crops = drawn.batch(step)
        assert all(len(crop.objects) >= 1 for crop in crops)
        assert 1 <= sum(len(crop.objects) for crop in crops) <= objects


def test_masks_lie_where_the_objects_are(write_pack: PackWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "jitter", lambda image, _rng: image)
    drawn = source(write_pack(of="drawing"))
    for step in range(10):
        for crop in drawn.batch(step):
            height, width = crop.size
            image = crop.image[:height, :width].astype(int)
            for mask in crop.objects:
                core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
                if not core.any():
                    continue
                # a disc has one colour, and it is not that of the ground
                assert image[core].std(axis=0).max() < 3
                assert np.abs(image[core].mean(axis=0) - 90).max() > 5


def test_packs_are_drawn_by_their_weights(write_pack: PackWriter) -> None:
    packs = [write_pack("often", side=64), write_pack("seldom", side=65), write_pack("mine", side=66)]
    drawn = source(*packs, weights={"often": 2.5, "seldom": 0.5})
    expected = np.array([2.5, 0.5, 1.0]) / 4
    np.testing.assert_allclose(drawn.weights, expected)
    rng = np.random.default_rng(0)
    names = Counter(drawn._draw(drawn.names, drawn.weights, rng)[0] for _ in range(4000))
    for name, share in zip(("often", "seldom", "mine"), expected, strict=True):
        assert abs(names[name] / 4000 - share) < 4 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.parametrize("weights", [{"mine": 0.0}, {"mine": -1.0}, {"mine": float("nan")}, {"yours": 1.0}])
def test_weights_that_are_refused(write_pack: PackWriter, weights: dict[str, float]) -> None:
    expected = "names yours; the packs are mine" if "yours" in weights else "must be finite and > 0"
    with pytest.raises(ValueError, match=f"pack_weights {expected}"):
        source(write_pack("mine"), weights=weights)


def test_of_a_pasted_object_nothing_is_ignored(write_pack: PackWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = source(write_pack(ignore=(3,)))
    everything = np.ones((96, 96), bool)
    image, masks, ignore = drawn._paste(np.zeros((96, 96, 3), np.uint8), [], everything, np.random.default_rng(0))
    assert ignore is not None
    assert np.array_equal(ignore, ~masks[-1])
    assert image[masks[-1]].any()


def test_large_objects_do_not_crowd_out_small_ones(write_pack: PackWriter) -> None:
    """Drawn by the root of their area: a disc sixteen times as large comes four times as often, not sixteen."""
    folder = write_pack(count=1, side=256, of="drawing")
    labels = np.zeros((256, 256), np.uint8)
    cv2.circle(labels, (96, 128), 80, 1, -1)
    cv2.circle(labels, (220, 128), 20, 2, -1)
    cv2.imwrite(str(folder / "train-0-labels.png"), labels)
    drawn = source(folder, objects=1)
    areas = []
    for step in range(400):
        for crop in drawn.batch(step):
            # only crops that show the whole image
            if crop.size[0] < crop.image.shape[0] and crop.size[1] < crop.image.shape[1]:
                areas += [mask.sum() / (crop.size[0] * crop.size[1]) for mask in crop.objects]
    small = np.mean(np.array(areas) < 0.1)
    assert len(areas) > 100
    assert abs(small - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(areas))


def test_ignored_pixels_are_handed_on(write_pack: PackWriter) -> None:
    drawn = source(write_pack(ignore=(3,), of="drawing"))
    seen = [crop for step in range(10) for crop in drawn.batch(step)]
    assert any(crop.ignore is not None for crop in seen)
    for crop in seen:
        if crop.ignore is not None:
            assert crop.ignore.shape == crop.size
            assert crop.ignore.any()
            assert not any((mask & crop.ignore).any() for mask in crop.objects)


def test_objects_are_pasted_into_photographs_only(write_pack: PackWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    pasted = []
    original = samples.paste

    def spy(*arguments: object) -> object:
        pasted.append(1)
        return original(*arguments)

    monkeypatch.setattr(samples, "paste", spy)
    donor = write_pack("horses", side=120)
    for step in range(10):
        source(donor).batch(step)
    assert pasted
    pasted.clear()
    drawing = write_pack("cells", of="fluorescence")
    for step in range(10):
        source(drawing).batch(step)
    assert not pasted


def test_validation_draws_from_its_own_split(write_pack: PackWriter) -> None:
    folder = write_pack()
    assert [item.id for item in source(folder, split="val").packs["discs"]] == ["val-0", "val-1"]
    assert [item.id for item in source(folder).packs["discs"]] == ["train-0", "train-1"]


def test_what_is_refused(write_pack: PackWriter, tmp_path: Path) -> None:
    folder = write_pack()
    with pytest.raises(ValueError, match="objects_per_batch must be >= 1, got 0"):
        source(folder, objects=0)
    with pytest.raises(ValueError, match="has no split 'test'"):
        source(folder, split="test")
    with pytest.raises(ValueError, match="different names, got discs, discs"):
        source(folder, folder)
    with pytest.raises(ValueError, match="is not a pack"):
        source(tmp_path)


def test_packs_without_an_object_that_is_large_enough_end_with_an_error(
    write_pack: PackWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_TRIES", 20)
    folder = write_pack(count=1, of="drawing")
    cv2.imwrite(str(folder / "train-0-labels.png"), np.zeros((96, 96), np.uint8))
    with pytest.raises(ValueError, match="20 crops of discs held 0 with an object of at least 60 pixels"):
        source(folder).batch(0)


def test_labels_of_another_size_are_named(write_pack: PackWriter) -> None:
    folder = write_pack(count=1)
    cv2.imwrite(str(folder / "train-0-labels.png"), np.ones((48, 96), np.uint8))
    with pytest.raises(ValueError, match=r"train-0-labels.png must be as large as its image .*, got 96 x 48"):
        source(folder).batch(0)
