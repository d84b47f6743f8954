"""RWKV-4, 6 and 7 and gated linear attention: what their papers say of them, apart from what every mixer promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut import mixers


def shaken(mixer: Any) -> Any:
    """With other parameters than those it starts from, in double precision."""
    generator = torch.Generator().manual_seed(0)
    mixer = mixer.double()
    for parameter in mixer.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return mixer


def tokens(length: int, d_model: int) -> torch.Tensor:
    return torch.randn(1, length, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_rwkv4_is_its_equations() -> None:
    mixer, x = shaken(mixers.RWKV4(6, depth=0.3)), tokens(8, 6)
    before = F.pad(x, (0, 0, 1, 0))[:, :-1]
    r, k, v = (
        project(share * x + (1 - share) * before)
        for project, share in (
            (mixer.receptance, mixer.mix_receptance),
            (mixer.key, mixer.mix_key),
            (mixer.value, mixer.mix_value),
        )
    )
    w, u = mixer.time_decay.exp(), mixer.time_first
    for t in range(8):
        ages = torch.arange(t - 1, -1, -1, dtype=torch.float64)[:, None]
        weights = torch.cat([(k[0, :t] - ages * w).exp(), (u + k[0, t : t + 1]).exp()])
        wkv = (weights * v[0, : t + 1]).sum(0) / weights.sum(0)
        torch.testing.assert_close(mixer(x)[0, t], mixer.out(r[0, t].sigmoid() * wkv))


def test_rwkv6_is_its_equations() -> None:
    mixer, x = shaken(mixers.RWKV6(6, heads=2, rank=2, decay_rank=3)), tokens(8, 6)
    change = F.pad(x, (0, 0, 1, 0))[:, :-1] - x
    down = mixer.mix_down.split(2, dim=1)
    low = x + change * mixer.mix_in
    mixed = [x + change * (mixer.mix[i] + torch.tanh(low @ down[i]) @ mixer.mix_up[i]) for i in range(5)]
    decay = (-(mixer.time_decay + torch.tanh(mixed[0] @ mixer.decay_down) @ mixer.decay_up).exp()).exp()[0]
    k, v, r = mixer.key(mixed[1])[0], mixer.value(mixed[2])[0], mixer.receptance(mixed[3])[0]
    state = torch.zeros(2, 3, 3, dtype=torch.float64)
    for t in range(8):
        heads = []
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            own = torch.outer(k[t, part], v[t, part])
            y = r[t, part] @ (state[h] + mixer.bonus[h][:, None] * own)
            state[h] = decay[t, part][:, None] * state[h].clone() + own
            heads.append((y - y.mean()) / (y.var(unbiased=False) + 64e-5).sqrt())
        normed = torch.cat(heads) * mixer.norm.weight + mixer.norm.bias
        torch.testing.assert_close(mixer(x)[0, t], mixer.out(F.silu(mixer.gate(mixed[4])[0, t]) * normed))


def test_gla_is_its_equations() -> None:
    mixer, x = shaken(mixers.GatedLinearAttention(6, heads=1, rank=2)), tokens(8, 6)
    decay = torch.sigmoid(mixer.decay(x))[0] ** (1 / 16)
    q, k, v = mixer.query(x)[0] / 3**0.5, mixer.key(x)[0], mixer.value(x)[0]
    state = torch.zeros(3, 6, dtype=torch.float64)
    for t in range(8):
        state = decay[t][:, None] * state + torch.outer(k[t], v[t])
        y = q[t] @ state
        normed = y / (y.square().mean() + 1e-5).sqrt() * mixer.norm.weight
        torch.testing.assert_close(mixer(x)[0, t], mixer.out(F.silu(mixer.gate(x)[0, t]) * normed))


def test_rwkv7_is_its_equations() -> None:
    mixer, x = shaken(mixers.RWKV7(6, heads=1, rank=2)), tokens(8, 6)
    change = F.pad(x, (0, 0, 1, 0))[:, :-1] - x
    for_r, for_w, for_k, for_v, for_a, for_g = (x + change * mixer.mix[i] for i in range(6))
    raised = mixer.decay.base + torch.tanh(for_w @ mixer.decay.down) @ mixer.decay.up
    w = torch.exp(-torch.exp(torch.tensor(-0.5)) * raised.sigmoid())[0]
    rate = torch.sigmoid(mixer.rate.base + for_a @ mixer.rate.down @ mixer.rate.up)[0]
    gate = (torch.sigmoid(for_g @ mixer.gate.down) @ mixer.gate.up)[0]
    r, key, v = mixer.receptance(for_r)[0], mixer.key(for_k)[0], mixer.value(for_v)[0]
    away = F.normalize(key * mixer.forget_key, dim=-1)
    k = key * (1 + (rate - 1) * mixer.write_key)
    state = torch.zeros(6, 6, dtype=torch.float64)  # values by keys, as the paper writes it
    for t in range(8):
        move = torch.diag(w[t]) - torch.outer(away[t], rate[t] * away[t])
        state = state @ move + torch.outer(v[t], k[t])
        y = state @ r[t]
        normed = (y - y.mean()) / (y.var(unbiased=False) + 64e-5).sqrt() * mixer.norm.weight + mixer.norm.bias
        own = (r[t] * mixer.bonus[0] * k[t]).sum() * v[t]
        torch.testing.assert_close(mixer(x)[0, t], mixer.out(gate[t] * (normed + own)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_decays_start_from_long_to_short(depth: float) -> None:
    mixer = mixers.RWKV6(8, heads=2, depth=depth)
    assert mixer.time_decay[0] == -6
    assert mixer.time_decay[-1] == -1
    assert (mixer.time_decay.diff() > 0).all()
    assert mixers.RWKV4(8, depth=depth).time_decay.tolist()[::7] == [-5, 3]


@pytest.mark.parametrize("name", ["rwkv6", "rwkv7", "gla"])
@pytest.mark.parametrize("heads", [0, 5])
def test_heads_must_divide_the_channels(name: str, heads: int) -> None:
    with pytest.raises(ValueError, match=rf"got d_model=12.* and heads={heads}"):
        mixers.build(name, 12, heads=heads)


@pytest.mark.parametrize("name", ["rwkv4", "rwkv6", "rwkv7"])
@pytest.mark.parametrize("depth", [-0.1, 1.1])
def test_a_depth_is_a_share(name: str, depth: float) -> None:
    with pytest.raises(ValueError, match=rf"depth must be from 0 .* got {depth}"):
        mixers.build(name, 12, depth=depth)


def test_ranks_and_temperature_are_positive() -> None:
    with pytest.raises(ValueError, match="got rank=0 and decay_rank=64"):
        mixers.RWKV6(12, rank=0)
    with pytest.raises(ValueError, match="got rank=16 and temperature=0"):
        mixers.GatedLinearAttention(12, heads=2, temperature=0)
