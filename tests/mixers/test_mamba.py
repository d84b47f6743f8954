"""What is Mamba's own: its weights' names, its start, its step in one call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom

from linocut import mixers
from linocut.ops import mamba_step as fused


def build(**options: Any) -> mixers.Mamba:
    torch.manual_seed(0)
    return mixers.Mamba(24, **options)


def test_the_weights_have_the_names_and_shapes_of_the_authors() -> None:
    shapes = {name: tuple(p.shape) for name, p in mixers.Mamba(768).state_dict().items()}
    assert shapes == {
        "A_log": (1536, 16),
        "D": (1536,),
        "in_proj.weight": (3072, 768),
        "conv1d.weight": (1536, 1, 4),
        "conv1d.bias": (1536,),
        "x_proj.weight": (80, 1536),
        "dt_proj.weight": (1536, 48),
        "dt_proj.bias": (1536,),
        "out_proj.weight": (768, 1536),
    }


def test_it_starts_as_the_paper_says() -> None:
    mixer = mixers.Mamba(256, dt_min=0.01, dt_max=0.2)
    torch.testing.assert_close(-mixer.A_log.exp(), -torch.arange(1.0, 17).expand(512, 16))
    steps = F.softplus(mixer.dt_proj.bias)
    assert 0.01 * 0.999 < steps.min() < 0.012
    assert 0.18 < steps.max() < 0.2 * 1.001
    assert (steps.log().mean() - torch.tensor([0.01, 0.2]).log().mean()).abs() < 0.15
    assert mixer.D.eq(1).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": True, "conv_bias": False}, {"d_conv": 1}, {"d_conv": 2, "d_state": 40, "dt_rank": 7}],
    ids=str,
)
def test_the_step_in_one_call_is_the_step_in_parts(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = build(**options), torch.randn(3, 30, 24)
    with torch.no_grad():
        _, state = mixer.scan(x[:, :20], mixer.init_state(3))
        parts = [mixer.step(x[:, 20], state)]
        monkeypatch.setattr(fused, "mamba_step", lambda *_: None)
        parts.append(mixer.step(x[:, 20], state))
    (y, (tail, h)), (expected_y, (expected_tail, expected_h)) = parts
    torch.testing.assert_close(y, expected_y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tail, expected_tail, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(h, expected_h, rtol=1e-5, atol=1e-5)


def test_the_step_in_one_call_is_only_for_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    whole = fused.mamba_step
    monkeypatch.setattr(fused, "mamba_step", lambda *inputs: results.append(whole(*inputs)) or results[-1])
    mixer = build()
    mixer.step(torch.randn(2, 24), mixer.init_state(2))
    with torch.no_grad():
        mixer.step(torch.randn(fused.MAX_BATCH + 1, 24), mixer.init_state(fused.MAX_BATCH + 1))
        mixer.step(torch.randn(24, 2).t(), mixer.init_state(2))
        for dtype in (torch.float64, torch.bfloat16):
            other = build().to(dtype)
            other.step(torch.randn(2, 24, dtype=dtype), other.init_state(2))
    assert results == [None] * 5


@torch.no_grad()
def test_a_step_of_other_shapes_is_refused() -> None:
    mixer = build()
    state = mixer.init_state(2)
    for x, wrong in (
        (torch.zeros(2, 23), state),
        (torch.zeros(3, 24), state),
        (torch.zeros(2, 24), mixers.MambaState(state.tail[:, 1:].contiguous(), state.h)),
        (torch.zeros(2, 24), mixers.MambaState(state.tail, state.h[:, 1:].contiguous())),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            mixer.step(x, wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state must be >= 1, got 0"),
        ({"dt_rank": -1}, "dt_rank must be >= 1, got -1"),
        ({"dt_min": 0.2}, "dt_min must be > 0 and at most dt_max, got 0.2 and 0.1"),
        ({"dt_min": 0.0}, "dt_min must be > 0 and at most dt_max, got 0.0 and 0.1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.Mamba(24, **options)
