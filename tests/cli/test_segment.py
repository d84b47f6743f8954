"""`linocut segment`: what it writes, what it says and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as coco_mask

import linocut
from cli.standins import Model, assert_refused, draw, run
from linocut.data.images import ImageError
from linocut.data.overlay import POSITIVE
from linocut.metrics.interaction import iou
from linocut.vision.prompts import Prompt


@pytest.mark.usefixtures("model")
def test_one_point(photo: Path, tmp_path: Path) -> None:
    ran = run("segment", photo, "--point", "8,8", "-o", tmp_path / "new" / "mask.png")
    assert (ran.code, ran.err) == (0, "")
    assert "200 pixels, predicted IoU 0.88" in ran.out
    with Image.open(tmp_path / "new" / "mask.png") as mask:
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), (draw() == (255, 0, 0)).all(axis=2) * 255)


def test_every_prompt_reaches_the_model(model: Model, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.png"
    ran = run(
        *("segment", photo, "-p", "8,8", "--point", "25.5,10", "-n", "0,0"),
        *("--box", "2,3,40,30", "-o", out),
    )
    assert ran.code == 0
    expected = Prompt.of([(8.5, 8.5), (25.5, 10.5), (0.5, 0.5)], [1, 1, 0], (2, 3, 40, 30))
    assert model.log == [expected], "asked once, of pixels' centres where the numbers are whole"
    with Image.open(out) as mask:
        assert int((np.asarray(mask) == 255).sum()) == 200 + 360


@pytest.mark.usefixtures("model")
def test_json_and_overlay(photo: Path, tmp_path: Path) -> None:
    ran = run("segment", photo, "-p", "8,8", "--json", tmp_path / "m.json", "--overlay", tmp_path / "o.png")
    assert ran.code == 0
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["prompt"] == {"points": [[8, 8]], "negative": [], "box": None}
    assert (record["area"], record["bbox"]) == (200, [5, 5, 10, 20]), "x, y, width, height"
    assert (record["predicted_iou"], record["stability_score"]) == (0.875, 0.96)
    np.testing.assert_array_equal(coco_mask.decode(record["segmentation"]), (draw() == (255, 0, 0)).all(axis=2))
    with Image.open(tmp_path / "o.png") as overlay:
        pixels = np.asarray(overlay)
    assert tuple(pixels[8, 8]) == POSITIVE, "the click"
    assert (pixels[20, 8] != draw()[20, 8]).any(), "the object"
    assert (pixels[0, 0] == draw()[0, 0]).all(), "the rest"


def test_weights_are_passed_on(model: Model, photo: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"")
    run("segment", photo, "-p", "8,8", "-o", tmp_path / "m.png", "--weights", weights)
    run("segment", photo, "-p", "8,8", "-o", tmp_path / "m.png")
    assert model.loads == [weights, None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "m.png"], ["at least one --point or a --box"]),
        (["-n", "3,3", "-o", "m.png"], ["at least one --point or a --box"]),
        (["-p", "8,8"], ["at least one output"]),
        (["-p", "8,8", "-o", "m.jpg"], ["PNG", "m.jpg"]),
        (["-p", "8,8", "-o", "m.png", "--overlay", "o.jpg"], ["PNG", "o.jpg"]),
        (["-p", "8", "-o", "m.png"], ["expected X,Y in pixels, such as 320,240, got '8'"]),
        (["-p", "a,b", "-o", "m.png"], ["--point", "got 'a,b'"]),
        (["-p", "1,2,3", "-o", "m.png"], ["got '1,2,3'"]),
        (["-p", "nan,2", "-o", "m.png"], ["got 'nan,2'"]),
        (["-p", "inf,2", "-o", "m.png"], ["got 'inf,2'"]),
        (["-p", "40,8", "-o", "m.png"], ["point 40,8 lies outside the image", "40 x 30"]),
        (["-p", "8,30", "-o", "m.png"], ["point 8,30 lies outside"]),
        (["-p", "-1,8", "-o", "m.png"], ["point -1,8 lies outside"]),
        (["-p", "8,8", "-n", "99,8", "-o", "m.png"], ["point 99,8 lies outside"]),
        (["-b", "1,2,3", "-o", "m.png"], ["expected X0,Y0,X1,Y1", "got '1,2,3'"]),
        (["-b", "9,2,3,8", "-o", "m.png"], ["X0 < X1", "9,2,3,8"]),
        (["-b", "0,0,41,30", "-o", "m.png"], ["box 0,0,41,30 reaches outside"]),
        (["-p", "8,8", "-o", "photo.png"], ["--out", "photo.png would be written over IMAGE"]),
        (["-p", "8,8", "-o", "./photo.png"], ["would be written over IMAGE"]),
        (["-p", "8,8", "--json", "photo.png"], ["--json", "would be written over IMAGE"]),
        (["-p", "8,8", "-o", "m.png", "--overlay", "./m.png"], ["--overlay", "m.png is --out already"]),
        (["-p", "8,8", "--overlay", "m.png", "--json", "m.png"], ["--json", "m.png is --overlay already"]),
        (["-p", "8,8", "--json", "."], ["--json", ". is a folder; name a file in it"]),
        (["-p", "8,8", "-o", "m.png", "--value-range", "9"], ["expected LOW,HIGH, such as 0,4095, got '9'"]),
        (["-p", "8,8", "-o", "m.png", "--value-range", "9,9"], ["--value-range", "LOW < HIGH, got 9,9"]),
        (["-p", "8,8", "-o", "m.png", "--max-pixels", "0"], ["--max-pixels"]),
        (["-p", "8,8", "-o", "m.png", "--weights", "none.safetensors"], ["none.safetensors does not exist"]),
    ],
)
def test_wrong_usage(
    model: Model,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run("segment", photo, *options), 2, *words)
    assert model.log == []
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"], "nothing was written"


def test_a_link_to_the_image_is_the_image(model: Model, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(photo)
    before = photo.read_bytes()
    ran = run("segment", photo, "-p", "8,8", "-o", tmp_path / "link.png")
    assert_refused(ran, 2, "would be written over IMAGE")
    assert photo.read_bytes() == before
    assert model.loads == []


@pytest.mark.usefixtures("model")
def test_weights_are_not_written_over(photo: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"kept")
    ran = run("segment", photo, "-p", "8,8", "--json", weights, "--weights", weights)
    assert_refused(ran, 2, "would be written over --weights")


def test_reader_options_do_what_they_do_in_python(tmp_path: Path) -> None:
    height, width = 40, 60
    values = np.full((height, width), 300, np.float32)
    values[10:30, 20:40] = 900
    path, mask = tmp_path / "a.tif", tmp_path / "m.png"
    tifffile.imwrite(path, np.stack([np.zeros_like(values), values]), photometric="minisblack")
    command = ["segment", path, "-p", "30,20", "-o", mask, "--page", "1"]
    assert_refused(run(*command), 1, "floating-point values from 300 to 900", "--value-range 300,900")
    command += ["--value-range", "0,1000"]
    assert_refused(run(*command, "--max-pixels", "2399"), 1, "60 × 40 = 2,400 pixels", "--max-pixels 2400")
    assert run(*command, "--max-pixels", "2400").code == 0
    model = linocut.load()
    session = model.open(path, page=1, value_range=(0, 1000), max_pixels=2400)
    np.testing.assert_array_equal(session.image[..., 0], np.rint(values * 0.255))
    with Image.open(mask) as written:
        np.testing.assert_array_equal(np.asarray(written) == 255, session.click(30, 20).array)
    with pytest.raises(ImageError, match="more than max_pixels=2,399"):
        model.everything(path, page=1, value_range=(0, 1000), max_pixels=2399)


@pytest.mark.usefixtures("model")
def test_a_folder_is_no_image(tmp_path: Path) -> None:
    assert_refused(run("segment", tmp_path, "-p", "1,1", "-o", tmp_path / "m.png"), 2, "is a folder")


@pytest.mark.usefixtures("model")
def test_an_output_that_cannot_be_written(photo: Path) -> None:
    assert_refused(run("segment", photo, "-p", "8,8", "-o", photo / "m.png"), 1, str(photo))


def test_the_bundled_model_cuts_a_nucleus(nuclei: dict[str, Any], tmp_path: Path) -> None:
    x, y = nuclei["click"]
    ran = run("segment", nuclei["file"], "--point", f"{x},{y}", "-o", tmp_path / "mask.png")
    assert ran.code == 0, ran.err
    with Image.open(nuclei["labels"]) as labels, Image.open(tmp_path / "mask.png") as mask:
        numbers, cut = np.asarray(labels), np.asarray(mask) == 255
    assert iou(cut, numbers == numbers[y, x]) > 0.7
