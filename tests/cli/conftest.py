"""The stand-in for the model, a photograph it can cut, and a sample that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import linocut
from cli.standins import Model, draw

SAMPLES = Path(linocut.__file__).parent / "samples"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()

    def load(weights: Path | None = None) -> Model:
        model.loads.append(weights)
        return model

    # Set in the dict, for looking the lazy name up first would import PyTorch.
    monkeypatch.setitem(vars(linocut), "load", load)
    return model


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(draw()).save(path)
    return path


@pytest.fixture
def nuclei() -> dict[str, Any]:
    """The bundled fluorescence sample: its file and that of its labels, and a click on a nucleus."""
    entries = json.loads((SAMPLES / "samples.json").read_text())
    entry = next(entry for entry in entries if entry["file"] == "nuclei-fluorescence.png")
    return {**entry, "file": SAMPLES / entry["file"], "labels": SAMPLES / entry["labels"]}
