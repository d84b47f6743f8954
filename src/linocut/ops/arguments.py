"""Refusing what is no tensor of floating-point numbers, before its shape is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")
_FLOATS = ("Float[", "Complex[")


def floats(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: arguments annotated as Float or Complex must be tensors of such numbers, and else are named.

    Raises:
        TypeError: by the function that is made, for an array of NumPy, a list, or a tensor of whole numbers.

    Example:
        >>> from linocut.ops.linear_recurrence import linear_recurrence
        >>> linear_recurrence([0.5], [1.0])
        Traceback (most recent call last):
            ...
        TypeError: linear_recurrence: a must be a torch.Tensor, got builtins.list; torch.as_tensor would make one
    """
    names = tuple(name for name in function.__annotations__ if name != "return")
    wanted = {name for name in names if str(function.__annotations__[name]).startswith(_FLOATS)}
    optional = {name for name in wanted if "None" in str(function.__annotations__[name])}

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in wanted and not (value is None and name in optional):
                _check(function.__name__, name, value)
        return function(*args, **kwargs)

    return checked


def _check(function: str, name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        came = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{function}: {name} must be a torch.Tensor, got {came}; torch.as_tensor would make one")
    if not (value.is_floating_point() or value.is_complex()):
        raise TypeError(
            f"{function}: {name} must hold floating-point numbers, got {value.dtype}; {name}.float() would do"
        )
