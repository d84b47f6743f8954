"""Packs: what an object is in each kind of labels, and what is wrong with a folder that is no pack."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from linocut.data.packs import KINDS, PackImage, read_pack

HEADER = ["split", "id", "image", "labels", "width", "height", "objects", "type"]
LABELS = np.array([[0, 0, 1, 1, 1], [0, 2, 2, 0, 9], [1, 1, 0, 2, 9]], np.uint8)


def write_pack(
    folder: Path,
    kind: str,
    maps: list[np.ndarray],
    *,
    background: int | None = 0,
    ignore: tuple[int, ...] = (),
    segments: list[dict[str, Any]] | None = None,
) -> PackImage:
    """A pack with one image and these label maps; returns the image as read back."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = maps[0].shape
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = 200  # blue, in OpenCV's order
    cv2.imwrite(str(folder / "a.png"), picture)
    names = [f"a.{k}.png" for k in range(len(maps))]
    for name, labels in zip(names, maps, strict=True):
        cv2.imwrite(str(folder / name), labels)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                HEADER,
                ["train", "a", "a.png", ";".join(names), width, height, "", "photo"],
                ["val", "b", "b.png", "b", 1, 1, "", "x"],
            ]
        )
    meta = {"name": "drawn", "kind": kind, "background": background, "ignore": list(ignore)}
    (folder / "meta.json").write_text(json.dumps(meta))
    if segments is not None:
        (folder / "segments.json").write_text(json.dumps({"a": segments}))
    (image,) = read_pack(folder, "train").images
    return image


def test_a_split_is_what_the_manifest_says(tmp_path: Path) -> None:
    write_pack(tmp_path, "instance", [LABELS], ignore=(9,))
    pack = read_pack(tmp_path, "train")
    assert (pack.name, pack.kind, pack.split) == ("drawn", "instance", "train")
    (image,) = pack.images
    assert (image.id, image.kind, image.background, image.ignore, image.type) == ("a", "instance", 0, (9,), "photo")
    assert image.image_path == tmp_path / "a.png"
    assert read_pack(str(tmp_path), "val").images[0].id == "b"


def test_an_image_is_rgb(tmp_path: Path) -> None:
    picture = write_pack(tmp_path, "instance", [LABELS]).load_image()
    assert picture.shape == (3, 5, 3)
    assert picture[0, 0].tolist() == [0, 0, 200]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_of_eight_and_sixteen_bits(tmp_path: Path, dtype: type) -> None:
    labels = LABELS.astype(dtype)
    if dtype is np.uint16:
        labels = np.where(labels == 2, 40_000, labels).astype(dtype)
    (read,) = write_pack(tmp_path, "instance", [labels]).load_labels()
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)


def test_instances_are_all_values_but_background_and_ignore(tmp_path: Path) -> None:
    objects = list(write_pack(tmp_path, "instance", [LABELS], ignore=(9,)).objects())
    assert [o.value for o in objects] == [1, 2]
    for item in objects:
        np.testing.assert_array_equal(item.mask, item.value == LABELS)
        assert item.ignore is not None
        np.testing.assert_array_equal(item.ignore, LABELS == 9)
        assert item.map_index == 0


def test_without_ignored_pixels_there_is_no_ignore_mask(tmp_path: Path) -> None:
    assert {o.ignore is None for o in write_pack(tmp_path, "instance", [LABELS], ignore=(77,)).objects()} == {True}


def test_no_background_makes_every_value_an_object(tmp_path: Path) -> None:
    assert [o.value for o in write_pack(tmp_path, "instance", [LABELS], background=None).objects()] == [0, 1, 2, 9]


def test_binary_labels_have_one_object(tmp_path: Path) -> None:
    objects = list(write_pack(tmp_path / "one", "binary", [LABELS], ignore=(9,)).objects())
    assert len(objects) == 1
    np.testing.assert_array_equal(objects[0].mask, LABELS == 1)
    assert list(write_pack(tmp_path / "none", "binary", [np.zeros((3, 4), np.uint8)]).objects()) == []


SEGMENTS = [
    {"label": 1, "isthing": 1, "iscrowd": 0},
    {"label": 2, "isthing": 0, "iscrowd": 0},
    {"label": 9, "isthing": 1, "iscrowd": 1},
    {"label": 50, "isthing": 1, "iscrowd": 0},
]


@pytest.mark.parametrize(("stuff", "values"), [(False, [1]), (True, [1, 2])])
def test_panoptic_objects_are_things_and_stuff_on_request_but_no_crowds(
    tmp_path: Path, stuff: bool, values: list[int]
) -> None:
    image = write_pack(tmp_path, "panoptic", [LABELS], segments=SEGMENTS)
    assert [o.value for o in image.objects(stuff=stuff)] == values


def test_semantic_objects_are_the_pieces_of_every_class(tmp_path: Path) -> None:
    objects = list(write_pack(tmp_path, "semantic", [LABELS], ignore=(9,)).objects())
    # class 1 lies in two pieces; class 2 too, for (1, 2) and (2, 3) touch at a corner and are one
    assert [(o.value, int(o.mask.sum())) for o in objects] == [(1, 3), (1, 2), (2, 3)]
    for value in (1, 2):
        pieces = [o.mask for o in objects if o.value == value]
        np.testing.assert_array_equal(np.sum(pieces, axis=0) > 0, value == LABELS)
        assert np.sum(pieces, axis=0).max() == 1


def test_regions_are_those_of_every_annotator(tmp_path: Path) -> None:
    other = np.where(LABELS == 9, 3, 4).astype(np.uint8)
    objects = list(write_pack(tmp_path, "regions", [LABELS, other], background=None).objects())
    assert [(o.map_index, o.value) for o in objects] == [(0, 0), (0, 1), (0, 2), (0, 9), (1, 3), (1, 4)]
    assert sum(int(o.mask.sum()) for o in objects) == 2 * LABELS.size


@pytest.mark.parametrize("missing", ["manifest.csv", "meta.json"])
def test_a_folder_without_its_files_is_no_pack(tmp_path: Path, missing: str) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"is not a pack: it has no {missing}"):
        read_pack(tmp_path, "train")


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    with pytest.raises(ValueError, match="has no split 'test'; it has train, val"):
        read_pack(tmp_path, "test")


def test_an_unknown_kind_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"kind must be one of {', '.join(KINDS)}, got 'polygons'"):
        write_pack(tmp_path, "polygons", [LABELS])


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x", "kind": "binary"}'])
def test_a_broken_meta_file_is_named(tmp_path: Path, content: str) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"meta\.json (cannot be read as JSON|must hold a JSON object with name, kind)"
    ):
        read_pack(tmp_path, "train")


def test_a_panoptic_pack_without_segments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"segments\.json cannot be read as JSON"):
        write_pack(tmp_path, "panoptic", [LABELS])


@pytest.mark.parametrize("content", ["", "split,id\ntrain,a\n"])
def test_missing_columns_are_named(tmp_path: Path, content: str) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(ValueError, match=r"lacks the columns .*image, labels"):
        read_pack(tmp_path, "train")


def test_broken_labels_are_named(tmp_path: Path) -> None:
    image = write_pack(tmp_path, "instance", [LABELS])
    cv2.imwrite(str(tmp_path / "a.0.png"), np.zeros((3, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"label map .*a\.0\.png must be a single-channel image"):
        image.load_labels()
    (tmp_path / "a.0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"must be a single-channel image: .* is not a label map that can be read"):
        image.load_labels()
    (tmp_path / "a.0.png").unlink()
    with pytest.raises(ValueError, match=r"must be a single-channel image: .*No such file"):
        image.load_labels()


def test_label_maps_hold_numbers_not_shades_or_colours(tmp_path: Path) -> None:
    """A PNG of two bits or with a palette gives the numbers stored, which a reader of pictures would stretch."""
    image = write_pack(tmp_path, "instance", [LABELS])
    numbers = np.array([[0, 1], [2, 3]], np.uint8)
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    for bits in (2, 8):
        palette.save(tmp_path / "a.0.png", bits=bits)
        np.testing.assert_array_equal(image.load_labels()[0], numbers)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    image = write_pack(tmp_path, "instance", [LABELS])
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        image.load_image()


def test_an_image_is_loaded_with_its_labels(tmp_path: Path) -> None:
    image, (labels,) = write_pack(tmp_path, "instance", [LABELS]).load()
    assert image.shape == (3, 5, 3)
    np.testing.assert_array_equal(labels, LABELS)


def test_labels_of_another_size_than_their_image_are_named(tmp_path: Path) -> None:
    image = write_pack(tmp_path, "instance", [LABELS, LABELS])
    cv2.imwrite(str(tmp_path / "a.1.png"), LABELS[:2])
    with pytest.raises(
        ValueError, match=r"label map .*a\.1\.png must be as large as its image .*a\.png, 5 x 3, got 5 x 2 pixels"
    ):
        image.load()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ignore", None, r"ignore must be a list of whole numbers, \[\] for none, got None"),
        ("ignore", [1.5], "ignore must be a list of whole numbers"),
        ("ignore", 255, "ignore must be a list of whole numbers"),
        ("background", "0", "background must be a whole number or null, got '0'"),
        ("name", 7, "name must be a text, got 7"),
    ],
)
def test_meta_values_of_the_wrong_kind_are_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**meta, key: value}))
    with pytest.raises(ValueError, match=rf"meta\.json: {words}"):
        read_pack(tmp_path, "train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train,c", "line 4 lacks image, labels, type"),
        ("train,,c.png,c.0.png,5,3,1,photo", "line 4 lacks id"),
        ("train,c,c.png,c.0.png,5,3,1,photo,of a cat", "line 4 has more values than there are columns"),
        ("train,c,c.png,c.0.png;,5,3,1,photo", "line 4 must have names of label maps .*, got 'c.0.png;'"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, line: str, words: str) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    with (tmp_path / "manifest.csv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ValueError, match=rf"manifest\.csv cannot be read as a manifest: {words}"):
        read_pack(tmp_path, "train")


def test_a_manifest_that_is_no_text_is_named(tmp_path: Path) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match=r"manifest\.csv cannot be read as a manifest: .*utf-8"):
        read_pack(tmp_path, "train")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": [{"label": 1, "isthing": 1}]}, "a segment of image 'a' lacks iscrowd; it has"),
        ({"a": {"label": 1}}, "image 'a' must have a list of segments, got"),
        ({"a": [3]}, "image 'a' must have a list of segments, got"),
    ],
)
def test_broken_segments_are_named(tmp_path: Path, content: Any, words: str) -> None:
    write_pack(tmp_path, "panoptic", [LABELS], segments=SEGMENTS)
    (tmp_path / "segments.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"segments\.json: {words}"):
        read_pack(tmp_path, "train")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    write_pack(tmp_path, "instance", [LABELS])
    for name in ("manifest.csv", "meta.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert [image.id for image in read_pack(tmp_path, "train").images] == ["a"]
