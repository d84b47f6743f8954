"""The same random inputs for every contender, at the shapes the figures are quoted for: batch 1, d_model 256.

Each function gives the arguments of its row's peers by name. Values are those a trained layer would see in size: unit
queries and keys where the paper normalises them, steps between 0.001 and 0.1, decays below one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

HEADS, DIM = 4, 64
WIDTH = HEADS * DIM
INNER, STATE = 512, 16
SSD_HEADS, SSD_DIM, SSD_STATE = 8, 64, 128
S4D_STATE = 64
RETENTION_DECAYS = tuple(1 - 2.0 ** -(5 + head) for head in range(HEADS))
WINDOW = 256
FEATURES = 256

Inputs = dict[str, Tensor]


def _generator(length: int) -> torch.Generator:
    return torch.Generator().manual_seed(length)


def attention(length: int, *, batch: int = 1, dtype: torch.dtype = torch.float32) -> Inputs:
    """Queries, keys and values (batch, length, 4, 64), standard normal."""
    generator = _generator(length)
    shape = (batch, length, HEADS, DIM)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name in ("q", "k", "v")}


def tokens(length: int) -> Inputs:
    """Hidden states of a layer: x (1, length, 256), standard normal."""
    return {"x": torch.randn(1, length, WIDTH, generator=_generator(length))}


def selective_scan(length: int) -> Inputs:
    """Mamba's x, delta (1, length, 512), A (512, 16), B, C (1, length, 16), D (512,), as Mamba starts them."""
    generator = _generator(length)
    low, high = math.log(0.001), math.log(0.1)
    return {
        "x": torch.randn(1, length, INNER, generator=generator),
        "delta": torch.exp(torch.rand(1, length, INNER, generator=generator) * (high - low) + low),
        "A": -torch.arange(1.0, STATE + 1).repeat(INNER, 1),
        "B": torch.randn(1, length, STATE, generator=generator),
        "C": torch.randn(1, length, STATE, generator=generator),
        "D": torch.ones(INNER),
    }


def ssd(length: int) -> Inputs:
    """Mamba-2's x (1, length, 8, 64), dt (1, length, 8) > 0, A (8,) < 0, B, C (1, length, 1, 128)."""
    generator = _generator(length)
    low, high = math.log(0.001), math.log(0.1)
    return {
        "x": torch.randn(1, length, SSD_HEADS, SSD_DIM, generator=generator),
        "dt": torch.exp(torch.rand(1, length, SSD_HEADS, generator=generator) * (high - low) + low),
        "A": -torch.arange(1.0, SSD_HEADS + 1),
        "B": torch.randn(1, length, 1, SSD_STATE, generator=generator),
        "C": torch.randn(1, length, 1, SSD_STATE, generator=generator),
    }


def gated_delta_rule(length: int) -> Inputs:
    """Unit q and k, v (1, length, 4, 64), log_decay ≤ 0 and beta in (0, 1), (1, length, 4)."""
    generator = _generator(length)
    q, k, v = (torch.randn(1, length, HEADS, DIM, generator=generator) for _ in range(3))
    log_decay = -functional.softplus(torch.randn(1, length, HEADS, generator=generator) - 3)
    beta = torch.sigmoid(torch.randn(1, length, HEADS, generator=generator))
    return {
        "q": functional.normalize(q, dim=-1),
        "k": functional.normalize(k, dim=-1),
        "v": v,
        "log_decay": log_decay,
        "beta": beta,
    }


def s4d(length: int) -> Inputs:
    """S4D-Lin as it starts: u (1, length, 256), log_dt (256,), A, C (256, 32) complex, D (256,).

    Of the 64 states of a channel one of each conjugate pair is kept, so 32 are computed.
    """
    generator = _generator(length)
    half = S4D_STATE // 2
    low, high = math.log(0.001), math.log(0.1)
    real = torch.full((WIDTH, half), -0.5)
    return {
        "u": torch.randn(1, length, WIDTH, generator=generator),
        "log_dt": torch.rand(WIDTH, generator=generator) * (high - low) + low,
        "A": torch.complex(real, math.pi * torch.arange(float(half)).repeat(WIDTH, 1)),
        "C": torch.randn(WIDTH, half, dtype=torch.complex64, generator=generator),
        "D": torch.randn(WIDTH, generator=generator),
    }


def wkv(length: int) -> Inputs:
    """RWKV-4's k, v (1, length, 256), w (256,) > 0, the decay a step is exp(−w), and the bonus u (256,)."""
    generator = _generator(length)
    k, v = (torch.randn(1, length, WIDTH, generator=generator) for _ in range(2))
    w = torch.exp(torch.linspace(-5, 1, WIDTH))
    return {"k": k, "v": v, "w": w, "u": torch.randn(WIDTH, generator=generator)}


def linear_recurrence(length: int) -> Inputs:
    """A in (0, 1) and b, both (1, length, 256): the recurrence of the RG-LRU."""
    generator = _generator(length)
    a = torch.sigmoid(torch.randn(1, length, WIDTH, generator=generator) + 3)
    return {"a": a, "b": torch.randn(1, length, WIDTH, generator=generator)}
