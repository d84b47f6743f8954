r"""Softmax attention to a window of keys: each query sees what is near it.

.. math::
    y_i = \sum_{j \in W(i)} \frac{\exp(s\, q_i^\top k_j)}{\sum_{l \in W(i)} \exp(s\, q_i^\top k_l)} v_j, \qquad
    W(i) = \{i, i - d, \dots, i - (w - 1) d\}

and, unless causal, as many ahead. It is the local pattern of the Sparse Transformer (Child et al., *Generating Long
Sequences with Sparse Transformers*, 2019, https://arxiv.org/abs/1904.10509) and the sliding window of Longformer
(Beltagy, Peters and Cohan, 2020, https://arxiv.org/abs/2004.05150, section 3.1), dilated for d > 1. There is no small
summary of what lies outside a piece, and none is needed: a piece takes the keys of its neighbourhood with it.

========== ============================================ ===========================
symbol     meaning                                      shape
========== ============================================ ===========================
``q``      queries                                      (batch, length, heads, dim)
``k, v``   keys and values, perhaps with some on either (batch, keys, heads, dim)
           side of the queries
w          window, d the dilation, s the scale          numbers
========== ============================================ ===========================

Cost: O(length · window · dim) a head; memory O(length · dim), since the kernel goes through the scores in tiles and the
backward pass makes them anew (Dao et al., *FlashAttention*, 2022, https://arxiv.org/abs/2205.14135).

With bfloat16 inputs and a processor that multiplies bfloat16 (AVX-512 BF16) scaled queries and weights are rounded to
bfloat16 for their products, which are summed up in float32. Outputs and gradients are then no further from the exact
ones than three times what rounding the inputs and outputs to bfloat16 makes (``tests/ops/test_bfloat16.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from linocut.ops import kernel
from linocut.ops.arguments import floats


def visible(
    queries: int, keys: int, window: int, *, causal: bool = True, dilation: int = 1, before: int = 0
) -> Bool[Tensor, "queries keys"]:
    """Which key each query sees, by the definition."""
    distance = before + torch.arange(queries)[:, None] - torch.arange(keys)
    near = (distance.abs() <= (window - 1) * dilation) & (distance % dilation == 0)
    return near & (distance >= 0) if causal else near


def quadratic_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads dim"],
    mask: Bool[Tensor, "length keys"],
    scale: float,
) -> Float[Tensor, "batch length heads dim"]:
    """All scores, those of the unseen left out: the oracle of the tests."""
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * scale
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


def blocked(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads dim"],
    window: int,
    *,
    causal: bool,
    dilation: int,
    scale: float,
    before: int,
) -> Float[Tensor, "batch length heads dim"]:
    """Blocks of `window` queries against the keys that any of them sees, all at once."""
    length = q.shape[1]
    if length == 0:
        return q.clone()
    behind, ahead = window - 1, 0 if causal else window - 1
    here = torch.ones(k.shape[0], k.shape[1], 1, 1, dtype=torch.bool, device=k.device)
    q, k, v, here = (_strands(x, dilation, front) for x, front in ((q, 0), *((x, before) for x in (k, v, here))))
    start, blocks = -(-before // dilation), -(-q.shape[1] // window)
    q = _fit(q, 0, blocks * window)
    q = q.reshape(q.shape[0], blocks, window, *q.shape[2:])
    k, v, here = (
        _fit(x, behind - start, behind + blocks * window + ahead).unfold(1, behind + window + ahead, window)
        for x in (k, v, here)
    )
    distance = torch.arange(window, device=q.device)[:, None] + behind - torch.arange(k.shape[-1], device=q.device)
    seen = (distance >= -ahead) & (distance <= behind) & here[:, :, :, 0, None, :]
    # a query that fills up the last block sees itself, so that no row is without keys
    seen = seen | ((distance == 0) & ~seen.any(-1, keepdim=True))
    y: Tensor = _Seen.apply(q, k, v, seen, scale).flatten(1, 2)  # type: ignore[no-untyped-call]
    y = y.reshape(y.shape[0] // dilation, dilation, *y.shape[1:]).movedim(1, 2).flatten(1, 2)
    return torch.narrow(y, 1, 0, length)


class _Seen(torch.autograd.Function):
    """Attention in blocks, where what is not finite reaches those who see it and no one else, backwards too.

    Left to itself, PyTorch multiplies the weights of what is not seen, zero, by whatever is there, and 0 · NaN is NaN.
    The weights are made anew for the gradient, so nothing of the size window² is kept.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, seen)
        ctx.scale = scale
        weights, spoilt = _clean_rows(_weights(q, k, seen, scale))
        return _over_keys(weights, v, seen, spoilt)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, seen = ctx.saved_tensors
        weights = _weights(q, k, seen, ctx.scale)
        grad = torch.einsum("bnihd,bnhdj->bnhij", grad_y, v).masked_fill(~seen, 0)
        grad = weights * (grad - (weights * grad).sum(-1, keepdim=True)) * ctx.scale
        weights, spoilt = _clean_rows(weights)
        grad_v = _over_queries(weights, grad_y, seen, spoilt)
        grad, spoilt = _clean_rows(grad)
        return _over_keys(grad, k, seen, spoilt), _over_queries(grad, q, seen, spoilt), grad_v, None, None


def _weights(q: Tensor, k: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Softmax over the seen keys, (batch, blocks, heads, queries, keys)."""
    scores = torch.einsum("bnihd,bnhdj->bnhij", q, k) * scale
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def _clean_rows(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros for the queries that have a number that is not finite, and which these are, (…, heads, queries)."""
    spoilt = ~pairs.sum(-1).isfinite()
    return pairs.masked_fill(spoilt[..., None], 0), spoilt


def _over_keys(pairs: Tensor, x: Tensor, seen: Tensor, spoilt: Tensor) -> Tensor:
    """Σ_j pairs_ij x_j, NaN for the spoilt queries and those that see what is not finite."""
    bad = ~x.isfinite().all(3)
    y = torch.einsum("bnhij,bnhdj->bnihd", pairs, x.masked_fill(bad[..., None, :], 0))
    spoilt = spoilt | (seen & bad[..., None, :]).any(-1)
    return y.masked_fill(spoilt.transpose(2, 3)[..., None], torch.nan)


def _over_queries(pairs: Tensor, x: Tensor, seen: Tensor, spoilt: Tensor) -> Tensor:
    """Σ_i pairs_ij x_i, NaN for the keys that spoilt queries or those that are not finite see."""
    bad = ~x.isfinite().all(-1).transpose(2, 3)
    y = torch.einsum("bnhij,bnihd->bnhdj", pairs, x.masked_fill(bad.transpose(2, 3)[..., None], 0))
    return y.masked_fill((seen & (bad | spoilt)[..., None]).any(-2)[..., None, :], torch.nan)


def _strands(x: Tensor, dilation: int, front: int) -> Tensor:
    """(batch, length, …) to (batch · dilation, length / dilation, …); token `front` falls into the first strand."""
    front = -front % dilation
    x = functional.pad(x, (0, 0, 0, 0, front, -(x.shape[1] + front) % dilation))
    return x.reshape(x.shape[0], x.shape[1] // dilation, dilation, *x.shape[2:]).movedim(2, 1).flatten(0, 1)


def _fit(x: Tensor, front: int, length: int) -> Tensor:
    """`front` zeros ahead (or tokens less, if negative), then cut or filled up to the length."""
    return functional.pad(x, (0, 0, 0, 0, front, length - front - x.shape[1]))


def _run(
    q: Tensor, k: Tensor, v: Tensor, window: int, dilation: int, causal: bool, scale: float, before: int, keep: bool
) -> tuple[Tensor, Tensor]:
    q, k, v = (x.contiguous() for x in (q, k, v))
    y = torch.empty(q.shape, dtype=q.dtype)
    log_sum = torch.empty((q.shape[0], q.shape[2], q.shape[1]) if keep else (0,))
    kernel.kernels().local_attention(
        *_sizes(q, k, window, dilation, causal, scale, before),
        *map(kernel.address, (q, k, v, y)),
        kernel.address(log_sum) if keep else 0,
        kernel.threads(),
    )
    return y, log_sum


def _sizes(
    q: Tensor, k: Tensor, window: int, dilation: int, causal: bool, scale: float, before: int
) -> tuple[int | float, ...]:
    """What the kernels ask first."""
    half = q.dtype == torch.bfloat16
    return q.shape[0], q.shape[1], k.shape[1], before, *q.shape[2:], window, dilation, causal, half, scale


_native = torch.library.custom_op(
    "linocut::local_attention",
    _run,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, int window, int dilation, bool causal, float scale, int before, bool keep)"
    " -> (Tensor, Tensor)",
)


@_native.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, window: int, dilation: int, causal: bool, scale: float, before: int, keep: bool
) -> tuple[Tensor, Tensor]:
    log_sum = q.new_empty((q.shape[0], q.shape[2], q.shape[1]) if keep else (0,), dtype=torch.float32)
    return q.new_empty(q.shape), log_sum


@torch.library.custom_op(
    "linocut::local_attention_grad",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor y, Tensor log_sum, Tensor grad_y, int window, int dilation,"
    " bool causal, float scale, int before) -> (Tensor, Tensor, Tensor)",
)
def _native_grad(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    log_sum: Tensor,
    grad_y: Tensor,
    window: int,
    dilation: int,
    causal: bool,
    scale: float,
    before: int,
) -> tuple[Tensor, ...]:
    q, k, v, grad_y = (x.contiguous() for x in (q, k, v, grad_y))
    # neighbouring blocks add to the same keys, so their gradients are summed up in float32
    grads = torch.empty(q.shape, dtype=q.dtype), torch.zeros(k.shape), torch.zeros(v.shape)
    kernel.kernels().local_attention_grad(
        *_sizes(q, k, window, dilation, causal, scale, before),
        *map(kernel.address, (q, k, v, y, log_sum, grad_y, *grads)),
        kernel.threads(),
    )
    return grads[0], grads[1].to(k.dtype), grads[2].to(v.dtype)


@_native_grad.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    log_sum: Tensor,
    grad_y: Tensor,
    window: int,
    dilation: int,
    causal: bool,
    scale: float,
    before: int,
) -> tuple[Tensor, ...]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.options = inputs[3:8]


def _backward(ctx: Any, grad_y: Tensor, grad_log_sum: Tensor) -> tuple[Tensor | None, ...]:
    grads = _native_grad(*ctx.saved_tensors, grad_y, *ctx.options)
    return *grads, None, None, None, None, None, None


_native.register_autograd(_backward, setup_context=_setup)


@floats
def local_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads dim"],
    *,
    window: int,
    causal: bool = True,
    dilation: int = 1,
    scale: float | None = None,
    before: int = 0,
) -> Float[Tensor, "batch length heads dim"]:
    """Attend to the keys near each query.

    Args:
        q: queries.
        k: keys: `before` ones ahead of the queries, one for each query, and any number behind them.
        v: values, like the keys.
        window: keys that a query sees behind it, itself among them, >= 1; as many ahead of it unless causal.
        causal: whether no query sees a key ahead of it.
        dilation: distance between neighbouring keys of a window, >= 1.
        scale: factor of the scores; None for ``dim ** -0.5``.
        before: keys that lie before the first query, >= 0: a piece's halo. Keys beyond the ends are not there to see.

    Returns:
        Outputs like the queries.

    Raises:
        ValueError: if the shapes do not fit together or a number is out of range.

    Example:
        >>> q, v = torch.zeros(1, 4, 1, 1), torch.tensor([2.0, 4.0, 6.0, 8.0]).view(1, 4, 1, 1)
        >>> local_attention(q, q, v, window=2).flatten().tolist()
        [2.0, 3.0, 5.0, 7.0]
    """
    _check(q, k, v, window, dilation, before)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    # no further than the sequence is long, so that the cost stays the quadratic one at most
    window = min(window, max(1, -(-k.shape[1] // dilation)))
    if kernel.usable(q, k, v) and q.dtype == k.dtype == v.dtype:
        if kernel.direct(q, k, v):
            return _run(q, k, v, window, dilation, causal, scale, before, keep=False)[0]
        keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
        y: Tensor = _native(q, k, v, window, dilation, causal, scale, before, keep)[0]
        return y
    wide = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.float32)
    y = blocked(
        q.to(wide), k.to(wide), v.to(wide), window, causal=causal, dilation=dilation, scale=scale, before=before
    )
    return y.to(q.dtype)


def _check(q: Tensor, k: Tensor, v: Tensor, window: int, dilation: int, before: int) -> None:
    shapes = f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
    if q.dim() != 4 or k.shape != v.shape or q.shape[:1] != k.shape[:1] or q.shape[2:] != k.shape[2:]:
        asked = "q must be (batch, length, heads, dim) and k and v (batch, keys, heads, dim)"
        raise ValueError(f"local_attention: {asked}, got {shapes}")
    for name, number, least in (("window", window, 1), ("dilation", dilation, 1), ("before", before, 0)):
        if number < least:
            raise ValueError(f"local_attention: {name} must be >= {least}, got {number}")
    if k.shape[1] < before + q.shape[1]:
        asked = f"keys must be at least before + length, {before} + {q.shape[1]}"
        raise ValueError(f"local_attention: {asked}, got {k.shape[1]}")
