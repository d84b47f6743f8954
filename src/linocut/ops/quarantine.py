"""Keeping what is not finite from the tokens before it.

A chunk's products weigh what comes later by zero, but zero times NaN is NaN. So chunked forms of causal operators work
on tokens that are finite, and what follows the first that is not becomes NaN afterwards, as it does token by token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def isolate(inputs: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Take out what is not finite.

    Args:
        inputs: (batch, length, channels), whose channels are kept apart, or (batch, length, heads, channels), whose
            heads are.

    Returns:
        The inputs with zeros for what is not finite in any of them, and whether such a thing was met up to each token,
        (batch, length, channels) or (batch, length, heads, 1).
    """
    found = [~each.isfinite() for each in inputs]
    bad = torch.stack([each.any(-1, keepdim=True) if each.dim() == 4 else each for each in found]).any(0)
    return [each.masked_fill(bad, 0) for each in inputs], bad.cumsum(1) > 0


def release(y: Tensor, state: Tensor, met: Tensor) -> tuple[Tensor, Tensor]:
    """NaN for the outputs at and after what was met, and for the states, (batch, heads, dim, value), behind it."""
    after = met[:, -1].view(*met.shape[:1], *met.shape[2:], *[1] * (state.dim() - met.dim() + 1))
    return y.masked_fill(met, torch.nan), state.masked_fill(after, torch.nan)
