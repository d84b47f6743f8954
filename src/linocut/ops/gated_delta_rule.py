r"""The gated delta rule: an associative memory that forgets, and overwrites what it held under a key.

.. math::
    S_t = a_t (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad y_t = S_t^\top q_t

Yang, Kautz and Hatamizadeh, *Gated Delta Networks*, 2024, https://arxiv.org/abs/2412.06464, equation 10; with
:math:`a_t = 1` it is DeltaNet (Yang et al., *Parallelizing Linear Transformers with the Delta Rule*, 2024,
https://arxiv.org/abs/2406.06484). Keys should have length 1 and beta lie in [0, 1]: then the map shrinks no direction
below zero and stretches none.

In a chunk with the state S before it and the cumulative log decay G, what token i writes is

.. math::
    u_i = \beta_i \Bigl(v_i - e^{G_i} S^\top k_i - \sum_{j < i} e^{G_i - G_j} (k_i^\top k_j) u_j\Bigr)

so all u of a chunk come from one unit lower triangular system (the UT transform), and the rest are products of small
matrices. Exponentials are taken of differences of G alone, none of them positive.

============= ===================================== ================================
symbol        meaning                               shape
============= ===================================== ================================
``q, k``      queries, keys                         (batch, length, groups, dim)
``v``         values                                (batch, length, heads, value)
``log_decay`` log a_t, <= 0                         (batch, length, heads)
``beta``      how much of the old value is replaced (batch, length, heads)
``S``         state                                 (batch, heads, dim, value)
============= ===================================== ================================

Cost: O(length · (dim · value + chunk · (dim + value))) a head. The gradient is worked out from the states before every
128 tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from linocut.ops import kernel
from linocut.ops.arguments import floats

# Tokens between the states that the backward pass starts from: the kernel's chunk of 32, four times.
_SEGMENT = 128
# exp of it is zero even in double precision, and sums of it are no infinities.
_FORGET = -1000.0


def recurrent_reference(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads"],
    beta: Float[Tensor, "batch length heads"],
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """The definition as a loop: the oracle of the tests."""
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], dim=2) for x in (q, k))
    outputs = []
    for t in range(v.shape[1]):
        decayed = log_decay[:, t, :, None, None].exp() * state
        found = torch.einsum("bhd,bhde->bhe", k[:, t], decayed)
        state = decayed + k[:, t, :, :, None] * (beta[:, t, :, None] * (v[:, t] - found))[:, :, None]
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return (torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v)), state


def chunked(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads"],
    beta: Float[Tensor, "batch length heads"],
    state: Float[Tensor, "batch heads dim value"],
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Chunk by chunk: all systems at once, then the states one after another."""
    length, heads = v.shape[1:3]
    if length == 0:
        return torch.zeros_like(v), state
    q, k = (x.repeat_interleave(heads // x.shape[2], dim=2) for x in (q, k))
    q, k, v, beta = (_split(x, chunk_size) for x in (q, k, v, beta[..., None]))
    total = _split(log_decay[..., None].double().clamp(min=_FORGET), chunk_size).cumsum(dim=3)
    seen = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=v.device).tril()
    decay = (total - total.mT).masked_fill(~seen, -torch.inf).exp().to(v.dtype)
    since, until = total.exp().to(v.dtype), (total[:, :, :, -1:] - total).exp().to(v.dtype)
    reads = torch.where(seen, decay * (q @ k.mT), 0)
    overlaps = torch.where(seen.tril(-1), decay * (k @ k.mT), 0)
    system = torch.eye(chunk_size, dtype=v.dtype, device=v.device) + beta * overlaps
    solved = torch.linalg.solve_triangular(
        system, torch.cat([beta * v, beta * since * k], dim=-1), upper=False, unitriangular=True
    )
    fresh, found = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    outputs = []
    for q_c, k_c, fresh_c, found_c, reads_c, all_c in zip(
        *(x.unbind(2) for x in (since * q, until * k, fresh, found, reads, since[:, :, :, -1:])), strict=True
    ):
        u = fresh_c - found_c @ state
        outputs.append(q_c @ state + _lower_product(reads_c, u))
        state = all_c * state + k_c.mT @ u
    y = torch.stack(outputs, dim=2).flatten(2, 3)[:, :, :length]
    return y.transpose(1, 2), state


def _split(x: Tensor, chunk_size: int) -> Tensor:
    """(batch, length, heads, dim) to (batch, heads, chunks, chunk, dim), with zeros to fill the last chunk."""
    x = functional.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk_size))
    return x.reshape(x.shape[0], x.shape[1] // chunk_size, chunk_size, *x.shape[2:]).movedim(3, 1)


def _lower_product(lower: Tensor, x: Tensor) -> Tensor:
    """A lower triangular matrix times x, where what is not finite reaches the rows from its own on and none before."""
    spoilt = (x.detach() * 0).cumsum(dim=-2)
    return lower @ x.nan_to_num(0.0, 0.0, 0.0) + spoilt


def _run(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, keep: bool
) -> tuple[Tensor, ...]:
    inputs = [x.contiguous() for x in (q, k, v, log_decay, beta, state)]
    y, last = torch.empty(v.shape, dtype=v.dtype), torch.empty(state.shape)
    kept = torch.empty(_kept_shape(v, state) if keep else (0,))
    kernel.kernels().gated_delta_rule(
        *_sizes(q, v),
        *map(kernel.address, (*inputs, y, last)),
        kernel.address(kept) if keep else 0,
        kernel.threads(),
    )
    return y, last, kept


_native = torch.library.custom_op(
    "linocut::gated_delta_rule",
    _run,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, Tensor state, bool keep)"
    " -> (Tensor, Tensor, Tensor)",
)


def _sizes(q: Tensor, v: Tensor) -> tuple[int, ...]:
    """What the kernels ask first: sizes of the tensors, tokens between kept states, whether numbers are bfloat16."""
    return *q.shape, *v.shape[2:], _SEGMENT, q.dtype == torch.bfloat16


def _kept_shape(v: Tensor, state: Tensor) -> tuple[int | torch.SymInt, ...]:
    return v.shape[0], (v.shape[1] + _SEGMENT - 1) // _SEGMENT, *state.shape[1:]


@_native.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return v.new_empty(v.shape), state.new_empty(state.shape), state.new_empty(_kept_shape(v, state) if keep else (0,))


@torch.library.custom_op(
    "linocut::gated_delta_rule_grad",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor beta, Tensor kept, Tensor? grad_y,"
    " Tensor? grad_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, ...]:
    inputs = [x.contiguous() for x in (q, k, v, log_decay, beta)]
    grad_y, grad_last = (x if x is None else x.contiguous() for x in (grad_y, grad_last))
    state = kept.new_empty(kept.shape[0], *kept.shape[2:])
    grads = *(torch.empty_like(x) for x in inputs), state
    kernel.kernels().gated_delta_rule_grad(
        *_sizes(q, v),
        *map(kernel.address, (*inputs, kept, grad_y, grad_last, *grads)),
        kernel.threads(),
    )
    return grads


@_native_grad.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, ...]:
    state = kept.new_empty(kept.shape[0], *kept.shape[2:])
    return *(x.new_empty(x.shape) for x in (q, k, v, log_decay, beta)), state


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, grad_kept: Tensor | None
) -> tuple[Tensor | None, ...]:
    return *_native_grad(*ctx.saved_tensors, grad_y, grad_last), None


_native.register_autograd(_backward, setup_context=_setup)


@floats
def gated_delta_rule(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads"] | None,
    beta: Float[Tensor, "batch length heads"],
    *,
    state: Float[Tensor, "batch heads dim value"] | None = None,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Run S_t = a_t (I - beta_t k_t k_tᵀ) S_{t-1} + beta_t k_t v_tᵀ and read y_t = S_tᵀ q_t.

    Nothing is normalised or scaled here.

    Args:
        q: queries; neighbouring heads share those of a group.
        k: keys, of length 1 as a rule.
        v: values.
        log_decay: log a_t, <= 0, -inf to forget everything; None for no decay.
        beta: share of the old value that is replaced, in [0, 1] as a rule.
        state: S before the first token, float32 (float64 for float64 inputs); None for zeros.
        chunk_size: tokens that the PyTorch form works on together, >= 1; the kernel has its own.

    Returns:
        Outputs in the dtype of ``v``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together or ``chunk_size`` is below 1.

    Example:
        >>> q = k = torch.ones(1, 2, 1, 1)
        >>> v = torch.tensor([4.0, 8.0]).view(1, 2, 1, 1)
        >>> y, last = gated_delta_rule(q, k, v, None, torch.full((1, 2, 1), 0.5))
        >>> y.flatten().tolist(), last.item()
        ([2.0, 5.0], 5.0)
    """
    _check(q, k, v, log_decay, beta, chunk_size)
    wide = torch.promote_types(v.dtype, torch.float32)
    shape = (v.shape[0], v.shape[2], q.shape[3], v.shape[3])
    if state is None:
        state = v.new_zeros(shape, dtype=wide)
    elif state.shape != shape:
        raise ValueError(f"gated_delta_rule: state must be {shape}, got {tuple(state.shape)}")
    beta = beta.to(wide)
    log_decay = torch.zeros_like(beta) if log_decay is None else log_decay.to(wide)
    if kernel.usable(q, k, v, log_decay, beta, state) and q.dtype == k.dtype == v.dtype and state.dtype == wide:
        inputs = (q, k, v, log_decay, beta, state)
        if kernel.direct(*inputs):
            y, last, _ = _run(*inputs, keep=False)
            return y, last
        y, last, _ = _native(*inputs, torch.is_grad_enabled() and any(x.requires_grad for x in inputs))
        return y, last
    wide = torch.promote_types(wide, state.dtype)
    q, k, narrow, log_decay, beta, state = (x.to(wide) for x in (q, k, v, log_decay, beta, state))
    y, last = chunked(q, k, narrow, log_decay, beta, state, chunk_size)
    return y.to(v.dtype), last


def _check(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, beta: Tensor, chunk_size: int) -> None:
    shapes = f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
    if q.dim() != 4 or v.dim() != 4 or q.shape != k.shape or q.shape[:2] != v.shape[:2]:
        asked = "q and k must be (batch, length, groups, dim) and v (batch, length, heads, value)"
        raise ValueError(f"gated_delta_rule: {asked}, got {shapes}")
    if q.shape[2] < 1 or v.shape[2] % q.shape[2]:
        raise ValueError(f"gated_delta_rule: groups of q and k must divide the heads of v, got {shapes}")
    for name, x in (("log_decay", log_decay), ("beta", beta)):
        if x is not None and x.shape != v.shape[:3]:
            raise ValueError(f"gated_delta_rule: {name} must be {tuple(v.shape[:3])}, got {tuple(x.shape)}")
    if chunk_size < 1:
        raise ValueError(f"gated_delta_rule: chunk_size must be >= 1, got {chunk_size}")
