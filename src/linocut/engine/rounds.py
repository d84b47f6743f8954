"""One training step's worth of simulated interaction: prompts, looks, losses, next clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from linocut.data.boxes import bounding_box
from linocut.engine.clicks import random_click
from linocut.engine.losses import mask_loss, true_iou
from linocut.engine.samples import Crop
from linocut.vision.decoder import FINE, GRID, SLOTS, Look
from linocut.vision.encoder import Octave, normalize
from linocut.vision.network import FineLook, SegmenterNet
from linocut.vision.prompts import Prompt
from linocut.vision.windows import Window, fit, level_for, plan

Rng = np.random.Generator
_ROUNDS = (0.28, 0.32, 0.24, 0.16)
_CLICKS = (0.42, 0.22, 0.14, 0.10, 0.07, 0.05)
_REMEMBER = 0.3
_EDGE, _EDGE_GAIN = 9, 3.0  # cells across the edge that count for more in the finished mask, and how much more
_REACH = 16  # cells of the fine grid around a click that count as mended by it
_BOXES, _BOX_AND_CLICK = 0.2, 0.08


@dataclass(frozen=True)
class Target:
    """An object the network is asked for.

    Attributes:
        mask: (H, W) bool.
        ignore: (H, W) bool or None.
        batch: which image of the batch it is in.
    """

    mask: NDArray[np.bool_]
    ignore: NDArray[np.bool_] | None
    batch: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the object, edges included."""
        x0, y0, x1, y1 = bounding_box(self.mask)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True)
class StepResult:
    """Loss (with gradient) and what to log: mean IoU of the first and of the second look."""

    loss: Tensor
    first_iou: float
    second_iou: float


def see(mask: NDArray[np.bool_], window: Window, side: int) -> NDArray[np.float32]:
    """How much of every cell of a window a mask covers, (side, side) in 0 to 1; nothing outside the image."""
    canvas = np.zeros((window.side, window.side), np.float32)
    height, width = mask.shape
    y0, x0 = max(window.y, 0), max(window.x, 0)
    y1, x1 = min(window.y + window.side, height), min(window.x + window.side, width)
    if y1 > y0 and x1 > x0:
        canvas[y0 - window.y : y1 - window.y, x0 - window.x : x1 - window.x] = mask[y0:y1, x0:x1]
    mode = cv2.INTER_AREA if side <= window.side else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(canvas, (side, side), interpolation=mode), np.float32)


@dataclass(frozen=True)
class _Truth:
    """Targets as seen through windows: coverage, weight, and the object's area outside, in cells."""

    target: Tensor
    weight: Tensor
    outside: Tensor


def _truth(targets: Sequence[Target], windows: Sequence[Window], side: int) -> _Truth:
    seen, weights, outside = [], [], []
    for target, window in zip(targets, windows, strict=True):
        cover = see(target.mask, window, side)
        seen.append(cover)
        known = np.ones(target.size, bool) if target.ignore is None else ~target.ignore
        weights.append(see(known, window, side))
        cell = (window.side / side) ** 2
        outside.append(max(float(target.mask.sum()) / cell - float(cover.sum()), 0.0))
    return _Truth(
        torch.from_numpy(np.stack(seen)),
        torch.from_numpy(np.stack(weights)),
        torch.tensor(outside, dtype=torch.float32),
    )


def edge_weight(cover: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an error in each cell of a mask (h, w) costs: 1, and up to :data:`_EDGE_GAIN` more towards the edge."""
    mean = cv2.blur(cover, (_EDGE, _EDGE))
    return np.asarray(1 + _EDGE_GAIN * 4 * mean * (1 - mean), np.float32)


def first_prompt(target: Target, rng: Rng) -> Prompt:
    """A random click inside the object, a loose box around it, or both.

    Raises:
        ValueError: if the object has no pixels.
    """
    draw = rng.random()
    box = None
    if draw < _BOXES:
        x0, y0, x1, y1 = target.box
        noise = rng.normal(0, 0.05, 4).clip(-0.12, 0.12) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        box = (x0 + noise[0], y0 + noise[1], x1 + noise[2], y1 + noise[3])
    if box is not None and draw > _BOX_AND_CLICK:
        return Prompt(box=box).check(target.size)
    click = random_click(np.zeros_like(target.mask), target.mask, rng)
    if click is None:
        raise ValueError("first_prompt needs an object with pixels, got an empty mask")
    return Prompt(points=((click[0] + 0.5, click[1] + 0.5),), labels=(True,), box=box).check(target.size)


def first_window(prompt: Prompt, target: Target, rng: Rng) -> Window:
    """One of the windows the prompt would be looked at through; most often the one that fits the object."""
    if prompt.box is not None:
        return fit(prompt.box, target.size)
    windows = plan(prompt.positive, target.size)
    if rng.random() < 0.4:
        return windows[int(rng.integers(len(windows)))]
    x0, y0, x1, y1 = target.box
    wanted = level_for(max(x1 - x0, y1 - y0), target.size)
    return min(windows, key=lambda w: (abs(w.level - wanted), w.level))


def run_step(net: SegmenterNet, crops: Sequence[Crop], rng: Rng) -> StepResult:
    """Simulate a few rounds of clicks on every object; the last round learns.

    The earlier rounds run without gradient and only place the clicks (as in RITM), one to six a round, so that few
    rounds teach many clicks. From the second round on they go on from their own mask; the round that learns does so
    three times in ten, and else starts from its first look: a mask close to the object, to be mended where the new
    click says so, and what a set of clicks means by itself.
    """
    targets = [Target(mask, crop.ignore, b) for b, crop in enumerate(crops) for mask in crop.objects]
    images = torch.from_numpy(np.stack([crop.image for crop in crops]))
    octaves = net.encoder(normalize(images))
    prompts = [first_prompt(target, rng) for target in targets]
    before: FineLook | None = None
    for _ in range(int(rng.choice(len(_ROUNDS), p=_ROUNDS))):
        with torch.no_grad():
            before = _explore(net, octaves, prompts, targets, rng, before)
        prompts = [
            _with_clicks(prompt, target, logits, window, 1 + int(rng.choice(len(_CLICKS), p=_CLICKS)), rng)
            for prompt, target, logits, window in zip(
                prompts, targets, before.logits.float().numpy(), before.windows, strict=True
            )
        ]
    return _learn(net, octaves, prompts, targets, rng, before)


def _explore(
    net: SegmenterNet,
    octaves: Sequence[Octave],
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    rng: Rng,
    before: FineLook | None,
) -> FineLook:
    """Where the network stands with these prompts: the second look from the round before, or from a first look."""
    batch, sizes = _places(targets)
    if before is not None:
        return net.second_look(octaves, prompts, _coarse(before), before.windows, batch, sizes)
    windows, look, truth = _first_look(net, octaves, prompts, targets, rng)
    masks = _chosen(look, prompts, _slot_ious(truth, look), rng)
    return net.second_look(octaves, prompts, masks, windows, batch, sizes)


def _places(targets: Sequence[Target]) -> tuple[list[int], list[tuple[int, int]]]:
    """Which image of the batch each target is in, and that image's size."""
    return [t.batch for t in targets], [t.size for t in targets]


def _first_look(
    net: SegmenterNet, octaves: Sequence[Octave], prompts: Sequence[Prompt], targets: Sequence[Target], rng: Rng
) -> tuple[list[Window], Look, _Truth]:
    """A first look at every object, the windows it went through, and what there was to be seen."""
    windows = [first_window(p, t, rng) for p, t in zip(prompts, targets, strict=True)]
    look = net.first_look(octaves, prompts, windows, *_places(targets))
    return windows, look, _truth(targets, windows, GRID)


@torch.no_grad()
def _slot_ious(truth: _Truth, look: Look) -> Tensor:
    """(N, 4) true IoU of every slot."""
    return torch.stack([_true_iou(truth, look.logits[:, s].float()) for s in range(SLOTS)], dim=1)


def _learn(
    net: SegmenterNet,
    octaves: Sequence[Octave],
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    rng: Rng,
    before: FineLook | None,
) -> StepResult:
    """Both looks at every object, and their losses; ``before`` is the second look of the round before."""
    windows, look, truth = _first_look(net, octaves, prompts, targets, rng)
    losses = torch.stack([_flat(truth, mask_loss, look.logits[:, s].float()) for s in range(SLOTS)], dim=1)
    ious = _slot_ious(truth, look)
    best = losses[:, 1:].min(dim=1).values
    first = torch.where(_ambiguous(prompts), best, losses[:, 0] + 0.2 * best)
    quality = (look.iou - ious).square().mean(dim=1)

    masks, seen = _remember(_chosen(look, prompts, ious, rng), windows, before, rng)
    fine = net.second_look(octaves, prompts, masks, seen, *_places(targets))
    sharp = _truth(targets, fine.windows, FINE)
    rough = _truth(targets, fine.windows, GRID)
    edges = torch.from_numpy(np.stack([edge_weight(cover) for cover in sharp.target.numpy()]))
    second = _flat(replace(sharp, weight=sharp.weight * edges), mask_loss, fine.logits.float())
    second = second + 0.5 * _flat(rough, mask_loss, fine.coarse.logits[:, 0].float())
    with torch.no_grad():
        final = _true_iou(sharp, fine.logits.float())
    quality = quality + (fine.iou - final).square()
    loss = (first + second + 2.0 * quality).mean()
    shown = torch.where(_ambiguous(prompts), ious[:, 1:].max(dim=1).values, ious[:, 0])
    return StepResult(loss, float(shown.mean()), float(final.mean()))


def _true_iou(truth: _Truth, logits: Tensor) -> Tensor:
    return true_iou(logits, truth.target, truth.weight, truth.outside)


def _ambiguous(prompts: Sequence[Prompt]) -> Tensor:
    return torch.tensor([p.ambiguous for p in prompts])


def _flat(truth: _Truth, loss: Callable[[Tensor, Tensor, Tensor], Tensor], logits: Tensor) -> Tensor:
    return loss(logits, truth.target, truth.weight)


def _chosen(look: Look, prompts: Sequence[Prompt], ious: Tensor, rng: Rng) -> Tensor:
    """The first-look masks (N, 1, 64, 64) that go on to the second look.

    Slot 0 of a clear prompt; of an ambiguous one mostly the truly best slot, sometimes the one predicted to be.
    """
    trust = torch.from_numpy(rng.random(len(ious)) < 0.8)
    picked = 1 + torch.where(trust, ious[:, 1:].argmax(dim=1), look.iou.detach()[:, 1:].argmax(dim=1))
    slots = torch.where(_ambiguous(prompts), picked, 0)
    return torch.sigmoid(look.logits.detach().float()[torch.arange(len(slots)), slots])[:, None]


def _coarse(fine: FineLook) -> Tensor:
    """What a second look found, as probabilities (N, 1, 64, 64)."""
    return functional.avg_pool2d(torch.sigmoid(fine.logits.float())[:, None], FINE // GRID)


def _remember(masks: Tensor, windows: list[Window], before: FineLook | None, rng: Rng) -> tuple[Tensor, list[Window]]:
    """Some of the masks (N, 1, 64, 64) replaced by what the round before found."""
    if before is None:
        return masks, windows
    keep = rng.random(len(windows)) < _REMEMBER
    mixed = torch.where(torch.from_numpy(keep)[:, None, None, None], _coarse(before), masks)
    return mixed, [b if k else w for b, w, k in zip(before.windows, windows, keep, strict=True)]


def _with_clicks(
    prompt: Prompt, target: Target, logits: NDArray[np.float32], window: Window, count: int, rng: Rng
) -> Prompt:
    """The prompt with up to ``count`` more clicks in errors the window shows; unchanged where there is none.

    What lies around a click counts as mended before the next is placed, so that clicks do not crowd.
    """
    known = see(np.ones(target.size, bool) if target.ignore is None else ~target.ignore, window, FINE) > 0.5
    found, wanted = (logits > 0) & known, (see(target.mask, window, FINE) > 0.5) & known
    cell, points, labels = window.side / FINE, list(prompt.points), list(prompt.labels)
    for _ in range(count):
        click = random_click(found, wanted, rng)
        if click is None:
            break
        x, y, positive = click
        points.append(
            (
                min(max(window.x + (x + 0.5) * cell, 0.0), float(target.size[1])),
                min(max(window.y + (y + 0.5) * cell, 0.0), float(target.size[0])),
            )
        )
        labels.append(positive)
        mended = slice(max(y - _REACH, 0), y + _REACH + 1), slice(max(x - _REACH, 0), x + _REACH + 1)
        found[mended] = wanted[mended]
    if len(points) == len(prompt.points):
        return prompt
    return replace(prompt, points=tuple(points), labels=tuple(labels)).check(target.size)
