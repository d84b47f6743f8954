"""A training loop that can stop at any moment and go on as if it had not; what is trained is said by its subclasses.

A step's batch and everything random in it are functions of (seed, step) alone and the checkpoint holds weights, their
moving average and the optimiser, so a resumed run takes the same steps as an uninterrupted one.
"""

from __future__ import annotations

import csv
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from linocut.data.files import atomic_path
from linocut.engine.settings import LoopConfig, find_packs, rate
from linocut.vision.network import channels_last
from linocut.vision.precision import resolve

# What reading a broken file, or one with other content, raises.
_DAMAGED = (AttributeError, EOFError, KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError)


class Words(NamedTuple):
    """A validation in words: its one figure, and all of them."""

    short: str
    full: str


@dataclass(frozen=True)
class Progress(ABC):
    """What a caller is told after every step; a task adds its figures, those of validation None between validations."""

    step: int
    steps: int
    learning_rate: float
    loss: float

    @abstractmethod
    def in_words(self) -> str:
        """How the step went."""

    @abstractmethod
    def validation_in_words(self) -> Words | None:
        """How the validation went, None where there was none."""


ConfigT = TypeVar("ConfigT", bound=LoopConfig)
ProgressT = TypeVar("ProgressT", bound=Progress)


class Loop(ABC, Generic[ConfigT, ProgressT]):
    """Network, moving average and optimiser of one run, and where it stands.

    A subclass says what the network is (:meth:`build`), where its weights begin (:meth:`initialize`), what a batch and
    its loss are (:meth:`batch`, :meth:`loss`) and how well it does (:meth:`validate`, :meth:`score`).

    Args:
        config: how to train.
        resume: go on from ``last.pt`` in the run's folder.

    Raises:
        ValueError: if there is nothing to resume from, its checkpoint is damaged, of another network or of a run with
            other settings or data, or there is something to overwrite.
    """

    free: ClassVar[frozenset[str]] = frozenset(
        {"data", "out", "steps", "cooldown", "save_every", "val_every", "imagenet", "start"}
    )
    """What may change when a run is gone on with: it decides no step, or none of those taken."""

    trunk: ClassVar[str] = "encoder.trunk."
    """How the names of the trunk's parameters begin."""

    progress: type[ProgressT]

    def __init__(self, config: ConfigT, *, resume: bool = False) -> None:
        self.config, self.out, self.step = config, Path(config.out), 0
        self.dtype = resolve(config.dtype)
        checkpoint = self.out / "last.pt"
        if resume and not checkpoint.is_file():
            raise ValueError(f"cannot resume: {checkpoint} does not exist")
        if not resume and checkpoint.exists():
            raise ValueError(f"{checkpoint} exists: resume it, or train into another folder")
        self.open(find_packs(config.data))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.net = channels_last(self.build())
        self.optimizer = self._optimizer()
        self.average: dict[str, Tensor] = {}
        self.best: float | None = None
        if resume:
            self._restore(checkpoint)
        else:
            self.initialize()
            self.average = {name: value.clone() for name, value in self.net.state_dict().items()}

    @abstractmethod
    def open(self, folders: list[str]) -> None:
        """Open the packs' splits."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, its weights still random."""

    @abstractmethod
    def initialize(self) -> None:
        """Put in the weights a new run starts from."""

    @abstractmethod
    def data_in_words(self) -> str:
        """The data as the checkpoint notes it, wherever it lies, so that a run is not gone on with on other data."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """What a step learns from, a function of (seed, step); made in a thread of its own."""

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """The loss of a batch and further figures of :attr:`progress`, random by (seed, step) alone; under autocast."""

    @abstractmethod
    def validate(self) -> dict[str, Any]:
        """Figures of :attr:`progress` on the val split, with the averaged weights in the network; under autocast."""

    @abstractmethod
    def score(self, progress: ProgressT) -> float | None:
        """The validation's figure by which weights are chosen, higher is better; None where there was none."""

    @abstractmethod
    def save_weights(self) -> None:
        """Write the averaged weights to :attr:`weights`, whole or not at all."""

    def run(self, report: Callable[[ProgressT], None] | None = None) -> Path:
        """Train to the last step; returns the file of the weights that did best on the val splits."""
        for batch in self._batches():
            progress = self._advance(batch)
            if self.step % self.config.val_every == 0 or self.step == self.config.steps:
                progress = self._validated(progress)
                self._log(progress)
                self._keep_best(progress)
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
            if report:
                report(progress)
        return self.weights

    @property
    def weights(self) -> Path:
        """The file of the weights to use."""
        return self.out / "weights.safetensors"

    def save(self) -> None:
        """Write the checkpoint, and weights as long as no validation has chosen any; each is whole or not there."""
        if self.best is None:
            self.save_weights()
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

    def _batches(self) -> Iterator[Any]:
        """The batches still to come, each made in a thread while the step before runs."""
        last = self.config.steps - 1
        if self.step > last:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self.batch, self.step)
            for step in range(self.step, self.config.steps):
                batch = ahead.result()
                if step < last:
                    ahead = pool.submit(self.batch, step + 1)
                yield batch

    def _advance(self, batch: Any) -> ProgressT:
        """One optimiser step."""
        config = self.config
        learning_rate = rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        for name, parameter in self.net.named_parameters():
            if name.startswith(self.trunk):
                parameter.requires_grad_(self.step >= config.frozen_steps)
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss, figures = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return self.progress(self.step, config.steps, learning_rate, float(loss.detach()), **figures)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _validated(self, progress: ProgressT) -> ProgressT:
        """The same, with the averaged weights' figures on the val splits."""
        current = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average)
        with torch.no_grad(), self._autocast():
            figures = self.validate()
        self.net.load_state_dict(current)
        return replace(progress, **figures)

    def _keep_best(self, progress: ProgressT) -> None:
        """Write the averaged weights if no validation before went as well."""
        score = self.score(progress)
        if score is not None and (self.best is None or score > self.best):
            self.best = score
            self.save_weights()

    def _log(self, progress: ProgressT) -> None:
        path = self.out / "log.csv"
        self.out.mkdir(parents=True, exist_ok=True)
        names = [field.name for field in fields(progress) if field.name != "steps"]
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < progress.step]
        rows.append({name: getattr(progress, name) for name in names})
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def _deciding(self) -> Mapping[str, Any]:
        """The settings and data that decide what a step does."""
        settings = {**asdict(self.config), "dtype": str(self.dtype)}
        decided = {name: value for name, value in settings.items() if name not in self.free}
        return {**decided, "packs": self.data_in_words()}

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

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW; the trunk learns slower, and biases, gains and norms do not decay."""
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.net.named_parameters():
            scale = self.config.trunk_rate if name.startswith(self.trunk) else 1.0
            decay = self.config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": params, "scale": scale, "weight_decay": decay} for (scale, decay), params in groups.items()],
            lr=self.config.learning_rate,
            betas=(0.9, 0.98),
        )
