"""RWKV-4's time mixing (Peng et al., EMNLP 2023, https://arxiv.org/abs/2305.13048), equation 16.

y_t = (Σ_{s<t} exp(−(t−1−s) w + k_s) v_s + exp(u + k_t) v_t) / (the same without v)
"""

from __future__ import annotations

import torch
from torch import Tensor


def transformers(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """`transformers`' loop over tokens, its path without CUDA. k, v (batch, length, channels); w > 0, u (channels,)."""
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    out: Tensor = rwkv_linear_attention_cpu(torch.log(w), u, k, v)[0]  # type: ignore[no-untyped-call]
    return out
