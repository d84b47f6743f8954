r"""Mixed chunk attention: quadratic inside chunks of tokens, linear across them.

Hua, Dai, Liu, Le, *Transformer Quality in Linear Time*, ICML 2022 (https://arxiv.org/abs/2202.10447), section 4. For
token t in chunk g of C tokens

.. math::
    y_t = \frac{1}{C} \sum_{s \in g} \mathrm{relu}\left(\frac{q_t^T k_s}{\sqrt{d}}\right)^2 v_s
        + \frac{1}{n} \hat q_t^T S, \qquad S = \sum_s \hat k_s v_s^T

where the first sum runs over s ≤ t in the causal form, and S over all n tokens, in the causal form over the n of the
chunks before g. The paper divides by the length of the sequences that it is trained on; the number of tokens that are
summed leaves the length free, and no later token acts on an earlier one. There is one head.

==================== ======================================= ===========================
symbol               meaning                                 shape
==================== ======================================= ===========================
``q``, ``k``         queries and keys inside a chunk         (batch, length, dim)
``q_far``, ``k_far`` those across, q̂ and k̂                   (batch, length, dim)
``v``                values                                  (batch, length, value)
``sums``             S                                       (batch, dim, value)
==================== ======================================= ===========================

Cost: O(length · C · (dim + value) + length · dim · value) time. The state is S and the tokens of the open chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops.arguments import floats


class Tokens(NamedTuple):
    """Queries, keys and values; keys and values may start earlier than the queries, with those of the open chunk."""

    q: Float[Tensor, "batch length dim"]
    k: Float[Tensor, "batch keys dim"]
    q_far: Float[Tensor, "batch length dim"]
    k_far: Float[Tensor, "batch keys dim"]
    v: Float[Tensor, "batch keys value"]


@floats
def squared_relu_attention(
    q: Float[Tensor, "batch length dim"],
    k: Float[Tensor, "batch keys dim"],
    v: Float[Tensor, "batch keys value"],
    *,
    causal: bool,
    count: int | None = None,
) -> Float[Tensor, "batch length value"]:
    """Attention with weights relu(qᵀk / √dim)² / count, the paper's equation for V̂ in section 3.

    Args:
        q: queries.
        k: keys; in the causal form the last goes with the last query.
        v: values.
        causal: whether a query sees no later key.
        count: what the weights are divided by; None for the number of keys that the query sees.

    Example:
        >>> ones = torch.ones(1, 2, 4)
        >>> squared_relu_attention(ones, ones, torch.tensor([[[1.0], [3.0]]]), causal=True).flatten().tolist()
        [4.0, 8.0]
    """
    weights = (q @ k.mT).mul(q.shape[-1] ** -0.5).relu().square()
    if not causal:
        return weights @ v / (count or max(1, k.shape[1]))
    before = k.shape[1] - q.shape[1]
    # zero times NaN is NaN: what is not finite is taken out here and put back where it may be seen
    bad = ~(k.sum(dim=-1, keepdim=True) + v.sum(dim=-1, keepdim=True)).isfinite()
    weights = weights.tril(before).masked_fill(bad.mT, 0)
    seen = torch.arange(before + 1, k.shape[1] + 1, device=q.device)[:, None] if count is None else count
    y = (weights @ v.masked_fill(bad, 0)) / seen
    met = bad.cumsum(dim=1)[:, before:] > 0
    return y.masked_fill(met | ~q.sum(dim=-1, keepdim=True).isfinite(), torch.nan)


def outer_sum(k: Float[Tensor, "batch length dim"], v: Float[Tensor, "batch length value"]) -> Tensor:
    """Σ k vᵀ, in float32 or wider."""
    wide = torch.promote_types(k.dtype, torch.float32)
    return k.to(wide).mT @ v.to(wide)


def _chunked(x: Tensor, chunk: int) -> Tensor:
    return x.reshape(x.shape[0] * (x.shape[1] // chunk), chunk, x.shape[-1])


def _near(tokens: Tokens, chunk: int, *, causal: bool) -> Tensor:
    """The part inside chunks, of tokens that start with one."""
    whole = tokens.v.shape[1] // chunk * chunk
    parts = (_chunked(x[:, :whole], chunk) for x in (tokens.q, tokens.k, tokens.v))
    y = squared_relu_attention(*parts, causal=causal, count=chunk)
    y = y.reshape(tokens.v.shape[0], whole, tokens.v.shape[2])
    if whole == tokens.v.shape[1]:
        return y
    rest = (x[:, whole:] for x in (tokens.q, tokens.k, tokens.v))
    return torch.cat([y, squared_relu_attention(*rest, causal=causal, count=chunk)], dim=1)


def read(tokens: Tokens, sums: Float[Tensor, "batch dim value"], count: int, *, chunk: int) -> Tensor:
    """The outputs of a piece that starts with a chunk, from the sums of all `count` tokens; not causal."""
    far = tokens.q_far @ (sums / max(count, 1)).to(tokens.q_far.dtype)
    return _near(tokens, chunk, causal=False) + far


def causal(
    tokens: Tokens, sums: Float[Tensor, "batch dim value"], seen: int, *, chunk: int
) -> tuple[Float[Tensor, "batch length value"], Float[Tensor, "batch dim value"]]:
    """The outputs of a piece and the sums of all complete chunks after it.

    Args:
        tokens: of the piece, keys and values with those of the open chunk before them.
        sums: S of the complete chunks before the piece.
        seen: how many tokens these have.
        chunk: tokens a chunk.

    Raises:
        ValueError: if as many tokens are open as make a chunk, or more.
    """
    opened = tokens.v.shape[1] - tokens.q.shape[1]
    if not 0 <= opened < chunk:
        raise ValueError(f"mixed_chunk_attention: fewer than {chunk} tokens may be open, got {opened}")
    if not opened:
        return _causal_aligned(tokens, sums, seen, chunk)
    first = min(chunk - opened, tokens.q.shape[1])
    end = opened + first
    y = squared_relu_attention(tokens.q[:, :first], tokens.k[:, :end], tokens.v[:, :end], causal=True, count=chunk)
    y = y + tokens.q_far[:, :first] @ (sums / max(seen, 1)).to(y.dtype)
    if end < chunk:
        return y, sums
    sums = sums + outer_sum(tokens.k_far[:, :end], tokens.v[:, :end])
    rest = Tokens(
        tokens.q[:, first:], tokens.k[:, end:], tokens.q_far[:, first:], tokens.k_far[:, end:], tokens.v[:, end:]
    )
    more, sums = _causal_aligned(rest, sums, seen + chunk, chunk)
    return torch.cat([y, more], dim=1), sums


def _causal_aligned(tokens: Tokens, sums: Tensor, seen: int, chunk: int) -> tuple[Tensor, Tensor]:
    """A piece that starts with a chunk."""
    batch, length = tokens.v.shape[:2]
    whole = length // chunk
    at = whole * chunk
    each = outer_sum(_chunked(tokens.k_far[:, :at], chunk), _chunked(tokens.v[:, :at], chunk))
    each = each.reshape(batch, whole, *sums.shape[1:])
    before = torch.cat([sums[:, None], each], dim=1).cumsum(dim=1)
    counts = torch.arange(seen, seen + at + 1, chunk, device=sums.device).clamp_min(1)[:, None, None]
    means = (before / counts).to(tokens.q_far.dtype)
    queries = tokens.q_far[:, :at].reshape(batch, whole, chunk, tokens.q_far.shape[2])
    far = (queries @ means[:, :-1]).reshape(batch, at, tokens.v.shape[2])
    far = torch.cat([far, tokens.q_far[:, at:] @ means[:, -1]], dim=1)
    return _near(tokens, chunk, causal=True) + far, before[:, -1]
