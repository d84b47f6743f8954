"""Semantic training and evaluation on a pack of two drawn classes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from linocut.engine import semantic_train
from linocut.engine.losses import class_weights, semantic_loss
from linocut.engine.semantic_evaluate import evaluate_semantic, paint, side_by_side
from linocut.engine.semantic_samples import UNKNOWN, SemanticSource
from linocut.engine.semantic_train import SemanticProgress, SemanticTrainConfig, SemanticTrainer, train_semantic
from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import SegmenterNet
from linocut.vision.semantic import SemanticConfig, load_semantic, load_semantic_net
from linocut.vision.weights import save_weights

NARROW = partial(EncoderConfig, channels16=16, channels8=16, channels4=8, blocks16=1)
CLASSES = {"0": "field", "4": "disc", "9": "void"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow network: a step takes a fraction of a second."""
    monkeypatch.setattr(semantic_train, "EncoderConfig", NARROW)
    monkeypatch.setattr(semantic_train, "SemanticConfig", partial(SemanticConfig, channels=16))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Bright discs (class 4) on a dark field (class 0), with a strip of void (9) at the left."""
    folder = tmp_path / "discs"
    folder.mkdir()
    rows = [["split", "id", "image", "labels", "width", "height", "objects", "type"]]
    for split in ("train", "val", "test"):
        for index in range(2):
            rng = np.random.default_rng((len(split), index))
            picture, labels = np.full((64, 80, 3), 40, np.uint8), np.zeros((64, 80), np.uint8)
            center, radius = (int(rng.integers(25, 60)), int(rng.integers(20, 44))), int(rng.integers(9, 16))
            cv2.circle(picture, center, radius, (200, 220, 90), -1)
            cv2.circle(labels, center, radius, 4, -1)
            labels[:, :5] = 9
            stem = f"{split}-{index}"
            cv2.imwrite(str(folder / f"{stem}.png"), picture)
            cv2.imwrite(str(folder / f"{stem}-labels.png"), labels)
            rows.append([split, stem, f"{stem}.png", f"{stem}-labels.png", "80", "64", "1", "drawn"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "meta.json").write_text(
        json.dumps({"name": "discs", "kind": "semantic", "background": None, "ignore": [9]})
    )
    (folder / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return folder


@pytest.fixture
def config(pack: Path, tmp_path: Path) -> SemanticTrainConfig:
    return SemanticTrainConfig(
        data=str(pack),
        out=str(tmp_path / "run"),
        steps=4,
        images=2,
        side=64,
        warmup=1,
        cooldown=2,
        save_every=1,
        val_every=2,
        imagenet="",
        dtype="float32",
    )


class StoppedError(Exception):
    """Stands for whatever stops a run."""


def run(config: SemanticTrainConfig, *, resume: bool = False, stop_after: int | None = None) -> list[SemanticProgress]:
    told: list[SemanticProgress] = []

    def report(progress: SemanticProgress) -> None:
        told.append(progress)
        if progress.step == stop_after:
            raise StoppedError

    if stop_after is None:
        train_semantic(config, resume=resume, report=report)
    else:
        with pytest.raises(StoppedError):
            train_semantic(config, resume=resume, report=report)
    return told


def test_an_interrupted_run_ends_as_an_uninterrupted_one(config: SemanticTrainConfig) -> None:
    whole = replace(config, out=config.out + "-whole")
    told = run(whole)
    again = run(config, stop_after=2) + run(config, resume=True)
    assert again == told
    one, other = (load_semantic_net(Path(c.out) / "weights.safetensors").state_dict() for c in (config, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [progress.val_miou is None for progress in told] == [True, False, True, False]


def test_it_learns_to_tell_discs_from_field(config: SemanticTrainConfig, pack: Path) -> None:
    longer = replace(
        config, steps=60, warmup=5, cooldown=20, learning_rate=5e-3, trunk_rate=1.0, val_every=20, average=0.8
    )
    told = run(longer)
    assert told[-1].loss < 0.7 * told[0].loss
    model = load_semantic(Path(longer.out) / "weights.safetensors", dtype="float32")
    result = evaluate_semantic(model, pack, split="test")
    assert result.miou > 0.7
    assert [each.name for each in result.classes] == ["field", "disc"]


def test_figures_are_read_off_one_matrix_and_void_counts_for_nothing(config: SemanticTrainConfig, pack: Path) -> None:
    run(replace(config, steps=1))
    model = load_semantic(Path(config.out) / "weights.safetensors", dtype="float32")
    model.classify = lambda image: (image[..., 0] > 70).astype(np.int64)  # type: ignore[method-assign]
    result = evaluate_semantic(model, pack, split="val")
    assert (result.pa, result.mpa, result.miou, result.fwiou) == (1, 1, 1, 1)
    model.classify = lambda image: np.zeros(image.shape[:2], np.int64)  # type: ignore[method-assign]
    result = evaluate_semantic(model, pack, split="val")
    field, disc = result.classes
    assert (field.recall, disc.recall, disc.iou) == (1, 0, 0)
    assert result.pa == pytest.approx(field.share)
    assert result.miou == pytest.approx(field.iou / 2)
    assert field.share + disc.share == pytest.approx(1)
    assert np.isnan(disc.precision)
    assert result.to_json()["classes"][1]["precision"] is None
    assert "| disc |" in result.markdown()
    assert json.loads(json.dumps(result.to_json()))["images"] == 2


def test_pictures_show_image_prediction_truth_and_errors(
    config: SemanticTrainConfig, pack: Path, tmp_path: Path
) -> None:
    run(replace(config, steps=1))
    model = load_semantic(Path(config.out) / "weights.safetensors", dtype="float32")
    done: list[tuple[int, int]] = []
    evaluate_semantic(model, pack, pictures=tmp_path / "seen", progress=lambda *a: done.append(a))
    assert done == [(1, 2), (2, 2)]
    picture = cv2.imread(str(tmp_path / "seen" / "test-0.png"))
    labels = cv2.imread(str(tmp_path / "seen" / "labels" / "test-0.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert labels is not None
    assert picture.shape == (64, 4 * 80, 3)
    assert set(np.unique(labels).tolist()) <= {0, 4}


def test_errors_are_white_and_unknown_pixels_are_none() -> None:
    image = np.full((2, 2, 3), 90, np.uint8)
    picture = side_by_side(image, np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, -1]]))
    assert picture[:, 6:].tolist() == [[[30] * 3, [255] * 3], [[30] * 3, [30] * 3]]
    assert len({tuple(colour) for colour in paint(image, np.array([[0, 1], [2, -1]])).reshape(-1, 3).tolist()}) == 4


def test_a_batch_is_a_function_of_seed_and_step(pack: Path) -> None:
    one, other = (SemanticSource(pack, split="train", seed=3, images=2, side=48) for _ in range(2))
    np.testing.assert_array_equal(one.batch(5).images, other.batch(5).images)
    np.testing.assert_array_equal(one.batch(5).classes, other.batch(5).classes)
    assert not np.array_equal(one.batch(5).images, one.batch(6).images)


def inside(masks: np.ndarray) -> np.ndarray:
    """The pixels of (n, h, w) masks whose eight neighbours are in them too."""
    return np.stack([cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) for mask in masks]).astype(bool)


def test_crops_show_the_image_where_their_classes_say_so(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright pixels are discs in every crop, however it was scaled, cut and mirrored; the rest is field or unknown."""
    from linocut.engine import semantic_samples

    monkeypatch.setattr(semantic_samples, "jitter", lambda image, _: image)
    source = SemanticSource(pack, split="train", images=4, side=48)
    for step in range(6):
        batch = source.batch(step)
        green, grey = batch.images[..., 1], (batch.images == 127).all(axis=3)
        bright, dark = inside(green > 180), inside((green < 60) & ~grey)
        assert bright.any()
        assert dark.any()
        assert set(np.unique(batch.classes[bright]).tolist()) <= {1, UNKNOWN}
        assert set(np.unique(batch.classes[dark]).tolist()) <= {0, UNKNOWN}
        assert set(np.unique(batch.classes[(batch.images == 127).all(axis=3)]).tolist()) <= {UNKNOWN}
        assert (batch.classes == 1).any()


def test_pixels_are_counted_by_class_without_the_unknown(pack: Path) -> None:
    source = SemanticSource(pack, split="train")
    counted = source.pixels_of_classes()
    labels = [item.load_labels()[0] for item in source.pack.images]
    assert counted.tolist() == [sum(int((each == value).sum()) for each in labels) for value in (0, 4)]


def test_rare_classes_weigh_more_and_the_mean_over_pixels_is_one() -> None:
    pixels = torch.tensor([90, 9, 1])
    weights = class_weights(pixels)
    assert weights[0] < weights[1] < weights[2]
    assert float((weights * pixels / 100).sum()) == pytest.approx(1)
    ratio = np.log(1.1 + 0.9) / np.log(1.1 + 0.01)
    assert float(weights[2] / weights[0]) == pytest.approx(ratio, rel=1e-5)


def test_the_loss_by_hand() -> None:
    """Two pixels, one unknown: cross-entropy ln(4/3) of p = 3/4, soft IoU 3/4 of the one class that is there."""
    logits = torch.tensor([[[[np.log(3.0), 5.0]], [[0.0, -5.0]]]], dtype=torch.float32)
    target = torch.tensor([[[0, -1]]])
    loss = semantic_loss(logits, target, torch.ones(2))
    assert float(loss) == pytest.approx(np.log(4 / 3) + 0.25, rel=1e-5)
    nothing = semantic_loss(logits.requires_grad_(), torch.tensor([[[-1, -1]]]), torch.ones(2))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_run_starts_from_a_segmenters_encoder_or_from_an_earlier_training(
    config: SemanticTrainConfig, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    segmenter = SegmenterNet(NARROW())
    save_weights(tmp_path / "base.safetensors", segmenter.state_dict(), segmenter.config)
    started = SemanticTrainer(replace(config, imagenet=None, start=str(tmp_path / "base.safetensors")))
    for name, value in segmenter.encoder.state_dict().items():
        assert torch.equal(started.net.encoder.state_dict()[name], value.half().float()), name
    run(replace(config, steps=1))
    earlier = Path(config.out) / "weights.safetensors"
    second = SemanticTrainer(replace(config, out=config.out + "-2", start=str(earlier)))
    for name, value in load_semantic_net(earlier).state_dict().items():
        assert torch.equal(second.net.state_dict()[name], value), name
    with pytest.raises(ValueError, match=r"holds weights of .*rates=\(3, 6, 12\).* trains .*rates=\(1, 1, 1\)"):
        SemanticTrainer(replace(config, out=config.out + "-3", start=str(earlier), rates=(1, 1, 1)))
    other = SegmenterNet(NARROW(channels8=24))
    save_weights(tmp_path / "other.safetensors", other.state_dict(), other.config)
    with pytest.raises(ValueError, match=r"holds an encoder of .*channels8=24.* trains .*channels8=16"):
        SemanticTrainer(replace(config, out=config.out + "-4", start=str(tmp_path / "other.safetensors")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "instance"}, "must be a pack of kind semantic, its meta.json says instance"),
        ({"classes": {"0": "field", "5": "disc"}}, r"holds \[4\], which are neither classes \(\[0, 5\]\) nor ignored"),
        ({"classes": {"0": "field", "9": "void"}}, "must name two classes or more, got .*field"),
        ({"classes": {"zero": "field"}}, "cannot be read as classes"),
    ],
)
def test_packs_that_are_refused(config: SemanticTrainConfig, pack: Path, change: dict[str, Any], message: str) -> None:
    name = "classes.json" if "classes" in change else "meta.json"
    content = json.loads((pack / name).read_text())
    (pack / name).write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=message):
        SemanticTrainer(config)
    assert not Path(config.out).exists()


def test_several_packs_and_other_classes_are_refused(config: SemanticTrainConfig, pack: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "manifest.csv").write_text("")
    with pytest.raises(ValueError, match=r"is trained on one pack.* holds 2: discs, more"):
        SemanticTrainer(replace(config, data=str(tmp_path)))
    run(replace(config, steps=1))
    model = load_semantic(Path(config.out) / "weights.safetensors")
    (pack / "classes.json").write_text(json.dumps({"classes": {**CLASSES, "0": "sea"}}))
    with pytest.raises(ValueError, match=r"has the classes .*sea.* trained on .*field"):
        evaluate_semantic(model, pack)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"images": 0}, "images must be >= 1, got 0"), ({"side": 16}, "side must be >= 32, got 16")],
)
def test_settings_that_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemanticTrainConfig(data="", out="", **setting)
