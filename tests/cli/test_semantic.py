"""`linocut semantic` and `linocut eval --task semantic`: what they write, and what they refuse before they start."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.standins import assert_refused, run
from linocut.vision.encoder import EncoderConfig
from linocut.vision.semantic import SemanticConfig, SemanticNet, save_semantic


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    config = SemanticConfig(
        ("sky", "road"), (0, 7), EncoderConfig(channels16=16, channels8=16, channels4=8, blocks16=1), channels=16
    )
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_semantic(path, SemanticNet(config).state_dict(), config)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "more/b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def pack(photos: Path) -> Path:
    labels = np.full((40, 60), 7, np.uint8)
    labels[:20] = 0
    Image.fromarray(labels).save(photos / "labels.png")
    rows = [["split", "id", "image", "labels", "width", "height", "objects", "type"]]
    rows += [["test", "a", "a.png", "labels.png", "60", "40", "1", "drawn"]]
    with (photos / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    meta = {"name": "drawn", "kind": "semantic", "background": None, "ignore": []}
    (photos / "meta.json").write_text(json.dumps(meta))
    (photos / "classes.json").write_text(json.dumps({"classes": {"0": "sky", "7": "road"}}))
    return photos


def test_every_image_of_a_folder_gets_labels_and_an_overlay(photos: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    ran = run("semantic", photos, "-o", out, "--weights", weights)
    assert ran.code == 0, ran.err
    assert ran.out == f"2 done, 0 failed: {out}\n"
    for name in ("a.png", "more/b.png"):
        labels = np.asarray(Image.open(out / "labels" / name))
        assert labels.shape == (40, 60)
        assert set(np.unique(labels).tolist()) <= {0, 7}
        assert np.asarray(Image.open(out / "overlays" / name)).shape == (40, 60, 3)
    assert json.loads((out / "classes.json").read_text()) == {"classes": {"0": "sky", "7": "road"}}


def test_an_image_that_cannot_be_read_does_not_stop_the_rest(photos: Path, weights: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes(b"no image")
    ran = run("semantic", photos, "-o", tmp_path / "seen", "--weights", weights)
    assert ran.code == 1
    assert "1 done, 1 failed" in ran.out
    assert "a.png" in ran.err
    assert (tmp_path / "seen" / "labels" / "more" / "b.png").exists()


def test_one_image(photos: Path, weights: Path, tmp_path: Path) -> None:
    assert run("semantic", photos / "a.png", "-o", tmp_path / "seen", "--weights", weights).code == 0
    assert (tmp_path / "seen" / "labels" / "a.png").exists()


def test_wrong_usage(photos: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    assert_refused(run("semantic", tmp_path / "none.png", "-o", out), 2, "none.png does not exist")
    assert_refused(run("semantic", photos, "-o", photos, "--weights", weights), 2, "must not be the input folder")
    assert_refused(run("semantic", photos, "-o", out, "--weights", tmp_path / "no"), 2, "--weights", "does not exist")
    assert_refused(run("semantic", photos, "-o", out, "--weights", photos / "a.png"), 2, "--weights", "safetensors")
    assert not out.exists()


def test_eval_prints_and_writes_the_figures_and_pictures(pack: Path, weights: Path, tmp_path: Path) -> None:
    files = tmp_path / "e.json", tmp_path / "e.md"
    ran = run(
        *("eval", "--task", "semantic", pack, "--weights", weights),
        *("--json", files[0], "--markdown", files[1], "--pictures", tmp_path / "seen"),
    )
    assert ran.code == 0, ran.err
    assert "MIoU" in ran.out
    assert "road" in ran.out
    figures = json.loads(files[0].read_text())
    assert [each["name"] for each in figures["classes"]] == ["sky", "road"]
    assert figures["miou"] == pytest.approx(np.mean([each["iou"] for each in figures["classes"]]))
    assert "| road | 50.0% |" in files[1].read_text()
    assert (tmp_path / "seen" / "a.png").exists()


def test_eval_of_several_packs_gives_a_list_and_a_folder_a_pack(pack: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, tmp_path / "other")
    ran = run(
        *("eval", "--task", "semantic", pack, tmp_path / "other", "--weights", weights, "--json", tmp_path / "e.json"),
        *("--pictures", tmp_path / "seen"),
    )
    assert ran.code == 0, ran.err
    assert len(json.loads((tmp_path / "e.json").read_text())) == 2
    assert (tmp_path / "seen" / "photos" / "a.png").exists()
    assert (tmp_path / "seen" / "other" / "a.png").exists()


def test_pictures_of_an_earlier_run_are_not_taken_for_images(photos: Path, weights: Path, tmp_path: Path) -> None:
    assert run("semantic", photos, "-o", photos / "seen", "--weights", weights).code == 0
    ran = run("semantic", photos, "-o", tmp_path / "again", "--weights", weights)
    assert ran.out == f"2 done, 0 failed: {tmp_path / 'again'}\n"


def test_a_place_where_nothing_can_be_written_is_refused_first(pack: Path, weights: Path) -> None:
    file = pack / "meta.json"
    assert_refused(run("semantic", pack / "a.png", "-o", file, "--weights", weights), 2, "--out", "meta.json")
    ran = run("eval", "--task", "semantic", pack, "--weights", weights, "--pictures", file)
    assert_refused(ran, 2, "--pictures", "meta.json")


def test_eval_refuses_what_belongs_to_another_task(pack: Path, weights: Path, tmp_path: Path) -> None:
    assert_refused(run("eval", pack, "--pictures", tmp_path), 2, "--pictures is not for --task prompts")
    semantic = ("eval", "--task", "semantic", pack, "--weights", weights)
    assert_refused(run(*semantic, "--max-objects", "3"), 2, "--max-objects is not for --task semantic")
    assert_refused(run(*semantic, "--split", "val"), 2, "no split 'val'")
