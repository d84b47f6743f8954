"""COCO JSON: masks of one image or many, as annotation tools and pycocotools read them.

A document has ``images``, ``annotations`` and ``categories``. A mask is run lengths, a box ``[x, y, width, height]``,
and identities are whole numbers from 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linocut.data.files import atomic_path, write_atomic

DEFAULT_LABEL = "object"

# The parts of a document, and what an entry of each must have.
_KEYS = {"images": ("id",), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}


@dataclass(frozen=True)
class CocoImage:
    """One image and what was cut out of it.

    Attributes:
        file_name: the image's path as it shall stand in the document.
        size: (height, width) in pixels.
        objects: for each object ``rle`` (run lengths, ``{"size": [h, w], "counts": …}``), ``bbox`` (x0, y0, x1, y1 in
            pixels, x1 and y1 exclusive), ``area`` in pixels, and optionally ``score`` in 0 … 1 and ``label``, a name.
        id: its number; unique in a document.
    """

    file_name: str
    size: tuple[int, int]
    objects: Sequence[Mapping[str, Any]]
    id: int = 1


def coco_document(images: Iterable[CocoImage], *, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Make a COCO document.

    Args:
        images: the images with their objects.
        labels: names that get the first category numbers, in this order; others follow as they appear.

    Returns:
        A dict that :func:`json.dumps` takes.

    Raises:
        ValueError: if two images have one id, an object lacks something, or does not fit its image.

    Example:
        >>> rle = {"size": [2, 2], "counts": "112"}
        >>> image = CocoImage("a.png", (2, 2), [{"rle": rle, "bbox": (0, 1, 1, 2), "area": 1, "label": "dot"}])
        >>> coco_document([image])["annotations"][0]["bbox"]
        [0, 1, 1, 1]
    """
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels), start=1)}
    entries: dict[int, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for image in images:
        if image.id in entries:
            raise ValueError(f"images must have different ids, but {image.file_name!r} has {image.id} as another does")
        height, width = image.size
        entries[image.id] = {"id": image.id, "file_name": image.file_name, "width": width, "height": height}
        for found in image.objects:
            category = numbers.setdefault(str(found.get("label") or DEFAULT_LABEL), len(numbers) + 1)
            identity = {"id": len(annotations) + 1, "image_id": image.id, "category_id": category}
            annotations.append({**identity, **_annotation(found, image)})
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()]
    return {"images": list(entries.values()), "annotations": annotations, "categories": categories}


def write_coco(path: str | os.PathLike[str], document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all.

    Args:
        path: the file to write.
        document: from :func:`coco_document`.

    Raises:
        TypeError: if it holds what JSON has no word for.
        ValueError: if it holds NaN or infinity, which JSON has not.
    """
    write_atomic(path, json.dumps(document, allow_nan=False).encode())


def merge_coco(paths: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Merge COCO files, say of the images of a folder, into one.

    Images and annotations are numbered anew, categories of one name become one. One file is held in memory at a time,
    so thousands of images with hundreds of objects each are no matter.

    Args:
        paths: the files, in the order in which their images shall stand.
        out: the file to write, whole or not at all.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is no COCO document; the message names it.
    """
    images: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    count = 0
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        for path in paths:
            document = read_coco(path)
            image_ids = {image["id"]: len(images) + place for place, image in enumerate(document["images"], start=1)}
            names = {category["id"]: category["name"] for category in document["categories"]}
            images += [{**image, "id": image_ids[image["id"]]} for image in document["images"]]
            for annotation in document["annotations"]:
                category = numbers.setdefault(names[annotation["category_id"]], len(numbers) + 1)
                identity = {"id": count + 1, "image_id": image_ids[annotation["image_id"]], "category_id": category}
                file.write((",\n" if count else "\n") + json.dumps({**annotation, **identity}))
                count += 1
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
        file.write(f'\n], "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}\n')


def read_coco(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a COCO document and see that its parts point to each other.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is no COCO document, or an annotation names an image or category that is not there.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} is not a JSON file: {error}") from error
    missing = [part for part in _KEYS if not isinstance(document, dict) or not isinstance(document.get(part), list)]
    if missing:
        raise ValueError(f"{os.fspath(path)!r} is not a COCO document: it has no list {' and no list '.join(missing)}")
    for part, keys in _KEYS.items():
        for entry in document[part]:
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise ValueError(
                    f"{os.fspath(path)!r} is not a COCO document: one of {part} lacks {', '.join(lacking)}"
                )
    for part, key in (("images", "image_id"), ("categories", "category_id")):
        known = {entry["id"] for entry in document[part]}
        lost = {annotation[key] for annotation in document["annotations"]} - known
        if lost:
            raise ValueError(f"{os.fspath(path)!r}: annotations name {key} {sorted(lost)}, which {part} does not have")
    return dict(document)


def _annotation(found: Mapping[str, Any], image: CocoImage) -> dict[str, Any]:
    """One object in COCO's words.

    Raises:
        ValueError: if something is missing or does not fit the image.
    """
    missing = [key for key in ("rle", "bbox", "area") if key not in found]
    if missing:
        raise ValueError(f"an object of {image.file_name!r} lacks {', '.join(missing)}; it has {sorted(found)}")
    rle, (x0, y0, x1, y1) = found["rle"], (_plain(value) for value in found["bbox"])
    if tuple(rle["size"]) != tuple(image.size):
        raise ValueError(f"a mask of {image.file_name!r} is {tuple(rle['size'])}, but the image {tuple(image.size)}")
    if not (0 <= x0 <= x1 <= image.size[1] and 0 <= y0 <= y1 <= image.size[0]):
        raise ValueError(
            f"a box of {image.file_name!r} must be (x0, y0, x1, y1) inside {image.size[1]} × {image.size[0]} pixels,"
            f" got {(x0, y0, x1, y1)}"
        )
    counts = rle["counts"]
    result: dict[str, Any] = {
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": _plain(found["area"]),
        "segmentation": {
            "size": [int(side) for side in rle["size"]],
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        },
    }
    if found.get("score") is not None:
        result["score"] = float(found["score"])
    return result


def _plain(value: Any) -> int | float:
    """A number that JSON knows, whole where it is whole; NumPy's own are neither."""
    number = float(value)
    return int(number) if number.is_integer() else number
