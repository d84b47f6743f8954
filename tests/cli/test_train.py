"""`linocut train`: every setting reaches the training, and its progress the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.standins import assert_refused, run, run_script
from linocut.cli import console
from linocut.cli import train as command
from linocut.engine import semantic_train
from linocut.engine import train as engine


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for the trainer: keeps what it is asked, and reports the three steps it has left of ten."""
    asked: list[Any] = []

    class Trainer:
        def __init__(self, config: Any, *, resume: bool) -> None:
            self.config, self.step = config, 7
            asked.append((config, resume))

        def run(self, report: Any) -> Path:
            report(engine.Progress(8, 10, 1e-3, 0.75, 0.5, 0.6))
            report(engine.Progress(9, 10, 1e-3, 0.7, 0.5, 0.6, 0.625, 0.375, 0.4375))
            report(engine.Progress(10, 10, 1e-3, 0.65, 0.55, 0.6))
            return Path(self.config.out) / "weights.safetensors"

    monkeypatch.setattr(engine, "Trainer", Trainer)
    return asked


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the bar was told, first what it began with."""
    told: list[Any] = []

    @contextmanager
    def progress_bar(unit: str) -> Iterator[Any]:
        told.append(unit)
        with console.progress_bar(unit) as bar:
            add, update = bar.add_task, bar.update
            bar.add_task = lambda text, **fields: told.append((text, fields)) or add(text, **fields)
            bar.update = lambda task, **fields: told.append(fields) or update(task, **fields)
            yield bar

    monkeypatch.setattr(command, "progress_bar", progress_bar)
    return told


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "pack").mkdir(parents=True)
    (tmp_path / "data" / "pack" / "manifest.csv").write_text("split\n")
    return tmp_path / "data"


def test_settings_that_are_not_given_keep_their_defaults(asked: list[Any], data: Path) -> None:
    ran = run("train", "--data", data, "--out", "runs/a", "--steps", "10")
    assert ran.code == 0
    assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", steps=10), False)]
    assert ran.out == "weights: runs/a/weights.safetensors\n"
    assert "step 9: loss 0.700, train IoU 0.50" in ran.err
    assert "val loss 0.625, IoU after one click 0.375, after two 0.438" in ran.err


@pytest.mark.usefixtures("asked")
def test_the_bar_goes_on_from_the_step_where_the_run_stands(bar: list[Any], data: Path) -> None:
    assert run("train", "--data", data, "--out", "runs/a", "--steps", "10", "--resume").code == 0
    assert bar == [
        "steps",
        ("training", {"total": 10, "completed": 7}),
        {"completed": 8, "description": "loss 0.750, train IoU 0.50"},
        {"completed": 9, "description": "loss 0.700, train IoU 0.50, val IoU 0.38"},
        {"completed": 10, "description": "loss 0.650, train IoU 0.55, val IoU 0.38"},
    ]


def test_every_setting_can_be_given(asked: list[Any], data: Path) -> None:
    given: dict[str, Any] = {
        field.name: {"int": 7, "float": 0.25}.get(str(field.type), "gru")
        for field in dataclasses.fields(engine.TrainConfig)
        if field.name not in ("data", "out", "dtype", "pack_weights")
    }
    given["dtype"] = "float32"
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    given["pack_weights"] = {"coco200": 2.5, "a=b": 0.0}
    flags += ["--pack-weight", "coco200=2.5", "--pack-weight", "a=b=0"]
    ran = run("train", "--data", data, "--out", "runs/a", "--resume", *flags)
    assert ran.code == 0, ran.err
    assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", **given), True)]


def test_wrong_usage(asked: list[Any], data: Path, tmp_path: Path) -> None:
    assert_refused(run("train", "--data", tmp_path / "none", "--out", "runs/a"), 2, "--data", "holds no pack")
    assert_refused(run("train", "--data", data), 2, "--out")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--steps", "0"), 2, "--steps")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--average", "1"), 2, "average must be")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--dtype", "int8"), 2, "dtype must be")
    for text in ("coco200", "=2", "coco200=much", "coco200=nan"):
        ran = run("train", "--data", data, "--out", "runs/a", "--pack-weight", text)
        assert_refused(ran, 2, "--pack-weight", f"expected NAME=WEIGHT, such as coco200=2.5, got '{text}'")
    assert asked == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mixer", "linear_atention"], ["unknown mixer 'linear_atention'; did you mean 'linear_attention'"]),
        (["--imagenet", "none.pth"], ["none.pth"]),
        (["--imagenet", "."], [".: Is a directory"]),
        (["--start", "none.safetensors"], ["no weights at none.safetensors"]),
        (["--resume"], ["cannot resume", "last.pt does not exist"]),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_bar_is_drawn(
    tmp_path: Path, options: list[str], words: list[str]
) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "manifest.csv").write_text("split,id,image,labels,type\ntrain,a,a.png,b.png,x\nval,a,a.png,b.png,x\n")
    meta = {"name": "pack", "kind": "binary", "background": 0, "ignore": []}
    (pack / "meta.json").write_text(json.dumps(meta))
    assert_refused(run("train", "--data", pack, "--out", tmp_path / "run", *options), 2, *words)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_how_to_go_on(data: Path) -> None:
    script = (
        "import os, signal\n"
        "from linocut.cli import main\n"
        "from linocut.engine import train as engine\n"
        "class Stopped:\n"
        "    step = 0\n"
        "    def __init__(self, config, *, resume):\n"
        "        self.config = config\n"
        "    def run(self, report):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "engine.Trainer = Stopped\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may start the tests with it ignored
        "main()\n"
    )
    done = run_script(script, "train", "--data", data, "--out", "runs/a")
    assert done.code == 130
    last = "linocut: stopped; with --resume the training goes on from the last checkpoint in runs/a, if there is one"
    assert done.err.splitlines()[-1] == last
    assert "Traceback" not in done.err


def test_the_semantic_task_has_settings_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Trainer:
        def __init__(self, config: Any, *, resume: bool) -> None:
            self.config, self.step = config, 0
            asked.append((config, resume))

        def run(self, report: Any) -> Path:
            report(semantic_train.SemanticProgress(1, 2, 1e-3, 0.75, 0.5))
            report(semantic_train.SemanticProgress(2, 2, 1e-3, 0.5, 0.75, 0.875, 0.4375))
            return Path(self.config.out) / "weights.safetensors"

    monkeypatch.setattr(semantic_train, "SemanticTrainer", Trainer)
    given = ("--images", "2", "--side", "64", "--rates", "1,1", "--dilations", "4", "--scale", "1.5", "--mixer", "gru")
    ran = run("train", "--task", "semantic", "--data", data, "--out", "runs/a", *given)
    assert ran.code == 0, ran.err
    expected = semantic_train.SemanticTrainConfig(
        data=str(data), out="runs/a", images=2, side=64, rates=(1, 1), dilations=(4,), scale=1.5, mixer="gru"
    )
    assert asked == [(expected, False)]
    assert "step 2: loss 0.500, train accuracy 0.75; val accuracy 0.8750, mIoU 0.4375" in ran.err


def test_settings_of_another_task_are_refused(asked: list[Any], data: Path) -> None:
    options = ("train", "--data", data, "--out", "runs/a")
    assert_refused(run(*options, "--side", "64"), 2, "--side", "--side is not for --task prompts")
    semantic = (*options, "--task", "semantic")
    assert_refused(run(*semantic, "--objects", "2"), 2, "--objects is not for --task semantic")
    assert_refused(run(*semantic, "--pack-weight", "a=2"), 2, "--pack-weight is not for --task semantic")
    assert_refused(run(*semantic, "--rates", "3,x"), 2, "--rates", "such as 3,6,12, got '3,x'")
    assert_refused(run(*semantic, "--rates", "0"), 2, "--rates", "got '0'")
    assert_refused(run(*options, "--task", "clicks"), 2, "--task", "clicks")
    assert asked == []
