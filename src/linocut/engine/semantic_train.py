"""Training semantic segmentation on a pack whose labels are classes; the loop itself is in ``loop``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linocut.engine import loop
from linocut.engine.loop import Loop, Words
from linocut.engine.losses import class_weights, semantic_loss
from linocut.engine.semantic_samples import SemanticBatch, SemanticSource
from linocut.engine.settings import LoopConfig
from linocut.metrics import ConfusionMatrix
from linocut.vision.encoder import EncoderConfig, normalize
from linocut.vision.semantic import SemanticConfig, SemanticNet, load_semantic_net, save_semantic
from linocut.vision.weights import bundled_path, load_net


@dataclass(frozen=True)
class SemanticTrainConfig(LoopConfig):
    """How to train; what is not named here is as in :class:`~linocut.engine.settings.LoopConfig`.

    ``start`` is a file of weights of either kind: a segmenter's, of which the encoder is taken, or those of an earlier
    training with the same classes; None takes the encoder that ships with Linocut, unless ``imagenet`` is given.

    Attributes:
        images: crops a step.
        side: of a crop in pixels, >= 32.
        rates: dilations of the pyramid pooling at stride 16; (1, 1, 1) for a head without dilation.
        dilations: of the residual blocks at stride 8, one block each.
        scale: images are enlarged so many times before they are encoded, when the network is used; training varies the
            scale by itself.
    """

    steps: int = 4_000
    frozen_steps: int = 0
    cooldown: int = 1_500
    images: int = 8
    side: int = 320
    rates: tuple[int, ...] = SemanticConfig.rates
    dilations: tuple[int, ...] = SemanticConfig.dilations
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(1, "images")
        self.require(32, "side")


@dataclass(frozen=True)
class SemanticProgress(loop.Progress):
    """What a caller is told after every step; figures of validation are None between validations.

    Attributes:
        accuracy: share of the batch's known pixels that were right.
        val_pa: pixel accuracy on the val split, whole images.
        val_miou: mean IoU on the val split.
    """

    accuracy: float
    val_pa: float | None = None
    val_miou: float | None = None

    def in_words(self) -> str:
        """Loss and accuracy of the step."""
        return f"loss {self.loss:.3f}, train accuracy {self.accuracy:.2f}"

    def validation_in_words(self) -> Words | None:
        """Accuracy and mean IoU on the val split."""
        if self.val_miou is None:
            return None
        return Words(f"val mIoU {self.val_miou:.3f}", f"val accuracy {self.val_pa:.4f}, mIoU {self.val_miou:.4f}")


class SemanticTrainer(Loop[SemanticTrainConfig, SemanticProgress]):
    """Trains a :class:`~linocut.vision.semantic.SemanticNet`; see :class:`~linocut.engine.loop.Loop`.

    Raises:
        ValueError: if the data is not one semantic pack, besides what the loop refuses.
    """

    progress = SemanticProgress
    net: SemanticNet

    def open(self, folders: list[str]) -> None:
        """Open the pack's train and val splits."""
        if len(folders) != 1:
            raise ValueError(
                f"semantic segmentation is trained on one pack, whose classes it learns; {self.config.data} holds "
                f"{len(folders)}: {', '.join(Path(folder).name for folder in folders)}"
            )
        config = self.config
        self.source = SemanticSource(
            folders[0], split="train", seed=config.seed, images=config.images, side=config.side
        )
        self.val = SemanticSource(folders[0], split="val")
        self.class_weights = class_weights(torch.from_numpy(self.source.pixels_of_classes()))

    def build(self) -> SemanticNet:
        """Encoder and dilated head."""
        config = self.config
        return SemanticNet(
            SemanticConfig(
                tuple(self.source.names.values()),
                self.source.values,
                EncoderConfig(mixer=config.mixer),
                rates=config.rates,
                dilations=config.dilations,
                scale=config.scale,
            )
        )

    def initialize(self) -> None:
        """Weights to start from: a segmenter's encoder, an earlier training's, or ImageNet's for the trunk."""
        if self.config.imagenet is not None and self.config.start is None:
            if self.config.imagenet:
                self.net.encoder.trunk.load_imagenet(self.config.imagenet)
            return
        start = bundled_path() if self.config.start is None else Path(self.config.start)
        try:
            given = load_net(start)
        except ValueError:
            self._go_on_from(start)
            return
        if given.config != self.net.config.encoder:
            raise ValueError(
                f"{start} holds an encoder of {given.config}, and this run trains {self.net.config.encoder}"
            )
        self.net.encoder.load_state_dict(given.encoder.state_dict())

    def _go_on_from(self, start: Path) -> None:
        """Take the weights of an earlier training."""
        earlier = load_semantic_net(start)
        if earlier.config != self.net.config:
            raise ValueError(f"{start} holds weights of {earlier.config}, and this run trains {self.net.config}")
        self.net.load_state_dict(earlier.state_dict())

    def data_in_words(self) -> str:
        """The pack, its number of images and its classes."""
        pack = self.source.pack
        return f"{pack.name} ({len(pack.images)} images, {len(self.source.values)} classes)"

    def batch(self, step: int) -> SemanticBatch:
        """The crops of a step."""
        return self.source.batch(step)

    def loss(self, batch: SemanticBatch) -> tuple[Tensor, dict[str, Any]]:
        """Cross-entropy and soft IoU of a batch; nothing in it is random but the crops."""
        target = torch.from_numpy(batch.classes)
        logits = self.net(normalize(torch.from_numpy(batch.images)))
        with torch.no_grad():
            known = target >= 0
            right = (logits.argmax(1) == target) & known
            accuracy = float(right.sum() / known.sum().clamp_min(1))
        return semantic_loss(logits, target, self.class_weights), {"accuracy": accuracy}

    def validate(self) -> dict[str, Any]:
        """Figures of the val split, whole images at the scale the network is used at."""
        matrix = ConfusionMatrix(len(self.val.values), ignore=-1)
        for index in range(len(self.val.pack.images)):
            image, target = self.val.whole(index)
            matrix.update(self.net.logits(torch.from_numpy(image)[None])[0].argmax(0).numpy(), target)
        return {"val_pa": matrix.pa, "val_miou": matrix.miou}

    def score(self, progress: SemanticProgress) -> float | None:
        """Mean IoU."""
        return progress.val_miou

    def save_weights(self) -> None:
        """Write the averaged weights."""
        save_semantic(self.weights, self.average, self.net.config)


def train_semantic(
    config: SemanticTrainConfig,
    *,
    resume: bool = False,
    report: Callable[[SemanticProgress], None] | None = None,
) -> Path:
    """Train, or go on training; see :class:`SemanticTrainer`."""
    return SemanticTrainer(config, resume=resume).run(report)
