"""`linocut train`: every setting reaches the training, and its progress the terminal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cli.standins import assert_refused, run
from linocut.engine import train as engine


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stands for the training loop: keeps what it is asked, and reports two steps."""
    asked: list[Any] = []

    def train(config: Any, *, resume: bool, report: Any) -> Path:
        asked.append((config, resume))
        report(engine.Progress(1, 2, 1e-3, 0.75, 0.5, 0.6))
        report(engine.Progress(2, 2, 1e-3, 0.7, 0.5, 0.6, 0.625, 0.375, 0.4375))
        return Path(config.out) / "weights.safetensors"

    monkeypatch.setattr(engine, "train", train)
    return asked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "pack").mkdir(parents=True)
    (tmp_path / "data" / "pack" / "manifest.csv").write_text("split\n")
    return tmp_path / "data"


def test_settings_that_are_not_given_keep_their_defaults(asked: list[Any], data: Path) -> None:
    ran = run("train", "--data", data, "--out", "runs/a", "--steps", "2")
    assert ran.code == 0
    assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", steps=2), False)]
    assert ran.out == "weights: runs/a/weights.safetensors\n"
    assert "step 2: loss 0.700" in ran.err
    assert "val loss 0.625, IoU after one click 0.375, after two 0.438" in ran.err


def test_every_setting_can_be_given(asked: list[Any], data: Path) -> None:
    given: dict[str, Any] = {
        field.name: {"int": 7, "float": 0.25}.get(str(field.type), "gru")
        for field in dataclasses.fields(engine.TrainConfig)
        if field.name not in ("data", "out", "dtype")
    }
    given["dtype"] = "float32"
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    ran = run("train", "--data", data, "--out", "runs/a", "--resume", *flags)
    assert ran.code == 0, ran.err
    assert asked == [(engine.TrainConfig(data=str(data), out="runs/a", **given), True)]


def test_wrong_usage(asked: list[Any], data: Path, tmp_path: Path) -> None:
    assert_refused(run("train", "--data", tmp_path / "none", "--out", "runs/a"), 2, "--data", "holds no pack")
    assert_refused(run("train", "--data", data), 2, "--out")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--steps", "0"), 2, "--steps")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--average", "1"), 2, "average must be")
    assert_refused(run("train", "--data", data, "--out", "runs/a", "--dtype", "int8"), 2, "dtype must be")
    assert asked == []
