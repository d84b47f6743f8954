"""What every call of a native kernel needs: whether it can be made, and addresses for its arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from linocut import native

_DTYPES = (torch.float32, torch.bfloat16)
_PLAIN = (Tensor, torch.nn.Parameter)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch does not annotate it
def _are_there() -> bool:
    return native.kernels() is not None


def usable(*tensors: Tensor | None) -> bool:
    """Whether native kernels are there and take these tensors: on the CPU, float32 or bfloat16, None for an absent one.

    Float64 and other devices are left to PyTorch. A compiler that traces the call keeps the answer.
    """
    for tensor in tensors:
        if tensor is not None and (tensor.dtype not in _DTYPES or tensor.device.type != "cpu"):
            return False
    there: bool = _are_there()
    return there


def kernels() -> Any:
    """The compiled module, after :func:`usable` said yes."""
    return native.kernels()


def address(tensor: Tensor | None) -> int:
    """Where a tensor's data is, for a kernel; 0 for an absent one."""
    return 0 if tensor is None else tensor.data_ptr()


def threads() -> int:
    """Threads a kernel may use: torch's setting."""
    return torch.get_num_threads()


def direct(*tensors: Tensor | None) -> bool:
    """Whether a kernel may be called without the operator around it, which costs a decoder's step microseconds.

    So it is if nothing is to be differentiated and no one traces the call.
    """
    if torch.compiler.is_compiling():
        return False
    differentiated = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is not None and (type(tensor) not in _PLAIN or (differentiated and tensor.requires_grad)):
            return False
    return True
