"""The demo with a model whose answers are known."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import linocut
from linocut.demo import POINTS_PER_SIDE, Sample, bundled_samples, cut_sample, large_sample, run_demo
from linocut.vision.everything import Everything
from linocut.vision.options import EverythingOptions
from linocut.vision.segmenter import Segmenter

SAMPLES = bundled_samples()


class Disc(Segmenter):
    """Answers a click with a disc around it, a box with the box, and everything with two stripes."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.asked: list[tuple[str, Any]] = []

    def open(self, source: Any) -> Any:
        self.asked.append(("open", source.shape))
        height, width = source.shape[:2]

        def click(x: float, y: float, positive: bool = True) -> Any:
            mask = np.zeros((height, width), np.uint8)
            return SimpleNamespace(array=cv2.circle(mask, (round(x), round(y)), 20, 1, cv2.FILLED).astype(bool))

        def box(x0: float, y0: float, x1: float, y1: float) -> Any:
            mask = np.zeros((height, width), bool)
            mask[round(y0) : round(y1), round(x0) : round(x1)] = True
            return SimpleNamespace(array=mask)

        return SimpleNamespace(click=click, box=box, reset=lambda: self.asked.append(("reset", None)))

    def everything(self, image: Any, **options: Any) -> Any:
        self.asked.append(("everything", options))
        height, width = image.shape[:2]
        result = Everything([], [], (height, width), EverythingOptions())
        result.masks.extend([None, None])  # type: ignore[list-item]  # only their number is asked for
        result.__dict__["label_map"] = np.repeat(np.arange(3, dtype=np.int32), [height - 40, 20, 20])[:, None].repeat(
            width, axis=1
        )
        return result


def innermost(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a mask that is farthest from its edge; outside the image is outside the mask."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def painted(picture: np.ndarray) -> np.ndarray:
    """Where a panel is neither white nor grey like its caption."""
    return np.ptp(picture.astype(int), axis=2) > 40


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.title for sample in SAMPLES])
class TestSamples:
    def test_prompts_lie_on_the_objects_they_mean(self, sample: Sample) -> None:
        assert sample.labels.shape == sample.image.shape[:2]
        assert sample.click == innermost(sample.labels == sample.click_object)
        rows, columns = np.nonzero(sample.labels == sample.box_object)
        assert sample.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)

    def test_reference_objects_are_in_one_piece(self, sample: Sample) -> None:
        for number in {sample.click_object, sample.box_object}:
            mask = (sample.labels == number).astype(np.uint8)
            assert cv2.connectedComponents(mask)[0] == 2
            assert mask.sum() > 256  # the least that the evaluation counts

    def test_the_large_image_keeps_prompts_and_objects_together(self, sample: Sample) -> None:
        large = large_sample(sample)
        assert large.image.shape == (2048, 3072, 3)
        assert large.labels[int(large.click[1]), int(large.click[0])] == large.click_object
        small_share = (sample.labels == sample.box_object).mean()
        assert (large.labels == large.box_object).mean() == pytest.approx(small_share, rel=0.02)


def test_the_samples_are_small() -> None:
    folder = Path(linocut.__file__).parent / "samples"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_one_sample(tmp_path: Path) -> None:
    model = Disc()
    sample = SAMPLES[1]
    row = cut_sample(model, sample, tmp_path)
    assert [kind for kind, _ in model.asked] == ["open", "reset", "everything"]
    assert model.asked[2][1] == {"points_per_side": POINTS_PER_SIDE}
    assert (row.title, row.size, row.objects) == ("astronaut", (512, 512), 2)
    disc = cv2.circle(np.zeros((512, 512), np.uint8), (398, 427), 20, 1, cv2.FILLED).astype(bool)
    helmet = sample.labels == sample.click_object
    assert row.click_iou == pytest.approx(disc.sum() / helmet.sum())
    box = np.zeros((512, 512), bool)
    box[16:190, 153:301] = True
    head = sample.labels == sample.box_object
    assert row.box_iou == pytest.approx((box & head).sum() / (box | head).sum())
    assert min(row.encode, row.click, row.everything) > 0


def test_the_picture_has_four_panels_with_what_they_say(tmp_path: Path) -> None:
    grey = Sample(
        "dull",
        np.full((360, 360, 3), 90, np.uint8),
        (100, 100),
        (200, 200, 300, 300),
        SAMPLES[1].labels[:360, :360],
        1,
        2,
    )
    row = cut_sample(Disc(), grey, tmp_path)  # the labels matter for the IoU only
    with Image.open(row.picture) as image:
        picture = np.asarray(image)
    assert row.picture == tmp_path / "dull.png"
    assert picture.shape == (400, 4 * 368, 3)
    prompts, click, box, everything = (picture[32:392, 368 * place + 4 : 368 * place + 364] for place in range(4))
    assert painted(prompts)[100, 100]
    assert painted(prompts)[200:300, 200].all()
    assert not painted(prompts)[250, 250]
    assert painted(click)[82:118, 82:118].mean() > 0.7  # all but the rim of the dot and the corners
    assert not painted(click)[250, 250]
    assert painted(box)[205:295, 205:295].all()
    assert not painted(box)[100, 100]
    assert painted(everything)[-40:].all()
    assert not painted(everything)[:-45].any()
    assert (picture[:32] < 128).any()  # captions


def test_the_whole_demo(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    rows = run_demo(Disc(), tmp_path / "out", console=console)
    titles = ["coffee", "astronaut", "cat", "nuclei, fluorescence", "nuclei, stained", "coffee, large"]
    assert [row.title for row in rows] == titles
    assert rows[-1].size == (2048, 3072)
    assert sorted((tmp_path / "out").iterdir()) == sorted(row.picture for row in rows)
    for row in rows:
        with Image.open(row.picture) as image:
            assert image.size[1] == 400
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for word in (*titles, "3072x2048", "everything", "box IoU", str(tmp_path / "out")):
        assert word in text
    assert "…" not in text
    assert text.count("Linocut on this machine") == 1


@pytest.fixture(scope="module")
def bundled() -> Segmenter:
    return linocut.load()


CLICK_FLOORS = {
    "coffee": 0.7,
    "astronaut": 0.75,
    "cat": 0.6,
    "nuclei, fluorescence": 0.85,
    "nuclei, stained": 0.85,
}


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.title for sample in SAMPLES])
class TestBundledModel:
    """The weights that ship really cut the samples; the floors leave room for a model trained otherwise."""

    def test_click(self, bundled: Segmenter, sample: Sample) -> None:
        mask = bundled.open(sample.image).click(*sample.click)
        assert iou(mask.array, sample.labels == sample.click_object) >= CLICK_FLOORS[sample.title]

    def test_box(self, bundled: Segmenter, sample: Sample) -> None:
        mask = bundled.open(sample.image).box(*sample.box)
        assert iou(mask.array, sample.labels == sample.box_object) >= 0.8
