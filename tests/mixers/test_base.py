"""The registry of mixers."""

from __future__ import annotations

import pytest
import torch

from linocut import mixers
from linocut.mixers import base


def test_every_name_builds_a_mixer_that_keeps_the_shape() -> None:
    assert mixers.names() == sorted(mixers.names())
    assert "linear_attention" in mixers.names()
    for cls in mixers.classes():
        mixer = mixers.build(cls.info.name, 32, causal=cls.info.causal)
        assert type(mixer) is cls
        assert mixer(torch.zeros(2, 5, 32)).shape == (2, 5, 32)


def test_options_reach_the_mixer() -> None:
    mixer = mixers.build("linear_attention", 12, causal=False, heads=3)
    assert isinstance(mixer, mixers.LinearAttention)
    assert mixer.heads == 3


def test_an_unknown_option_is_refused_and_the_near_ones_come_first() -> None:
    with pytest.raises(TypeError, match=r"linear_attention has no option 'window'; it has (heads|feature_map), "):
        mixers.build("linear_attention", 12, causal=False, window=3)
    with pytest.raises(TypeError, match=r"mamba has no option 'd_stat'; it has d_state, .*expand"):
        mixers.build("mamba", 12, d_stat=3)


@pytest.mark.parametrize(
    ("name", "near"),
    [("linear_atention", "linear_attention"), ("attention", "local_attention"), ("linear", "linear_attention")],
)
def test_a_near_name_is_suggested(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown mixer '{name}'; did you mean .*'{near}'"):
        mixers.build(name, 32)


def test_a_far_name_lists_all() -> None:
    with pytest.raises(ValueError, match="unknown mixer 'qqq'") as caught:
        mixers.build("qqq", 32)
    for name in mixers.names():
        assert repr(name) in str(caught.value)


def test_a_class_registers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @mixers.register(mixers.Info("mean", "folklore", "https://example.org", causal=False, cost="n d", state="d"))
    class Mean(mixers.SetMixer):
        """The mean of all tokens."""

        def summarize(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x.sum(1, keepdim=True), x.shape[1]

        def merge(self, a: tuple[torch.Tensor, int], b: tuple[torch.Tensor, int]) -> tuple[torch.Tensor, int]:
            return a[0] + b[0], a[1] + b[1]

        def read(self, x: torch.Tensor, summary: tuple[torch.Tensor, int]) -> torch.Tensor:
            return (summary[0] / summary[1]).expand_as(x)

    assert "mean" in mixers.names()
    mixer = mixers.build("mean", 1, causal=False)
    assert isinstance(mixer, Mean)
    assert mixer(torch.tensor([[[1.0], [3.0]]])).flatten().tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match=r"'mean' exists only with causal=False, got causal=True"):
        mixers.build("mean", 1)


@pytest.mark.parametrize("kind", [mixers.Mixer, mixers.SetMixer, mixers.OrderedMixer, mixers.LocalMixer])
def test_a_mixer_must_say_how_it_mixes(kind: type[mixers.Mixer]) -> None:
    with pytest.raises(NotImplementedError):
        kind(1)(torch.zeros(1, 1, 1))


@pytest.mark.parametrize("heads", [5, 0, -1])
def test_heads_must_divide_the_channels(heads: int) -> None:
    with pytest.raises(ValueError, match=f"got d_model=12 and heads={heads}"):
        mixers.build("linear_attention", 12, causal=False, heads=heads)


def test_channels_must_be_positive() -> None:
    with pytest.raises(ValueError, match="d_model must be >= 1, got 0"):
        mixers.Mixer(0)


def test_the_table_lists_every_mixer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    mixers.table()
    printed = capsys.readouterr().out
    for cls in mixers.classes():
        assert cls.info.name in printed
        assert cls.info.paper in printed
    mixers.table(["linear_attention"])
    printed = capsys.readouterr().out
    assert "Katharopoulos" in printed
    assert len(printed.splitlines()) < 10
    with pytest.raises(ValueError, match="unknown mixer 'linear_atention'"):
        mixers.table(["linear_atention"])
