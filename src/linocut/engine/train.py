"""Training the segmenter on the objects of packs, with simulated clicks; the loop itself is in ``loop``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from linocut.engine import loop
from linocut.engine.loop import Loop, Words
from linocut.engine.rounds import run_step
from linocut.engine.samples import Crop, SampleSource
from linocut.engine.settings import LoopConfig, imagenet_path
from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import SegmenterNet
from linocut.vision.weights import load_net, save_weights


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """How to train the segmenter; what is not named here is as in :class:`~linocut.engine.settings.LoopConfig`.

    Attributes:
        objects: objects a step, spread over one to four crops.
        pack_weights: how often packs are drawn, by name; a pack that is not named has the weight 1.
        val_batches: batches of the val split a validation takes.
    """

    objects: int = 16
    pack_weights: Mapping[str, float] = field(default_factory=dict)
    val_batches: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, "objects", "val_batches")


@dataclass(frozen=True)
class Progress(loop.Progress):
    """What a caller is told after every step; validation figures are None between validations."""

    first_iou: float
    second_iou: float
    val_loss: float | None = None
    val_first_iou: float | None = None
    val_second_iou: float | None = None

    def in_words(self) -> str:
        """Loss and IoU of the step."""
        return f"loss {self.loss:.3f}, train IoU {self.first_iou:.2f}"

    def validation_in_words(self) -> Words | None:
        """Loss and IoU on the val splits."""
        if self.val_first_iou is None:
            return None
        return Words(
            f"val IoU {self.val_first_iou:.2f}",
            f"val loss {self.val_loss:.3f}, IoU after one click {self.val_first_iou:.3f}, "
            f"after two {self.val_second_iou:.3f}",
        )


class Trainer(Loop[TrainConfig, Progress]):
    """Trains a :class:`~linocut.vision.network.SegmenterNet`; see :class:`~linocut.engine.loop.Loop`."""

    free = Loop.free | {"val_batches"}
    progress = Progress
    net: SegmenterNet

    def open(self, folders: list[str]) -> None:
        """Open the train and the val splits."""
        config = self.config
        draw = partial(SampleSource, folders, objects_per_batch=config.objects, pack_weights=dict(config.pack_weights))
        self.source, self.val = draw(split="train", seed=config.seed), draw(split="val", seed=10_007)

    def build(self) -> SegmenterNet:
        """Encoder and decoder."""
        return SegmenterNet(EncoderConfig(mixer=self.config.mixer))

    def initialize(self) -> None:
        """Weights to start from: Linocut's, or ImageNet's for the trunk."""
        if self.config.start is not None:
            given = load_net(self.config.start)
            if given.config != self.net.config:
                raise ValueError(
                    f"{self.config.start} holds weights of {given.config}, and this run trains {self.net.config}"
                )
            self.net.load_state_dict(given.state_dict())
            return
        source = imagenet_path(self.config)
        if source:
            self.net.encoder.trunk.load_imagenet(source)

    def data_in_words(self) -> str:
        """Packs by name and number of images."""
        return ", ".join(f"{name} ({len(images)} images)" for name, images in self.source.packs.items())

    def batch(self, step: int) -> list[Crop]:
        """The crops of a step."""
        return self.source.batch(step)

    def loss(self, batch: list[Crop]) -> tuple[Tensor, dict[str, Any]]:
        """The loss of simulated rounds of clicks."""
        result = run_step(self.net, batch, np.random.default_rng((self.config.seed, self.step, 1)))
        return result.loss, {"first_iou": result.first_iou, "second_iou": result.second_iou}

    def validate(self) -> dict[str, Any]:
        """Means over fixed batches of the val splits."""
        results = [
            run_step(self.net, self.val.batch(index), np.random.default_rng((11, index)))
            for index in range(self.config.val_batches)
        ]
        means = np.mean([(float(r.loss), r.first_iou, r.second_iou) for r in results], axis=0)
        return {"val_loss": float(means[0]), "val_first_iou": float(means[1]), "val_second_iou": float(means[2])}

    def score(self, progress: Progress) -> float | None:
        """IoU after the second click."""
        return progress.val_second_iou

    def save_weights(self) -> None:
        """Write the averaged weights."""
        save_weights(self.weights, self.average, self.net.config)


def train(config: TrainConfig, *, resume: bool = False, report: Callable[[Progress], None] | None = None) -> Path:
    """Train, or go on training; see :class:`Trainer`."""
    return Trainer(config, resume=resume).run(report)
