"""h_t = a_t h_{t−1} + b_t for every channel: the core of the RG-LRU (De et al., 2024, https://arxiv.org/abs/2402.19427)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def transformers(a: Tensor, b: Tensor) -> Tensor:
    """The loop over tokens of `transformers`' RecurrentGemma, without its gates; a, b (batch, length, channels)."""
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

    scan: Any = RecurrentGemmaRglru._rnn_scan  # untyped, and does not use the module it is a method of
    reset = torch.zeros(*a.shape[:2], 1, dtype=torch.bool)
    out: Tensor = scan(None, hidden_states=b, recurrent_gate=a, reset=reset, recurrent_states=None)[0]
    return out
