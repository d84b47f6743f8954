"""Retention as the paper writes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from linocut import mixers


def parallel(layer: mixers.RetNet, x: Tensor) -> Tensor:
    """Equations 5, 7 and 8 with the matrix of decays written out, one head after the other, in complex numbers."""
    length, dim = x.shape[1], layer.d_model // layer.heads
    t = torch.arange(length)
    theta = 10_000.0 ** -torch.linspace(0, 1, dim // 2, dtype=torch.float64)
    turn = torch.polar(torch.ones(length, dim // 2, dtype=torch.float64), t[:, None] * theta)
    heads = []
    for h in range(layer.heads):
        q, k = (
            torch.view_as_complex(part(x)[..., h * dim : (h + 1) * dim].unflatten(-1, (-1, 2))) * turn
            for part in (layer.query, layer.key)
        )
        v = layer.value(x)[..., 2 * h * dim : 2 * (h + 1) * dim]
        gamma = 1 - 2.0 ** (-5 - h)
        decay = torch.where(t[:, None] >= t, gamma ** (t[:, None] - t).clamp_min(0).double(), 0.0)
        y = ((q @ k.mH).real / dim**0.5 * decay) @ v
        heads.append((y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt())
    gated: Tensor = layer.out(F.silu(layer.gate(x)) * torch.cat(heads, dim=-1))
    return gated


def test_the_recurrence_is_the_parallel_form() -> None:
    torch.manual_seed(0)
    layer = mixers.RetNet(24, heads=3).double()
    x = torch.randn(2, 100, 24, dtype=torch.float64)
    torch.testing.assert_close(layer(x), parallel(layer, x), rtol=0, atol=1e-10)


def test_only_distances_matter_however_far_the_sequence_has_come() -> None:
    torch.manual_seed(0)
    layer = mixers.RetNet(16, heads=2)
    x = torch.randn(1, 40, 16)
    with torch.no_grad():
        # after many tokens that write nothing, another sequence begins as if it were the first
        state = layer.scan(torch.zeros(1, 100_000, 16), layer.init_state(1))[1]
        torch.testing.assert_close(layer.scan(x, state)[0], layer(x), rtol=0, atol=1e-5)


def test_slow_decays_survive_bfloat16() -> None:
    layer = mixers.RetNet(32, heads=8).bfloat16()
    torch.testing.assert_close(layer.log_decay().exp(), 1 - 2.0 ** -torch.arange(5.0, 13.0, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"heads": 5}, {"heads": 4}, {"heads": 0}])
def test_heads_must_leave_pairs_of_channels(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"d_model must be a multiple of 2 \* heads, got d_model=12"):
        mixers.RetNet(12, **options)
    with pytest.raises(ValueError, match="expand must be >= 1, got 0"):
        mixers.RetNet(12, heads=2, expand=0)
