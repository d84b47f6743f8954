r"""The selective scan of Mamba (S6): a diagonal state space whose step size, input and output maps follow the token.

.. math::
    h_t = \exp(\Delta_t A) \odot h_{t-1} + \Delta_t B_t x_t, \qquad y_t = C_t^\top h_t + D x_t

for every channel on its own, with N states each (Gu and Dao, *Mamba*, 2023, https://arxiv.org/abs/2312.00752, equations
2a and 4, algorithm 2; B is discretised by Euler's rule, as in the paper's code). Fused with it are the softplus of Δ
after its bias, and the gate y ⊙ silu(z).

============== ===================================== ==========================
symbol         meaning                               shape
============== ===================================== ==========================
``x``          inputs                                (batch, length, channels)
``delta``      Δ, the step size                      (batch, length, channels)
``A``          rates, negative for a decay           (channels, states)
``B``          input maps, shared by all channels    (batch, length, states)
``C``          output maps, likewise                 (batch, length, states)
``D``          skip connection                       (channels,)
``z``          gate                                  (batch, length, channels)
``state``      h before the first token              (batch, channels, states)
============== ===================================== ==========================

Cost: O(length · channels · states) time, most of it exponentials. Training keeps the states before every 16th token,
and works the others out again.
"""

# ruff: noqa: N803, N806  # A, B, C and D are the paper's letters
from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel
from linocut.ops.arguments import floats
from linocut.ops.linear_recurrence import doubling

# Tokens that the PyTorch form holds all states of at once.
_CHUNK = 64


def recurrent_reference(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    A: Float[Tensor, "channels states"],
    B: Float[Tensor, "batch length states"],
    C: Float[Tensor, "batch length states"],
    state: Float[Tensor, "batch channels states"],
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels states"]]:
    """The definition as a loop, without skip and gate: the oracle of the tests."""
    outputs = []
    for t in range(x.shape[1]):
        step = delta[:, t, :, None]
        state = torch.exp(step * A) * state + step * B[:, t, None] * x[:, t, :, None]
        outputs.append((state * C[:, t, None]).sum(-1))
    return (torch.stack(outputs, dim=1) if outputs else x * delta), state


def chunked(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    A: Float[Tensor, "channels states"],
    B: Float[Tensor, "batch length states"],
    C: Float[Tensor, "batch length states"],
    state: Float[Tensor, "batch channels states"],
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels states"]]:
    """The recurrence in chunks, all states of a chunk at once by composing maps of 1, 2, 4, … tokens."""
    outputs = []
    for x_c, delta_c, B_c, C_c in zip(*(torch.split(each, _CHUNK, 1) for each in (x, delta, B, C)), strict=True):
        decay = torch.exp(delta_c[..., None] * A)
        shift = (delta_c * x_c)[..., None] * B_c[:, :, None]
        h, last = doubling(decay.flatten(2), shift.flatten(2), state.flatten(1))
        outputs.append((h.reshape(*h.shape[:2], *A.shape) * C_c[:, :, None]).sum(-1))
        state = last.reshape(state.shape)
    return torch.cat(outputs, dim=1), state


def _laid(tensor: Tensor | None) -> tuple[int, ...]:
    """Address and strides of a tensor of three dimensions."""
    return (0, 0, 0, 0) if tensor is None else (tensor.data_ptr(), *tensor.stride())


def _job(softplus: bool, *inputs: Tensor | None) -> tuple[list[Any], list[Tensor | None]]:
    """What both kernels are told, and the tensors behind the addresses, to be kept until they are done."""
    x, delta, A, B, C, D, z, bias, state = inputs
    if x is None or A is None:
        raise TypeError("selective_scan: x and A must be tensors")
    rows = [None if each is None else each.contiguous() for each in (A, D, bias, state)]
    sizes = [*x.shape, A.shape[1], x.dtype == torch.bfloat16, softplus]
    return [*sizes, *map(_laid, (x, delta, z, B, C)), *map(kernel.address, rows), kernel.threads()], rows


def _new_checkpoints(x: Tensor, A: Tensor, state: Tensor, save: bool) -> Tensor:
    """Room for the states before every chunk, block by block of channels, if they are to be saved."""
    core = kernel.kernels()
    chunks, blocks = (-(-x.shape[1] // core.scan_chunk) if save else 0), -(-x.shape[2] // core.scan_block)
    return state.new_empty(x.shape[0], chunks, blocks, A.shape[1], core.scan_block)


def _run(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    y, last, checkpoints = torch.empty_like(x), torch.empty(state.shape), _new_checkpoints(x, A, state, save)
    job, _kept = _job(softplus, x, delta, A, B, C, D, z, bias, state)
    kernel.kernels().selective_scan(*job, _laid(y), last.data_ptr(), checkpoints.data_ptr() if save else 0)
    return y, last, checkpoints


_ARGUMENTS = "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? bias, Tensor state"
_native = torch.library.custom_op(
    "linocut::selective_scan",
    _run,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool softplus, bool save) -> (Tensor, Tensor, Tensor)",
)


@_native.register_fake
def _(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), state.new_empty(state.shape), _new_checkpoints(x, A, state, save)


@torch.library.custom_op(
    "linocut::selective_scan_grad",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool softplus, Tensor checkpoints, Tensor grad_y, Tensor grad_last) -> Tensor[]",
)
def _native_grad(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
) -> list[Tensor]:
    (batch, length, channels), states = x.shape, A.shape[1]
    group = kernel.kernels().scan_group(channels)
    groups = -(-channels // group) if group else 0
    grad_x, grad_delta, grad_z = torch.empty_like(x), torch.empty_like(delta), torch.empty_like(x if z is None else z)
    grad_B, grad_C = torch.empty(2, batch, groups, length, states)
    grad_A, grad_state = torch.empty(batch, channels, states), torch.empty(batch, channels, states)
    grad_D, grad_bias = torch.empty(2, batch, channels)
    grad_last = grad_last.contiguous()
    job, _kept = _job(softplus, x, delta, A, B, C, D, z, bias, state)
    kernel.kernels().selective_scan_grad(
        *job,
        checkpoints.data_ptr(),
        _laid(grad_y),
        grad_last.data_ptr(),
        *map(_laid, (grad_x, grad_delta, None if z is None else grad_z)),
        *map(kernel.address, (grad_B, grad_C, grad_A, grad_D, grad_bias, grad_state)),
    )
    summed = [each.sum(1).to(x.dtype) for each in (grad_B, grad_C)]
    return [grad_x, grad_delta, grad_A.sum(0), *summed, grad_D.sum(0), grad_z, grad_bias.sum(0), grad_state]


@_native_grad.register_fake
def _(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *others: Any) -> list[Tensor]:
    _, z, _, state, *_ = others
    of_maps, of_channels = (x.new_empty(B.shape) for _ in range(2)), (A.new_empty(A.shape[:1]) for _ in range(2))
    return [
        torch.empty_like(x),
        torch.empty_like(delta),
        A.new_empty(A.shape),
        *of_maps,
        next(of_channels),
        torch.empty_like(x if z is None else z),
        next(of_channels),
        state.new_empty(state.shape),
    ]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])


def _backward(ctx: Any, grad_y: Tensor, grad_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, checkpoints = ctx.saved_tensors
    grads = _native_grad(*inputs, ctx.softplus, checkpoints, grad_y, grad_last)
    # no gradient for what was absent, nor for the two switches
    return (*(None if x is None else grad for x, grad in zip(inputs, grads, strict=True)), None, None)


_native.register_autograd(_backward, setup_context=_setup)


def _check(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    others: dict[str, Tensor | None],
) -> None:
    if x.dim() != 3 or delta.shape != x.shape:
        shapes = f"{tuple(x.shape)} and {tuple(delta.shape)}"
        raise ValueError(f"selective_scan: x and delta must both be (batch, length, channels), got {shapes}")
    (batch, length, channels) = x.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise ValueError(f"selective_scan: A must be ({channels}, states), got {tuple(A.shape)}")
    maps, states = (batch, length, A.shape[1]), (batch, channels, A.shape[1])
    wanted = {"B": maps, "C": maps, "D": (channels,), "z": (batch, length, channels)}
    wanted |= {"delta_bias": (channels,), "state": states}
    for name, tensor in {"B": B, "C": C, **others}.items():
        if tensor is not None and tensor.shape != wanted[name]:
            raise ValueError(f"selective_scan: {name} must be {wanted[name]}, got {tuple(tensor.shape)}")


@floats
def selective_scan(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    A: Float[Tensor, "channels states"],
    B: Float[Tensor, "batch length states"],
    C: Float[Tensor, "batch length states"],
    *,
    D: Float[Tensor, " channels"] | None = None,
    z: Float[Tensor, "batch length channels"] | None = None,
    delta_bias: Float[Tensor, " channels"] | None = None,
    delta_softplus: bool = False,
    state: Float[Tensor, "batch channels states"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels states"]]:
    """Run the selective scan over a sequence.

    Args:
        x: inputs; these, ``delta``, ``B``, ``C`` and ``z`` are read where they lie, whatever their strides.
        delta: step sizes, or what becomes them by ``delta_bias`` and ``delta_softplus``.
        A: rates; the decay of a state is exp(Δ A).
        B: input maps.
        C: output maps.
        D: skip connection, None for none.
        z: gate, by whose silu the outputs are multiplied, None for none.
        delta_bias: added to ``delta`` first.
        delta_softplus: whether Δ = log(1 + exp(delta + delta_bias)), which is positive.
        state: h before the first token, float32 (float64 for float64 inputs); None for zeros.

    Returns:
        The outputs in the dtype of ``x``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> one = torch.ones(1, 3, 1)
        >>> y, state = selective_scan(one, one, torch.tensor([[-0.6931472]]), one, one)
        >>> y.flatten().tolist(), state.item()
        ([1.0, 1.5, 1.75], 1.75)
    """
    _check(x, delta, A, B, C, {"D": D, "z": z, "delta_bias": delta_bias, "state": state})
    if state is None:
        wide = torch.promote_types(x.dtype, torch.float32)
        state = x.new_zeros(x.shape[0], *A.shape, dtype=wide)
    tokens = [delta, B, C] if z is None else [delta, B, C, z]
    alike = all(each.dtype == x.dtype for each in tokens)
    if alike and state.dtype == torch.float32 and kernel.usable(x, delta, A, B, C, D, z, delta_bias, state):
        D, bias = (each if each is None else each.float() for each in (D, delta_bias))
        inputs = (x, delta, A.float(), B, C, D, z, bias, state)
        if kernel.direct(*inputs):
            y, last, _ = _run(*inputs, delta_softplus, save=False)
        else:
            y, last, _ = _native(*inputs, delta_softplus, torch.is_grad_enabled())
        return y, last
    return _in_torch(x, delta, A, B, C, D, z, delta_bias, delta_softplus, state)


def _in_torch(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    bias: Tensor | None,
    softplus: bool,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    present = [each for each in (delta, A, B, C, D, z, bias, state) if each is not None]
    wide = functools.reduce(torch.promote_types, (each.dtype for each in present), x.dtype)
    delta, u = delta.to(wide), x.to(wide)
    delta = delta if bias is None else delta + bias.to(wide)
    delta = F.softplus(delta) if softplus else delta
    y, last = chunked(u, delta, A.to(wide), B.to(wide), C.to(wide), state.to(wide))
    y = y if D is None else y + D.to(wide) * u
    y = y if z is None else y * F.silu(z.to(wide))
    return y.to(x.dtype), last.to(state.dtype)
