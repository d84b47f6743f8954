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

from linocut.engine.clicks import center, random_click
from linocut.engine.losses import mask_loss, true_iou
from linocut.engine.samples import Crop
from linocut.vision.decoder import FINE, GRID, SLOTS
from linocut.vision.encoder import Octave, normalize
from linocut.vision.network import FineLook, SegmenterNet
from linocut.vision.prompts import Prompt
from linocut.vision.windows import Window, fit, level_for, plan

Rng = np.random.Generator
_ROUNDS = (0.34, 0.22, 0.16, 0.12, 0.08, 0.08)
_REMEMBER = 0.5
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
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


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


def first_prompt(target: Target, rng: Rng) -> Prompt:
    """A random click inside the object, a loose box around it, or both."""
    draw = rng.random()
    box = None
    if draw < _BOXES:
        x0, y0, x1, y1 = target.box
        noise = rng.normal(0, 0.05, 4).clip(-0.12, 0.12) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0])
        box = (x0 + noise[0], y0 + noise[1], x1 + noise[2], y1 + noise[3])
    if box is not None and draw > _BOX_AND_CLICK:
        return Prompt(box=box).check(target.size)
    click = random_click(np.zeros_like(target.mask), target.mask, rng) or (*center(target.mask), True)
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

    The earlier rounds run without gradient and only place the clicks (as in RITM). Half of the time the second look
    goes on from the mask of the round before instead of the first look's: a mask close to the object, to be mended
    where the new click says so.
    """
    targets = [Target(mask, crop.ignore, b) for b, crop in enumerate(crops) for mask in crop.objects]
    images = torch.from_numpy(np.stack([crop.image for crop in crops]))
    octaves = net.encoder(normalize(images))
    prompts = [first_prompt(target, rng) for target in targets]
    rounds = 1 + int(rng.choice(len(_ROUNDS), p=_ROUNDS))
    before: FineLook | None = None
    for _ in range(rounds - 1):
        with torch.no_grad():
            result = _round(net, octaves, prompts, targets, rng, before)
        before = result.fine
        prompts = [
            _with_click(prompt, target, logits, window, rng)
            for prompt, target, logits, window in zip(
                prompts, targets, result.fine.logits.float().numpy(), result.fine.windows, strict=True
            )
        ]
    result = _round(net, octaves, prompts, targets, rng, before)
    return StepResult(result.loss, result.first_iou, result.second_iou)


@dataclass(frozen=True)
class _Round:
    loss: Tensor
    fine: FineLook
    first_iou: float
    second_iou: float


def _round(
    net: SegmenterNet,
    octaves: Sequence[Octave],
    prompts: Sequence[Prompt],
    targets: Sequence[Target],
    rng: Rng,
    before: FineLook | None,
) -> _Round:
    """Both looks at every object, and their losses; ``before`` is the second look of the round before."""
    batch, sizes = [t.batch for t in targets], [t.size for t in targets]
    windows = [first_window(p, t, rng) for p, t in zip(prompts, targets, strict=True)]
    look = net.first_look(octaves, prompts, windows, batch, sizes)
    truth = _truth(targets, windows, GRID)
    logits = look.logits.float()
    slots = [_flat(truth, mask_loss, logits[:, s]) for s in range(SLOTS)]
    losses = torch.stack(slots, dim=1)
    with torch.no_grad():
        ious = torch.stack(
            [true_iou(logits[:, s], truth.target, truth.weight, truth.outside) for s in range(SLOTS)], dim=1
        )
    ambiguous = torch.tensor([p.ambiguous for p in prompts])
    best = losses[:, 1:].min(dim=1).values
    first = torch.where(ambiguous, best, losses[:, 0] + 0.2 * best)
    quality = (look.iou - ious).square().mean(dim=1)

    chosen = torch.where(ambiguous, _choose(ious, look.iou, rng), 0)
    masks = torch.sigmoid(logits.detach()[torch.arange(len(targets)), chosen])[:, None]
    masks, seen = _remember(masks, windows, before, rng)
    fine = net.second_look(octaves, prompts, masks, seen, batch, sizes)
    sharp = _truth(targets, fine.windows, FINE)
    rough = _truth(targets, fine.windows, GRID)
    second = _flat(sharp, mask_loss, fine.logits.float()) + 0.5 * _flat(
        rough, mask_loss, fine.coarse.logits[:, 0].float()
    )
    with torch.no_grad():
        final = true_iou(fine.logits.float(), sharp.target, sharp.weight, sharp.outside)
    quality = quality + (fine.iou - final).square()
    loss = (first + second + 2.0 * quality).mean()
    picked = ious[torch.arange(len(targets)), chosen]
    return _Round(loss, fine, float(picked.mean()), float(final.mean()))


def _flat(truth: _Truth, loss: Callable[[Tensor, Tensor, Tensor], Tensor], logits: Tensor) -> Tensor:
    return loss(logits, truth.target, truth.weight)


def _choose(ious: Tensor, predicted: Tensor, rng: Rng) -> Tensor:
    """The slot that goes on to the second look: mostly the truly best, sometimes the one predicted to be."""
    trust = torch.from_numpy(rng.random(len(ious)) < 0.8)
    return 1 + torch.where(trust, ious[:, 1:].argmax(dim=1), predicted.detach()[:, 1:].argmax(dim=1))


def _remember(masks: Tensor, windows: list[Window], before: FineLook | None, rng: Rng) -> tuple[Tensor, list[Window]]:
    """Some of the masks (N, 1, 64, 64) replaced by what the round before found, averaged to the same grid."""
    if before is None:
        return masks, windows
    old = functional.avg_pool2d(torch.sigmoid(before.logits.float())[:, None], FINE // GRID)
    keep = rng.random(len(windows)) < _REMEMBER
    mixed = torch.where(torch.from_numpy(keep)[:, None, None, None], old, masks)
    return mixed, [b if k else w for b, w, k in zip(before.windows, windows, keep, strict=True)]


def _with_click(prompt: Prompt, target: Target, logits: NDArray[np.float32], window: Window, rng: Rng) -> Prompt:
    """The prompt with one more click in an error the window shows; unchanged where there is none."""
    known = see(np.ones(target.size, bool) if target.ignore is None else ~target.ignore, window, FINE) > 0.5
    click = random_click((logits > 0) & known, (see(target.mask, window, FINE) > 0.5) & known, rng)
    if click is None:
        return prompt
    cell = window.side / FINE
    x = min(max(window.x + (click[0] + 0.5) * cell, 0.0), float(target.size[1]))
    y = min(max(window.y + (click[1] + 0.5) * cell, 0.0), float(target.size[0]))
    return replace(prompt, points=(*prompt.points, (x, y)), labels=(*prompt.labels, click[2])).check(target.size)
