"""S4D (Gu et al., NeurIPS 2022, https://arxiv.org/abs/2206.11893): a diagonal state space as a long convolution.

    K_l = 2 Re Σ_n C_n (exp(Δ A_n) − 1)/A_n exp(Δ A_n)^l,   y = K * u + D u

u (batch, length, channels); log_dt, D (channels,); A, C (channels, states) complex, one of each conjugate pair.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kernel(length: int, log_dt: Tensor, A: Tensor, C: Tensor) -> Tensor:  # noqa: N803
    """The convolution's kernel by a Vandermonde product, as the paper's listing 1: (channels, length)."""
    steps = torch.exp(log_dt)[:, None] * A
    weights = C * (torch.exp(steps) - 1) / A
    powers = torch.exp(steps[..., None] * torch.arange(length))
    return 2 * torch.einsum("hn,hnl->hl", weights, powers).real


def fft_convolution(u: Tensor, taps: Tensor) -> Tensor:
    """The causal convolution of every channel with its kernel, by FFT at twice the length.

    Args:
        u: (batch, length, channels).
        taps: (channels, length).

    Returns:
        (batch, length, channels).
    """
    length = u.shape[1]
    spectrum = torch.fft.rfft(u.transpose(1, 2), n=2 * length) * torch.fft.rfft(taps, n=2 * length)
    y: Tensor = torch.fft.irfft(spectrum, n=2 * length)
    return y[..., :length].transpose(1, 2)


def published(u: Tensor, log_dt: Tensor, A: Tensor, C: Tensor, D: Tensor) -> Tensor:  # noqa: N803
    """Kernel, convolution and skip, as the authors' S4D does it, without its GELU and output projection."""
    y: Tensor = fft_convolution(u, kernel(u.shape[1], log_dt, A, C)) + u * D
    return y
