"""`linocut everything`: folders, restarts, bad images and every option."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cli.standins import Model, assert_refused, draw, run, run_script
from linocut.vision import weights as vision_weights
from linocut.vision.options import EverythingOptions


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(draw()).save(folder / name)
    return folder


def test_a_folder(model: Model, photos: Path, tmp_path: Path) -> None:
    ran = run("everything", photos, "-o", tmp_path / "out")
    assert ran.code == 0
    assert "3 cut, 0 done before, 0 failed" in ran.out
    assert [EverythingOptions(**options) for options in model.options] == [
        EverythingOptions(output_mode="coco_rle")
    ] * 3
    coco = COCO(str(tmp_path / "out" / "annotations.json"))
    assert len(coco.getImgIds()) == len(coco.getAnnIds()) == 3
    with Image.open(tmp_path / "out" / "labels" / "a.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), (draw() == (255, 0, 0)).all(axis=2))


@pytest.mark.usefixtures("model")
def test_a_restart_does_only_what_is_left(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("everything", photos, "-o", out)
    (out / "coco" / "b.json").unlink()
    ran = run("everything", photos, "-o", out)
    assert "1 cut, 2 done before, 0 failed" in ran.out
    assert "0 cut, 3 done before, 0 failed" in run("everything", photos, "-o", out).out
    assert "3 cut" in run("everything", photos, "-o", out, "--points-per-side", "8").out


@pytest.mark.usefixtures("model")
def test_a_restart_with_another_model_or_reading_cuts_all_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled, given = tmp_path / "bundled", tmp_path / "given.safetensors"
    monkeypatch.setattr(vision_weights, "bundled_path", lambda: bundled)
    monkeypatch.setenv("LINOCUT_DTYPE", "float32")

    def said(*options: str | Path) -> str:
        return run("everything", photos, "-o", tmp_path / "out", *options).out

    bundled.write_bytes(b"one model")
    assert "3 cut" in said()
    given.write_bytes(b"one model")
    assert "3 done before" in said("--weights", given), "the content decides, not the name or the time"
    bundled.write_bytes(b"the next")
    assert "3 cut" in said()
    monkeypatch.setenv("LINOCUT_DTYPE", "bfloat16")
    assert "3 cut" in said()
    assert "3 cut" in said("--value-range", "0,200")
    assert "3 done before" in said("--value-range", "0,200", "--max-pixels", "5000")


@pytest.mark.usefixtures("model")
def test_outputs_that_cannot_be_written_stop_everything(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "coco").write_bytes(b"a file")
    ran = run("everything", photos, "-o", tmp_path / "out")
    assert ran.code == 1
    bad, stopped = [line for line in ran.err.splitlines() if "error" in line]
    assert "a.png" in bad
    assert "cannot write into" in stopped
    assert "the same command goes on from here" in stopped


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_place_for_no_outputs_is_refused_before_the_model_is_loaded(
    model: Model, photos: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    assert_refused(run("everything", photos, "-o", tmp_path / place), 2, "--out", "cannot write into")
    assert model.loads == []
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_ctrl_c_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, linocut\n"
        "from cli.standins import Model\n"
        "from linocut.cli import main\n"
        "class Stopped(Model):\n"
        "    def everything(self, image, **options):\n"
        "        if self.options:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return super().everything(image, **options)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may start the tests with it ignored
        "vars(linocut)['load'] = lambda weights: Stopped()\n"
        "main()\n"
    )
    done = run_script(script, "everything", photos, "-o", tmp_path / "out")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "linocut: stopped; the same command goes on from here"
    assert "Traceback" not in done.err
    assert [path.name for path in (tmp_path / "out" / "coco").iterdir()] == ["a.json"]


@pytest.mark.usefixtures("model")
def test_a_bad_image_is_reported_at_the_end(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").write_bytes(b"\x89PNG broken")
    ran = run("everything", photos, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "2 cut, 0 done before, 1 failed" in ran.out
    assert [line for line in ran.err.splitlines() if "error" in line] == [ran.err.splitlines()[-1]]
    assert "a.png" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert "Traceback" in run("everything", photos, "-o", tmp_path / "out", "--debug").err


@pytest.mark.usefixtures("model")
def test_one_image(photo: Path, tmp_path: Path) -> None:
    assert run("everything", photo, "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "overlays" / "photo.png").is_file()


def test_every_option_reaches_the_model(model: Model, photo: Path, tmp_path: Path) -> None:
    given = {
        "points_per_side": 16,
        "points_per_batch": 32,
        "pred_iou_thresh": 0.5,
        "stability_score_thresh": 0.25,
        "stability_score_offset": 0.75,
        "box_nms_thresh": 0.125,
        "mask_nms_thresh": 0.0625,
        "crop_n_layers": 1,
        "crop_nms_thresh": 0.625,
        "crop_overlap_ratio": 0.375,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 20,
        "output_mode": "uncompressed_rle",
    }
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert run("everything", photo, "-o", tmp_path / "out", *flags).code == 0
    assert model.options == [given]
    names = {field.name for field in dataclasses.fields(EverythingOptions)}
    assert names == {*given, "point_grids"}, "an option without a flag"


def test_help_tells_the_defaults_of_the_library() -> None:
    text = re.sub(r"[│\s]+", " ", run("everything", "--help").out)
    for field_ in dataclasses.fields(EverythingOptions):
        if field_.name not in ("point_grids", "output_mode"):
            shown = re.search(rf"--{field_.name.replace('_', '-')} N .*?\[default: \(?([\d.]+)\)?\]", text)
            assert shown is not None, field_.name
            assert float(shown[1]) == pytest.approx(field_.default, abs=5e-4), field_.name


def test_point_grids_come_from_a_file(model: Model, photo: Path, tmp_path: Path) -> None:
    grids = tmp_path / "grids.json"
    grids.write_text("[[[0.25, 0.5], [0.75, 0.5]], [[0.5, 0.5]]]")
    command = ["everything", photo, "-o", tmp_path / "out", "--point-grids", grids]
    assert run(*command, "--crop-n-layers", "1").code == 0
    assert model.options[0]["points_per_side"] is None
    first, second = model.options[0]["point_grids"]
    np.testing.assert_array_equal(first, [[0.25, 0.5], [0.75, 0.5]])
    assert second.shape == (1, 2)
    assert_refused(run(*command), 2, "point_grids must hold one grid a layer, 1 of them, got 2")
    assert_refused(run(*command, "--points-per-side", "4"), 2, "--points-per-side", "--point-grids")


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("text", ["[[[0.5]]]", "[[[0.5, 2]]]", "[]", "{", "[[]]", "[0.5]", '[[["a", "b"]]]', "3"])
def test_bad_point_grids(photo: Path, tmp_path: Path, text: str) -> None:
    grids = tmp_path / "grids.json"
    grids.write_text(text)
    ran = run("everything", photo, "-o", tmp_path / "out", "--point-grids", grids)
    assert_refused(ran, 2, "--point-grids", "lists of [x, y] in 0 … 1")


@pytest.mark.usefixtures("model")
def test_wrong_usage(photo: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_refused(run("everything", tmp_path / "none", "-o", tmp_path / "out"), 2, "none does not exist")
    assert_refused(run("everything", empty, "-o", tmp_path / "out"), 2, "has no image")
    assert_refused(run("everything", photo), 2, "--out")
    assert_refused(run("everything", photo, "-o", "out", "--pred-iou-thresh", "88"), 2, "--pred-iou-thresh")
    assert_refused(run("everything", tmp_path, "-o", tmp_path), 2, "must not be the input folder")


def test_what_the_bundled_model_finds_agrees_with_itself(nuclei: dict[str, Any], tmp_path: Path) -> None:
    lenient = ("--points-per-side", "8", "--pred-iou-thresh", "0.5", "--stability-score-thresh", "0.5")
    ran = run("everything", nuclei["file"], "-o", tmp_path, *lenient)
    assert ran.code == 0, ran.err
    coco = COCO(str(tmp_path / "annotations.json"))
    with Image.open(tmp_path / "labels" / "nuclei-fluorescence.png") as labels:
        numbers = np.asarray(labels)
    assert len(coco.getAnnIds()) == numbers.max() > 3
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation).astype(bool)
        assert mask.sum() == annotation["area"]
        assert not (numbers == annotation["id"])[~mask].any(), "a label lies inside its mask"
