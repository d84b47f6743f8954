"""One token through a whole Mamba layer in one native call; :mod:`linocut.mixers.mamba` says the formulas.

There is no PyTorch form here: the layer's parts, called one after another, are that. A call of the kernel is worth it
because between them the parts make some twenty calls of torch, each of which costs more than the arithmetic of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from linocut.ops import kernel

# Beyond this many sequences at once the projections are products of matrices, which torch does better.
MAX_BATCH = 8
# Weights of a projection below which a second thread is not worth waking.
_LARGE = 1 << 20


def _addresses(tensors: Sequence[Tensor | None]) -> list[int] | None:
    """Where the tensors are, or None unless all are contiguous float32 on the CPU. One pass: there are microseconds."""
    found = []
    for tensor in tensors:
        if tensor is None:
            found.append(0)
        elif tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous():
            found.append(tensor.data_ptr())
        else:
            return None
    return found


def mamba_step(
    x: Tensor,
    tail: Tensor,
    h: Tensor,
    parameters: Sequence[Any],
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Run the layer for one token if that can be done natively.

    Args:
        x: the token, (batch, d_model).
        tail: the inputs of the convolution before it, (batch, d_conv - 1, d_inner).
        h: the states of the scan before it, (batch, d_inner, d_state).
        parameters: in_proj's weight and bias, conv1d's weight and bias, x_proj's weight, dt_proj's weight and bias,
            A_log, D, out_proj's weight and bias; None for a bias that is not there.

    Returns:
        The output, and ``tail`` and ``h`` after the token. None where only the parts do: with something to
        differentiate, for other than contiguous float32 on the CPU, for many sequences, without the kernels; and for
        shapes that do not fit, which the parts name in their errors.
    """
    tensors = (x, tail, h, *parameters)
    if x.shape[0] > MAX_BATCH or not kernel.direct(*tensors):
        return None
    kernels, addresses = kernel.kernels(), _addresses(tensors)
    if kernels is None or addresses is None:
        return None
    (d_inner, rank), d_state, d_conv = parameters[5].shape, parameters[7].shape[1], parameters[2].shape[2]
    batch, d_model = x.shape[0], parameters[0].shape[1]
    if (
        x.shape != (batch, d_model)
        or tail.shape != (batch, d_conv - 1, d_inner)
        or h.shape != (batch, d_inner, d_state)
    ):
        return None
    y, next_tail, next_h = torch.empty_like(x), torch.empty_like(tail), torch.empty_like(h)
    kernels.mamba_step(
        (batch, d_model, d_inner, d_state, d_conv, rank),
        addresses[3:],
        *addresses[:3],
        y.data_ptr(),
        next_tail.data_ptr(),
        next_h.data_ptr(),
        kernel.threads() if d_model * d_inner >= _LARGE else 1,
    )
    return y, next_tail, next_h
