r"""The causal convolution of a few tokens, channel by channel, that stands before a recurrence.

.. math::
    y_t = \sigma\Big(b + \sum_{j=0}^{w-1} W_j \odot x_{t-w+1+j}\Big)

It came with H3 (Fu et al., *Hungry Hungry Hippos*, 2023, https://arxiv.org/abs/2212.14052, section 3.1, where it is the
shift SSM) and is in Mamba, Mamba-2 and Gated DeltaNet with four taps and SiLU. Its state is the last w - 1 inputs.

============= ===================================== ============================
symbol        meaning                               shape
============= ===================================== ============================
``x``         inputs                                (batch, length, channels)
``weight``    W, the newest token's tap last        (channels, width)
``bias``      b                                     (channels,)
``state``     inputs before the first token         (batch, width - 1, channels)
============= ===================================== ============================

Cost: O(length · channels · width) time; the gradient is worked out from ``x`` and needs no further memory.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel
from linocut.ops.arguments import floats

# Widths that the kernels are built for.
_WIDTHS = range(2, 5)


def recurrent_reference(
    x: Float[Tensor, "batch length channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"],
    state: Float[Tensor, "batch halo channels"],
    *,
    silu: bool = False,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch halo channels"]]:
    """The definition as a loop: the oracle of the tests."""
    outputs = []
    for t in range(x.shape[1]):
        window = torch.cat([state, x[:, t : t + 1]], dim=1)
        y = bias + torch.einsum("bwd,dw->bd", window, weight)
        outputs.append(F.silu(y) if silu else y)
        state = window[:, 1:]
    return (torch.stack(outputs, dim=1) if outputs else x * bias), state


def shifted_sums(
    x: Float[Tensor, "batch length channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
    state: Float[Tensor, "batch halo channels"],
    *,
    silu: bool = False,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch halo channels"]]:
    """All tokens at once: the sequence shifted by 0, 1, … tokens, weighted and summed."""
    length, width = x.shape[1], weight.shape[1]
    padded = torch.cat([state, x], dim=1)
    y = sum((padded[:, j : j + length] * weight[:, j] for j in range(width)), torch.zeros_like(x))
    y = y if bias is None else y + bias
    return F.silu(y) if silu else y, padded[:, length:]


def _rows(x: Tensor) -> Tensor:
    """The tensor with its channels side by side, as the kernels want it; a view of wider rows is left as it is."""
    return x if x.stride(2) == 1 else x.contiguous()


def _job(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> tuple[list[Any], list[Tensor]]:
    """What both kernels are told, and the tensors behind the addresses, to be kept until they are done."""
    x, state, taps = _rows(x), state.contiguous(), weight.t().contiguous()
    sizes = [*x.shape, weight.shape[1], x.dtype == torch.bfloat16, silu, x.data_ptr(), x.stride(0), x.stride(1)]
    return [*sizes, *map(kernel.address, (taps, bias, state))], [x, taps, state]


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    y, last = torch.empty(x.shape, dtype=x.dtype), torch.empty(state.shape)
    job, _kept = _job(x, weight, bias, state, silu)
    kernel.kernels().short_convolution(*job, y.data_ptr(), last.data_ptr(), kernel.threads())
    return y, last


_native = torch.library.custom_op(
    "linocut::short_convolution",
    _run,
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor state, bool silu) -> (Tensor, Tensor)",
)


@_native.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op(
    "linocut::short_convolution_grad",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor state, bool silu, Tensor grad_y, Tensor grad_last)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _native_grad(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_y, grad_last = _rows(grad_y), grad_last.contiguous()
    (batch, length, channels), width = x.shape, weight.shape[1]
    pieces = batch * (length // kernel.kernels().convolution_piece + 1)
    grad_x, grad_state = torch.empty(x.shape, dtype=x.dtype), torch.empty(state.shape)
    grad_weight, grad_bias = torch.empty(pieces, width, channels), torch.empty(pieces, channels)
    job, _kept = _job(x, weight, bias, state, silu)
    kernel.kernels().short_convolution_grad(
        *job,
        grad_y.data_ptr(),
        grad_y.stride(0),
        grad_y.stride(1),
        *map(kernel.address, (grad_last, grad_x, grad_weight, grad_bias, grad_state)),
        kernel.threads(),
    )
    return grad_x, grad_weight.sum(0).t().contiguous(), grad_bias.sum(0), grad_state


@_native_grad.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool, grad_y: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bias_like = weight.new_empty(weight.shape[0])
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias_like, state.new_empty(state.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, state = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_state = _native_grad(x, weight, bias, state, ctx.silu, grad_y, grad_last)
    return grad_x, grad_weight, None if bias is None else grad_bias, grad_state, None


_native.register_autograd(_backward, setup_context=_setup)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> None:
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        shapes = f"{tuple(x.shape)} and {tuple(weight.shape)}"
        raise ValueError(
            f"short_convolution: x must be (batch, length, channels) and weight (channels, width >= 1), got {shapes}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"short_convolution: bias must be {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    wanted = (x.shape[0], weight.shape[1] - 1, x.shape[2])
    if state is not None and state.shape != wanted:
        raise ValueError(f"short_convolution: state must be {wanted}, got {tuple(state.shape)}")


@floats
def short_convolution(
    x: Float[Tensor, "batch length channels"],
    weight: Float[Tensor, "channels width"],
    *,
    bias: Float[Tensor, " channels"] | None = None,
    state: Float[Tensor, "batch halo channels"] | None = None,
    activation: Literal["silu"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch halo channels"]]:
    """Convolve every channel with its own few taps, looking back only.

    Args:
        x: inputs; a view of wider rows, such as half of a projection, is read where it lies.
        weight: taps, the newest token's last: a depthwise ``Conv1d``'s weight without its middle dimension.
        bias: added before the activation.
        state: the width - 1 inputs before the first token, float32 (float64 for float64 inputs); None for zeros.
        activation: "silu" to apply x sigmoid(x) to the result, None to leave it.

    Returns:
        The outputs in the dtype of ``x``, and the last width - 1 inputs in that of the state.

    Raises:
        ValueError: if the shapes do not fit together or the activation is another.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1)
        >>> y, state = short_convolution(x, torch.tensor([[10.0, 1.0]]))
        >>> y.flatten().tolist(), state.item()
        ([1.0, 12.0, 23.0], 3.0)
    """
    if activation not in ("silu", None):
        raise ValueError(f"short_convolution: activation must be 'silu' or None, got {activation!r}")
    _check(x, weight, bias, state)
    if state is None:
        wide = torch.promote_types(x.dtype, torch.float32)
        state = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2], dtype=wide)
    silu = activation == "silu"
    if kernel.usable(x, weight, bias, state) and state.dtype == torch.float32 and weight.shape[1] in _WIDTHS:
        weight, bias = weight.float(), None if bias is None else bias.float().contiguous()
        y, last = (_run if kernel.direct(x, weight, bias, state) else _native)(x, weight, bias, state, silu)
        return y, last
    wide = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), state.dtype)
    y, last = shifted_sums(
        x.to(wide), weight.to(wide), None if bias is None else bias.to(wide), state.to(wide), silu=silu
    )
    return y.to(x.dtype), last.to(state.dtype)
