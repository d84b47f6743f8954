"""In which floating point type to compute."""

from __future__ import annotations

import os
from typing import Literal

import torch

Dtype = Literal["auto", "float32", "bfloat16"]

_KNOWN = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_VARIABLE = "LINOCUT_DTYPE"
_PROBES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def resolve(dtype: str) -> torch.dtype:
    """The dtype to compute in.

    Args:
        dtype: ``float32``, ``bfloat16`` or ``auto``: what the environment variable ``LINOCUT_DTYPE`` says, else
            bfloat16 where the processor multiplies matrices of it, else float32.

    Raises:
        ValueError: for an unknown one, here or in the variable.
    """
    if dtype != "auto":
        if dtype not in _KNOWN:
            raise ValueError(f"dtype must be auto, float32 or bfloat16, got {dtype!r}")
        return _KNOWN[dtype]
    wanted = os.environ.get(_VARIABLE, "bfloat16" if fast_bfloat16() else "float32")
    if wanted not in _KNOWN:
        raise ValueError(f"{_VARIABLE} must be float32 or bfloat16, got {wanted!r}")
    return _KNOWN[wanted]


def fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 matrices (AMX or AVX-512 BF16)."""
    probes = (getattr(torch.cpu, name, None) for name in _PROBES)
    return any(probe is not None and probe() for probe in probes)
