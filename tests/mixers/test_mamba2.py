"""Mamba-2's block against its parts written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from linocut import mixers
from linocut.mixers.mamba2 import GatedRMSNorm


def test_the_block_is_its_parts() -> None:
    torch.manual_seed(0)
    layer = mixers.Mamba2(12, d_state=5, head_dim=6, groups=2, d_conv=3).double()
    x = torch.randn(2, 30, 12, dtype=torch.float64)
    z, inputs, dt = layer.in_proj(x).split([24, 24 + 2 * 10, 4], dim=-1)
    convolved = F.conv1d(F.pad(inputs.mT, (2, 0)), layer.conv1d.weight, layer.conv1d.bias, groups=44)
    u, b, c = F.silu(convolved.mT).split([24, 10, 10], dim=-1)
    u = u.unflatten(-1, (4, 6))
    b, c = (part.unflatten(-1, (2, 5)).repeat_interleave(2, dim=2) for part in (b, c))
    dt = F.softplus(dt + layer.dt_bias)
    # the paper's equation 6: the sequence transformation as one matrix of decays times scores
    steps = (dt * -layer.A_log.exp()).cumsum(dim=1)
    decay = (steps[:, :, None] - steps[:, None]).exp() * torch.ones(30, 30).tril()[..., None]
    y = torch.einsum("bthn,bshn,btsh,bsh,bshp->bthp", c, b, decay, dt, u) + layer.D[:, None] * u
    gated = (y.flatten(2) * F.silu(z)).unflatten(-1, (2, 12))
    normed = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = layer.out_proj(normed.flatten(2) * layer.norm.weight)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)


def test_initial_steps_and_rates_lie_where_they_are_asked_for() -> None:
    layer = mixers.Mamba2(128, head_dim=4, dt_min=0.01, dt_max=0.02)
    steps = F.softplus(layer.dt_bias)
    assert ((steps > 0.0099) & (steps < 0.0201)).all()
    assert ((layer.A_log.exp() >= 1) & (layer.A_log.exp() <= 16)).all()


def test_the_norm_does_not_see_the_scale() -> None:
    norm = GatedRMSNorm(8, groups=2, eps=0.0)
    y, z = torch.randn(3, 8), torch.rand(3, 8) + 1
    torch.testing.assert_close(norm(100 * y, z), norm(y, z))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"divide expand \* d_model, got 128, 5, 2, 1 and 4 for d_model=12"):
        mixers.Mamba2(12, head_dim=5)
    with pytest.raises(ValueError, match=r"groups and d_conv must be >= 1"):
        mixers.Mamba2(12, head_dim=4, d_conv=0)
    with pytest.raises(ValueError, match=r"got dt_min=0.2 and dt_max=0.1"):
        mixers.Mamba2(12, head_dim=4, dt_min=0.2)
