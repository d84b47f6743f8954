"""Every recurrence as its paper writes it, one token at a time, in float64: what implementations must equal."""

from __future__ import annotations

import torch
from benchmarks.peers.mixers.inputs import RETENTION_DECAYS, WINDOW, Inputs
from torch import Tensor
from torch.nn import functional


def double(inputs: Inputs) -> Inputs:
    return {name: t.to(torch.complex128 if t.is_complex() else torch.float64) for name, t in inputs.items()}


def masked(weights: Tensor, v: Tensor) -> Tensor:
    """(batch, heads, queries, keys) weights, normalised, times v (batch, keys, heads, dim)."""
    return torch.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdim=True), v)


def kernel_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, epsilon: float = 0.0) -> Tensor:
    """Attention with weights φ(q)·φ(k) of features already taken; epsilon is added to the sum of keys."""
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k)
    weights = weights.tril() if causal else weights
    norm = weights.sum(-1) + epsilon * q.sum(-1).transpose(1, 2)
    return torch.einsum("bhqk,bkhd->bqhd", weights / norm[..., None], v)


def elu_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return kernel_attention(functional.elu(q) + 1, functional.elu(k) + 1, v, causal=causal)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bqhd,bkhd,bkhe->bqhe", q.softmax(-1), k.softmax(1), v)


def window_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax over a token and the WINDOW before it."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    position = torch.arange(q.shape[1])
    distance = position[:, None] - position
    return masked(torch.where((distance >= 0) & (distance <= WINDOW), scores.exp(), 0), v)


def retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    gamma = torch.tensor(RETENTION_DECAYS, dtype=q.dtype)[:, None, None]
    state = q.new_zeros(len(q), q.shape[2], q.shape[3], v.shape[3])
    ys = []
    for t in range(q.shape[1]):
        state = gamma * state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        ys.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(ys, 1)


def selective_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    state = x.new_zeros(len(x), *A.shape)
    ys = []
    for t in range(x.shape[1]):
        step = delta[:, t, :, None]
        state = torch.exp(step * A) * state + step * B[:, t, None] * x[:, t, :, None]
        ys.append((state * C[:, t, None]).sum(-1) + D * x[:, t])
    return torch.stack(ys, 1)


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """One group of B and C."""
    state = x.new_zeros(len(x), x.shape[2], x.shape[3], B.shape[3])
    ys = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x[:, t], B[:, t, 0])
        ys.append(torch.einsum("bhpn,bn->bhp", state, C[:, t, 0]))
    return torch.stack(ys, 1)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """With q divided by √dim, as the peers do."""
    state = q.new_zeros(len(q), q.shape[2], q.shape[3], v.shape[3])
    ys = []
    for t in range(q.shape[1]):
        state = torch.exp(log_decay[:, t])[..., None, None] * state
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        state = state + torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], error)
        ys.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) * q.shape[-1] ** -0.5)
    return torch.stack(ys, 1)


def s4d(u: Tensor, log_dt: Tensor, A: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """Zero-order hold, then the recurrence; the kernel of the peer is its impulse response."""
    decay = torch.exp(torch.exp(log_dt)[:, None] * A)
    weights = C * (decay - 1) / A
    state = torch.zeros(len(u), *A.shape, dtype=A.dtype)
    ys = []
    for t in range(u.shape[1]):
        state = decay * state + u[:, t, :, None]
        ys.append(2 * (weights * state).sum(-1).real + D * u[:, t])
    return torch.stack(ys, 1)


def wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    above, below = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
    ys = []
    for t in range(k.shape[1]):
        now, bonus = torch.exp(k[:, t]), torch.exp(u + k[:, t])
        ys.append((above + bonus * v[:, t]) / (below + bonus))
        above, below = torch.exp(-w) * above + now * v[:, t], torch.exp(-w) * below + now
    return torch.stack(ys, 1)


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    state = torch.zeros_like(b[:, 0])
    states = []
    for t in range(a.shape[1]):
        state = a[:, t] * state + b[:, t]
        states.append(state)
    return torch.stack(states, 1)
