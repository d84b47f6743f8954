"""`linocut eval`: its files, its figures and what it refuses before it starts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.standins import Model, assert_refused, run


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "drawn"
    labels = np.zeros((60, 80), np.uint8)
    labels[5:45, 5:25], labels[5:45, 40:70] = 1, 2
    for sub, pixels in (("images", np.stack([labels * 100] * 3, axis=2)), ("labels", labels)):
        (folder / sub / "test").mkdir(parents=True)
        Image.fromarray(pixels).save(folder / sub / "test" / "a.png")
    rows = [
        ["split", "id", "image", "labels", "width", "height", "objects", "type"],
        ["test", "a", "images/test/a.png", "labels/test/a.png", 80, 60, 2, "drawn"],
    ]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "meta.json").write_text(json.dumps({"name": "drawn", "kind": "instance", "background": 0, "ignore": []}))
    return folder


@pytest.mark.usefixtures("model")
def test_one_pack_gives_one_object(pack: Path, tmp_path: Path) -> None:
    ran = run("eval", pack, "--split", "test", "--json", tmp_path / "new" / "e.json")
    assert ran.code == 0
    assert "drawn" in ran.out
    assert "NoC@90" in ran.out
    figures = json.loads((tmp_path / "new" / "e.json").read_text())
    assert (figures["noc90"], figures["iou1"], figures["iou_box"], figures["objects"]) == (1, 1, 1, 2)


@pytest.mark.usefixtures("model")
def test_several_packs_give_a_list(pack: Path, tmp_path: Path) -> None:
    files = [tmp_path / "e.json", tmp_path / "e.md", tmp_path / "e.png"]
    ran = run(
        *("eval", pack, pack, "--max-objects", "1", "--max-clicks", "4"),
        *("--json", files[0], "--markdown", files[1], "--plot", files[2]),
    )
    assert ran.code == 0
    figures = json.loads(files[0].read_text())
    assert [(f["objects"], f["max_clicks"], f["iou5"]) for f in figures] == [(1, 4, None)] * 2
    assert files[1].read_text().count("| drawn | test | 1 |") == 2
    with Image.open(files[2]) as plot:
        assert plot.format == "PNG"


def test_a_failing_pack_leaves_a_list_of_those_before(model: Model, pack: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(pack, tmp_path / "bad")
    Image.new("L", (80, 50), 1).save(bad / "labels" / "test" / "a.png")
    ran = run("eval", pack, bad, "--json", tmp_path / "e.json")
    assert ran.code == 1
    assert "bad/labels/test/a.png must be as large as its image" in ran.err
    assert [figures["noc90"] for figures in json.loads((tmp_path / "e.json").read_text())] == [1]


def test_wrong_usage(model: Model, pack: Path, tmp_path: Path) -> None:
    assert_refused(run("eval", tmp_path / "none"), 2, "none", "not a pack")
    assert_refused(run("eval", pack, tmp_path), 2, "not a pack")
    assert_refused(run("eval", pack, "--split", "val"), 2, "no split 'val'; it has test")
    assert_refused(run("eval", pack, "--max-clicks", "0"), 2, "--max-clicks")
    assert_refused(run("eval"), 2, "PACK_DIR")
    assert_refused(run("eval", pack, "--json", tmp_path), 2, "--json", "is a folder; name a file in it")
    assert_refused(run("eval", pack, "--plot", tmp_path / "curve.xyz"), 2, "--plot", "must end in one of")
    twice = run("eval", pack, "--json", tmp_path / "e", "--markdown", tmp_path / "e")
    assert_refused(twice, 2, "--markdown", "is --json already")
    assert model.loads == [], "all that is wrong is found before the model is loaded"
