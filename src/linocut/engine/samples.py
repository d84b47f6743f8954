"""Training samples: crops of pack images with the objects in them. A batch is a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from linocut.data.packs import PackImage, read_pack
from linocut.engine.augment import jitter, paste

Rng = np.random.Generator
MIN_AREA = 60
"""Objects with fewer pixels in the crop are not asked for."""

_TRIES = 1000
"""So many crops are looked at for one batch; in the packs of this project one in two or three has an object."""

_DONORS = ("binary", "instance", "panoptic")  # kinds of packs whose labels are whole things
_CROPS = ((256, 4, 0.55), (384, 2, 0.30), (512, 1, 0.15))


@dataclass(frozen=True)
class Crop:
    """One image of a batch.

    Attributes:
        image: (C, C, 3) uint8, padded with the mean colour right and below where the image is smaller.
        size: (height, width) of what is image.
        objects: K masks, each (height, width) bool.
        ignore: (height, width) bool or None.
    """

    image: NDArray[np.uint8]
    size: tuple[int, int]
    objects: tuple[NDArray[np.bool_], ...]
    ignore: NDArray[np.bool_] | None


class SampleSource:
    """Draws batches of crops from packs, balanced over packs and object sizes.

    Decoded images stay in memory, three bytes a pixel and four more for every label map.

    Args:
        folders: pack folders.
        split: which split to draw from.
        seed: with the step, decides every batch.
        objects_per_batch: how many objects a batch holds, >= 1; spread evenly over its crops, a rest is left out.
        pack_weights: how often packs are drawn, by name, > 0; a pack that is not named has the weight 1.

    Raises:
        ValueError: if a folder is no pack or lacks the split, two packs have one name, ``objects_per_batch`` < 1, or a
            weight is not positive or of no pack.
    """

    def __init__(
        self,
        folders: Sequence[str],
        *,
        split: str,
        seed: int,
        objects_per_batch: int,
        pack_weights: Mapping[str, float] | None = None,
    ) -> None:
        if objects_per_batch < 1:
            raise ValueError(f"objects_per_batch must be >= 1, got {objects_per_batch}")
        packs = [read_pack(folder, split) for folder in folders]
        self.packs = {pack.name: pack.images for pack in packs}
        if len(self.packs) < len(packs):
            raise ValueError(f"packs must have different names, got {', '.join(sorted(pack.name for pack in packs))}")
        self.names, self.weights = list(self.packs), _shares(list(self.packs), pack_weights or {})
        self.donors = [name for name, (first, *_) in self.packs.items() if _photo(first) and first.kind in _DONORS]
        self.seed, self.objects_per_batch = seed, objects_per_batch
        self._cache: dict[tuple[str, str], tuple[NDArray[np.uint8], list[NDArray[np.int32]]]] = {}

    def batch(self, step: int) -> list[Crop]:
        """The crops of one step, all of one size; each holds the same number of objects.

        Raises:
            ValueError: if no object that is large enough turns up, or labels do not fit their image.
        """
        rng = np.random.default_rng((self.seed, step))
        side, most, _ = _CROPS[int(rng.choice(len(_CROPS), p=[c[2] for c in _CROPS]))]
        count = min(most, self.objects_per_batch)
        crops: list[Crop] = []
        for _ in range(_TRIES):
            crop = self._crop(side, self.objects_per_batch // count, rng)
            if crop is not None:
                crops.append(crop)
            if len(crops) == count:
                return crops
        raise ValueError(
            f"{_TRIES} crops of {', '.join(self.names)} held {len(crops)} with an object of at least {MIN_AREA} pixels"
        )

    def _read(self, name: str, item: PackImage) -> tuple[NDArray[np.uint8], list[NDArray[np.int32]]]:
        key = (name, item.id)
        if key not in self._cache:
            self._cache[key] = item.load()
        return self._cache[key]

    def _draw(self, names: Sequence[str], weights: NDArray[np.float64], rng: Rng) -> tuple[str, PackImage]:
        name = names[int(rng.choice(len(names), p=weights))]
        items = self.packs[name]
        return name, items[int(rng.integers(len(items)))]

    def _crop(self, side: int, objects: int, rng: Rng) -> Crop | None:
        name, item = self._draw(self.names, self.weights, rng)
        image, maps = self._read(name, item)
        map_index = int(rng.integers(len(maps)))
        image, labels = _rescale(image, maps[map_index], side, rng)
        image, labels = _cut(image, labels, side, rng)
        photo = _photo(item)
        if rng.random() < 0.5:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if rng.random() < (0.1 if photo else 0.5):
            image, labels = image[::-1], labels[::-1]
        found = list(item.objects_of(np.ascontiguousarray(labels), map_index, stuff=True))
        masks = [o.mask for o in found]
        ignore = found[0].ignore if found else None
        image = jitter(np.ascontiguousarray(image), rng)
        if photo and rng.random() < 0.3:
            image, masks, ignore = self._paste(image, masks, ignore, rng)
        masks = [m for m in masks if m.sum() >= MIN_AREA]
        if not masks:
            return None
        areas = np.sqrt([m.sum() for m in masks])
        chosen = rng.choice(len(masks), objects, replace=len(masks) < objects, p=areas / areas.sum())
        padded = np.full((side, side, 3), 127, np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        height, width = image.shape[:2]
        return Crop(padded, (height, width), tuple(masks[int(i)] for i in chosen), ignore)

    def _paste(
        self, image: NDArray[np.uint8], masks: list[NDArray[np.bool_]], ignore: NDArray[np.bool_] | None, rng: Rng
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]], NDArray[np.bool_] | None]:
        """An object of another image pasted over this one; of its own pixels everything is known."""
        if not self.donors:
            return image, masks, ignore
        name, item = self._draw(self.donors, np.full(len(self.donors), 1 / len(self.donors)), rng)
        donor, maps = self._read(name, item)
        objects = [o.mask for o in item.objects_of(maps[0], 0) if o.mask.sum() > 400]
        if not objects:
            return image, masks, ignore
        image, masks = paste(image, masks, donor, objects[int(rng.integers(len(objects)))], rng)
        return image, masks, None if ignore is None else ignore & ~masks[-1]


def _photo(item: PackImage) -> bool:
    """Whether an image is a photograph, which has an upright side and can take a pasted object."""
    return item.type.startswith("photo")


def _shares(names: Sequence[str], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """How often each pack is drawn, the sum 1."""
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"pack_weights names {', '.join(unknown)}; the packs are {', '.join(names)}")
    given = np.array([weights.get(name, 1.0) for name in names], dtype=np.float64)
    if not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"pack_weights must be finite and > 0, got {dict(weights)}")
    shares: NDArray[np.float64] = given / given.sum()
    return shares


def _rescale(
    image: NDArray[np.uint8], labels: NDArray[np.int32], side: int, rng: Rng
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Resize by a random factor, from the whole image in the crop to twice its size, and stretch one side a little."""
    longest = max(image.shape[:2])
    low = min(0.7 * side / longest, 1.0)
    factor = float(np.exp(rng.uniform(np.log(low), np.log(2.0 if longest < 400 else 1.5))))
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    width = max(1, round(image.shape[1] * factor * stretch))
    height = max(1, round(image.shape[0] * factor / stretch))
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=mode)
    values = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8), np.asarray(values, np.int32)


def _cut(
    image: NDArray[np.uint8], labels: NDArray[np.int32], side: int, rng: Rng
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A random square of the image, smaller where the image is."""
    y = int(rng.integers(max(0, image.shape[0] - side) + 1))
    x = int(rng.integers(max(0, image.shape[1] - side) + 1))
    return image[y : y + side, x : x + side], labels[y : y + side, x : x + side]
