r"""The gated linear recurrence, channel by channel, with a gate for every token.

.. math::
    h_t = a_t \odot h_{t-1} + b_t

It is the heart of RG-LRU (De et al., *Griffin*, 2024, https://arxiv.org/abs/2402.19427, equation 4). A piece of the
sequence is the affine map h ↦ (∏ a) h + h_piece, and maps compose.

============= ===================================== ==========================
symbol        meaning                               shape
============= ===================================== ==========================
``a``         gates, usually in (0, 1]              (batch, length, channels)
``b``         inputs                                (batch, length, channels)
``h``         states, also the outputs              (batch, length, channels)
============= ===================================== ==========================

Cost: O(length · channels) time; the gradient is worked out from ``h`` and needs no further memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel
from linocut.ops.arguments import floats


def recurrent_reference(
    a: Float[Tensor, "batch length channels"],
    b: Float[Tensor, "batch length channels"],
    state: Float[Tensor, "batch channels"],
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels"]]:
    """The definition as a loop: the oracle of the tests."""
    outputs = []
    for t in range(a.shape[1]):
        state = a[:, t] * state + b[:, t]
        outputs.append(state)
    return (torch.stack(outputs, dim=1) if outputs else a * b), state


def doubling(
    a: Float[Tensor, "batch length channels"],
    b: Float[Tensor, "batch length channels"],
    state: Float[Tensor, "batch channels"],
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels"]]:
    """All prefixes by composing maps of 1, 2, 4, … tokens (Hillis and Steele, 1986): log₂(length) tensor operations."""
    if a.shape[1] == 0:
        return a * b, state
    b = torch.cat([b[:, :1] + a[:, :1] * state[:, None], b[:, 1:]], dim=1)
    reach = 1
    while reach < a.shape[1]:
        b = torch.cat([b[:, :reach], b[:, reach:] + a[:, reach:] * b[:, :-reach]], dim=1)
        a = torch.cat([a[:, :reach], a[:, reach:] * a[:, :-reach]], dim=1)
        reach *= 2
    return b, b[:, -1]


@torch.library.custom_op(
    "linocut::linear_recurrence", mutates_args=(), schema="(Tensor a, Tensor b, Tensor state) -> (Tensor, Tensor)"
)
def _native(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    a, b, state = a.contiguous(), b.contiguous(), state.contiguous()
    h, last = torch.empty_like(b), torch.empty_like(state)
    kernel.kernels().linear_recurrence(
        *b.shape, b.dtype == torch.bfloat16, *map(kernel.address, (a, b, state, h, last)), kernel.threads()
    )
    return h, last


@_native.register_fake
def _(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(b, memory_format=torch.contiguous_format), torch.empty_like(state).contiguous()


@torch.library.custom_op(
    "linocut::linear_recurrence_grad",
    mutates_args=(),
    schema="(Tensor a, Tensor state, Tensor h, Tensor grad_h, Tensor grad_last) -> (Tensor, Tensor, Tensor)",
)
def _native_grad(
    a: Tensor, state: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    a, state, h, grad_h, grad_last = (each.contiguous() for each in (a, state, h, grad_h, grad_last))
    grads = torch.empty_like(a), torch.empty_like(a), torch.empty_like(state)
    kernel.kernels().linear_recurrence_grad(
        *a.shape,
        a.dtype == torch.bfloat16,
        *map(kernel.address, (a, state, h, grad_h, grad_last, *grads)),
        kernel.threads(),
    )
    return grads


@_native_grad.register_fake
def _(a: Tensor, state: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad = torch.empty_like(a, memory_format=torch.contiguous_format)
    return grad, torch.empty_like(grad), torch.empty_like(state).contiguous()


def _setup(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    a, _, state = inputs
    ctx.save_for_backward(a, state, output[0])


def _backward(ctx: torch.autograd.function.FunctionCtx, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
    a, state, h = ctx.saved_tensors  # type: ignore[attr-defined]  # not in torch's own types
    grads: tuple[Tensor, ...] = _native_grad(a, state, h, grad_h, grad_last)
    return grads


_native.register_autograd(_backward, setup_context=_setup)


@floats
def linear_recurrence(
    a: Float[Tensor, "batch length channels"],
    b: Float[Tensor, "batch length channels"],
    *,
    state: Float[Tensor, "batch channels"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels"]]:
    """Run h_t = a_t h_{t-1} + b_t over a sequence.

    Args:
        a: gates.
        b: inputs, in the dtype of ``a``.
        state: h before the first token, float32 (float64 for float64 inputs); None for zeros.

    Returns:
        All states, in the dtype of ``b``, and the last one in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
        >>> h, last = linear_recurrence(a, b)
        >>> h.flatten().tolist(), last.item()
        ([1.0, 1.5, 1.75], 1.75)
    """
    if a.dim() != 3 or a.shape != b.shape:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"linear_recurrence: a and b must both be (batch, length, channels), got {shapes}")
    if state is None:
        state = b.new_zeros(b.shape[0], b.shape[2], dtype=torch.promote_types(b.dtype, torch.float32))
    elif state.shape != (b.shape[0], b.shape[2]):
        raise ValueError(f"linear_recurrence: state must be {(b.shape[0], b.shape[2])}, got {tuple(state.shape)}")
    if kernel.usable(a, b, state) and a.dtype == b.dtype and state.dtype == torch.float32:
        h, last = _native(a, b, state)
        return h, last
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), state.dtype)
    h, last = doubling(a.to(wide), b.to(wide), state.to(wide))
    return h.to(b.dtype), last
