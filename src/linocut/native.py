"""The way to the native core: the compiled modules if there are any, and one plain word if there are none.

``linocut._native`` serves arrays and needs neither torch nor OpenMP; ``linocut._kernels`` serves the mixers.

Every function that has a native kernel has a NumPy or PyTorch form beside it, which gives the same result and is the
oracle in the tests. Callers write ``core = native.core()`` (or ``native.kernels()``) and take the
reference where it is None.

``LINOCUT_NATIVE=0`` in the environment switches the core off: to compare, or to rule it out when looking for a fault.
The variable is read at every call. What it decided is logged once; a core that is missing although nobody switched it
off is a warning, given once.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray

__all__ = ["Core", "core", "kernels"]

# The same numbers as kInterface in csrc/module.cpp and csrc/kernels/module.cpp
_INTERFACES = {"linocut._native": 3, "linocut._kernels": 3}
_VARIABLE = "LINOCUT_NATIVE"
_logger = logging.getLogger(__name__)


@runtime_checkable
class Core(Protocol):
    """What ``linocut._native`` offers. Arrays must be C-contiguous; the callers check them, the kernels do not.

    The int64 of the results is NumPy's ``longlong``; callers take ``.view(np.int64)``, the name that type checks know.
    """

    interface: int

    def isas(self) -> list[str]:
        """Instruction sets that this machine runs, narrowest first."""
        ...

    def isa(self) -> str:
        """The instruction set in use: the widest, unless another was chosen."""
        ...

    def use_isa(self, name: str, /) -> None:
        """Use another instruction set, for tests and comparisons; ValueError if this machine does not run it."""
        ...

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

    def count_classes(
        self, prediction: NDArray[Any], target: NDArray[Any], num_classes: int, ignored: Sequence[int], /
    ) -> tuple[Int64[NDArray[np.int64], "num_classes num_classes"], int]:
        """Count pairs of up to 254 classes in flat maps of integers, and how many are none (the table lacks these).

        Ignored values of the target come modulo 2⁶⁴ and fit into its type.
        """
        ...

    def count_pairs(self, prediction: NDArray[Any], target: NDArray[Any], /) -> Int64[NDArray[np.int64], "three pairs"]:
        """List the pairs of labels of two flat maps of integers, never empty: target, prediction, count; ordered."""
        ...

    def shared_pixels(
        self,
        bounds_a: Int64[NDArray[np.int64], " bounds_a"],
        offsets_a: Int64[NDArray[np.int64], " masks_a_and_one"],
        bounds_b: Int64[NDArray[np.int64], " bounds_b"],
        offsets_b: Int64[NDArray[np.int64], " masks_b_and_one"],
        rows: Int64[NDArray[np.int64], " pairs"],
        columns: Int64[NDArray[np.int64], " pairs"],
        /,
    ) -> Int64[NDArray[np.int64], " pairs"]:
        """Count the pixels that pairs of masks share, which are given as bounds of runs."""
        ...


def core() -> Core | None:
    """Give the compiled module for arrays, or None if it was not built or is switched off.

    Returns:
        The module, or None: then use the reference form.

    Raises:
        ValueError: if ``LINOCUT_NATIVE`` is neither 0 nor 1.
    """
    return cast("Core | None", _load("linocut._native")) if _is_on() else None


def kernels() -> Any | None:
    """Give the compiled kernels of the mixers, or None if they were not built or are switched off.

    Its functions take addresses and sizes and check nothing: call them through ``linocut.ops`` only.

    Returns:
        The module, or None: then use the reference form.

    Raises:
        ValueError: if ``LINOCUT_NATIVE`` is neither 0 nor 1.
    """
    return _load("linocut._kernels") if _is_on() else None


def _is_on() -> bool:
    setting = os.environ.get(_VARIABLE, "1")
    if setting == "1":
        return True
    if setting != "0":
        raise ValueError(f"{_VARIABLE} must be 0 (reference) or 1 (native where built), got {setting!r}")
    _say_off()
    return False


@cache
def _load(name: str) -> Any | None:
    try:
        if name == "linocut._kernels":
            # torch's copy of the OpenMP runtime must be there first, for the kernels to share its threads
            import_module("torch")
        module = import_module(name)
    except ImportError as error:
        _warn_absent(f"it was not built, or does not load here ({error})")
        return None
    if module.interface != _INTERFACES[name]:
        _warn_absent(f"it was built from other sources (interface {module.interface}, expected {_INTERFACES[name]})")
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
