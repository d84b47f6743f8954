"""The loops of this room are written once: compiled by Numba where it is installed, run by Python where it is not.

A loop is decorated with :func:`compiled` and may call others that are. Both ways the same source draws the same random
numbers, so the tables are equal to the last bit; ``LINOCUT_NUMBA=0`` in the environment, read when the module with the
loop is imported, chooses Python (to step through a loop, or to compare).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

_VARIABLE = "LINOCUT_NUMBA"
_logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


def is_on() -> bool:
    """Whether loops are compiled.

    Raises:
        ValueError: if ``LINOCUT_NUMBA`` is neither 0 nor 1.
    """
    setting = os.environ.get(_VARIABLE, "1")
    if setting not in ("0", "1"):
        raise ValueError(f"{_VARIABLE} must be 0 (Python) or 1 (compiled where Numba is installed), got {setting!r}")
    if setting == "0":
        return False
    try:
        import numba  # noqa: F401  (its absence is the question)
    except ImportError:
        _say_absent()
        return False
    return True


def compiled(function: Function) -> Function:
    """Compile a loop; what it is compiled to is kept on disk, so a second process need not.

    Floating-point rules stay IEEE's: no reordering, no fused multiply-adds, so that Python gives the same bits. A loop
    makes no arrays, it is given them: so Numba need not count who uses an array, which would be an atomic addition for
    every array of every inlined call.
    """
    if not is_on():
        return function
    import numba

    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True, "_nrt": False}
    loop: Function = numba.njit(**options)(function)
    return loop


def run(loop: Callable[..., Any], *arguments: Any) -> Any:
    """Call a loop. Random numbers are products that wrap around, of which Python's NumPy would warn."""
    with np.errstate(over="ignore"):
        return loop(*arguments)


_said: list[str] = []


def _say_absent() -> None:
    """Tell once that loops run in Python."""
    if not _said:
        _said.append("absent")
        _logger.warning(
            "Numba is not installed: loops run in Python, with the same results and much slower. Install it "
            'with pip install "linocut[agents]"'
        )
