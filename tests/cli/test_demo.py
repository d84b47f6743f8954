"""`linocut demo`: the model and the folder are passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.standins import Model, run


def test_demo_passes_the_model_and_the_folder_on(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("linocut.demo.run_demo", lambda *given: asked.append(given))
    assert run("demo", "-o", tmp_path / "pictures").code == 0
    assert asked == [(model, tmp_path / "pictures")]
