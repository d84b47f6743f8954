"""`linocut metrics`: its files, its table, and what it refuses before it counts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.standins import assert_refused, run

NAMES = {"classes": {"0": "background", "1": "cup"}, "void": 255}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Folders ``pred`` and ``gt``, and ``classes.json``; image b is a quarter wrong, a is right."""
    true = np.zeros((20, 30), np.uint8)
    true[:, 15:] = 1
    true[0] = 255
    said = np.where(true == 255, 0, true).astype(np.uint8)
    wrong = said.copy()
    wrong[1:, 15:] = np.where(np.arange(15) % 2 == 0, 1, 0)
    for folder, maps in (("pred", {"a": said, "b": wrong}), ("gt", {"a": true, "b": true})):
        (tmp_path / folder).mkdir()
        for name, values in maps.items():
            Image.fromarray(values).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    return tmp_path


def test_a_folder_gets_everything(desk: Path) -> None:
    ran = run("metrics", desk / "pred", desk / "gt", "--classes", desk / "classes.json", "-o", desk / "new" / "report")
    assert ran.code == 0, ran
    out = desk / "new" / "report"
    assert {path.name for path in out.iterdir()} == {"index.html", "report.json", "per_class.csv", "per_image.csv"}
    figures = json.loads((out / "report.json").read_text())
    assert figures["scores"]["pa"] == 1 - 7 * 19 / (2 * 30 * 19)
    assert [row["name"] for row in figures["classes"]] == ["background", "cup"]
    with (out / "per_image.csv").open() as file:
        assert [(row["name"], row["wrong"]) for row in csv.DictReader(file)] == [("b", "133"), ("a", "0")]
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    for text in ("MIoU", f"{figures['scores']['miou']:.4f}", "cup", "2 images"):
        assert text in ran.out
    assert str(out / "index.html") in ran.out


@pytest.mark.parametrize(
    ("name", "start"), [("r.html", "<!doctype html>"), ("r.JSON", "{"), ("r.csv", "label,name,iou")]
)
def test_one_file_by_its_ending(desk: Path, name: str, start: str) -> None:
    ran = run("metrics", desk / "pred" / "b.png", desk / "gt" / "b.png", "--ignore", "255", "-o", desk / name)
    assert ran.code == 0, ran
    assert (desk / name).read_text().startswith(start)


def test_without_an_output_there_is_a_table(desk: Path) -> None:
    ran = run("metrics", desk / "pred", desk / "gt", "--ignore", "255")
    assert ran.code == 0
    assert "FWIoU" in ran.out
    assert sorted(path.name for path in desk.iterdir()) == ["classes.json", "gt", "pred"]


def test_files_without_a_partner_are_told(desk: Path) -> None:
    (desk / "pred" / "b.png").rename(desk / "pred" / "z.png")
    ran = run("metrics", desk / "pred", desk / "gt", "--ignore", "255", "-o", desk / "r.json")
    assert ran.code == 0
    assert "warning: target has no prediction and is not counted: b" in ran.err
    assert "warning: prediction has no target and is not counted: z" in ran.err
    figures = json.loads((desk / "r.json").read_text())
    assert (figures["missing"], figures["extra"]) == (["b"], ["z"])


def test_boundary_and_instances(desk: Path) -> None:
    ran = run("metrics", desk / "pred", desk / "gt", "--ignore", "255", "--boundary")
    assert ran.code == 0
    assert "Boundary IoU" in ran.out
    ran = run("metrics", desk / "pred", desk / "gt", "--ignore", "255", "--task", "instance", "-o", desk / "objects")
    assert ran.code == 0, ran
    assert "AJI" in ran.out
    assert (desk / "objects" / "per_threshold.csv").read_text().startswith("iou,ap,")
    assert_refused(run("metrics", desk / "pred", desk / "gt", "--boundary", "--task", "instance"), 2, "--boundary")


def test_wrong_usage(desk: Path) -> None:
    pred, gt = desk / "pred", desk / "gt"
    assert_refused(run("metrics", pred), 2, "GT")
    assert_refused(run("metrics", desk / "none", gt), 2, "PRED", "does not exist")
    assert_refused(run("metrics", pred, gt / "a.png"), 2, "compare two files or two folders")
    assert_refused(run("metrics", pred, gt, "--classes", desk / "none.json"), 2, "--classes", "does not exist")
    (desk / "bad.json").write_text('{"sky": "blue"}')
    assert_refused(run("metrics", pred, gt, "--classes", desk / "bad.json"), 2, "--classes", "it must be")
    assert_refused(run("metrics", pred, gt, "-o", gt), 2, "--out", "is GT")
    both = ("--classes", desk / "classes.json", "-o", desk / "classes.json")
    assert_refused(run("metrics", pred, gt, *both), 2, "would be written over --classes")
    assert_refused(run("metrics", pred, gt, "--worst", "-1"), 2, "--worst")
    assert_refused(run("metrics", pred, gt, "-o", desk / "classes.json" / "report"), 2, "--out")


def test_sizes_and_labels_that_do_not_fit(desk: Path) -> None:
    Image.new("L", (30, 21)).save(desk / "pred" / "a.png")
    wrong = run("metrics", desk / "pred", desk / "gt")
    assert_refused(wrong, 2, "pred/a.png has 30 × 21", "gt/a.png has 30 × 20")
    Image.new("L", (30, 20), 3).save(desk / "pred" / "a.png")
    ran = run("metrics", desk / "pred", desk / "gt", "--classes", desk / "classes.json", "-o", desk / "r.json")
    assert ran.code == 1
    assert "pred/a.png has the label 3 at row 1, column 0" in ran.err
    assert not (desk / "r.json").exists()


def test_a_second_label_to_ignore_is_refused_and_not_dropped(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    ran = run("metrics", tmp_path / "a.png", tmp_path / "b.png", "--ignore", "255", "--ignore", "0")
    assert_refused(ran, 2, "--ignore", "one label can be left out, got [255, 0]")
