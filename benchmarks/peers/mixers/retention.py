"""Retention (Sun et al., 2023, https://arxiv.org/abs/2307.08621), without rotation, group norm and gate.

y_t = Σ_{s≤t} γ^(t−s) (q_tᵀ k_s) v_s,   γ = 1 − 2^(−5−head)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peers.mixers.inputs import RETENTION_DECAYS
from benchmarks.peers.mixers.linear_attention import in_chunks

CHUNK = 128


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The parallel form, equation 5: quadratic in length; a head at a time, or 16k tokens would need 13 GB."""
    position = torch.arange(q.shape[1], dtype=q.dtype)
    distance = position[:, None] - position
    heads = []
    for head, gamma in enumerate(RETENTION_DECAYS):
        decay = torch.where(distance >= 0, gamma**distance, 0)
        heads.append(q[:, :, head] @ k[:, :, head].transpose(1, 2) * decay @ v[:, :, head])
    return torch.stack(heads, dim=2)


def torch_chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The chunkwise form, equation 7, in PyTorch: a loop over chunks for the state, the rest at once."""
    length = q.shape[1]
    log_gamma = torch.tensor(RETENTION_DECAYS, dtype=q.dtype).log()[:, None]
    position = torch.arange(CHUNK, dtype=q.dtype)
    distance = position[:, None] - position
    inside = torch.where(distance >= 0, torch.exp(log_gamma[..., None] * distance), 0)
    q, k, v = (functional.pad(t, (0, 0, 0, 0, 0, -length % CHUNK)) for t in (q, k, v))
    q, k, v = (in_chunks(t, CHUNK).permute(0, 1, 3, 2, 4) for t in (q, k, v))
    adds = (k * torch.exp(log_gamma * (CHUNK - 1 - position))[..., None]).transpose(-1, -2) @ v
    states, state = [], torch.zeros_like(adds[:, 0])
    for chunk in range(adds.shape[1]):
        states.append(state)
        state = state * torch.exp(log_gamma * CHUNK)[..., None] + adds[:, chunk]
    y = (q * torch.exp(log_gamma * (position + 1))[..., None]) @ torch.stack(states, dim=1)
    y = y + (q @ k.transpose(-1, -2) * inside[None, None]) @ v
    return y.permute(0, 1, 3, 2, 4).flatten(1, 2)[:, :length]
