"""COCO documents, read back by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from linocut.data.coco import CocoImage, coco_document, merge_coco, read_coco, write_coco

MASKS = [np.zeros((6, 9), bool) for _ in range(3)]
MASKS[0][1:4, 2:8] = True
MASKS[1][:, 8] = True
MASKS[2][5, 0] = True


def found(mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """An object as the caller gives it, the run lengths by pycocotools."""
    rows, columns = np.nonzero(mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return {"rle": coco_mask.encode(np.asfortranarray(mask, np.uint8)), "bbox": box, "area": mask.sum(), **more}


def image(file_name: str = "a.png", *objects: dict[str, Any], number: int = 1) -> CocoImage:
    return CocoImage(file_name, (6, 9), objects, id=number)


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
        return COCO(str(path))


def test_pycocotools_reads_what_was_written(tmp_path: Path) -> None:
    objects = [found(MASKS[0], score=0.9, label="cat"), found(MASKS[1], label="dog"), found(MASKS[2], label="cat")]
    write_coco(tmp_path / "a.json", coco_document([image("a.png", *objects)]))
    coco = load(tmp_path / "a.json")
    assert coco.loadImgs(1) == [{"id": 1, "file_name": "a.png", "width": 9, "height": 6}]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [annotation["id"] for annotation in annotations] == [1, 2, 3]
    for annotation, mask in zip(annotations, MASKS, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        assert annotation["area"] == coco_mask.area(annotation["segmentation"])
        assert annotation["iscrowd"] == 0
    assert [coco.loadCats(annotation["category_id"])[0]["name"] for annotation in annotations] == ["cat", "dog", "cat"]
    assert [annotation.get("score") for annotation in annotations] == [0.9, None, None]


def test_whole_numbers_stay_whole() -> None:
    annotation = coco_document([image("a.png", found(MASKS[0]))])["annotations"][0]
    assert json.dumps([annotation["bbox"], annotation["area"]]) == "[[2, 1, 6, 3], 18]"


def test_categories_in_the_order_asked_for_and_then_as_they_come() -> None:
    objects = [found(MASKS[0], label="dog"), found(MASKS[1])]
    document = coco_document([image("a.png", *objects)], labels=["cat", "dog", "cat"])
    assert [(entry["id"], entry["name"]) for entry in document["categories"]] == [(1, "cat"), (2, "dog"), (3, "object")]
    assert [entry["category_id"] for entry in document["annotations"]] == [2, 3]


def test_images_without_objects_are_kept(tmp_path: Path) -> None:
    write_coco(tmp_path / "a.json", coco_document([image()]))
    coco = load(tmp_path / "a.json")
    assert coco.getImgIds() == [1]
    assert coco.getAnnIds() == []


def test_several_images_in_one_document() -> None:
    document = coco_document([image("a.png", found(MASKS[0]), number=7), image("b.png", found(MASKS[1]), number=9)])
    assert [entry["image_id"] for entry in document["annotations"]] == [7, 9]
    assert [entry["id"] for entry in document["annotations"]] == [1, 2]
    with pytest.raises(ValueError, match=r"'b\.png' has 7 as another does"):
        coco_document([image("a.png", number=7), image("b.png", number=7)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rle": {"size": [9, 6], "counts": "1"}}, r"a mask of 'a\.png' is \(9, 6\), but the image \(6, 9\)"),
        ({"bbox": (0, 0, 10, 6)}, r"must be \(x0, y0, x1, y1\) inside 9 × 6 pixels, got \(0, 0, 10, 6\)"),
        ({"bbox": (5, 2, 3, 4)}, "must be"),
        ({"bbox": (-1, 2, 3, 4)}, "must be"),
    ],
)
def test_objects_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coco_document([image("a.png", {**found(MASKS[0]), **change})])


@pytest.mark.parametrize("key", ["rle", "bbox", "area"])
def test_objects_that_lack_something(key: str) -> None:
    incomplete = found(MASKS[0])
    del incomplete[key]
    with pytest.raises(ValueError, match=rf"an object of 'a\.png' lacks {key}; it has"):
        coco_document([image("a.png", incomplete)])


def test_merging_numbers_anew_and_joins_categories(tmp_path: Path) -> None:
    first = [found(MASKS[0], label="cat"), found(MASKS[1], label="dog", score=0.5)]
    second = [found(MASKS[2], label="dog"), found(MASKS[0], label="cow")]
    write_coco(tmp_path / "1.json", coco_document([image("a.png", *first)]))
    write_coco(tmp_path / "2.json", coco_document([image("empty.png")]))
    write_coco(tmp_path / "3.json", coco_document([image("b.png", *second), image("c.png", *first, number=2)]))
    merge_coco([tmp_path / f"{number}.json" for number in (1, 2, 3)], tmp_path / "all.json")
    coco = load(tmp_path / "all.json")
    assert [entry["file_name"] for entry in coco.loadImgs([1, 2, 3, 4])] == ["a.png", "empty.png", "b.png", "c.png"]
    expected = {
        "a.png": [("cat", MASKS[0]), ("dog", MASKS[1])],
        "empty.png": [],
        "b.png": [("dog", MASKS[2]), ("cow", MASKS[0])],
        "c.png": [("cat", MASKS[0]), ("dog", MASKS[1])],
    }
    for entry in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[entry["id"]]))
        for annotation, (name, mask) in zip(annotations, expected[entry["file_name"]], strict=True):
            assert coco.loadCats(annotation["category_id"])[0]["name"] == name
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
    assert sorted(coco.getAnnIds()) == [1, 2, 3, 4, 5, 6]
    assert len(coco.getCatIds()) == 3
    assert coco.loadAnns(2)[0]["score"] == 0.5


def test_merging_nothing_gives_an_empty_document(tmp_path: Path) -> None:
    merge_coco([], tmp_path / "all.json")
    assert read_coco(tmp_path / "all.json") == {"annotations": [], "images": [], "categories": []}


def test_a_broken_part_leaves_the_old_file(tmp_path: Path) -> None:
    write_coco(tmp_path / "1.json", coco_document([image("a.png", found(MASKS[0]))]))
    (tmp_path / "2.json").write_text('{"images": [')
    (tmp_path / "all.json").write_text("old")
    with pytest.raises(ValueError, match=r"2\.json' is not a JSON file"):
        merge_coco([tmp_path / "1.json", tmp_path / "2.json"], tmp_path / "all.json")
    assert (tmp_path / "all.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.json", "2.json", "all.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no list images and no list annotations and no list categories"),
        ('{"images": [], "categories": []}', "no list annotations"),
        ('{"images": [], "categories": [], "annotations": {}}', "no list annotations"),
        (
            '{"images": [], "categories": [{"id": 1, "name": ""}], "annotations": [{"image_id": 5, "category_id": 1}]}',
            r"annotations name image_id \[5\], which images does not have",
        ),
        (
            '{"images": [{"id": 5}], "categories": [], "annotations": [{"image_id": 5, "category_id": 1}]}',
            r"annotations name category_id \[1\], which categories does not have",
        ),
        ('{"images": [{"file_name": "a.png"}], "categories": [], "annotations": []}', "one of images lacks id"),
        ('{"images": [3], "categories": [], "annotations": []}', "one of images lacks id"),
        ('{"images": [], "categories": [{"id": 1}], "annotations": []}', "one of categories lacks name"),
        ('{"images": [], "categories": [], "annotations": [{}]}', "one of annotations lacks image_id, category_id"),
    ],
)
def test_what_is_not_a_coco_document(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_coco(tmp_path / "a.json")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        merge_coco([tmp_path / "nothing.json"], tmp_path / "all.json")


def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_coco(tmp_path / "a.json", coco_document([image("a.png", found(MASKS[0], score=float("nan")))]))
    assert (tmp_path / "a.json").read_text() == "old"
