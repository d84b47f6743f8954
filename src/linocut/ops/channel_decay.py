r"""Linear attention whose state fades by a factor of its own for every key channel and token.

.. math::
    S_t = \operatorname{diag}(e^{g_t})\, S_{t-1} + k_t v_t^\top, \qquad y_t = S_t^\top q_t

and, with a bonus u for the own token, y_t = (S_{t-1} + diag(u) k_t v_tᵀ)ᵀ q_t. The first is gated linear attention
(Yang et al., 2023, https://arxiv.org/abs/2312.06635, equation 3), the second RWKV-6 (Peng et al., *Eagle and Finch*,
2024, https://arxiv.org/abs/2404.05892, section 4.2, whose w is e^g). A piece of the sequence is the map
S ↦ diag(e^{Σ g}) S + S_piece.

============= ===================================== ==============================
symbol        meaning                               shape
============= ===================================== ==============================
``q``, ``k``  queries and keys                      (batch, length, heads, dim)
``v``         values                                (batch, length, heads, value)
``g``         logarithms of decays, <= 0            (batch, length, heads, dim)
``u``         bonus                                 (heads, dim)
``S``         state                                 (batch, heads, dim, value)
============= ===================================== ==============================

Cost: O(length · heads · dim · value) time. No exponential is of a positive number, so decays may be as strong as they
like. The gradient needs no more than the inputs: states at the ends of chunks are worked out again.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel, quarantine
from linocut.ops.arguments import floats

_CHUNK = 16
_KEPT = 64  # kChannelDecayChunk in csrc/kernels/channel_decay.hpp


def recurrent_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    bonus: Float[Tensor, "heads dim"] | None,
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """The definition as a loop: the oracle of the tests."""
    outputs = []
    for query, key, value, decay in zip(*(x.unbind(1) for x in (q, k, v, log_decay.exp())), strict=True):
        own = key[..., None] * value[..., None, :]
        after = decay[..., None] * state + own
        read = after if bonus is None else state + bonus[..., None] * own
        outputs.append((query[..., None] * read).sum(-2))
        state = after
    return (torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v)), state


def chunked(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    bonus: Float[Tensor, "heads dim"] | None,
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Sixteen tokens at a time: all pairs of a chunk at once, the state from one chunk to the next."""
    length = q.shape[1]
    if length == 0:
        return torch.zeros_like(v), state
    (q, k, v, log_decay), met = quarantine.isolate((q, k, v, log_decay))
    room, chunks = (0, 0, 0, 0, 0, -length % _CHUNK), -(-length // _CHUNK)
    q, k, v, g = (
        torch.nn.functional.pad(x, room).reshape(x.shape[0], chunks, _CHUNK, *x.shape[2:]).transpose(2, 3)
        for x in (q, k, v, log_decay)
    )  # (batch, chunks, heads, tokens, channels)
    # from after one token up to and with another, each summed by itself: differences of sums would lose what is small
    after = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=q.device).tril(-1)[..., None]
    between = torch.where(after, g[..., None, :], 0).cumsum(-3)
    reach = g.cumsum(-2)
    gain = (k * between[..., -1, :, :].exp()).transpose(-1, -2) @ v
    fades = reach[..., -1, :].exp()
    if bonus is None:
        seen = after.transpose(0, 1).logical_not()
    else:  # a token reads the state before its own decay and gain
        seen, reach = after, reach - g
        between = torch.nn.functional.pad(between, (0, 0, 0, 0, 1, -1))
    weights = between.masked_fill(~seen, -torch.inf).exp()
    scores = (q[..., None, :] * k[..., None, :, :] * weights).sum(-1)
    if bonus is not None:
        scores = scores + torch.diag_embed((q * k * bonus[:, None]).sum(-1))
    states = []
    for fade, gained in zip(fades.unbind(1), gain.unbind(1), strict=True):
        states.append(state)
        state = fade[..., None] * state + gained
    y = scores @ v + (q * reach.exp()) @ torch.stack(states, dim=1)
    return quarantine.release(y.transpose(2, 3).flatten(1, 2)[:, :length], state, met)


@torch.library.custom_op(
    "linocut::channel_decay",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? bonus, Tensor state) -> (Tensor, Tensor)",
)
def _native(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    q, k, v, log_decay, state = (each.contiguous() for each in (q, k, v, log_decay, state))
    bonus = None if bonus is None else bonus.contiguous()
    y, last = torch.empty_like(v), torch.empty_like(state)
    kernel.kernels().channel_decay(
        *q.shape,
        v.shape[-1],
        q.dtype == torch.bfloat16,
        *map(kernel.address, (q, k, v, log_decay, bonus, state, y, last)),
        kernel.threads(),
    )
    return y, last


@_native.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(state).contiguous()


@torch.library.custom_op(
    "linocut::channel_decay_grad",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? bonus, Tensor state, Tensor grad_y,"
    " Tensor grad_last) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Tensor | None,
    state: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> tuple[Tensor, ...]:
    q, k, v, log_decay, state, grad_y, grad_last = (
        each.contiguous() for each in (q, k, v, log_decay, state, grad_y, grad_last)
    )
    bonus = None if bonus is None else bonus.contiguous()
    batch, length, heads, dim = q.shape
    grad_q, grad_k, grad_v, grad_decay, grad_state = (torch.empty_like(x) for x in (q, k, v, log_decay, state))
    grad_bonus = state.new_empty(0 if bonus is None else batch, heads, dim)
    kept = state.new_empty(batch, heads, max(length - 1, 0) // _KEPT, v.shape[-1], dim)
    kernel.kernels().channel_decay_grad(
        *q.shape,
        v.shape[-1],
        q.dtype == torch.bfloat16,
        *map(kernel.address, (q, k, v, log_decay, bonus, state, grad_y, grad_last)),
        *map(kernel.address, (grad_q, grad_k, grad_v, grad_decay, grad_bonus, grad_state, kept)),
        kernel.threads(),
    )
    return grad_q, grad_k, grad_v, grad_decay, grad_bonus.sum(0), grad_state


@_native_grad.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    bonus: Tensor | None,
    state: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> tuple[Tensor, ...]:
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, log_decay, state)]
    return *grads[:4], state.new_empty(q.shape[2:]), grads[4]


def _setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]
) -> None:
    ctx.save_for_backward(*inputs)  # type: ignore[arg-type]  # None is fine


def _backward(ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # type: ignore[attr-defined]  # not in torch's own types
    grads = list(_native_grad(*inputs, grad_y, grad_last))
    if inputs[4] is None:
        grads[4] = None
    return tuple(grads)


_native.register_autograd(_backward, setup_context=_setup)


@floats
def channel_decay_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    *,
    bonus: Float[Tensor, "heads dim"] | None = None,
    state: Float[Tensor, "batch heads dim value"] | None = None,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Causal linear attention, S_t = diag(e^g_t) S_{t-1} + k_t v_tᵀ and y_t = S_tᵀ q_t.

    Args:
        q: queries.
        k: keys, in the dtype of ``q``.
        v: values, in the dtype of ``q``.
        log_decay: g, the logarithm of every key channel's decay, finite and <= 0.
        bonus: u; with it y_t = (S_{t-1} + diag(u) k_t v_tᵀ)ᵀ q_t.
        state: S before the first token, float32 (float64 for float64 inputs); None for zeros.

    Returns:
        The outputs, in the dtype of ``v``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> one = torch.ones(1, 3, 1, 1)
        >>> y, state = channel_decay_attention(one, one, one, torch.full((1, 3, 1, 1), 0.5).log())
        >>> y.flatten().tolist(), state.item()
        ([1.0, 1.5, 1.75], 1.75)
    """
    _check(q, k, v, log_decay, bonus)
    expected = (q.shape[0], *q.shape[2:], v.shape[-1])
    if state is None:
        state = v.new_zeros(expected, dtype=torch.promote_types(v.dtype, torch.float32))
    elif state.shape != expected:
        raise ValueError(f"channel_decay_attention: state must be {expected}, got {tuple(state.shape)}")
    floats = [x for x in (log_decay, bonus) if x is not None]
    if kernel.usable(q, k, v, state, *floats) and q.dtype == k.dtype == v.dtype and state.dtype == torch.float32:
        y, last = _native(q, k, v, log_decay.float(), None if bonus is None else bonus.float(), state)
        return y, last
    wide = state.dtype
    for each in (q, k, v, *floats):
        wide = torch.promote_types(wide, each.dtype)
    q, k, log_decay = (each.to(wide) for each in (q, k, log_decay))
    y, last = chunked(q, k, v.to(wide), log_decay, None if bonus is None else bonus.to(wide), state.to(wide))
    return y.to(v.dtype), last


def _check(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor | None) -> None:
    name = "channel_decay_attention"
    if q.dim() != 4 or q.shape != k.shape or q.shape != log_decay.shape:
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(log_decay.shape)}"
        raise ValueError(f"{name}: q, k and log_decay must all be (batch, length, heads, dim), got {shapes}")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"{name}: v must be {(*q.shape[:3], 'value')}, got {tuple(v.shape)}")
    if bonus is not None and bonus.shape != q.shape[2:]:
        raise ValueError(f"{name}: bonus must be {tuple(q.shape[2:])}, got {tuple(bonus.shape)}")
