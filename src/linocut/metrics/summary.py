"""What every metric that is a mergeable summary can do: merge, add, and be written down and read back.

A summary has settings, which two summaries must share to be merged, and sums over what it has seen. Integers and the
fixed-point sums of `exact_parts` add up to the same bits in any order, so a stream, worker processes and a cluster give
the number that one pass gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_LOW_BITS = 30
_SCALE_BITS = 60

S = TypeVar("S", bound="Summary")


class Summary:
    """Settings and sums; the subclass names both and says how data comes in and figures go out.

    Attributes:
        SETTINGS: names of the attributes that are arguments of the class, and equal in summaries that merge.
        SUMS: names of the attributes, integers or arrays, that add.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ()
    SUMS: ClassVar[tuple[str, ...]] = ()

    def merge(self: S, other: S) -> None:
        """Add what another summary has seen to this one; the other stays as it is.

        Raises:
            TypeError: if the other is a summary of another kind.
            ValueError: if the two were made with different settings.
        """
        self._check_alike(other)
        for name in self.SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __add__(self: S, other: S) -> S:
        """The summary of both parts, as a new one; raises what `merge` raises."""
        self._check_alike(other)
        total = type(self).from_state(self.state())
        total.merge(other)
        return total

    def state(self) -> dict[str, Any]:
        """Settings and sums by name: numbers, strings, tuples and arrays. The arrays are copies."""
        return {name: _copied(getattr(self, name)) for name in (*self.SETTINGS, *self.SUMS)}

    @classmethod
    def from_state(cls: type[S], state: Mapping[str, Any]) -> S:
        """Make the summary that `state` was read off; lists, as JSON has them, do for tuples and arrays.

        Raises:
            ValueError: if a name is missing or unknown, or an array has another shape than the settings ask for.
        """
        names = {*cls.SETTINGS, *cls.SUMS}
        if set(state) != names:
            raise ValueError(f"state of {cls.__name__} must hold {sorted(names)}, got {sorted(state)}")
        made = cls(**{name: _frozen(state[name]) for name in cls.SETTINGS})
        for name in cls.SUMS:
            setattr(made, name, made._read_sum(name, state[name]))
        return made

    def to_json(self) -> str:
        """The state as JSON; `from_json` reads it back to the last bit."""
        return json.dumps(self.state(), default=_plain)

    @classmethod
    def from_json(cls: type[S], text: str) -> S:
        """Read what `to_json` wrote; raises what `from_state` raises, and ValueError if it is no JSON."""
        return cls.from_state(json.loads(text))

    def _read_sum(self, name: str, value: Any) -> Any:
        """A sum of a state, in the type and shape of the one that this summary starts with."""
        start = getattr(self, name)
        if not isinstance(start, np.ndarray):
            return type(start)(value)
        array = np.array(value, start.dtype)
        if array.shape != start.shape:
            raise ValueError(f"{name} of {type(self).__name__} must have the shape {start.shape}, got {array.shape}")
        return array

    def _check_alike(self, other: object) -> None:
        if type(self) is not type(other):
            raise TypeError(f"a {type(self).__name__} merges with its like, got {type(other).__name__}")
        for name in self.SETTINGS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"{type(self).__name__} merges only with the same {name}, got {mine} and {theirs}")


def exact_parts(values: npt.ArrayLike) -> IntArray:
    """Numbers in [0, 1] as integers whose sums are the same in any order.

    A number x is ``high · 2⁻³⁰ + low · 2⁻⁶⁰`` with 0 ≤ low < 2³⁰; that is x itself from 2⁻⁷ on, and x within 2⁻⁶¹
    below. Sums of up to 2³³ of them fit.

    Args:
        values: array (…) of numbers in [0, 1].

    Returns:
        int64 (…, 2): high and low.

    Example:
        >>> parts = exact_parts([0.1, 0.2, 0.3])
        >>> float(exact_total(parts.sum(axis=0)))
        0.6
        >>> float(exact_total(parts[::-1].sum(axis=0)))
        0.6
    """
    fixed = np.rint(np.asarray(values, np.float64) * 2.0**_SCALE_BITS).astype(np.int64)
    return np.stack([fixed >> _LOW_BITS, fixed & ((1 << _LOW_BITS) - 1)], axis=-1)


def exact_total(sums: IntArray) -> FloatArray:
    """The sums of numbers that `exact_parts` made, rounded once.

    Args:
        sums: int64 (…, 2).

    Returns:
        float64 (…).
    """
    flat = sums.reshape(-1, 2).tolist()
    # Python's division of integers is rounded correctly, whatever their length
    totals = [((high << _LOW_BITS) + low) / (1 << _SCALE_BITS) for high, low in flat]
    return np.array(totals, np.float64).reshape(sums.shape[:-1])


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Quotients, NaN where the denominator is 0: a figure of nothing does not exist."""
    over, under = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    quotients = np.full(np.broadcast(over, under).shape, np.nan)
    np.divide(over, under, out=quotients, where=under != 0)
    return quotients


def mean_of_known(values: FloatArray) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a state holds numbers, strings, tuples and arrays, got {type(value).__name__}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
