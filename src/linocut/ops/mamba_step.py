"""One token through a whole Mamba layer in one native call; :mod:`linocut.mixers.mamba` says the formulas.

There is no PyTorch form here: the layer's parts, called one after another, are that. A call of the kernel is worth it
because between them the parts make some twenty calls of torch, each of which costs more than the arithmetic of a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel

# Beyond this many sequences at once the projections are products of matrices, which torch does better.
MAX_BATCH = 8
# Weights of a projection below which a second thread is not worth waking.
_LARGE = 1 << 20


def usable(x: Tensor, tail: Tensor, h: Tensor, parameters: Sequence[Tensor | None]) -> bool:
    """Whether :func:`mamba_step` takes these: contiguous float32 on the CPU, few rows, nothing to differentiate."""
    tensors = (x, tail, h, *parameters)
    if x.shape[0] > MAX_BATCH or not kernel.direct(*tensors):
        return False
    for tensor in tensors:
        if tensor is not None and (tensor.dtype != torch.float32 or not tensor.is_contiguous()):
            return False
    return kernel.usable(*tensors)


def mamba_step(
    x: Float[Tensor, "batch d_model"],
    tail: Float[Tensor, "batch halo d_inner"],
    h: Float[Tensor, "batch d_inner d_state"],
    parameters: Sequence[Tensor | None],
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, "batch halo d_inner"], Float[Tensor, "batch d_inner d_state"]]:
    """Run the layer for one token, after :func:`usable` said yes.

    Args:
        x: the token.
        tail: the inputs of the convolution before it.
        h: the states of the scan before it.
        parameters: in_proj's weight and bias, conv1d's weight and bias, x_proj's weight, dt_proj's weight and bias,
            A_log, D, out_proj's weight and bias; None for a bias that is not there.

    Returns:
        The output, and ``tail`` and ``h`` after the token.
    """
    y, next_tail, next_h = torch.empty_like(x), torch.empty_like(tail), torch.empty_like(h)
    (batch, d_model), d_inner, d_state, rank = x.shape, h.shape[1], h.shape[2], parameters[5].shape[1]  # type: ignore[union-attr]
    kernel.kernels().mamba_step(
        (batch, d_model, d_inner, d_state, tail.shape[1] + 1, rank),
        tuple(0 if each is None else each.data_ptr() for each in parameters),
        x.data_ptr(),
        tail.data_ptr(),
        h.data_ptr(),
        y.data_ptr(),
        next_tail.data_ptr(),
        next_h.data_ptr(),
        kernel.threads() if d_model * d_inner >= _LARGE else 1,
    )
    return y, next_tail, next_h
