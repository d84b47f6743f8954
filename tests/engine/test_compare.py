"""The figures of a comparison are those of the labels, however the files are stored, cut and named."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import linocut.data.labels as labels_module
from linocut.data.classes import Classes
from linocut.engine.compare import CompareOptions, compare_classes
from linocut.engine.compare_instances import compare_instances
from linocut.engine.pairing import pair_files
from linocut.metrics.confusion import ConfusionMatrix
from linocut.metrics.report import Report

CLASSES = Classes({0: "background", 1: "cup", 2: "cat", 3: "unicorn"}, {1: (1, 2, 3)}, 9)
TRUTH = np.array([[0, 0, 1, 1], [0, 9, 1, 2], [2, 2, 2, 2]], np.uint8)
SAID = np.array([[0, 1, 1, 1], [0, 2, 0, 2], [2, 2, 2, 0]], np.uint8)


def save(folder: Path, **maps: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in maps.items():
        if values.dtype == np.uint8:
            Image.fromarray(values).save(folder / f"{name}.png")
        else:
            tifffile.imwrite(folder / f"{name}.tif", values)
    return folder


def compare(prediction: Path, target: Path, task: Any = compare_classes, **options: Any) -> Report:
    report: Report = task(pair_files(prediction, target), CompareOptions(**options), prediction="P", target="T")
    return report


def figures(report: Report) -> dict[str, float]:
    return {score.key: score.value for score in report.scores}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "p", a=SAID, b=TRUTH % 9), save(tmp_path / "t", a=TRUTH, b=TRUTH)


def test_hand_worked(folders: tuple[Path, Path]) -> None:
    report = compare(*folders, classes=CLASSES)
    # both images: 22 counted, of which a gets 3 wrong; by class of the truth 6, 6 and 10
    assert report.confusion is not None
    assert report.confusion.tolist() == [[5, 1, 0], [1, 5, 0], [1, 0, 9]]
    assert figures(report)["pa"] == 19 / 22
    assert figures(report)["miou"] == pytest.approx((5 / 8 + 5 / 7 + 9 / 10) / 3)
    cup = report.classes[1]
    assert (cup.label, cup.name, cup.colour, cup.target, cup.predicted) == (1, "cup", "#010203", 6, 6)
    assert cup.scores["precision"] == cup.scores["recall"] == 5 / 6
    worst = report.images[0]
    assert (worst.name, worst.counts, worst.worst_class) == ("a", {"counted": 11, "wrong": 3}, "background")
    assert report.images[1].scores["miou"] == 1
    assert report.images[1].worst_class == ""
    assert report.notes == ("1 named class occurs in neither and is left out of means: unicorn.",)
    assert report.settings["ignore"] == 9


@pytest.mark.parametrize("strip", [1, 5, 1 << 22])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_cut_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip: int, dtype: Any) -> None:
    monkeypatch.setattr(labels_module, "STRIP_PIXELS", strip)
    random = np.random.default_rng(0)
    true, said = random.integers(0, 5, (2, 37, 23)).astype(dtype)
    kept = np.where(said == 4, 0, said).astype(dtype)
    whole = ConfusionMatrix(5, ignore=4)
    whole.update(kept, true)
    report = compare(save(tmp_path / "p", a=kept), save(tmp_path / "t", a=true), ignore=4)
    assert report.confusion is not None
    assert report.confusion.tolist() == whole.matrix[:4, :4].tolist()
    assert figures(report)["miou"] == whole.miou
    assert figures(report)["mcc"] == whole.mcc


def test_labels_of_many_classes(tmp_path: Path) -> None:
    true = np.array([[0, 40_000, 40_000, 65_535]], np.uint16)
    said = np.array([[0, 40_000, 7, 7]], np.uint16)
    report = compare(save(tmp_path / "p", a=said), save(tmp_path / "t", a=true), ignore=65_535)
    assert [row.name for row in report.classes] == ["0", "7", "40000"]
    assert report.confusion is not None
    assert report.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    with pytest.raises(ValueError, match=r"a\.tif has the label 65535.*--ignore 65535.*--task instance"):
        compare(tmp_path / "p", tmp_path / "t")


def test_a_label_that_is_no_class_says_where(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"t/a\.png has the label 2 at row 1, column 3, one of 5 .*0 … 1; name it"):
        compare(*folders, classes=Classes({0: "a", 1: "b"}), ignore=9)
    Image.fromarray(np.where(SAID == 1, 9, SAID).astype(np.uint8)).save(folders[0] / "a.png")
    with pytest.raises(ValueError, match=r"p/a\.png has the label 9 at row 0, column 1.*has to choose a class"):
        compare(*folders, classes=CLASSES)


def test_all_ignored_is_no_figure(folders: tuple[Path, Path], tmp_path: Path) -> None:
    void = save(tmp_path / "v", a=np.full_like(TRUTH, 9))
    with pytest.raises(ValueError, match="every pixel of T has the label 9, which is ignored"):
        compare(folders[0], void, ignore=9)
    save(void, b=TRUTH)  # one image without figures comes last, and changes none
    report = compare(folders[0], void, ignore=9)
    assert [row.name for row in report.images] == ["b", "a"]
    assert math.isnan(report.images[1].scores["miou"])
    assert figures(report)["pa"] == 1


def test_notes_warn_of_what_misleads(tmp_path: Path) -> None:
    true = np.array([[0, 255, 255, 0]], np.uint8)
    report = compare(save(tmp_path / "p", a=np.minimum(true, 1)), save(tmp_path / "t", a=true))
    assert "give --ignore 255" in report.notes[0]
    assert "1 class predicted but not in the truth, and so of IoU 0 in MIoU: 1." in report.notes
    assert "1 class in the truth but never predicted: 255." in report.notes


def test_boundary(folders: tuple[Path, Path]) -> None:
    found = figures(compare(*folders, classes=CLASSES, boundary=True))
    assert 0 < found["boundary_iou"] < 1
    (folders[0] / "a.png").unlink()
    same = compare(*folders, ignore=9, boundary=True)
    assert figures(same)["boundary_f"] == figures(same)["boundary_iou"] == 1


def test_progress_rises_to_the_number_of_images(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "STRIP_PIXELS", 4)
    seen: list[float] = []
    pairing = pair_files(*folders)

    def note(done: float, total: int) -> None:
        seen.append(done / total)

    compare_classes(pairing, CompareOptions(CLASSES), prediction="P", target="T", progress=note)
    assert seen == [pytest.approx(step / 6) for step in range(1, 7)]


def test_pictures_mark_the_mistakes(folders: tuple[Path, Path]) -> None:
    report = compare(*folders, classes=CLASSES, worst=1)
    assert [example.image.name for example in report.examples] == ["a"]
    pictures = report.examples[0].pictures
    assert [picture.caption for picture in pictures] == ["truth", "prediction", "mistakes"]
    assert all(picture.alt and picture.kind == "image/png" for picture in pictures)
    marks = np.asarray(Image.open(io.BytesIO(pictures[2].data)).convert("RGB"))
    missed, false, ignored = (report.legend[place][0] for place in (0, 1, 3))
    colour = {place: "#" + bytes(marks[place]).hex() for place in ((1, 2), (2, 3), (0, 1), (1, 1))}
    assert (colour[1, 2], colour[2, 3], colour[0, 1]) == (missed, missed, false)
    assert colour[1, 1] not in (missed, false)  # ignored, not quite opaque
    assert report.legend[3][1] == "ignored"
    assert ignored.startswith("#")
    assert not compare(*folders, classes=CLASSES, worst=0).examples


def test_large_maps_are_drawn_small_and_keep_thin_mistakes(tmp_path: Path) -> None:
    true = np.zeros((1000, 2001), np.uint8)
    said = true.copy()
    said[:, 1000] = 1
    report = compare(save(tmp_path / "p", a=said), save(tmp_path / "t", a=true))
    picture = report.examples[0].pictures[2]
    assert max(picture.width, picture.height) <= 960
    marks = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)
    changed = (marks != marks[0, 0]).any(axis=2)
    assert changed.sum(axis=1).tolist() == [1] * picture.height


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_photographs_lie_under_the_pictures(folders: tuple[Path, Path], tmp_path: Path, ending: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (4, 3), (0, 200, 0)).save(photos / f"a.{ending}")
    report = compare(*folders, classes=CLASSES, images=photos)
    kinds = {example.image.name: example.pictures[0].kind for example in report.examples}
    assert kinds == {"a": "image/jpeg", "b": "image/png"}, "the one without a photograph is drawn all the same"
    assert report.notes[-1] == f"No image of the same name and size was found in {photos} for b."


def test_instances(tmp_path: Path) -> None:
    true = np.zeros((20, 30), np.uint8)
    true[2:8, 2:12], true[12:18, 2:12], true[2:18, 20:28] = 1, 2, 7
    said = np.zeros_like(true)
    said[2:8, 2:12], said[12:18, 2:6], said[0:2, 0:4] = 5, 3, 9  # the first exactly, the second too small, one false
    report = compare(save(tmp_path / "p", a=said), save(tmp_path / "t", a=true), compare_instances)
    row = report.images[0]
    assert row.counts == {"objects": 3, "found": 1, "missed": 2, "false": 2}
    assert figures(report)["ap50"] == 1 / 5
    assert figures(report)["pq"] == pytest.approx(1 / (1 + 0.5 * 2 + 0.5 * 2))
    assert figures(report)["aji"] == pytest.approx((60 + 24) / (60 + 60 + 128 + 8))
    assert (report.thresholds[0]["tp"], report.thresholds[0]["fp"], report.thresholds[0]["fn"]) == (1, 2, 2)
    assert len(report.examples) == 1
    assert report.confusion is None


def test_instances_leave_out_what_is_ignored(tmp_path: Path) -> None:
    true = np.array([[1, 1, 0, 255, 255]], np.uint8)
    said = np.array([[4, 4, 0, 3, 3]], np.uint8)
    report = compare(save(tmp_path / "p", a=said), save(tmp_path / "t", a=true), compare_instances, ignore=255)
    assert report.images[0].counts == {"objects": 1, "found": 1, "missed": 0, "false": 0}
    assert figures(report)["ap"] == 1
