"""Evaluation of interactive segmentation on a pack: clicks at the worst error, and one box.

The protocol of f-BRS and RITM. The first click is at the centre of the object, each next one at the centre of the
largest error region, positive where the mask lacks the object and negative where it spills over. An object ends when
it has `max_clicks` clicks, or when nothing later needs a further click: its IoU is at least 0.90, the highest
threshold, *and* it has the five clicks of the last reported IoU. So iou1, iou3 and iou5 are always measured, never
carried over; beyond the fifth click `iou_by_click` keeps the last IoU of an object that has ended. No pixel is
clicked twice; an object with no error left to click on ends at once.

Sources: Sofiiuk, Petrov, Barinova, Konushin, "f-BRS", CVPR 2020 (https://arxiv.org/abs/2001.10331), section 5;
Sofiiuk, Petrov, Konushin, "Reviving Iterative Training with Mask Guidance", 2021 (https://arxiv.org/abs/2102.06583).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from linocut.data.boxes import bounding_box
from linocut.data.packs import ObjectMask, Pack, PackImage, read_pack
from linocut.engine.clicks import next_click
from linocut.engine.evaluation import MIN_AREA, Evaluation
from linocut.metrics.interaction import ClickCurve, ClickScores, iou
from linocut.vision.prompts import Prompt

REPORTED_CLICKS = (1, 3, 5)


@runtime_checkable
class CutMask(Protocol):
    """What a model answers a prompt with."""

    @property
    def array(self) -> NDArray[np.bool_]:
        """(H, W) bool, as large as the image."""


@runtime_checkable
class InteractiveModel(Protocol):
    """All that evaluation asks of a model: a `Segmenter`, or a peer behind these two methods."""

    def encode(self, image: NDArray[np.uint8]) -> Any:
        """Encode an (H, W, 3) uint8 RGB image once."""

    def decode(self, embedding: Any, prompts: Sequence[Prompt]) -> Sequence[CutMask]:
        """Cut one object a prompt."""


@dataclass(frozen=True)
class _ObjectRun:
    """What one object gave: IoU after each click, CPU seconds of each, and IoU for its box."""

    ious: list[float]
    seconds: list[float]
    iou_box: float


@dataclass
class _Tally:
    """What the objects gave so far."""

    curve: ClickCurve
    encode_seconds: list[float] = field(default_factory=list)
    click_seconds: list[float] = field(default_factory=list)
    box_ious: list[float] = field(default_factory=list)

    def add(self, run: _ObjectRun) -> None:
        """Take in one object."""
        self.curve.update(run.ious)
        self.click_seconds += run.seconds
        self.box_ious.append(run.iou_box)

    def figures(self) -> dict[str, Any]:
        """The means and medians, named as in `Evaluation`."""
        scores = self.curve.compute()
        return {
            "noc80": scores.noc_at(0.80),
            "noc85": scores.noc_at(0.85),
            "noc90": scores.noc_at(0.90),
            "fail90": scores.fail_at(0.90),
            **{f"iou{clicks}": _iou_if_measured(scores, clicks) for clicks in REPORTED_CLICKS},
            "iou_box": float(np.mean(self.box_ious)),
            "objects": scores.objects,
            "seconds_encode": float(np.median(self.encode_seconds)),
            "seconds_click": float(np.median(self.click_seconds)),
            "iou_by_click": scores.iou_by_click,
        }


def evaluate(
    model: InteractiveModel,
    pack_dir: str | Path,
    *,
    split: str = "test",
    max_objects: int | None = None,
    max_clicks: int = 20,
    seed: int = 0,
    stuff: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model on one split of a pack; each image is encoded once.

    Args:
        model: a `Segmenter`, or anything else that encodes images and decodes prompts.
        pack_dir: the pack's folder, laid out as `linocut.data.packs` describes.
        split: ``train``, ``val`` or ``test``.
        max_objects: measure a sample of so many objects, spread over the images; the same for the same seed. All
            objects if None, or if there are no more than that.
        max_clicks: K ≥ 1, the most clicks an object gets.
        seed: seed of the sample.
        stuff: measure the stuff segments of panoptic packs too.
        progress: called with (objects done, objects to do), first with 0 done.

    Returns:
        The figures. Pixels with an ignore value count for no IoU and draw no click.

    Raises:
        ValueError: if the folder is no pack, has no such split or no object of at least 256 pixels in it, a label map
            is not as large as its image, or max_objects or max_clicks is below 1.
    """
    if max_clicks < 1:
        raise ValueError(f"max_clicks must be >= 1, got {max_clicks}")
    if max_objects is not None and max_objects < 1:
        raise ValueError(f"max_objects must be >= 1, or None for all, got {max_objects}")
    pack = read_pack(pack_dir, split)
    eligible, too_small = _list_objects(pack, stuff)
    chosen = _sample(eligible, max_objects, seed)
    total = sum(map(len, chosen))
    if total == 0:
        raise ValueError(f"pack {pack_dir} has no object of {MIN_AREA} pixels or more in split {split!r}")
    report = progress or (lambda *_: None)
    report(0, total)

    tally = _Tally(ClickCurve(max_clicks))
    for entry, places in zip(pack.images, chosen, strict=True):
        if not places:
            continue
        image, maps = entry.load()
        start = time.process_time()
        embedding = model.encode(image)
        tally.encode_seconds.append(time.process_time() - start)
        for item in _objects_at(entry, maps, places, stuff):
            tally.add(_run_object(model, embedding, item, max_clicks, max(tally.curve.thresholds)))
            report(tally.curve.objects, total)
    return Evaluation(
        pack=pack.name,
        split=split,
        **tally.figures(),
        objects_too_small=too_small,
        max_clicks=max_clicks,
        max_objects=max_objects,
        seed=seed,
        stuff=stuff,
    )


def _iou_if_measured(scores: ClickScores, clicks: int) -> float | None:
    """Mean IoU after so many clicks, None if no object could get that many."""
    return scores.iou_after(clicks) if clicks <= scores.max_clicks else None


def _list_objects(pack: Pack, stuff: bool) -> tuple[list[list[int]], int]:
    """For each image the places, in its run of objects, of those large enough; and the number left out."""
    eligible: list[list[int]] = []
    too_small = 0
    for entry in pack.images:
        areas = [np.count_nonzero(item.mask) for item in entry.objects(stuff=stuff)]
        eligible.append([place for place, area in enumerate(areas) if area >= MIN_AREA])
        too_small += len(areas) - len(eligible[-1])
    return eligible, too_small


def _sample(eligible: list[list[int]], max_objects: int | None, seed: int) -> list[set[int]]:
    """Choose objects by systematic sampling with a random start.

    Every object has the same chance, so the sample's mean estimates the split's; and equal steps along the images
    spread it over them, each image giving its share to within one object.
    """
    rng = np.random.default_rng(seed)
    line = [(image, int(place)) for image, places in enumerate(eligible) for place in rng.permutation(places)]
    if max_objects is not None and max_objects < len(line):
        steps = (rng.random() + np.arange(max_objects)) * len(line) / max_objects
        line = [line[int(step)] for step in steps]
    chosen: list[set[int]] = [set() for _ in eligible]
    for image, place in line:
        chosen[image].add(place)
    return chosen


def _objects_at(entry: PackImage, maps: Sequence[NDArray[np.int32]], places: set[int], stuff: bool) -> list[ObjectMask]:
    """The chosen objects of one image."""
    return [item for place, item in enumerate(entry.objects_in(maps, stuff=stuff)) if place in places]


def _run_object(model: InteractiveModel, embedding: Any, item: ObjectMask, max_clicks: int, goal: float) -> _ObjectRun:
    """Click one object until it ends, then cut it by its box."""
    prompt = Prompt()
    ious: list[float] = []
    seconds: list[float] = []
    clicked = np.zeros_like(item.mask)
    prediction = np.zeros_like(item.mask)
    while len(ious) < max_clicks:
        place = _place_click(prediction, item, clicked)
        if place is None or (ious and ious[-1] >= goal and len(ious) >= max(REPORTED_CLICKS)):
            break
        x, y, positive = place
        clicked[y, x] = True
        prompt = Prompt((*prompt.points, (x + 0.5, y + 0.5)), (*prompt.labels, positive))
        start = time.process_time()
        prediction = model.decode(embedding, [prompt])[0].array
        seconds.append(time.process_time() - start)
        ious.append(iou(prediction, item.mask, ignore=item.ignore))
    boxed = model.decode(embedding, [Prompt(box=bounding_box(item.mask))])[0].array
    return _ObjectRun(ious, seconds, iou(boxed, item.mask, ignore=item.ignore))


def _place_click(
    prediction: NDArray[np.bool_], item: ObjectMask, clicked: NDArray[np.bool_]
) -> tuple[int, int, bool] | None:
    """The next click, or None if there is no error left to click on.

    Pixels clicked before are passed over, but only if the centre of the largest error is one of them: the same click
    again would tell the model nothing.
    """
    place = next_click(prediction, item.mask, item.ignore)
    if place is None or not clicked[place[1], place[0]]:
        return place
    return next_click(prediction, item.mask, clicked if item.ignore is None else clicked | item.ignore)
