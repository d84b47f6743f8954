"""Weights: written whole, read back as they were, and refused with a reason."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import linocut
from linocut.vision import weights
from linocut.vision.encoder import EncoderConfig
from linocut.vision.segmenter import Segmenter
from linocut.vision.weights import bundled_path, load_net, save_weights


def test_weights_come_back_as_half_precision_of_what_was_written(untrained: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, untrained.net.state_dict(), untrained.net.config)
    net = load_net(path)
    assert net.config == untrained.net.config
    for name, value in untrained.net.state_dict().items():
        read = net.state_dict()[name]
        assert read.dtype == torch.float32
        assert torch.equal(read, value.half().float())


def test_others_may_read_what_was_written(untrained: Segmenter, tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "w.safetensors"
    plain.write_bytes(b"")
    save_weights(path, untrained.net.state_dict(), untrained.net.config)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_interrupted_writer_leaves_the_old_weights(
    untrained: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, untrained.net.state_dict(), untrained.net.config)
    before = path.read_bytes()

    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(weights, "save", broken)
    with pytest.raises(OSError, match="no space"):
        save_weights(path, untrained.net.state_dict(), untrained.net.config)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_weights_makes_a_segmenter(untrained: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, untrained.net.state_dict(), untrained.net.config)
    model = linocut.load(path, dtype="bfloat16")
    assert isinstance(model, Segmenter)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_the_bundled_weights_load_and_fit_into_the_wheel() -> None:
    assert bundled_path().stat().st_size <= 16 * 1024**2
    assert load_net(bundled_path()).config == EncoderConfig()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nothing\.safetensors"):
        linocut.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        linocut.load(tmp_path)


def test_a_damaged_file(untrained: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, untrained.net.state_dict(), untrained.net.config)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        linocut.load(path)
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        linocut.load(path)


def test_weights_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold Linocut weights"):
        linocut.load(path)


def test_weights_that_do_not_fit_their_configuration(untrained: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = untrained.net.state_dict()
    save_weights(path, {name: value for name, value in state.items() if "quality" not in name}, untrained.net.config)
    with pytest.raises(ValueError, match=r"do not fit the network they describe(.|\n)*quality"):
        linocut.load(path)
    save_weights(path, state, EncoderConfig())
    with pytest.raises(ValueError, match="do not fit the network they describe"):
        linocut.load(path)


@pytest.mark.parametrize("config", [None, "{", '{"width": 3}', '{"mixer": "softmax"}'])
def test_a_header_that_describes_no_network(tmp_path: Path, config: str | None) -> None:
    path = tmp_path / "w.safetensors"
    header = {"format": "linocut-segmenter-1"} | ({} if config is None else {"config": config})
    save_file({"x": torch.zeros(1)}, path, metadata=header)
    with pytest.raises(ValueError, match="do not fit the network they describe"):
        linocut.load(path)
