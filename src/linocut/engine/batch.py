"""Everything in every image of a folder: labels, overlays and COCO records, with restarts.

The output folder mirrors the input's subfolders:

=========================== ======================================================================
``labels/NAME.png``         label map, 0 where there is no object (8-bit, 16-bit from 256 objects)
``overlays/NAME.png``       the objects drawn over the image
``coco/NAME.json``          COCO: one image, one annotation with RLE an object
``annotations.json``        the COCO records of all images merged, ids made unique
=========================== ======================================================================

NAME is the image's path without its suffix, or with it where two images differ in nothing else. Every file appears
whole or not at all. A record is written after the label map and the overlay and says which file, with which settings,
it was made from; so a restart skips exactly the images whose outputs are complete and still true.

An image that cannot be read or cut is reported at the end and does not stop the rest; a disk that cannot be written to
stops everything at once, for the next image would fare no better.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from linocut.data.coco import DEFAULT_LABEL, CocoImage, coco_document, merge_coco, read_coco, write_coco
from linocut.data.images import open_image
from linocut.data.overlay import draw_labels, label_map_to_png, write_png

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_MARKS = ("coco", "classes.json")  # what runs leave beside labels and overlays: `everything`, and `semantic`
QUALITIES = ("predicted_iou", "stability_score", "point_coords")


@runtime_checkable
class CutImage(Protocol):
    """All that is asked of `Everything`."""

    @property
    def label_map(self) -> NDArray[np.int32]:
        """(H, W), 0 where there is no object."""

    def records(self) -> list[dict[str, Any]]:
        """SAM's dict for every object, its segmentation as RLE."""


Cut = Callable[[NDArray[np.uint8]], CutImage]
Read = Callable[[Path], NDArray[np.uint8]]


class Pictures(Protocol):
    """One image, and where its label map and its overlay go."""

    @property
    def source(self) -> Path:
        """The image."""

    @property
    def labels(self) -> Path:
        """The label map."""

    @property
    def overlay(self) -> Path:
        """The overlay."""


@dataclass(frozen=True)
class Job:
    """One image and where its outputs go."""

    source: Path
    file_name: str
    labels: Path
    overlay: Path
    record: Path


@dataclass(frozen=True)
class Failure:
    """An image that could not be cut, and why."""

    source: Path
    error: Exception


class OutputError(OSError):
    """Outputs cannot be written, so the run was stopped.

    Attributes:
        failures: the images that had failed before.
    """

    def __init__(self, message: str, failures: Sequence[Failure]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        out: the output folder.
        settings: what the outputs depend on beside the image, as plain JSON values.
        todo: images to cut.
        done: images whose outputs are there already, made with the same settings.
    """

    out: Path
    settings: dict[str, Any]
    todo: tuple[Job, ...]
    done: tuple[Job, ...]


def plan_batch(source: str | Path, out: str | Path, settings: Mapping[str, Any]) -> Plan:
    """Find the images of a folder, or take one image, and see which are still to do.

    Args:
        source: an image, or a folder that is searched with its subfolders. Hidden files are passed over, and so are
            the pictures of earlier runs: what lies in a ``labels`` or ``overlays`` that has the other and a ``coco``
            beside it.
        out: the output folder; if it lies in `source` it is not searched.
        settings: what the outputs depend on beside the image (options, weights); JSON values. An image that was cut
            with other settings is cut again.

    Raises:
        ValueError: if the folder has no image, or is the output folder itself, or an output would be written over an
            image.
    """
    source, out = Path(source), Path(out)
    plain = json.loads(json.dumps(dict(settings)))
    jobs = [Job(path, name, *_outputs(out, stem)) for path, name, stem in name_images(source, out)]
    check_apart(jobs, out)
    done = {job.source for job in jobs if _is_done(job, plain)}
    return Plan(
        out=out,
        settings=plain,
        todo=tuple(job for job in jobs if job.source not in done),
        done=tuple(job for job in jobs if job.source in done),
    )


def run_batch(
    plan: Plan,
    cut: Cut,
    *,
    read: Read = open_image,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Failure, ...]:
    """Cut what the plan has to do, then merge the records of all images that succeeded.

    Args:
        plan: from `plan_batch`.
        cut: gives everything in an (H, W, 3) uint8 RGB image.
        read: gives such an image of a file.
        progress: called with (images done, images in all), first with those that were done before.

    Returns:
        The images that failed, in order; they do not stop the others.

    Raises:
        OutputError: if a file cannot be written; it holds the images that had failed by then.
    """
    report = progress or (lambda *_: None)
    before, total = len(plan.done), len(plan.done) + len(plan.todo)
    report(before, total)
    failures: list[Failure] = []
    for count, job in enumerate(plan.todo, before + 1):
        try:
            _cut_one(job, cut, plan.settings, read)
        except _WritingError as error:
            raise _stopped(plan.out, error, failures) from error
        except Exception as error:  # one bad image, whatever is wrong with it, must not cost the rest
            failures.append(Failure(job.source, error))
        report(count, total)
    failed = {failure.source for failure in failures}
    good = [job for job in (*plan.done, *plan.todo) if job.source not in failed]
    try:
        merge_coco([job.record for job in sorted(good, key=lambda job: job.file_name)], plan.out / "annotations.json")
    except OSError as error:
        raise _stopped(plan.out, error, failures) from error
    return tuple(failures)


class _WritingError(Exception):
    """What an image became cannot be written; the cause says why."""


def _stopped(out: Path, error: Exception, failures: Sequence[Failure]) -> OutputError:
    """The error that ends a run, in words."""
    cause = error.__cause__ if isinstance(error, _WritingError) else error
    return OutputError(
        f"cannot write into {str(out)!r}: {cause}; put that right and the same command goes on from here", failures
    )


def name_images(source: Path, out: Path) -> Iterator[tuple[Path, str, str]]:
    """Every image with its name in the records and the stem of its outputs.

    Raises:
        ValueError: if the folder has no image, or is the output folder itself.
    """
    if not source.is_dir():
        yield source, source.name, source.stem
        return
    root, out_root = source.resolve(), out.resolve()
    if root == out_root:
        raise ValueError(f"the output folder must not be the input folder, got {out} for both")
    marks = (mark for name in _MARKS for mark in root.rglob(name))
    ours = {folder for mark in marks for folder in _pictures(mark.parent)}
    if root in out_root.parents:
        ours.add(out_root)
    inside = [path.relative_to(root) for path in sorted(root.rglob("*")) if ours.isdisjoint(path.parents)]
    names = [
        path
        for path in inside
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
        and (source / path).is_file()
    ]
    if not names:
        raise ValueError(f"folder {source} has no image; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    # Case is folded because two stems that differ in case alone are one file on some systems.
    stems = Counter(path.with_suffix("").as_posix().casefold() for path in names)
    for path in names:
        stem = path.with_suffix("")
        unique = stems[stem.as_posix().casefold()] == 1 and stem.suffix.lower() not in IMAGE_SUFFIXES
        yield source / path, path.as_posix(), (stem if unique else path).as_posix()


def _pictures(folder: Path) -> tuple[Path, ...]:
    """The folders of label maps and overlays if a folder holds the outputs of a run, even of one that was stopped."""
    pictures = (folder / "labels", folder / "overlays")
    marked = any((folder / name).exists() for name in _MARKS)
    return pictures if marked and all(path.is_dir() for path in pictures) else ()


def check_apart(jobs: Collection[Pictures], out: Path) -> None:
    """See that no image would be written over.

    Raises:
        ValueError: if an output is an input.
    """
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        for path in (job.labels, job.overlay):
            if path.resolve() in sources:
                raise ValueError(f"with the output folder {out} the image {path} would be written over; name another")


def _outputs(out: Path, stem: str) -> tuple[Path, Path, Path]:
    """Where the label map, the overlay and the record of an image go."""
    return out / "labels" / f"{stem}.png", out / "overlays" / f"{stem}.png", out / "coco" / f"{stem}.json"


def _stamp(job: Job, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the outputs of an image are made from."""
    stat = job.source.stat()
    return {"file": job.file_name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "settings": settings}


def _is_done(job: Job, settings: Mapping[str, Any]) -> bool:
    """Whether all outputs of an image are there and were made from this file with these settings."""
    if not (job.labels.is_file() and job.overlay.is_file() and job.record.is_file()):
        return False
    try:
        made_from = read_coco(job.record)["info"]["made_from"]
    except (ValueError, KeyError, TypeError):  # damaged, or not ours
        return False
    return bool(made_from == _stamp(job, settings))


def _cut_one(job: Job, cut: Cut, settings: Mapping[str, Any], read: Read) -> None:
    """Cut one image and write its three files, the record last.

    Raises:
        _WritingError: if a file cannot be written.
        Exception: whatever is wrong with the image.
    """
    stamp = _stamp(job, settings)
    image = read(job.source)
    result = cut(image)
    labels = result.label_map
    overlay, document = draw_labels(image, labels), _document(job, result, labels.shape)
    try:
        label_map_to_png(labels, job.labels)
        write_png(job.overlay, overlay)
        write_coco(job.record, {"info": {"description": "everything, cut by Linocut", "made_from": stamp}, **document})
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # of this image alone
            raise
        raise _WritingError from error


def _document(job: Job, result: CutImage, size: tuple[int, ...]) -> dict[str, Any]:
    """What was found in an image as COCO, with what the model thinks of it."""
    found = result.records()
    objects = [
        {"rle": entry["segmentation"], "bbox": _corners(entry["bbox"]), "area": entry["area"]} for entry in found
    ]
    height, width = size
    document = coco_document([CocoImage(job.file_name, (height, width), objects)], labels=[DEFAULT_LABEL])
    for annotation, entry in zip(document["annotations"], found, strict=True):
        annotation.update({name: entry[name] for name in QUALITIES})
    return document


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """SAM's box (x, y, width, height) as (x0, y0, x1, y1)."""
    x, y, width, height = box
    return x, y, x + width, y + height
