"""The native kernel behind gated linear attention, causal linear attention and SSD, and its gradient.

One chunked kernel (``csrc/kernels/gated_linear_attention.cpp``) serves them: scores of a chunk, its decays, the
feature map and the normaliser stay in cache, and only the state goes from chunk to chunk. For the gradient it keeps the
states before every :data:`SEGMENT`-th token and works out the rest again.

With bfloat16 inputs and a processor that multiplies bfloat16 (AVX-512 BF16) the products are such: what they take
(φ(q), φ(k), weighted values, scores, and the states as they are read) is rounded to bfloat16, and all is summed up, and
the states are carried on, in float32. Outputs, states and gradients are then no further from the exact ones than three
times what rounding the inputs and outputs to bfloat16 makes; ``tests/ops/test_bfloat16.py`` measures it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linocut.ops import kernel

SEGMENT = 256
# The kernel's numbers for what is done to q and k first.
FEATURE_MAPS = {"identity": 0, "elu": 1, "relu": 2, "exp": 3}


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """A tensor whose tokens are evenly spaced and dense inside, copied only if need be, and the space between two."""
    _, length, heads, dim = x.shape
    token = x.stride(1)
    if x.stride()[2:] == (dim, 1) and token >= heads * dim and (x.stride(0) == length * token or x.shape[0] == 1):
        return x, token
    return x.contiguous(), heads * dim


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _sizes(q: Tensor, v: Tensor) -> tuple[Any, ...]:
    """Batch, length, groups, heads, dim, value; symbols where a compiler traces."""
    return (*q.shape[:3], v.shape[2], q.shape[3], v.shape[3])


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    weight: Tensor | None,
    skip: Tensor | None,
    state: Tensor | None,
    norm: Tensor | None,
    feature_map: int,
    normalize: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (q, q_token), (k, k_token), (v, v_token) = map(_rows, (q, k, v))
    outputs = _outputs(q, v, normalize, save)
    others = [_dense(x) for x in (log_decay, weight, skip, state, norm)]
    kernel.kernels().gated_linear_attention(
        _sizes(q, v),
        q.dtype == torch.bfloat16,
        feature_map,
        normalize,
        [kernel.address(x) for x in (q, k, v, *others)],
        (q_token, k_token, v_token),
        [kernel.address(x) for x in (*outputs[:3], outputs[3] if save else None)],
        SEGMENT,
        kernel.threads(),
    )
    return outputs


_native = torch.library.custom_op(
    "linocut::chunked_attention",
    _run,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? weight, Tensor? skip, Tensor? state, "
    "Tensor? norm, int feature_map, bool normalize, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
)


def _outputs(q: Tensor, v: Tensor, normalize: bool, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for y, the last state, the last normaliser and the states for the gradient; empty where not wanted."""
    batch, length, _, heads, dim, value = _sizes(q, v)
    segments = -(-length // SEGMENT) if save else 0
    return (
        q.new_empty(batch, length, heads, value),
        q.new_empty(batch, heads, dim, value, dtype=torch.float32),
        q.new_empty((batch, heads, dim) if normalize else 0, dtype=torch.float32),
        q.new_empty(batch, segments, heads, value + normalize, dim, dtype=torch.float32),
    )


@_native.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    weight: Tensor | None,
    skip: Tensor | None,
    state: Tensor | None,
    norm: Tensor | None,
    feature_map: int,
    normalize: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(q, v, normalize, save)


@torch.library.custom_op(
    "linocut::chunked_attention_grad",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? weight, Tensor? skip, Tensor checkpoints, "
    "int feature_map, bool normalize, Tensor grad_y, Tensor? grad_last, Tensor? grad_norm) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    weight: Tensor | None,
    skip: Tensor | None,
    checkpoints: Tensor,
    feature_map: int,
    normalize: bool,
    grad_y: Tensor,
    grad_last: Tensor | None,
    grad_norm: Tensor | None,
) -> tuple[Tensor, ...]:
    (q, q_token), (k, k_token), (v, v_token) = map(_rows, (q, k, v))
    outputs = _grads(q, v, log_decay, weight, skip, normalize)
    others = [_dense(x) for x in (log_decay, weight, skip, checkpoints, grad_y, grad_last, grad_norm)]
    kernel.kernels().gated_linear_attention_grad(
        _sizes(q, v),
        q.dtype == torch.bfloat16,
        feature_map,
        normalize,
        [kernel.address(x) for x in (q, k, v, *others)],
        (q_token, k_token, v_token),
        [kernel.address(x) for x in outputs],
        SEGMENT,
        kernel.threads(),
    )
    return outputs


def _grads(
    q: Tensor, v: Tensor, log_decay: Tensor | None, weight: Tensor | None, skip: Tensor | None, normalize: bool
) -> tuple[Tensor, ...]:
    """Room for the gradients of q, k, v, log_decay, weight, skip (a token's), state and norm; empty for absent ones."""
    batch, length, _, heads, dim, value = _sizes(q, v)
    return (
        q.new_empty(q.shape),
        q.new_empty(q.shape),
        v.new_empty(v.shape),
        *(
            q.new_empty((batch, length, heads) if x is not None else 0, dtype=torch.float32)
            for x in (log_decay, weight, skip)
        ),
        q.new_empty(batch, heads, dim, value, dtype=torch.float32),
        q.new_empty((batch, heads, dim) if normalize else 0, dtype=torch.float32),
    )


@_native_grad.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    weight: Tensor | None,
    skip: Tensor | None,
    checkpoints: Tensor,
    feature_map: int,
    normalize: bool,
    grad_y: Tensor,
    grad_last: Tensor | None,
    grad_norm: Tensor | None,
) -> tuple[Tensor, ...]:
    return _grads(q, v, log_decay, weight, skip, normalize)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, log_decay, weight, skip, state, norm, ctx.feature_map, ctx.normalize, _ = inputs
    ctx.has_state, ctx.has_norm = state is not None, norm is not None
    ctx.save_for_backward(q, k, v, log_decay, weight, skip, output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, grad_norm: Tensor | None, _: Any) -> Any:
    *inputs, checkpoints = ctx.saved_tensors
    _, _, v, log_decay, weight, skip = inputs
    if grad_y is None:
        grad_y = v.new_zeros(v.shape)
    grad_norm = grad_norm if ctx.normalize else None
    grads = _native_grad(*inputs, checkpoints, ctx.feature_map, ctx.normalize, grad_y, grad_last, grad_norm)
    return (
        *grads[:3],
        None if log_decay is None else grads[3],
        None if weight is None else grads[4],
        None if skip is None else grads[5].sum(dim=(0, 1)),
        grads[6] if ctx.has_state else None,
        grads[7] if ctx.has_norm else None,
        None,
        None,
        None,
    )


_native.register_autograd(_backward, setup_context=_setup)


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    weight: Tensor | None = None,
    skip: Tensor | None = None,
    state: Tensor | None = None,
    norm: Tensor | None = None,
    feature_map: str = "identity",
    normalize: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """S_t = exp(a_t) S_{t-1} + w_t φ(k_t) v_tᵀ, y_t = S_tᵀ φ(q_t) + skip · v_t; its callers check the arguments.

    Args:
        q: queries, (batch, length, groups, dim); q, k, v all float32 or all bfloat16, the rest either.
        k: keys, as q.
        v: values, (batch, length, heads, value); each group serves heads / groups heads.
        log_decay: a, (batch, length, heads), at most 0; None for none.
        weight: w, (batch, length, heads); None for 1.
        skip: (heads); None for 0.
        state: S before the first token, (batch, heads, dim, value); None for 0.
        norm: z before the first token, (batch, heads, dim); None for 0.
        feature_map: one of FEATURE_MAPS.
        normalize: divide by φ(q_t)ᵀ z_t with z_t = exp(a_t) z_{t-1} + φ(k_t); then no weight and no skip.

    Returns:
        y, the last state, and the last normaliser (empty without `normalize`).
    """
    others = (None if x is None else x.float() for x in (log_decay, weight, skip, state, norm))
    given: tuple[Any, ...] = (q, k, v, *others)
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    run: Any = _run if kernel.direct(*given) else _native
    y, last, last_norm, _ = run(*given, FEATURE_MAPS[feature_map], normalize, save)
    return y, last, last_norm


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernel takes these: q, k and v of one dtype, and then the others."""
    return kernel.usable(*tensors) and len({x.dtype for x in tensors[:3] if x is not None}) == 1
