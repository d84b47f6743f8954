"""The way to the native core: the compiled module if there is one, and one plain word if there is not.

Every function that has a native kernel has a NumPy or PyTorch form beside it, which gives the same result and is the
oracle in the tests. Callers write ``core = native.core()`` and take the reference where ``core`` is None.

``LINOCUT_NATIVE=0`` in the environment switches the core off: to compare, or to rule it out when looking for a fault.
The variable is read at every call. What it decided is logged once; a core that is missing although nobody switched it
off is a warning, given once.
"""

from __future__ import annotations

import logging
import os
import warnings
from functools import cache
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

__all__ = ["Core", "core"]

_INTERFACE = 1  # the same number as kInterface in csrc/module.cpp
_VARIABLE = "LINOCUT_NATIVE"
_logger = logging.getLogger(__name__)


@runtime_checkable
class Core(Protocol):
    """What ``linocut._native`` offers. Arrays must be C-contiguous; the callers check them, the kernels do not.

    The int64 of the results is NumPy's ``longlong``; callers take ``.view(np.int64)``, the name that type checks know.
    """

    interface: int

    def mask_to_counts(self, mask: UInt8[NDArray[np.uint8], "h w"], /) -> Int64[NDArray[np.int64], " runs"]:
        """List the column-major runs of a mask of 0 and 1, background first."""
        ...

    def counts_to_mask(
        self, counts: Int64[NDArray[np.int64], " runs"], h: int, w: int, /
    ) -> UInt8[NDArray[np.uint8], "h w"]:
        """Fill a mask from runs that are not negative and add up to ``h * w``."""
        ...

    def counts_to_string(self, counts: Int64[NDArray[np.int64], " runs"], /) -> str:
        """Write runs as COCO's compressed string."""
        ...

    def string_to_counts(self, text: str, /) -> Int64[NDArray[np.int64], " runs"]:
        """Read COCO's compressed string; ValueError if it is not one."""
        ...


def core() -> Core | None:
    """Give the compiled module, or None if it was not built or is switched off.

    Returns:
        The module, or None: then use the reference form.

    Raises:
        ValueError: if ``LINOCUT_NATIVE`` is neither 0 nor 1.
    """
    setting = os.environ.get(_VARIABLE, "1")
    if setting == "1":
        return _load()
    if setting != "0":
        raise ValueError(f"{_VARIABLE} must be 0 (reference) or 1 (native where built), got {setting!r}")
    _say_off()
    return None


@cache
def _load() -> Core | None:
    try:
        module = cast("Core", import_module("linocut._native"))
    except ImportError as error:
        _warn_absent(f"it was not built, or does not load here ({error})")
        return None
    if module.interface != _INTERFACE:
        _warn_absent(f"it was built from other sources (interface {module.interface}, expected {_INTERFACE})")
        return None
    return module


def _warn_absent(reason: str) -> None:
    warnings.warn(
        f"Linocut's native core is not available: {reason}. Results are the same, some steps are slower. "
        f"To build it, install a C++17 compiler and then Linocut again; to silence this, set {_VARIABLE}=0.",
        RuntimeWarning,
        stacklevel=4,
    )


@cache
def _say_off() -> None:
    _logger.info("%s=0: the native core is switched off, the reference forms are used", _VARIABLE)
