"""Whole layers, projections included: x (1, length, 256) → the same shape. Random weights; no gradient to them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.mixers.inputs import DIM, HEADS, WIDTH
from benchmarks.peers.mixers.linear_attention import in_chunks

LANDMARKS = 256


class Flash(nn.Module):
    """FLASH's layer, causal (Hua et al., ICML 2022, https://arxiv.org/abs/2202.10447), from its appendix's pseudo code.

    Gated attention unit with mixed chunk attention: squared ReLU attention with a relative bias inside a chunk, linear
    attention to earlier chunks. Expansion 2, one shared 128-wide projection, chunks of 256; no rotation.
    """

    def __init__(self, width: int = WIDTH, shared: int = 128, chunk: int = 256) -> None:
        super().__init__()
        self.chunk, self.inner, self.shared = chunk, 2 * width, shared
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 2 * self.inner + shared)
        self.scale = nn.Parameter(torch.randn(4, shared) * 0.02 + 1)
        self.offset = nn.Parameter(torch.zeros(4, shared))
        self.bias = nn.Parameter(torch.randn(2 * chunk - 1) * 0.02)
        self.out = nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix; the chunk divides the length."""
        u, v, base = torch.split(functional.silu(self.project(self.norm(x))), [self.inner, self.inner, self.shared], -1)
        q_quad, k_quad, q_lin, k_lin = (
            in_chunks(base * gain + offset, self.chunk) for gain, offset in zip(self.scale, self.offset, strict=True)
        )
        v = in_chunks(v, self.chunk)
        position = torch.arange(self.chunk)
        bias = self.bias[position[:, None] - position + self.chunk - 1]
        inside = functional.relu(q_quad @ k_quad.transpose(-1, -2) / self.chunk + bias).square().tril() @ v
        state = (k_lin.transpose(-1, -2) @ v / self.chunk).cumsum(1)
        mixed = inside + q_lin @ functional.pad(state[:, :-1], (0, 0, 0, 0, 1, 0))
        y: Tensor = x + self.out(u * mixed.flatten(1, 2))
        return y


def _frozen(module: Any) -> Any:
    """For inference: no dropout, no gradient to the weights."""
    module.requires_grad_(requires_grad=False)
    module.train(mode=False)
    return module


@cache
def _flash() -> Any:
    torch.manual_seed(0)
    return _frozen(Flash())


@cache
def _linformer(length: int) -> Any:
    from linformer import LinformerSelfAttention

    torch.manual_seed(0)
    return _frozen(LinformerSelfAttention(dim=WIDTH, seq_len=length, k=LANDMARKS, heads=HEADS))


@cache
def _nystrom() -> Any:
    from nystrom_attention import NystromAttention

    torch.manual_seed(0)
    return _frozen(NystromAttention(dim=WIDTH, dim_head=DIM, heads=HEADS, num_landmarks=LANDMARKS))


def flash(x: Tensor) -> Tensor:
    """FLASH in PyTorch, see `Flash`."""
    out: Tensor = _flash()(x)
    return out


def linformer(x: Tensor) -> Tensor:
    """Linformer's `LinformerSelfAttention` as shipped, 256 projected keys."""
    out: Tensor = _linformer(x.shape[1])(x)
    return out


def nystrom(x: Tensor) -> Tensor:
    """nystrom-attention's `NystromAttention` as shipped, 256 landmarks, its convolution included."""
    out: Tensor = _nystrom()(x)
    return out
