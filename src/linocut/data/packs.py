"""Packs: folders of images with ground-truth label maps, read as objects whatever kind of label they hold.

A pack is a folder with ``manifest.csv`` (columns split, id, image, labels, width, height, objects, type; several label
maps of one image are separated by ``;``), ``meta.json`` (name, kind, background, ignore) and, for panoptic packs,
``segments.json`` (for each image id a list of segments with label, isthing and iscrowd), for semantic packs
``classes.json`` (names by label value). What an *object* is depends on
the kind:

============ ====================================================================================
kind         an object is
============ ====================================================================================
``instance`` every label value but background and ignore
``binary``   label 1
``panoptic`` every thing that is not a crowd; stuff segments too where asked for
``semantic`` every 8-connected piece of a class (not of the background, not of an ignore value)
``regions``  every region of every annotator
============ ====================================================================================
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from linocut.data import classes as class_files
from linocut.data.images import open_image
from linocut.data.labels import open_labels

KINDS = ("instance", "binary", "panoptic", "semantic", "regions")
_META = ("name", "kind", "background", "ignore")
_COLUMNS = ("split", "id", "image", "labels", "type")
_SEGMENT = ("label", "isthing", "iscrowd")


@dataclass(frozen=True)
class ObjectMask:
    """One object of one label map.

    Attributes:
        mask: (H, W) bool, the object's pixels.
        ignore: (H, W) bool, pixels that say nothing about it, or None.
        value: the label value in its map.
        map_index: which of the image's label maps it is from.
    """

    mask: NDArray[np.bool_]
    ignore: NDArray[np.bool_] | None
    value: int
    map_index: int


@dataclass(frozen=True)
class PackImage:
    """An image of a pack with its label maps; nothing is read until asked for."""

    id: str
    image_path: Path
    label_paths: tuple[Path, ...]
    kind: str
    background: int | None
    ignore: tuple[int, ...]
    type: str
    segments: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def load_image(self) -> NDArray[np.uint8]:
        """The image as (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError: if there is no such file.
            ImageError: if it is no image.
        """
        return open_image(self.image_path)

    def load_labels(self) -> list[NDArray[np.int32]]:
        """The label maps, each (H, W) int32.

        Raises:
            ValueError: if a map cannot be read as a single-channel image.
        """
        return [_read_labels(path) for path in self.label_paths]

    def load(self) -> tuple[NDArray[np.uint8], list[NDArray[np.int32]]]:
        """The image and its label maps, (H, W, 3) uint8 RGB and (H, W) int32 each.

        Raises:
            FileNotFoundError: if there is no such image.
            ImageError: if it is no image.
            ValueError: if a map cannot be read as a single-channel image, or is not as large as the image.
        """
        image, maps = self.load_image(), self.load_labels()
        for path, labels in zip(self.label_paths, maps, strict=True):
            if labels.shape != image.shape[:2]:
                raise ValueError(
                    f"label map {path} must be as large as its image {self.image_path}, {_size(image)}, "
                    f"got {_size(labels)} pixels"
                )
        return image, maps

    def objects(self, *, stuff: bool = False) -> Iterator[ObjectMask]:
        """Every object of every label map, read from the files, in the order of map and label value.

        Args:
            stuff: give the stuff segments of panoptic packs too (crowds never).
        """
        yield from self.objects_in(self.load_labels(), stuff=stuff)

    def objects_in(self, maps: Sequence[NDArray[np.int32]], *, stuff: bool = False) -> Iterator[ObjectMask]:
        """Every object of all label maps, given as they were loaded, in the order of :meth:`objects`."""
        for index, labels in enumerate(maps):
            yield from self.objects_of(labels, index, stuff=stuff)

    def objects_of(self, labels: NDArray[np.int32], map_index: int, *, stuff: bool = False) -> Iterator[ObjectMask]:
        """The objects of one label map, given as (H, W) integers."""
        ignored = np.isin(labels, self.ignore) if self.ignore else None
        if ignored is not None and not ignored.any():
            ignored = None
        for value in self._object_values(labels, stuff):
            mask = labels == value
            if self.kind == "semantic":
                count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
                for piece in range(1, count):
                    yield ObjectMask(pieces == piece, ignored, value, map_index)
            else:
                yield ObjectMask(mask, ignored, value, map_index)

    def _object_values(self, labels: NDArray[np.int32], stuff: bool) -> list[int]:
        """The label values that stand for objects."""
        if self.kind == "binary":
            return [1] if (labels == 1).any() else []
        if self.kind == "panoptic":
            wanted = {s["label"] for s in self.segments if not s["iscrowd"] and (s["isthing"] or stuff)}
            return [int(v) for v in np.unique(labels) if int(v) in wanted]
        none = {self.background, *self.ignore}
        return [int(v) for v in np.unique(labels) if int(v) not in none]


@dataclass(frozen=True)
class Pack:
    """One split of a pack."""

    name: str
    kind: str
    split: str
    images: tuple[PackImage, ...]


def read_pack(folder: str | Path, split: str) -> Pack:
    """Read the manifest of one split.

    Args:
        folder: the pack's folder.
        split: ``train``, ``val`` or ``test``, as the manifest names them.

    Raises:
        ValueError: if the folder is not a pack, one of its files lacks something (the message names the file, and the
            line or the image), or it has no such split; the message lists those it has.
    """
    folder = Path(folder)
    for name in ("manifest.csv", "meta.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a pack: it has no {name}")
    meta = _read_meta(folder / "meta.json")
    rows = _read_rows(folder / "manifest.csv")
    if not any(row["split"] == split for row in rows):
        known = ", ".join(sorted({row["split"] for row in rows}))
        raise ValueError(f"pack {folder} has no split {split!r}; it has {known}")
    segments = _read_segments(folder / "segments.json") if meta["kind"] == "panoptic" else {}
    images = tuple(
        PackImage(
            id=row["id"],
            image_path=folder / row["image"],
            label_paths=tuple(folder / part for part in row["labels"].split(";")),
            kind=meta["kind"],
            background=meta["background"],
            ignore=tuple(meta["ignore"]),
            type=row["type"],
            segments=tuple(segments.get(row["id"], ())),
        )
        for row in rows
        if row["split"] == split
    )
    return Pack(meta["name"], meta["kind"], split, images)


def read_classes(folder: str | Path) -> dict[int, str]:
    """The classes of a semantic pack: name by label value, in ascending order, without the values it ignores.

    Args:
        folder: the pack's folder; its ``classes.json`` has one of the forms of :mod:`linocut.data.classes`.

    Raises:
        ValueError: if the folder is no pack, or the file is missing, of no such form or of fewer than two classes.
    """
    path = Path(folder) / "classes.json"
    ignore = _read_meta(Path(folder) / "meta.json")["ignore"]
    try:
        named = class_files.read_classes(path).names
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; it names the classes of a semantic pack") from error
    kept = {value: name for value, name in sorted(named.items()) if value not in ignore}
    if len(kept) < 2:
        raise ValueError(f"{path} must name two classes or more, got {list(kept.values())}")
    return kept


def _read_labels(path: Path) -> NDArray[np.int32]:
    """The numbers a label map holds.

    Raises:
        ValueError: if they cannot be read.
    """
    try:
        return np.asarray(open_labels(path).read(), np.int32)
    except (OSError, ValueError) as error:
        raise ValueError(f"label map {path} must be a single-channel image: {error}") from error


def _size(array: NDArray[Any]) -> str:
    """Width and height of an image as text."""
    return f"{array.shape[1]} x {array.shape[0]}"


def _read_meta(path: Path) -> dict[str, Any]:
    """What a pack says of itself.

    Raises:
        ValueError: if something is missing or of the wrong kind.
    """
    meta = _read_json(path, _META)
    if not isinstance(meta["name"], str):
        raise ValueError(f"{path}: name must be a text, got {meta['name']!r}")
    if meta["kind"] not in KINDS:
        raise ValueError(f"{path}: kind must be one of {', '.join(KINDS)}, got {meta['kind']!r}")
    if meta["background"] is not None and type(meta["background"]) is not int:
        raise ValueError(f"{path}: background must be a whole number or null, got {meta['background']!r}")
    if not isinstance(meta["ignore"], list) or not all(type(value) is int for value in meta["ignore"]):
        raise ValueError(f"{path}: ignore must be a list of whole numbers, [] for none, got {meta['ignore']!r}")
    return meta


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest, each with all columns; a byte order mark, which spreadsheets write, is passed over.

    Raises:
        ValueError: if it is no CSV file, a column is missing, or a row has too few or too many values.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"it lacks the columns {', '.join(sorted(missing))}")
            return [_checked_row(row, reader.line_num) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a manifest: {error}") from error


def _checked_row(row: Mapping[str | None, Any], line: int) -> dict[str, str]:
    """A row with a text in every column.

    Raises:
        ValueError: if it has too few or too many values, or nothing where a name must be.
    """
    if None in row:
        raise ValueError(f"line {line} has more values than there are columns; put names with commas in quotes")
    lacking = [name for name in _COLUMNS if row[name] is None or (not row[name] and name != "type")]
    if lacking:
        raise ValueError(f"line {line} lacks {', '.join(lacking)}")
    if not all(row["labels"].split(";")):
        raise ValueError(f"line {line} must have names of label maps with ; between them, got {row['labels']!r}")
    return {str(name): value for name, value in row.items()}


def _read_segments(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The segments of every image of a panoptic pack, by id.

    Raises:
        ValueError: if an entry is no list of segments, or a segment lacks something.
    """
    content = _read_json(path)
    for name, segments in content.items():
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise ValueError(f"{path}: image {name!r} must have a list of segments, got {segments!r:.80}")
        for segment in segments:
            lacking = [key for key in _SEGMENT if key not in segment]
            if lacking:
                raise ValueError(f"{path}: a segment of image {name!r} lacks {', '.join(lacking)}; it has {segment}")
    return content


def _read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object that has these keys.

    Raises:
        ValueError: if it is not there, is no JSON object or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ValueError(f"{path} must hold a JSON object with {', '.join(keys) or 'the images by id'}")
    return content
