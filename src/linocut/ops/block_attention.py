r"""Attention inside blocks of tokens that do not overlap: the block-diagonal part of an attention matrix.

DiagAttention of Qin et al., *The Devil in Linear Transformer*, EMNLP 2022 (https://arxiv.org/abs/2210.10340), section
4.1, with the softmax of equation 1 or the rectified weights of ReLA (Zhang, Titov, Sennrich, 2021). Token t attends to
the tokens of its block ⌊t / w⌋, in the causal form to those of them up to t.

============= ==================================== =========================
symbol        meaning                              shape
============= ==================================== =========================
``q``, ``k``  queries and keys                     (batch, length, heads, dim)
``v``         values                               (batch, length, heads, value)
``w``         tokens a block
============= ==================================== =========================

Cost: O(length · w · (dim + value)) time. What a token must know of the past is the open block's keys and values.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from linocut.ops import quarantine
from linocut.ops.arguments import floats


def attend(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads value"],
    *,
    causal: bool,
    rectified: bool,
) -> Float[Tensor, "batch length heads value"]:
    """One block; in the causal form the last query goes with the last key."""
    mask, met = None, None
    if causal:
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).tril(k.shape[1] - q.shape[1])
        (k, v), met = quarantine.isolate((k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if rectified:
        weights = (q @ k.mT * q.shape[-1] ** -0.5).relu()
        y = (weights if mask is None else weights.masked_fill(~mask, 0)) @ v
    else:
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    out: Tensor = y.transpose(1, 2)
    return out if met is None else out.masked_fill(met[:, met.shape[1] - out.shape[1] :], torch.nan)


@floats
def block_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads value"],
    *,
    block: int,
    causal: bool = False,
    rectified: bool = False,
) -> Float[Tensor, "batch length heads value"]:
    """Attention inside blocks of tokens.

    Args:
        q: queries.
        k: keys: of the same tokens, and before them those of a block that is open already, fewer than `block`.
        v: values, like the keys.
        block: tokens a block, >= 1.
        causal: whether a token sees none after it.
        rectified: weights relu(qᵀk / √dim) in place of their softmax; not normalised.

    Raises:
        ValueError: if the block is below 1 or the shapes do not fit together.

    Example:
        >>> zeros, v = torch.zeros(1, 4, 1, 2), torch.tensor([0.0, 1.0, 5.0, 7.0]).reshape(1, 4, 1, 1)
        >>> block_attention(zeros, zeros, v, block=2).flatten().tolist()
        [0.5, 0.5, 6.0, 6.0]
    """
    opened = k.shape[1] - q.shape[1]
    if block < 1 or not 0 <= opened < block:
        raise ValueError(f"block must be >= 1 and more than the open tokens, got block={block} with {opened} open")
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(f"k and v must share (batch, length, heads), got {tuple(k.shape)} and {tuple(v.shape)}")
    # a block that is open already, then whole blocks side by side, then the rest
    first = min(block - opened, q.shape[1]) if opened else 0
    whole = (q.shape[1] - first) // block * block
    outputs = []
    if first:
        end = opened + first
        outputs.append(attend(q[:, :first], k[:, :end], v[:, :end], causal=causal, rectified=rectified))
    if whole:
        parts = [
            x[:, start : start + whole].reshape(x.shape[0] * (whole // block), block, *x.shape[2:])
            for x, start in ((q, first), (k, opened + first), (v, opened + first))
        ]
        y = attend(*parts, causal=causal, rectified=rectified)
        outputs.append(y.reshape(q.shape[0], whole, *y.shape[2:]))
    rest = q.shape[1] - first - whole
    if rest or not outputs:
        start = k.shape[1] - rest
        outputs.append(attend(q[:, first + whole :], k[:, start:], v[:, start:], causal=causal, rectified=rectified))
    return torch.cat(outputs, dim=1)
