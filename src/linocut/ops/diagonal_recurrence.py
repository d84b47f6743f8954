r"""Recurrences with a diagonal complex transition that does not depend on the token: the cores of S4D and of LRU.

.. math::
    h_t = \lambda h_{t-1} + u_t, \qquad y_t = 2\,\mathrm{Re} \sum_N c\,h_t + D u_t

:func:`diagonal_ssm` is S4D's (Gu et al., *On the Parameterization and Initialization of Diagonal State Space Models*,
2022, https://arxiv.org/abs/2206.11893, section 3): every channel has N states of its own, one of each conjugate pair,
whence the 2 Re. Its published form evaluates the kernel, 2 Re Σ c λˡ for every lag, and convolves by FFT.
:func:`complex_recurrence` is LRU's (Orvieto et al., *Resurrecting Recurrent Neural Networks for Long Sequences*, 2023,
https://arxiv.org/abs/2303.06349, equation 3): one state a channel, complex inputs, and the states are the output.

============= ================================================== =========================
symbol        meaning                                            shape
============= ================================================== =========================
``u``         inputs                                             (batch, length, channels)
``lam``       λ, the discretised transition, usually \|λ\| <= 1  (channels, states)
``c``         read-out times input weight, discretised           (channels, states)
``D``         skip weight                                        (channels,)
``h``         states                                             (batch, channels, states)
============= ================================================== =========================

Cost: O(length · channels · states) time. A gradient keeps the states before every 128 tokens and recomputes the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from linocut.ops import kernel, quarantine
from linocut.ops.arguments import floats

_CHUNK = 128  # tokens between the states that the kernel keeps, as in csrc/kernels/diagonal_recurrence.hpp


def recurrent_reference(
    u: Float[Tensor, "batch length channels"],
    lam: Complex[Tensor, "channels states"],
    c: Complex[Tensor, "channels states"],
    D: Float[Tensor, " channels"],  # noqa: N803  # the papers' letter
    state: Complex[Tensor, "batch channels states"],
) -> tuple[Float[Tensor, "batch length channels"], Complex[Tensor, "batch channels states"]]:
    """S4D's definition as a loop: the oracle of the tests."""
    outputs = []
    for t in range(u.shape[1]):
        state = lam * state + u[:, t, :, None]
        outputs.append(2 * (c * state).real.sum(-1) + D * u[:, t])
    return (torch.stack(outputs, dim=1) if outputs else u * D), state


def complex_reference(
    lam: Complex[Tensor, " channels"],
    b: Complex[Tensor, "batch length channels"],
    state: Complex[Tensor, "batch channels"],
) -> tuple[Complex[Tensor, "batch length channels"], Complex[Tensor, "batch channels"]]:
    """LRU's definition as a loop: the oracle of the tests."""
    outputs = []
    for t in range(b.shape[1]):
        state = lam * state + b[:, t]
        outputs.append(state)
    return (torch.stack(outputs, dim=1) if outputs else b * lam), state


def powers(lam: Tensor, count: int) -> Tensor:
    """λ⁰, λ¹, … λᶜᵒᵘⁿᵗ⁻¹ along a new first dimension, by doubling; right at λ = 0 too, and differentiable there."""
    result, step = torch.ones_like(lam)[None], lam
    while result.shape[0] < count:
        result = torch.cat([result, result * step])
        step = step * step
    return result[:count]


def _toeplitz(kernel: Tensor) -> Tensor:
    """From (lags, …) to (lags, lags, …): entry (i, j) is lag i - j, zero above the diagonal."""
    lags = torch.arange(kernel.shape[0], device=kernel.device)
    lag = lags[:, None] - lags
    mask = (lag >= 0).reshape(*lag.shape, *[1] * (kernel.dim() - 1))
    return torch.where(mask, kernel[lag.clamp(min=0)], 0)


def _through(decay: Tensor, shifts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The states before each chunk, chunks second, and the one after the last."""
    before = []
    for shift in shifts.unbind(1):
        before.append(state)
        state = decay * state + shift
    return torch.stack(before, dim=1), state


def _ssm_chunks(u: Tensor, lam: Tensor, c: Tensor, state: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chunks of `size` tokens, which divides the length: inside by a Toeplitz matrix, between them by the state."""
    pieces = u.reshape(u.shape[0], u.shape[1] // size, size, u.shape[2])
    gates = powers(lam, size + 1)
    shifts = torch.einsum("bcjd,jdn->bcdn", pieces.to(lam.dtype), gates[:size].flip(0))
    before, last = _through(gates[size], shifts, state)
    response = 2 * (c * gates[:size]).real.sum(-1)
    y = torch.einsum("bcjd,ijd->bcid", pieces, _toeplitz(response))
    y = y + 2 * torch.einsum("bcdn,idn->bcid", before, c * gates[1:]).real
    return y.flatten(1, 2), last


def _complex_chunks(lam: Tensor, b: Tensor, state: Tensor, size: int) -> tuple[Tensor, Tensor]:
    pieces = b.reshape(b.shape[0], b.shape[1] // size, size, b.shape[2])
    gates = powers(lam, size + 1)
    inside = torch.einsum("bcjd,ijd->bcid", pieces, _toeplitz(gates[:size]))
    before, last = _through(gates[size], inside[:, :, -1], state)
    return (inside + gates[1:] * before[:, :, None]).flatten(1, 2), last


def chunked(
    u: Float[Tensor, "batch length channels"],
    lam: Complex[Tensor, "channels states"],
    c: Complex[Tensor, "channels states"],
    D: Float[Tensor, " channels"],  # noqa: N803  # the papers' letter
    state: Complex[Tensor, "batch channels states"],
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length channels"], Complex[Tensor, "batch channels states"]]:
    """S4D in chunks with PyTorch: a convolution inside a chunk, the recurrence between chunks."""
    if u.shape[1] == 0:
        return u * D, state
    (u,), met = quarantine.isolate((u,))
    outputs, whole = [], u.shape[1] // chunk_size * chunk_size
    for piece in (u[:, :whole], u[:, whole:]):
        if piece.shape[1]:
            y, state = _ssm_chunks(piece, lam, c, state, min(chunk_size, piece.shape[1]))
            outputs.append(y + D * piece)
    return quarantine.release(torch.cat(outputs, dim=1), state, met)


def complex_chunked(
    lam: Complex[Tensor, " channels"],
    b: Complex[Tensor, "batch length channels"],
    state: Complex[Tensor, "batch channels"],
    chunk_size: int = 32,
) -> tuple[Complex[Tensor, "batch length channels"], Complex[Tensor, "batch channels"]]:
    """LRU's recurrence in chunks with PyTorch."""
    if b.shape[1] == 0:
        return b * lam, state
    (b,), met = quarantine.isolate((b,))
    outputs, whole = [], b.shape[1] // chunk_size * chunk_size
    for piece in (b[:, :whole], b[:, whole:]):
        if piece.shape[1]:
            h, state = _complex_chunks(lam, piece, state, min(chunk_size, piece.shape[1]))
            outputs.append(h)
    return quarantine.release(torch.cat(outputs, dim=1), state, met)


def _plain(tensor: Tensor) -> Tensor:
    """Contiguous, and conjugated in memory rather than by a mark."""
    return tensor.resolve_conj().resolve_neg().contiguous()


@torch.library.custom_op(
    "linocut::diagonal_ssm",
    mutates_args=(),
    schema="(Tensor u, Tensor lam, Tensor c, Tensor? skip, Tensor state, bool keep) -> (Tensor, Tensor, Tensor)",
)
def _native(
    u: Tensor, lam: Tensor, c: Tensor, skip: Tensor | None, state: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    u, lam, c, state = _plain(u), _plain(lam), _plain(c), _plain(state)
    skip = None if skip is None else _plain(skip)
    y, last, kept = torch.empty_like(u), torch.empty_like(state), u.new_empty(_kept(u, lam, keep), dtype=torch.float32)
    kernel.kernels().diagonal_ssm(
        *u.shape,
        lam.shape[1],
        u.dtype == torch.bfloat16,
        *map(kernel.address, (u, lam, c, skip, state, y, last, kept if keep else None)),
        kernel.threads(),
    )
    return y, last, kept


def _kept(u: Tensor, lam: Tensor, keep: bool) -> tuple[Any, ...]:
    """The shape, perhaps symbolic, of the states before each chunk: all real parts, then all imaginary ones."""
    return (u.shape[0], (u.shape[1] + _CHUNK - 1) // _CHUNK, 2 * lam.shape[1], lam.shape[0]) if keep else (0,)


@_native.register_fake
def _(
    u: Tensor, lam: Tensor, c: Tensor, skip: Tensor | None, state: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    y, last = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, state))
    return y, last, u.new_empty(_kept(u, lam, keep), dtype=torch.float32)


@torch.library.custom_op(
    "linocut::diagonal_ssm_grad",
    mutates_args=(),
    schema="(Tensor u, Tensor lam, Tensor c, Tensor? skip, Tensor kept, Tensor grad_y, Tensor grad_last)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(
    u: Tensor, lam: Tensor, c: Tensor, skip: Tensor | None, kept: Tensor, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    u, lam, c, grad_y, grad_last = map(_plain, (u, lam, c, grad_y, grad_last))
    skip = None if skip is None else _plain(skip)
    grad_u, grad_state = torch.empty_like(u), torch.empty_like(grad_last)
    grad_lam, grad_c = torch.empty_like(grad_last), torch.empty_like(grad_last)
    grad_skip = None if skip is None else grad_last.real.new_empty(u.shape[0], u.shape[2])
    kernel.kernels().diagonal_ssm_grad(
        *u.shape,
        lam.shape[1],
        u.dtype == torch.bfloat16,
        *map(kernel.address, (u, lam, c, skip, kept, grad_y, grad_last)),
        *map(kernel.address, (grad_u, grad_lam, grad_c, grad_skip, grad_state)),
        kernel.threads(),
    )
    summed = lam.real.new_zeros(0) if grad_skip is None else grad_skip.sum(0)
    return grad_u, grad_lam.sum(0), grad_c.sum(0), summed, grad_state


@_native_grad.register_fake
def _(
    u: Tensor, lam: Tensor, c: Tensor, skip: Tensor | None, kept: Tensor, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    plain = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, lam, c, grad_last)]
    return *plain[:3], lam.real.new_empty(0 if skip is None else u.shape[2]), plain[3]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    u, lam, c, skip, _, keep = inputs
    if not keep:
        raise RuntimeError("linocut::diagonal_ssm must be called with keep=True for a gradient")
    ctx.mark_non_differentiable(output[2])
    ctx.save_for_backward(u, lam, c, skip, output[2])


def _backward(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    grads: tuple[Tensor, ...] = _native_grad(*ctx.saved_tensors, grad_y, grad_last)
    grad_u, grad_lam, grad_c, grad_skip, grad_state = grads
    return grad_u, grad_lam, grad_c, None if ctx.saved_tensors[3] is None else grad_skip, grad_state, None


_native.register_autograd(_backward, setup_context=_setup)


@floats
def diagonal_ssm(
    u: Float[Tensor, "batch length channels"],
    lam: Complex[Tensor, "channels states"],
    c: Complex[Tensor, "channels states"],
    *,
    D: Float[Tensor, " channels"] | None = None,  # noqa: N803  # the papers' letter
    state: Complex[Tensor, "batch channels states"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Complex[Tensor, "batch channels states"]]:
    """Run S4D's recurrence: h_t = λ h_{t-1} + u_t, y_t = 2 Re Σ c h_t + D u_t.

    Args:
        u: inputs.
        lam: discretised transition, one of each conjugate pair.
        c: read-out times input weight, discretised.
        D: skip weight; None for none.
        state: h before the first token, complex64 (complex128 for float64 inputs); None for zeros.

    Returns:
        Outputs, in the dtype of ``u``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> u, lam, c = torch.ones(1, 3, 1), torch.tensor([[0.5j]]), torch.tensor([[1.0 + 0j]])
        >>> y, last = diagonal_ssm(u, lam, c)
        >>> y.flatten().tolist(), last.item()
        ([2.0, 2.0, 1.5], (0.75+0.5j))
    """
    if u.dim() != 3 or lam.dim() != 2 or lam.shape[0] != u.shape[2] or c.shape != lam.shape:
        shapes = f"{tuple(u.shape)}, {tuple(lam.shape)} and {tuple(c.shape)}"
        raise ValueError(
            f"diagonal_ssm: u must be (batch, length, channels), lam and c both (channels, states), got {shapes}"
        )
    if D is not None and D.shape != u.shape[2:]:
        raise ValueError(f"diagonal_ssm: D must be {tuple(u.shape[2:])}, got {tuple(D.shape)}")
    if state is None:
        state = lam.new_zeros(u.shape[0], *lam.shape)
    elif state.shape != (u.shape[0], *lam.shape):
        raise ValueError(f"diagonal_ssm: state must be {(u.shape[0], *lam.shape)}, got {tuple(state.shape)}")
    if kernel.usable(u, D) and lam.dtype == c.dtype == state.dtype == torch.complex64:
        if D is not None and D.dtype != torch.float32:
            D = D.float()  # noqa: N806  # the papers' letter
        keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (u, lam, c, D, state))
        y, last, _ = _native(u, lam, c, D, state, keep)
        return y, last
    wide = torch.promote_types(torch.promote_types(u.dtype, lam.dtype), torch.promote_types(c.dtype, state.dtype))
    real = torch.float64 if wide == torch.complex128 else torch.float32
    skip = u.new_zeros(u.shape[2]) if D is None else D
    y, last = chunked(u.to(real), lam.to(wide), c.to(wide), skip.to(real), state.to(wide))
    return y.to(u.dtype), last


@torch.library.custom_op(
    "linocut::complex_recurrence", mutates_args=(), schema="(Tensor lam, Tensor b, Tensor state) -> (Tensor, Tensor)"
)
def _complex(lam: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    lam, b, state = map(_plain, (lam, b, state))
    h, last = torch.empty_like(b), torch.empty_like(state)
    kernel.kernels().complex_recurrence(*b.shape, *map(kernel.address, (lam, b, state, h, last)), kernel.threads())
    return h, last


@_complex.register_fake
def _(lam: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h, last = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (b, state))
    return h, last


@torch.library.custom_op(
    "linocut::complex_recurrence_grad",
    mutates_args=(),
    schema="(Tensor lam, Tensor state, Tensor h, Tensor grad_h, Tensor grad_last) -> (Tensor, Tensor, Tensor)",
)
def _complex_grad(
    lam: Tensor, state: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    lam, state, h, grad_h, grad_last = map(_plain, (lam, state, h, grad_h, grad_last))
    grad_lam, grad_b, grad_state = torch.empty_like(state), torch.empty_like(h), torch.empty_like(state)
    kernel.kernels().complex_recurrence_grad(
        *h.shape,
        *map(kernel.address, (lam, state, h, grad_h, grad_last, grad_lam, grad_b, grad_state)),
        kernel.threads(),
    )
    return grad_lam.sum(0), grad_b, grad_state


@_complex_grad.register_fake
def _(lam: Tensor, state: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b, s = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (lam, h, state))
    return a, b, s


def _complex_setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    lam, _, state = inputs
    ctx.save_for_backward(lam, state, output[0])


def _complex_backward(ctx: Any, grad_h: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
    grads: tuple[Tensor, ...] = _complex_grad(*ctx.saved_tensors, grad_h, grad_last)
    return grads


_complex.register_autograd(_complex_backward, setup_context=_complex_setup)


@floats
def complex_recurrence(
    lam: Complex[Tensor, " channels"],
    b: Complex[Tensor, "batch length channels"],
    *,
    state: Complex[Tensor, "batch channels"] | None = None,
) -> tuple[Complex[Tensor, "batch length channels"], Complex[Tensor, "batch channels"]]:
    """Run LRU's recurrence: h_t = λ h_{t-1} + b_t.

    Args:
        lam: transition.
        b: inputs, in the dtype of ``lam``.
        state: h before the first token; None for zeros.

    Returns:
        All states, and the last one.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> h, last = complex_recurrence(torch.tensor([0.5j]), torch.ones(1, 3, 1, dtype=torch.complex64))
        >>> h.flatten().tolist()
        [(1+0j), (1+0.5j), (0.75+0.5j)]
    """
    if b.dim() != 3 or lam.shape != b.shape[2:]:
        shapes = f"{tuple(lam.shape)} and {tuple(b.shape)}"
        raise ValueError(f"complex_recurrence: lam must be (channels,), b (batch, length, channels), got {shapes}")
    if state is None:
        state = b.new_zeros(b.shape[0], b.shape[2])
    elif state.shape != (b.shape[0], b.shape[2]):
        raise ValueError(f"complex_recurrence: state must be {(b.shape[0], b.shape[2])}, got {tuple(state.shape)}")
    if kernel.usable() and b.device.type == "cpu" and lam.dtype == b.dtype == state.dtype == torch.complex64:
        h, last = _complex(lam, b, state)
        return h, last
    wide = torch.promote_types(torch.promote_types(lam.dtype, b.dtype), state.dtype)
    h, last = complex_chunked(lam.to(wide), b.to(wide), state.to(wide))
    return h.to(b.dtype), last
