"""The registry of mixers."""

from __future__ import annotations

import pytest
import torch

from linocut import mixers
from linocut.mixers import base


def test_every_name_builds_a_mixer_that_keeps_the_shape() -> None:
    assert mixers.names() == sorted(mixers.names())
    assert "linear_attention" in mixers.names()
    for name in mixers.names():
        mixer = mixers.build(name, 32)
        assert isinstance(mixer, mixers.SetMixer)
        assert mixer(torch.zeros(2, 5, 32)).shape == (2, 5, 32)


def test_options_reach_the_mixer() -> None:
    mixer = mixers.build("linear_attention", 12, heads=3)
    assert isinstance(mixer, mixers.LinearAttention)
    assert mixer.heads == 3


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="window"):
        mixers.build("linear_attention", 12, window=3)


@pytest.mark.parametrize("name", ["linear_atention", "attention", "linear"])
def test_a_near_name_is_suggested(name: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown mixer '{name}'; did you mean .*'linear_attention'"):
        mixers.build(name, 32)


def test_a_far_name_lists_all() -> None:
    with pytest.raises(ValueError, match="unknown mixer 'qqq'") as caught:
        mixers.build("qqq", 32)
    for name in mixers.names():
        assert repr(name) in str(caught.value)


def test_a_class_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @mixers.register("mean")
    class Mean(mixers.SetMixer):
        """The mean of all tokens."""

        def __init__(self, d_model: int) -> None:
            super().__init__()
            self.d_model = d_model

        def summarize(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x.sum(1, keepdim=True), x.shape[1]

        def merge(self, a: tuple[torch.Tensor, int], b: tuple[torch.Tensor, int]) -> tuple[torch.Tensor, int]:
            return a[0] + b[0], a[1] + b[1]

        def read(self, x: torch.Tensor, summary: tuple[torch.Tensor, int]) -> torch.Tensor:
            return (summary[0] / summary[1]).expand_as(x)

    assert "mean" in mixers.names()
    mixer = mixers.build("mean", 1)
    assert isinstance(mixer, Mean)
    assert mixer(torch.tensor([[[1.0], [3.0]]])).flatten().tolist() == [2.0, 2.0]


def test_a_mixer_must_say_how_it_mixes() -> None:
    mixer = mixers.SetMixer()
    x = torch.zeros(1, 1, 1)
    for call in (lambda: mixer(x), lambda: mixer.merge(x, x), lambda: mixer.read(x, x)):
        with pytest.raises(NotImplementedError):
            call()
