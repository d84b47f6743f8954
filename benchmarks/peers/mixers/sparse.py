"""Attention to a window, and the two published patterns that add global and random tokens to it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.peers.mixers.inputs import HEADS, WIDTH, WINDOW

if TYPE_CHECKING:
    from local_attention import LocalAttention
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

BLOCK = 64


@cache
def _local() -> LocalAttention:
    from local_attention import LocalAttention

    return LocalAttention(window_size=WINDOW, causal=True, exact_windowsize=True, autopad=True)


def local_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """local-attention as shipped, causal, without rotation: each token sees itself and the 256 before it."""
    out: Tensor = _local()(*(t.transpose(1, 2) for t in (q, k, v)))
    return out.transpose(1, 2)


@cache
def _longformer() -> LongformerSelfAttention:
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    config = LongformerConfig(hidden_size=WIDTH, num_attention_heads=HEADS, attention_window=[2 * WINDOW])
    torch.manual_seed(0)
    layer = LongformerSelfAttention(config, layer_id=0)  # type: ignore[no-untyped-call]
    layer.train(mode=False)
    return layer


def longformer(x: Tensor) -> Tensor:
    """`transformers`' Longformer attention: 256 tokens either side, the first token global; with projections.

    Args:
        x: (1, length, 256); 512 divides the length.
    """
    is_global = torch.zeros(x.shape[:2], dtype=torch.bool)
    is_global[:, 0] = True
    out: Tensor = _longformer()(
        x,
        attention_mask=is_global * 10000.0,
        is_index_masked=torch.zeros_like(is_global),
        is_index_global_attn=is_global,
        is_global_attn=True,
    )[0]
    return out


@cache
def _big_bird(length: int) -> BigBirdBlockSparseAttention:
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

    config = BigBirdConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        block_size=BLOCK,
        num_random_blocks=3,
        max_position_embeddings=length,
    )
    torch.manual_seed(0)
    layer = BigBirdBlockSparseAttention(config, seed=0)  # type: ignore[no-untyped-call]
    layer.train(mode=False)
    return layer


def big_bird(x: Tensor) -> Tensor:
    """`transformers`' BigBird: blocks of 64, three in the window, two global, three random; with q, k, v projections.

    Args:
        x: (1, length, 256); 64 divides the length, which is more than 1024.
    """
    from transformers.models.big_bird.modeling_big_bird import BigBirdModel

    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(torch.ones(x.shape[:2]), BLOCK)
    out: Tensor = _big_bird(x.shape[1])(x, band, rows, columns, blocked, blocked)[0]
    return out
