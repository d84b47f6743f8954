"""Mixers on maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linocut import mixers
from linocut.mixers import images
from mixers.zoo import ZOO


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Running(mixers.OrderedMixer):
    """The sum of all tokens so far: the simplest mixer with an order."""

    def init_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.d_model, dtype=torch.float64)

    def scan(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = x.cumsum(1) + state[:, None]
        return y, y[:, -1] if x.shape[1] else state


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mixers.base, "_REGISTRY", dict(mixers.base._REGISTRY))
    mixers.register(mixers.Info("running", "folklore", "https://example.org", causal=True, cost="n d", state="d"))(
        Running
    )
    return "running"


def test_tokens_and_maps_are_inverse() -> None:
    x = draw(2, 3, 4, 5)
    tokens = images.to_tokens(x)
    assert torch.equal(tokens[:, 7], x[:, :, 1, 2])
    assert torch.equal(images.to_map(tokens, 4, 5), x)
    with pytest.raises(ValueError, match="4 x 4 pixels are 16 tokens, got 20"):
        images.to_map(tokens, 4, 4)


def test_both_ways_see_everything(running: str) -> None:
    x = draw(1, 6, 3)
    mixed = mixers.Bidirectional(running, 3)(x)
    torch.testing.assert_close(mixed, (x.sum(1, keepdim=True) + x) / 2)


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_a_scan_goes_the_ways_it_says(running: str, directions: int) -> None:
    x = draw(2, 3, 4, 5)
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    ways = [
        rows.cumsum(2).reshape(x.shape),
        rows.flip(2).cumsum(2).flip(2).reshape(x.shape),
        columns.cumsum(2).unflatten(2, (5, 4)).transpose(2, 3),
        columns.flip(2).cumsum(2).flip(2).unflatten(2, (5, 4)).transpose(2, 3),
    ]
    scanned = mixers.Scan2d(running, 3, directions=directions)(x)
    torch.testing.assert_close(scanned, torch.stack(ways[:directions]).mean(0))


def test_another_number_of_directions_is_refused(running: str) -> None:
    with pytest.raises(ValueError, match="directions must be 1, 2 or 4, got 3"):
        mixers.Scan2d(running, 3, directions=3)


@pytest.mark.parametrize("name", sorted({name for name, _ in ZOO}))
def test_every_mixer_mixes_maps_of_any_size(name: str) -> None:
    causal = (name, False) not in ZOO
    mixer = mixers.ImageMixer(name, 12, **ZOO[name, causal]).double().eval()
    for height, width in ((4, 5), (1, 7)):
        x = draw(2, 12, height, width)
        assert mixer(x).shape == x.shape


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_strips_are_the_whole(running: str, rows: int) -> None:
    x = draw(2, 3, 7, 5)
    mixer = Running(3)
    whole = images.to_map(mixer(images.to_tokens(x)), 7, 5)
    torch.testing.assert_close(images.in_strips(mixer, x, rows), whole)
    with pytest.raises(ValueError, match="rows must be >= 1, got 0"):
        images.in_strips(mixer, x, 0)
