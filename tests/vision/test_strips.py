"""Local layers in strips give what they give whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from linocut.vision import strips as module
from linocut.vision.efficientnet import EfficientNetLite0, InvertedResidual
from linocut.vision.encoder import EncoderConfig, ImageEncoder
from linocut.vision.layers import GlobalBlock, LocalBlock, TokenNorm, upsample
from linocut.vision.strips import in_strips, overwrite, strip_rows, strips

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def whole_and_cut(layer: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """A layer's output with one strip, and with strips as low as they get."""
    with torch.no_grad():
        monkeypatch.setattr(module, "_BYTES", 1 << 40)
        whole = layer(x)
        monkeypatch.setattr(module, "_BYTES", 1)
        return whole, layer(x)


@pytest.mark.parametrize("height", [1, 16, 17, 50])
def test_strips_cover_every_row_once(height: int) -> None:
    rows = [row for piece in strips(height, 16) for row in range(piece.start, piece.stop)]
    assert rows == list(range(height))


def test_a_strip_holds_as_many_rows_as_its_intermediate_may_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 4 * 64 * 10 * 100)
    assert strip_rows(torch.zeros(1, 3, 500, 64), 10) == 100
    assert strip_rows(torch.zeros(1, 3, 500, 64), 10, 8) == 96
    assert strip_rows(torch.zeros(2, 3, 500, 64), 10) == 50
    assert strip_rows(torch.zeros(2, 3, 500, 6400), 10) == 16


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_inverted_residual(kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = InvertedResidual(8, 8, expansion=6, stride=stride, kernel=kernel)
    whole, cut = whole_and_cut(layer, torch.randn(2, 8, 100, 20), monkeypatch)
    assert whole.shape == cut.shape == (2, 8, 100 // stride, 20 // stride)
    torch.testing.assert_close(cut, whole, **CLOSE)


@pytest.mark.parametrize("kernel", [3, 7])
def test_a_local_block(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = whole_and_cut(LocalBlock(8, kernel=kernel), torch.randn(2, 8, 45, 20), monkeypatch)
    torch.testing.assert_close(cut, whole, **CLOSE)


def test_a_global_block_summarises_strips_and_merges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    block = GlobalBlock(8, mixer="linear_attention", kernel=3)
    whole, cut = whole_and_cut(block, torch.randn(2, 8, 45, 20), monkeypatch)
    torch.testing.assert_close(cut, whole, **CLOSE)


def test_trunk_and_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, x = EfficientNetLite0(), torch.randn(1, 3, 128, 64)
    with torch.no_grad():
        monkeypatch.setattr(module, "_BYTES", 1 << 40)
        whole = trunk(x)
        monkeypatch.setattr(module, "_BYTES", 1)
        cut = trunk(x)
    for stride, features in whole.items():
        torch.testing.assert_close(cut[stride], features, **CLOSE)
    encoder = ImageEncoder(EncoderConfig(channels16=32, channels8=24, channels4=16, blocks16=1))
    whole_octave, cut_octave = whole_and_cut(encoder.encode_octave, torch.randn(1, 3, 200, 90), monkeypatch)
    for name, features in vars(whole_octave).items():
        torch.testing.assert_close(getattr(cut_octave, name), features, **CLOSE)


def test_a_halo_that_is_too_low_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = nn.Conv2d(1, 1, 7, padding=3), torch.randn(1, 1, 64, 8)
    monkeypatch.setattr(module, "_BYTES", 1)
    with torch.no_grad():
        torch.testing.assert_close(in_strips(layer, x, channels=1, halo=3), layer(x), **CLOSE)
        assert not torch.allclose(in_strips(layer, x, channels=1, halo=2), layer(x))


def test_a_coarser_map_is_cut_along(monkeypatch: pytest.MonkeyPatch) -> None:
    fine, coarse = torch.randn(1, 2, 64, 8), torch.randn(1, 2, 32, 4)
    monkeypatch.setattr(module, "_BYTES", 1)

    def join(x: Tensor, y: Tensor) -> Tensor:
        return x + upsample(y)

    with torch.no_grad():
        torch.testing.assert_close(in_strips(join, fine, coarse, channels=2, halo=2), join(fine, coarse), **CLOSE)


def test_overwriting_spares_what_a_gradient_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 1)
    norm, x = TokenNorm(4), torch.randn(1, 4, 40, 8)
    before = x.clone()
    kept = overwrite(norm, x)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert overwrite(norm, x) is x
    torch.testing.assert_close(x, kept.detach(), **CLOSE)


def test_a_gradient_passes_whole_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 1)
    x = torch.randn(1, 8, 64, 8, requires_grad=True)
    LocalBlock(8, kernel=3)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0
