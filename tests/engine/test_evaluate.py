"""Evaluation against models whose answers are known: an oracle, one that is never right, one that needs three clicks.

The packs are drawn here, each object in a colour of its own, so that a model that sees only the image can know the
truth.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from linocut.engine import evaluate as module
from linocut.engine.evaluate import evaluate
from linocut.vision.prompts import Prompt

SIZE = 96


@dataclass
class Cut:
    array: np.ndarray


Click = tuple[int, int, bool]
Answer = Callable[[np.ndarray, list[Click]], np.ndarray]


@dataclass
class Model:
    """Answers clicks from a function of the image and the clicks so far, and a box with the box itself."""

    answer: Answer
    prompts: list[Prompt] = field(default_factory=list)
    encoded: int = 0

    def encode(self, image: np.ndarray) -> np.ndarray:
        self.encoded += 1
        return image

    def decode(self, embedding: np.ndarray, prompts: Sequence[Prompt]) -> list[Cut]:
        self.prompts += prompts
        return [self._cut(embedding, prompt) for prompt in prompts]

    def _cut(self, image: np.ndarray, prompt: Prompt) -> Cut:
        if prompt.box is None:
            return Cut(self.answer(image, clicks_of(prompt)))
        x0, y0, x1, y1 = prompt.box
        inside = np.zeros(image.shape[:2], bool)
        inside[y0:y1, x0:x1] = True
        return Cut(inside)

    def runs(self) -> list[list[Click]]:
        """All clicks of each object; its box comes after the last of them."""
        return [clicks_of(last) for last, box in pairwise(self.prompts) if box.box is not None]


def clicks_of(prompt: Prompt) -> list[Click]:
    """The pixels that were clicked: a click is at a pixel's centre."""
    return [(int(x), int(y), label) for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]


def truth(image: np.ndarray, clicks: list[Click]) -> np.ndarray:
    """All pixels of the colour of the first click."""
    x, y, _ = clicks[0]
    return (image == image[y, x]).all(axis=2)


def nothing(image: np.ndarray, _clicks: list[Click]) -> np.ndarray:
    return np.zeros(image.shape[:2], bool)


def colours(labels: np.ndarray) -> np.ndarray:
    """An image in which every label value has its own colour."""
    return np.stack([labels * 37 % 256, labels * 91 % 256, labels * 53 % 256], axis=2).astype(np.uint8)


def write_pack(
    folder: Path,
    images: dict[str, list[np.ndarray]],
    *,
    kind: str = "instance",
    background: int | None = 0,
    ignore: tuple[int, ...] = (),
    segments: dict[str, list[dict[str, object]]] | None = None,
) -> Path:
    """Write label maps, and the first of each image coloured as its photograph, as a pack."""
    rows = []
    for name, maps in images.items():
        for sub in ("images/test", "labels/test"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours(maps[0])).save(folder / f"images/test/{name}.png")
        paths = [f"labels/test/{name}.{k}.png" for k in range(len(maps))]
        for path, labels in zip(paths, maps, strict=True):
            cv2.imwrite(str(folder / path), labels.astype(np.uint8))
        height, width = maps[0].shape
        rows.append(["test", name, f"images/test/{name}.png", ";".join(paths), width, height, "", "drawn"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["split", "id", "image", "labels", "width", "height", "objects", "type"], *rows])
    meta = {"name": "drawn", "kind": kind, "background": background, "ignore": list(ignore)}
    (folder / "meta.json").write_text(json.dumps(meta))
    if segments is not None:
        (folder / "segments.json").write_text(json.dumps(segments))
    return folder


def squares(count: int = 4, side: int = 20) -> np.ndarray:
    """Up to 16 squares in a 96 x 96 map, labelled 1 … count."""
    labels = np.zeros((SIZE, SIZE), np.int32)
    for value in range(count):
        y, x = divmod(value, 4)
        labels[2 + y * 24 : 2 + y * 24 + side, 2 + x * 24 : 2 + x * 24 + side] = value + 1
    return labels


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write_pack(tmp_path, {name: [squares()] for name in "abc"})


class TestProtocol:
    def test_the_oracle_needs_one_click(self, pack: Path) -> None:
        model = Model(truth)
        result = evaluate(model, pack)
        assert (result.noc80, result.noc85, result.noc90, result.fail90) == (1, 1, 1, 0)
        assert (result.iou1, result.iou3, result.iou5, result.iou_box) == (1, 1, 1, 1)
        assert result.iou_by_click == (1.0,) * 20
        assert result.objects == 12
        assert [len(run) for run in model.runs()] == [1] * 12, "nothing is left to click on after a perfect mask"

    def test_one_that_is_never_right_gets_all_clicks(self, pack: Path) -> None:
        model = Model(nothing)
        result = evaluate(model, pack, max_clicks=7)
        assert (result.noc80, result.noc85, result.noc90, result.fail90) == (7, 7, 7, 1)
        assert (result.iou1, result.iou5) == (0, 0)
        for run in model.runs():
            assert len(set(run)) == 7, "no pixel is clicked twice"
            assert all(positive for *_, positive in run)

    def test_the_third_click_counts_as_three(self, pack: Path) -> None:
        model = Model(lambda image, clicks: truth(image, clicks) if len(clicks) >= 3 else nothing(image, clicks))
        result = evaluate(model, pack)
        assert result.noc90 == 3
        assert (result.iou1, result.iou3, result.iou5) == (0, 1, 1)
        assert result.iou_by_click[:4] == (0, 0, 1, 1)

    def test_a_good_mask_still_gets_five_clicks(self, pack: Path) -> None:
        def almost(image: np.ndarray, clicks: list[Click]) -> np.ndarray:
            mask = truth(image, clicks)
            mask[np.argwhere(mask)[0][0]] = False  # a row of 20 is missing: above every threshold, yet not perfect
            return mask

        model = Model(almost)
        result = evaluate(model, pack)
        assert result.noc90 == 1
        assert [len(run) for run in model.runs()] == [5] * 12
        assert result.iou5 == pytest.approx(380 / 400)

    def test_first_click_at_the_centre_next_at_the_worst_error(self, tmp_path: Path) -> None:
        labels = np.zeros((SIZE, SIZE), np.int32)
        labels[10:51, 20:61] = 1  # 41 x 41 around (x, y) = (40, 30)

        def spills(image: np.ndarray, clicks: list[Click]) -> np.ndarray:
            mask = truth(image, clicks)
            mask[70:91, 70:91] = True  # 21 x 21 around (80, 80) is not the object
            return mask

        model = Model(spills)
        evaluate(model, write_pack(tmp_path, {"a": [labels]}), max_clicks=2)
        first, second = model.runs()[0]
        assert first == (40, 30, True)
        assert second == (80, 80, False)

    def test_the_box_is_tight_and_alone(self, tmp_path: Path) -> None:
        labels = np.zeros((SIZE, SIZE), np.int32)
        labels[10:30, 20:60] = 1
        labels[29, 20:59] = 0
        model = Model(truth)
        result = evaluate(model, write_pack(tmp_path, {"a": [labels]}))
        assert model.prompts[-1] == Prompt(box=(20, 10, 60, 30))
        assert result.iou_box == pytest.approx((800 - 39) / 800)

    def test_ignored_pixels_count_for_nothing(self, tmp_path: Path) -> None:
        labels = np.zeros((SIZE, SIZE), np.int32)
        labels[20:40, 20:40] = 1
        labels[20:40, 40:80] = 255

        def spills(image: np.ndarray, clicks: list[Click]) -> np.ndarray:
            mask = truth(image, clicks)
            mask[20:40, 40:80] = True
            return mask

        model = Model(spills)
        result = evaluate(model, write_pack(tmp_path, {"a": [labels]}, ignore=(255,)))
        assert result.objects == 1, "the ignore value is no object"
        assert result.iou1 == 1
        assert [len(run) for run in model.runs()] == [1], "the spill is no error, so it draws no click"

    def test_seconds_are_medians_of_cpu_time(self, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]
        monkeypatch.setattr(module.time, "process_time", lambda: clock[0])
        costs = iter([0.25, 0.5, 8.0] * 4)

        class Slow(Model):
            def encode(self, image: np.ndarray) -> np.ndarray:
                clock[0] += 2.0 + self.encoded  # 2, 3 and 4 seconds
                return super().encode(image)

        def takes_time(image: np.ndarray, clicks: list[Click]) -> np.ndarray:
            clock[0] += next(costs)
            return truth(image, clicks)

        result = evaluate(Slow(takes_time), pack)
        assert result.seconds_encode == 3.0
        assert result.seconds_click == 0.5


class TestObjects:
    def test_small_objects_are_left_out_and_counted(self, tmp_path: Path) -> None:
        labels = np.zeros((SIZE, SIZE), np.int32)
        labels[0:16, 0:16] = 1  # 256 pixels: just large enough
        labels[20:36, 0:16] = 2
        labels[20, 0] = 0  # 255 pixels
        labels[50, 50] = 3
        result = evaluate(Model(truth), write_pack(tmp_path, {"a": [labels]}))
        assert (result.objects, result.objects_too_small) == (1, 2)

    def test_each_image_is_encoded_once(self, pack: Path) -> None:
        model = Model(truth)
        evaluate(model, pack)
        assert model.encoded == 3

    def test_every_annotator_counts(self, tmp_path: Path) -> None:
        left, top = np.ones((SIZE, SIZE), np.int32), np.ones((SIZE, SIZE), np.int32)
        left[:, 48:], top[48:] = 2, 2
        folder = write_pack(tmp_path, {"a": [left, top]}, kind="regions", background=None)
        model = Model(nothing)
        assert evaluate(model, folder, max_clicks=1).objects == 4
        assert model.encoded == 1

    def test_stuff_only_when_asked_for(self, tmp_path: Path) -> None:
        segments = [
            {"label": 1, "isthing": True, "iscrowd": False},
            {"label": 2, "isthing": False, "iscrowd": False},
            {"label": 3, "isthing": True, "iscrowd": True},
        ]
        folder = write_pack(tmp_path, {"a": [squares(3)]}, kind="panoptic", segments={"a": segments})
        assert evaluate(Model(truth), folder).objects == 1
        assert evaluate(Model(truth), folder, stuff=True).objects == 2

    def test_a_sample_is_spread_over_the_images(self, tmp_path: Path) -> None:
        folder = write_pack(tmp_path, {f"i{k}": [squares(16)] for k in range(8)})
        model = Model(truth)
        result = evaluate(model, folder, max_objects=16)
        assert result.objects == 16
        assert model.encoded == 8, "equal images give two objects each"

    def test_a_sample_is_the_same_for_the_same_seed(self, tmp_path: Path) -> None:
        folder = write_pack(tmp_path, {f"i{k}": [squares(16)] for k in range(4)})

        def clicked(seed: int) -> list[list[Click]]:
            model = Model(truth)
            evaluate(model, folder, max_objects=8, seed=seed)
            return model.runs()

        assert clicked(1) == clicked(1)
        assert clicked(1) != clicked(2)
        assert len({run[0] for run in clicked(1)}) > 2, "not the first objects of every image"

    def test_every_object_has_the_same_chance(self) -> None:
        eligible = [[0], [0, 1, 2, 3, 4], [], [2, 5]]
        counts = {(i, place): 0 for i, places in enumerate(eligible) for place in places}
        draws = 2000
        for seed in range(draws):
            for image, places in enumerate(module._sample(eligible, 2, seed)):
                for place in places:
                    counts[image, place] += 1
        expected = draws * 2 / 8
        deviation = (draws * 0.25 * 0.75) ** 0.5
        assert sum(counts.values()) == 2 * draws
        assert all(abs(count - expected) < 5 * deviation for count in counts.values()), counts

    def test_a_sample_larger_than_the_split_is_the_split(self, pack: Path) -> None:
        assert evaluate(Model(truth), pack, max_objects=10_000).objects == 12

    def test_progress_counts_objects(self, pack: Path) -> None:
        seen: list[tuple[int, int]] = []
        evaluate(Model(truth), pack, progress=lambda done, total: seen.append((done, total)))
        assert seen == [(done, 12) for done in range(13)]


def test_what_was_not_measured_is_none(pack: Path) -> None:
    result = evaluate(Model(truth), pack, max_clicks=3)
    assert (result.iou3, result.iou5) == (1, None)


class TestRefusals:
    def test_an_unknown_split(self, pack: Path) -> None:
        with pytest.raises(ValueError, match="no split 'val'; it has test"):
            evaluate(Model(truth), pack, split="val")

    def test_a_split_without_large_objects(self, tmp_path: Path) -> None:
        folder = write_pack(tmp_path, {"a": [squares(2, side=3)]})
        with pytest.raises(ValueError, match="no object of 256 pixels or more in split 'test'"):
            evaluate(Model(truth), folder)

    @pytest.mark.parametrize("name", ["max_clicks", "max_objects"])
    def test_numbers_below_one(self, pack: Path, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} must be >= 1"):
            evaluate(Model(truth), pack, **{name: 0})

    def test_labels_of_another_size_are_named(self, pack: Path) -> None:
        path = next((pack / "labels" / "test").iterdir())
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:90])
        with pytest.raises(ValueError, match=rf"label map .*{path.name} must be as large as its image .*96 x 96"):
            evaluate(Model(truth), pack)

    def test_a_mask_of_another_size(self, pack: Path) -> None:
        with pytest.raises(ValueError, match=r"got \(5, 5\) and \(96, 96\)"):
            evaluate(Model(lambda *_: np.zeros((5, 5), bool)), pack)
