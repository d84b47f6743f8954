"""An operation that ran, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from linocut.vision.fields.lanes import State, plain


@dataclass(frozen=True)
class Call:
    """An operation that ran.

    Attributes:
        values: its arguments by name.
        result: what it returned.
        state_of: the state of a tensor, None if it does not depend on the image.
    """

    values: dict[str, Any]
    result: Any
    state_of: Callable[[Tensor], State | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the (first) result."""
        first = self.result if isinstance(self.result, Tensor) else self.result[0]
        return tuple(first.shape)

    def state(self, name: str) -> State:
        """Of an argument; of one that does not depend on the image, one without lanes."""
        tensor = self.values[name]
        known = self.state_of(tensor)
        return tuple(plain(size) for size in tensor.shape) if known is None else known

    def dims(self, name: str = "dim") -> list[int]:
        """Dimensions an argument names, counted from the front; all, if it names none."""
        rank, given = len(self.state(self.first)), self.values.get(name)
        named = [given] if isinstance(given, int) else list(given or range(rank))
        return [dim % rank for dim in named]

    @property
    def first(self) -> str:
        """The name of the first argument, the tensor that is worked on."""
        return next(iter(self.values))


Rule = Callable[[Call], "State | list[State]"]
