"""Functions on tensors, one file a recurrence; nothing here knows of layers or images.

Example:
    >>> import linocut, torch
    >>> y, state = linocut.ops.linear_recurrence.linear_recurrence(*torch.ones(2, 1, 3, 1))
    >>> y.flatten().tolist()
    [1.0, 2.0, 3.0]
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """Import a file of this room when it is first asked for (PEP 562).

    Raises:
        AttributeError: if there is no such file.
    """
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
