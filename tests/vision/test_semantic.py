"""Semantic segmentation: any size of image in, one class a pixel out, and a file that brings the network back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from linocut.vision.encoder import EncoderConfig
from linocut.vision.network import SegmenterNet
from linocut.vision.semantic import (
    SemanticConfig,
    SemanticNet,
    SemanticSegmenter,
    load_semantic,
    load_semantic_net,
    save_semantic,
)
from linocut.vision.weights import load_net, save_weights

NARROW = EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1)


def config(**changes: object) -> SemanticConfig:
    return SemanticConfig(**{"classes": ("sky", "road", "car"), "values": (0, 3, 7), "encoder": NARROW, **changes})


@pytest.fixture
def net() -> SemanticNet:
    torch.manual_seed(0)
    return SemanticNet(config(channels=32)).eval()


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 101, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (70, 101)])
def test_every_size_gives_a_class_a_pixel(net: SemanticNet, size: tuple[int, int]) -> None:
    model = SemanticSegmenter(net, dtype="float32")
    image = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    labels = model.predict(image)
    assert labels.shape == size
    assert set(np.unique(labels).tolist()) <= {0, 3, 7}
    np.testing.assert_array_equal(labels, np.array([0, 3, 7])[model.classify(image)])
    probabilities = model.probabilities(image)
    assert probabilities.shape == (*size, 3)
    np.testing.assert_allclose(probabilities.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=2), model.classify(image))


def test_an_image_is_classified_as_it_is_whatever_it_came_with(net: SemanticNet, image: np.ndarray) -> None:
    other = torch.from_numpy(np.ascontiguousarray(image[::-1]))
    with torch.no_grad():
        alone = net.logits(torch.from_numpy(image)[None])
        together = net.logits(torch.stack([torch.from_numpy(image), other]))[:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_the_scale_enlarges_what_is_encoded_and_not_what_comes_out(image: np.ndarray) -> None:
    torch.manual_seed(0)
    net = SemanticNet(config(channels=32, scale=1.5)).eval()
    seen = []
    encode = net.encoder.encode_octave
    net.encoder.encode_octave = lambda x: (seen.append(tuple(x.shape[2:])), encode(x))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        assert net.logits(torch.from_numpy(image)[None]).shape == (1, 3, 70, 101)
    assert seen == [(105, 152)]


def test_dilations_are_those_asked_for() -> None:
    def dilations(net: nn.Module) -> list[int]:
        return [
            m.dilation[0]
            for m in net.modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.groups == 1
        ]

    assert dilations(SemanticNet(config(rates=(2, 5), dilations=(3,))).head) == [2, 5, 3]
    assert dilations(SemanticNet(config(rates=(1, 1), dilations=(1,))).head) == [1, 1, 1]


def test_a_file_brings_the_network_back(net: SemanticNet, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "new" / "street.safetensors"
    save_semantic(path, net.state_dict(), net.config)
    again = load_semantic_net(path)
    assert again.config == net.config
    for name, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    model = load_semantic(path, dtype="float32")
    assert model.classes == {0: "sky", 3: "road", 7: "car"}
    assert model.predict(image).shape == (70, 101)


def test_weights_of_another_kind_are_refused(net: SemanticNet, tmp_path: Path) -> None:
    segmenter = SegmenterNet(NARROW)
    save_weights(tmp_path / "s.safetensors", segmenter.state_dict(), NARROW)
    with pytest.raises(ValueError, match=r"format 'linocut-segmenter-1', wanted 'linocut-semantic-1'"):
        load_semantic(tmp_path / "s.safetensors")
    save_semantic(tmp_path / "c.safetensors", net.state_dict(), net.config)
    with pytest.raises(ValueError, match=r"format 'linocut-semantic-1', wanted 'linocut-segmenter-1'"):
        load_net(tmp_path / "c.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none"):
        load_semantic(tmp_path / "none")


def test_the_bundled_network_knows_camvids_classes() -> None:
    model = load_semantic()
    assert list(model.classes.values())[:4] == ["sky", "building", "pole", "road"]
    assert len(model.classes) == 11
    assert sum(p.numel() for p in model.net.parameters()) < 6_000_000


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((4, 4), np.uint8),
            ValueError,
            r"non-empty \(H, W, 3\) uint8 RGB image, got shape \(4, 4\) and dtype uint8; linocut.open_image",
        ),
        (np.zeros((4, 4, 3), np.float32), ValueError, r"got shape \(4, 4, 3\) and dtype float32"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"non-empty .* got shape \(0, 4, 3\)"),
    ],
)
def test_images_that_are_refused(net: SemanticNet, array: np.ndarray, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        SemanticSegmenter(net).predict(array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("sky",), "values": (0,)}, "two or more, got .*sky"),
        ({"values": (0, 3)}, r"got \[0, 3\] for 3 classes"),
        ({"values": (0, 3, 3)}, r"each once: got \[0, 3, 3\]"),
        ({"scale": 0.0}, "scale must be > 0, got 0.0"),
    ],
)
def test_networks_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
