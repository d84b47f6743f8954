"""Mamba's selective scan (Gu and Dao, 2023, https://arxiv.org/abs/2312.00752), algorithm 2, without the gate.

    h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t x_t,   y_t = C_tᵀ h_t + D x_t

x, delta (batch, length, channels); A (channels, states); B, C (batch, length, states); D (channels,).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peers.mixers import native


def transformers(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """`transformers`' path without CUDA: discretised for all tokens at once, then a loop of products over tokens."""
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    channels_first = (t.transpose(1, 2) for t in (x, delta))
    out: Tensor = mamba_selective_scan(*channels_first, A, B.transpose(1, 2), C.transpose(1, 2), D)
    return out.transpose(1, 2)


def minimal(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """The short teaching loop, as in mamba-minimal: two einsums for all tokens, then a loop. From the formula."""
    decay = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
    inputs = torch.einsum("bld,bln,bld->bldn", delta, B, x)
    state = torch.zeros_like(decay[:, 0])
    ys = []
    for t in range(x.shape[1]):
        state = decay[:, t] * state + inputs[:, t]
        ys.append(torch.einsum("bdn,bn->bd", state, C[:, t]))
    return torch.stack(ys, dim=1) + x * D


def mambapy(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """Mambapy's parallel scan, with the lines of its `MambaBlock.selective_scan` around it."""
    from mambapy.pscan import pscan

    decay = torch.exp(delta.unsqueeze(-1) * A)
    inputs = delta.unsqueeze(-1) * B.unsqueeze(2) * x.unsqueeze(-1)
    states: Tensor = pscan(decay, inputs)
    return (states @ C.unsqueeze(-1)).squeeze(3) + D * x


def c_loop(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """A plain scalar C loop, as ggml's: `selective_scan_loop.c`, batch 1, forward only.

    Raises:
        PeerMissingError: if there is no C compiler.
        ValueError: if batch is not 1, or a tensor is not contiguous float32.
    """
    from ctypes import c_int64, c_void_p

    tensors = (x, delta, A, B, C, D)
    if len(x) != 1 or any(t.dtype != torch.float32 or not t.is_contiguous() for t in tensors):
        raise ValueError(
            f"the C loop takes batch 1 and contiguous float32, got {[(t.shape, t.dtype) for t in tensors]}"
        )
    library = native.compile_c(Path(__file__).with_name("selective_scan_loop.c"))
    state, y = torch.zeros_like(A), torch.empty_like(x)
    sizes = (c_int64(x.shape[1]), c_int64(x.shape[2]), c_int64(A.shape[1]))
    library.selective_scan_loop(*sizes, *(c_void_p(t.data_ptr()) for t in (*tensors, state, y)))
    return y
