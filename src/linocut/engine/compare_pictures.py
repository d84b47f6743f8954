"""Pictures of where label maps are wrong, for a report: the truth, the prediction, and the mistakes.

Large maps are shown smaller: of each block of pixels the middle one is drawn, and of mistakes the share of the block,
so that a thin one stays to be seen. No more than a strip is held at a time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.data.images import ImageError, open_image
from linocut.data.labels import LabelMap
from linocut.engine.pairing import Pair
from linocut.metrics.report import Example, ImageRow, Picture

LONGEST = 960
"""Pixels of a picture's longer side, at most."""

MISSED, FALSE, CONFUSED, IGNORED = 1, 2, 3, 4
MARKS = np.array([[255, 255, 255], [38, 110, 235], [245, 130, 0], [222, 0, 110], [150, 150, 150]], np.uint8)
_PAPER = 236
_OPACITY = 0.6


Marker = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.uint8]]
"""From predicted and true labels of one shape to the kind of mistake of each pixel, 0 where it is right."""


class Style(Protocol):
    """How labels and mistakes are drawn; one for classes, one for instances."""

    @property
    def background(self) -> int | None:
        """The label of what is no object, or None."""
        ...

    def draw(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """The colours of labels, (..., 3)."""
        ...

    def marker(self, pair: Pair) -> Marker:
        """What finds the mistakes of a pair."""
        ...


@dataclass(frozen=True)
class Reduced:
    """Two label maps made small enough to be shown.

    Attributes:
        predicted: (h, w) labels.
        true: (h, w) labels.
        kinds: (h, w, 5) share of the block's pixels that are of each kind.
    """

    predicted: NDArray[Any]
    true: NDArray[Any]
    kinds: NDArray[np.float32]


def legend(kinds: Sequence[tuple[int, str]]) -> tuple[tuple[str, str], ...]:
    """Colours, ``#rrggbb``, and meanings of kinds of mistakes."""
    return tuple(("#" + bytes(MARKS[kind]).hex(), meaning) for kind, meaning in kinds)


def picture_examples(
    rows: Sequence[ImageRow], pairs: Sequence[Pair], style: Style, images: Path | None = None
) -> tuple[Example, ...]:
    """Pictures of some images: truth, prediction and mistakes side by side.

    Args:
        rows: the images.
        pairs: all pairs, among which theirs are found by name.
        style: how they are drawn.
        images: a file or folder with what the labels are of; a photograph that is missing, unreadable or of another
            size is done without.
    """
    by_name = {pair.name: pair for pair in pairs}
    return tuple(_example(row, by_name[row.name], style, images) for row in rows)


def photo_notes(examples: Sequence[Example], images: Path | None) -> tuple[str, ...]:
    """What to say of images that were asked for and could not be laid under."""
    without = [example.image.name for example in examples if not example.on_photo]
    if images is None or not without:
        return ()
    return (f"No image of the same name and size was found in {images} for {', '.join(without)}.",)


def reduce(pair: Pair, style: Style, longest: int = LONGEST) -> Reduced:
    """Make two label maps small, strip by strip.

    Args:
        pair: the maps.
        style: finds the mistakes.
        longest: the longer side of the result, at most.
    """
    step = -(-max(pair.target.height, pair.target.width) // longest)
    mark = style.marker(pair)
    predicted, true, kinds = [], [], []
    for said, is_so in zip(_blocks(pair.prediction, step), _blocks(pair.target, step), strict=True):
        middle = np.s_[min(step // 2, len(is_so) - 1) :: step, min(step // 2, is_so.shape[1] - 1) :: step]
        height, width = -(-len(is_so) // step), -(-is_so.shape[1] // step)
        predicted.append(_fit(said[middle], height, width))
        true.append(_fit(is_so[middle], height, width))
        kinds.append(_shares(mark(said, is_so), step, height, width))
    return Reduced(np.concatenate(predicted), np.concatenate(true), np.concatenate(kinds))


def _blocks(labels: LabelMap, step: int) -> Any:
    """Strips of a whole number of blocks."""
    rows = max(1, (1 << 22) // labels.width // step) * step
    return labels.strips(rows)


def _fit(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Repeat the last row or column where the last block has no middle of its own."""
    return np.pad(values, ((0, height - values.shape[0]), (0, width - values.shape[1])), mode="edge")


def _shares(kinds: NDArray[np.uint8], step: int, height: int, width: int) -> NDArray[np.float32]:
    """The share of each kind in each block; a block at the edge has fewer pixels."""
    rows, columns = np.arange(0, kinds.shape[0], step), np.arange(0, kinds.shape[1], step)
    shares = np.zeros((height, width, len(MARKS)), np.float32)
    sizes = np.add.reduceat(np.add.reduceat(np.ones(kinds.shape, np.uint32), rows, axis=0), columns, axis=1)
    for kind in range(1, len(MARKS)):
        of_it = (kinds == kind).astype(np.uint32)
        shares[..., kind] = np.add.reduceat(np.add.reduceat(of_it, rows, axis=0), columns, axis=1) / sizes
    return shares


def _example(row: ImageRow, pair: Pair, style: Style, images: Path | None) -> Example:
    """Truth, prediction and mistakes of one image."""
    small = reduce(pair, style)
    photo = _photo(images, pair, small.true.shape)
    panels = (
        (_labels_over(photo, small.true, style), "truth", f"The true labels of {row.name}"),
        (_labels_over(photo, small.predicted, style), "prediction", f"The predicted labels of {row.name}"),
        (_mistakes(photo, small, style), "mistakes", _describe(row)),
    )
    pictures = tuple(_encode(pixels, caption, alt, photo is not None) for pixels, caption, alt in panels)
    return Example(row, pictures, photo is not None)


def _describe(row: ImageRow) -> str:
    """The picture of mistakes in words."""
    return f"Where {row.name} is wrong: {', '.join(f'{count:,} {key}' for key, count in row.counts.items())}"


def _photo(images: Path | None, pair: Pair, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """What the labels are of, made as small as they are; None where it cannot be had."""
    path = _find_photo(images, pair.name)
    if path is None:
        return None
    try:
        photo = open_image(path)
    except (ImageError, OSError):
        return None
    if photo.shape[:2] != (pair.target.height, pair.target.width):
        return None
    return np.asarray(cv2.resize(photo, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _find_photo(images: Path | None, name: str) -> Path | None:
    """The photograph of a name, whatever its ending."""
    if images is None or images.is_file():
        return images
    place = images / name
    if not place.parent.is_dir():
        return None
    return next((path for path in sorted(place.parent.iterdir()) if path.stem == place.name and path.is_file()), None)


def _labels_over(photo: NDArray[np.uint8] | None, labels: NDArray[Any], style: Style) -> NDArray[np.uint8]:
    """Classes in colour, over the photograph if there is one; background is left free on it."""
    colours = style.draw(labels)
    if photo is None:
        return colours
    mixed = np.asarray(cv2.addWeighted(photo, 1 - _OPACITY, colours, _OPACITY, 0.0), np.uint8)
    edges = _edges(labels)
    mixed[edges] = colours[edges]
    if style.background is not None:
        free = labels == style.background
        mixed[free] = photo[free]
    return mixed


def _edges(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels whose lower or right neighbour has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[:-1] |= labels[1:] != labels[:-1]
    edges[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return edges


def _mistakes(photo: NDArray[np.uint8] | None, small: Reduced, style: Style) -> NDArray[np.uint8]:
    """Mistakes in strong colours over a pale picture of what is there."""
    if photo is None:
        base = 0.25 * style.draw(small.true).astype(np.float32) + 0.75 * _PAPER
    else:
        grey = photo.astype(np.float32).mean(axis=2, keepdims=True)
        base = np.broadcast_to(110 + 0.55 * grey, photo.shape)
    # the root makes a line that fills a tenth of its block a third as strong as a full one, so that it is seen
    strength = np.sqrt(small.kinds)
    strength[..., IGNORED] = 0.8 * small.kinds[..., IGNORED]
    total = strength.sum(axis=2, keepdims=True)
    strength /= np.maximum(total, 1.0)
    marks = strength @ MARKS.astype(np.float32)
    mixed = base * (1 - strength.sum(axis=2, keepdims=True)) + marks
    return np.asarray(np.rint(mixed).clip(0, 255), np.uint8)


def _encode(pixels: NDArray[np.uint8], caption: str, alt: str, is_photo: bool) -> Picture:
    """As PNG, or as JPEG where a photograph would be large."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    if is_photo:
        image.save(stream, "JPEG", quality=88, subsampling=0, optimize=True)
    else:
        image.save(stream, "PNG", optimize=True)
    kind = "image/jpeg" if is_photo else "image/png"
    return Picture(caption, alt, stream.getvalue(), kind, image.width, image.height)
