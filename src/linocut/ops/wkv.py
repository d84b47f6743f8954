r"""RWKV-4's WKV: an average of the values so far with weights e^{k} that fade with distance, channel by channel.

.. math::
    y_t = \frac{A_{t-1} + e^{u + k_t} v_t}{B_{t-1} + e^{u + k_t}}, \qquad
    A_t = e^{-w} A_{t-1} + e^{k_t} v_t, \qquad B_t = e^{-w} B_{t-1} + e^{k_t}

Peng et al., *RWKV: Reinventing RNNs for the Transformer Era*, 2023, https://arxiv.org/abs/2305.13048, equation 16 and,
for the stable form, appendix D: A = num · e^max and B = den · e^max, where max is the largest exponent so far, so that
no exponential is of a positive number. The own token's weight has a bonus u, and does not fade.

============= =========================================== ==========================
symbol        meaning                                     shape
============= =========================================== ==========================
``k``         keys: logarithms of weights                 (batch, length, channels)
``v``         values                                      (batch, length, channels)
``w``         decay a token, >= 0                         (channels)
``u``         bonus of the own token                      (channels)
state         num, den and max, before the first token    (batch, channels) each
============= =========================================== ==========================

Cost: O(length · channels) time, two exponentials a token and channel. For the gradient the kernel keeps the state
before every 64th token and works out the rest again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel, quarantine
from linocut.ops.arguments import floats

_EMPTY = -1e38  # an exponent below all others, whose sums and differences are still finite
_CHUNK = 16
_KEPT = 64  # kWkvChunk in csrc/kernels/wkv.hpp


class State(NamedTuple):
    """The weighted sums of what was read, A = num · e^max and B = den · e^max.

    Attributes:
        num: the weighted sum of the values, (batch, channels).
        den: the sum of the weights, (batch, channels).
        max: the exponent that both are scaled by, (batch, channels); -1e38 if nothing was read.
    """

    num: Tensor
    den: Tensor
    max: Tensor

    def then(self, piece: State, decay: Tensor) -> State:
        """The state after a piece, whose own sums started from nothing and let the sums so far fade by e^-decay."""
        faded = self.max - decay
        top = torch.maximum(faded, piece.max)
        mine, its = torch.exp(faded - top), torch.exp(piece.max - top)
        return State(mine * self.num + its * piece.num, mine * self.den + its * piece.den, top)


def empty_state(like: Float[Tensor, "batch length channels"]) -> State:
    """The state before the first token: float32, or float64 for a float64 tensor."""
    zero = like.new_zeros(like.shape[0], like.shape[2], dtype=torch.promote_types(like.dtype, torch.float32))
    return State(zero, torch.zeros_like(zero), torch.full_like(zero, _EMPTY))


def recurrent_reference(
    k: Float[Tensor, "batch length channels"],
    v: Float[Tensor, "batch length channels"],
    w: Float[Tensor, " channels"],
    u: Float[Tensor, " channels"],
    state: State,
) -> tuple[Float[Tensor, "batch length channels"], State]:
    """The definition as a loop: the oracle of the tests."""
    outputs = []
    for key, value in zip(k.unbind(1), v.unbind(1), strict=True):
        num, den, top = state
        largest = torch.maximum(top, u + key)
        past, own = torch.exp(top - largest), torch.exp(u + key - largest)
        outputs.append((past * num + own * value) / (past * den + own))
        state = state.then(State(value, torch.ones_like(value), key), w)
    return (torch.stack(outputs, dim=1) if outputs else k * v), state


def chunked(
    k: Float[Tensor, "batch length channels"],
    v: Float[Tensor, "batch length channels"],
    w: Float[Tensor, " channels"],
    u: Float[Tensor, " channels"],
    state: State,
) -> tuple[Float[Tensor, "batch length channels"], State]:
    """Sixteen tokens at a time: all exponents of a chunk at once, the state from one chunk to the next."""
    if k.shape[1] == 0:
        return k * v, state
    (k, v), met = quarantine.isolate((k, v))
    outputs = []
    for key, value in zip(torch.split(k, _CHUNK, dim=1), torch.split(v, _CHUNK, dim=1), strict=True):
        length = key.shape[1]
        at = torch.arange(length, device=k.device)
        distance = (at[:, None] - at - 1).to(k.dtype)
        # (batch, from, to, channels): what a token of the chunk weighs in the output of another
        exponent = torch.where(
            (distance == -1)[..., None], (key + u)[:, None], key[:, None] - distance[..., None] * w
        ).masked_fill((distance < -1)[..., None], -torch.inf)
        old = state.max[:, None] - at[:, None] * w
        largest = torch.maximum(old, exponent.amax(2)).detach()
        weight, past = torch.exp(exponent - largest[:, :, None]), torch.exp(old - largest)
        den = weight.sum(2) + past * state.den[:, None]
        outputs.append(((weight * value[:, None]).sum(2) + past * state.num[:, None]) / den)
        faded = key - (length - 1 - at)[:, None] * w
        top = faded.amax(1)
        weight = torch.exp(faded - top[:, None])
        state = state.then(State((weight * value).sum(1), weight.sum(1), top), length * w)
    y, num = quarantine.release(torch.cat(outputs, dim=1), state.num, met)
    return y, state._replace(num=num)


@torch.library.custom_op(
    "linocut::wkv",
    mutates_args=(),
    schema="(Tensor k, Tensor v, Tensor w, Tensor u, Tensor num, Tensor den, Tensor top)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, num: Tensor, den: Tensor, top: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    k, v, w, u, num, den, top = (each.contiguous() for each in (k, v, w, u, num, den, top))
    y, last = torch.empty_like(v), (torch.empty_like(num), torch.empty_like(num), torch.empty_like(num))
    kept = _kept(k, num)
    kernel.kernels().wkv(
        *k.shape,
        k.dtype == torch.bfloat16,
        *map(kernel.address, (k, v, w, u, num, den, top, y, *last, kept)),
        kernel.threads(),
    )
    return y, *last, kept


def _kept(k: Tensor, num: Tensor) -> Tensor:
    """Room for the states the forward pass keeps."""
    return num.new_empty(k.shape[0], max(k.shape[1] - 1, 0) // _KEPT, 3, k.shape[2])


@_native.register_fake
def _(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, num: Tensor, den: Tensor, top: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    last = torch.empty_like(num, memory_format=torch.contiguous_format)
    y = torch.empty_like(v, memory_format=torch.contiguous_format)
    return y, last, torch.empty_like(last), torch.empty_like(last), _kept(k, num)


@torch.library.custom_op(
    "linocut::wkv_grad",
    mutates_args=(),
    schema="(Tensor k, Tensor v, Tensor w, Tensor u, Tensor num, Tensor den, Tensor top, Tensor last_num,"
    " Tensor last_den, Tensor kept, Tensor grad_y, Tensor grad_num, Tensor grad_den, Tensor grad_top)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(k: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    k, v, *others = (each.contiguous() for each in (k, v, *others))  # type: ignore[assignment]
    state = others[2]
    # of k, v, w, u and the state; those of w and u by sequence, to be summed
    grads = [torch.empty_like(k), torch.empty_like(v), *(torch.empty_like(state) for _ in range(5))]
    kernel.kernels().wkv_grad(
        *k.shape, k.dtype == torch.bfloat16, *map(kernel.address, (k, v, *others, *grads)), kernel.threads()
    )
    return grads[0], grads[1], grads[2].sum(0), grads[3].sum(0), *grads[4:]


@_native_grad.register_fake
def _(k: Tensor, v: Tensor, w: Tensor, u: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k, v, w, u, *others[:3]))


def _setup(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, num, den, _, kept = output
    ctx.save_for_backward(*inputs, num, den, kept)


def _backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _native_grad(*ctx.saved_tensors, *grads[:4])  # type: ignore[attr-defined]
    return found


_native.register_autograd(_backward, setup_context=_setup)


@floats
def wkv(
    k: Float[Tensor, "batch length channels"],
    v: Float[Tensor, "batch length channels"],
    w: Float[Tensor, " channels"],
    u: Float[Tensor, " channels"],
    *,
    state: State | None = None,
) -> tuple[Float[Tensor, "batch length channels"], State]:
    """Average the values so far, channel by channel, with weights e^k that fade by e^-w a token.

    Args:
        k: keys, the logarithms of the weights.
        v: values, in the dtype of ``k``.
        w: decay a token, >= 0.
        u: what is added to a token's key in its own output.
        state: the sums over what came before, float32 (float64 for float64 inputs); None if nothing did.

    Returns:
        The averages, in the dtype of ``v``, and the sums after the last token in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> v = torch.tensor([[[1.0], [3.0]]])
        >>> y, state = wkv(torch.zeros(1, 2, 1), v, torch.zeros(1), torch.zeros(1))
        >>> y.flatten().tolist(), state.den.item()
        ([1.0, 2.0], 2.0)
    """
    if k.dim() != 3 or k.shape != v.shape:
        raise ValueError(
            f"wkv: k and v must both be (batch, length, channels), got {tuple(k.shape)} and {tuple(v.shape)}"
        )
    for name, each in (("w", w), ("u", u)):
        if each.shape != k.shape[2:]:
            raise ValueError(f"wkv: {name} must be {tuple(k.shape[2:])}, got {tuple(each.shape)}")
    state = empty_state(k) if state is None else State(*state)
    for name, each in zip(State._fields, state, strict=True):
        if each.shape != (k.shape[0], k.shape[2]):
            raise ValueError(f"wkv: state.{name} must be {(k.shape[0], k.shape[2])}, got {tuple(each.shape)}")
    if kernel.usable(k, v, w, u) and k.dtype == v.dtype and all(each.dtype == torch.float32 for each in state):
        y, num, den, top, _ = _native(k, v, w.float(), u.float(), *state)
        return y, State(num, den, top)
    wide = torch.promote_types(torch.promote_types(k.dtype, v.dtype), state.num.dtype)
    y, last = chunked(k.to(wide), v.to(wide), w.to(wide), u.to(wide), State(*(each.to(wide) for each in state)))
    return y.to(v.dtype), last
