"""What the trace knows of a tensor: which of its dimensions run along the image, and what they depend on.

A *lane* is an axis of the image inside a tensor. A dimension is made of *parts*, outermost first: a map (B, C, H, W)
has one part a dimension, the tokens (B, H·W, C) made of it have two in the second, so that taking them apart again
gives the map back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from linocut.vision.fields.algebra import IDENTITY, AxisField, Taps
from linocut.vision.fields.errors import GlobalOperationError, UnknownOperationError

Border = Callable[[int, int], "int | None"]
"""What stands at an index of an axis of length n, if it lies outside: another index, or nothing of the image."""


def drop(index: int, length: int) -> int | None:
    """Padding with a constant: nothing of the image."""
    return index if 0 <= index < length else None


def clamp(index: int, length: int) -> int | None:
    """Replication: the outermost value again."""
    return min(max(index, 0), length - 1)


def reflect(index: int, length: int) -> int | None:
    """Reflection about the outermost value."""
    return index if 0 <= index < length else (-index if index < 0 else 2 * (length - 1) - index)


def wrap(index: int, length: int) -> int | None:
    """Circular padding: the other end."""
    return index % length


@dataclass(frozen=True)
class Lane:
    """An axis of the image.

    Attributes:
        axis: which one.
        field: on an endless image.
        edges: for every index of the lane, the inputs it depends on in the image of this size; None if not asked for.
    """

    axis: int
    field: AxisField
    edges: tuple[Taps, ...] | None

    @classmethod
    def of_input(cls, axis: int, size: int, *, edges: bool) -> Lane:
        """The image's own axis: every index depends on itself."""
        return cls(axis, IDENTITY, tuple(Taps(index, 1) for index in range(size)) if edges else None)

    def then(self, step: AxisField, size: int, border: Border = drop) -> Lane:
        """After a layer that gives ``size`` outputs."""
        if self.edges is None:
            return Lane(self.axis, self.field.then(step), None)
        length, edges = len(self.edges), []
        for index in range(size):
            at = (border(tap, length) for tap in step.at(index))
            edges.append(reduce(Taps.__or__, (self.edges[tap] for tap in at if tap is not None), Taps(0, 0)))
        return Lane(self.axis, self.field.then(step), tuple(edges))

    def join(self, other: Lane) -> Lane:
        """Of two tensors that are added or concatenated index by index."""
        try:
            field = self.field.join(other.field)
        except ValueError as error:
            raise UnknownOperationError(f"joins maps that drift apart along axis {self.axis} ({error})") from error
        if self.edges is None or other.edges is None:
            return Lane(self.axis, field, None)
        return Lane(self.axis, field, tuple(a | b for a, b in zip(self.edges, other.edges, strict=True)))


class Part(NamedTuple):
    """A factor of a dimension: how long, and the axis of the image that it is, if it is one."""

    size: int
    lane: Lane | None = None


Parts = tuple[Part, ...]
State = tuple[Parts, ...]
"""The parts of every dimension of a tensor."""


def plain(size: int) -> Parts:
    """A dimension that is no axis of the image: batch, channels."""
    return (Part(size),) if size != 1 else ()


def lanes(parts: Parts) -> list[Lane]:
    """The axes of the image in a dimension."""
    return [part.lane for part in parts if part.lane is not None]


def needs_no_lane(parts: Parts, does: str) -> None:
    """Refuse what ``does`` something along a whole dimension, if that is an axis of the image."""
    found = lanes(parts)
    if found:
        raise GlobalOperationError(f"{does} the whole of axis {' and '.join(str(lane.axis) for lane in found)}")


def slide(parts: Parts, step: AxisField, size: int, border: Border = drop) -> Parts:
    """A dimension after a layer that works along it and gives ``size`` outputs."""
    found = lanes(parts)
    if not found:
        return plain(size)
    if len(parts) > 1:
        raise UnknownOperationError(f"works along axis {found[0].axis} where it is flattened together with others")
    if step == IDENTITY and size == parts[0].size:
        return parts
    return (Part(size, found[0].then(step, size, border)),)


def regroup(state: State, shape: Sequence[int]) -> State:
    """The parts after a reshape, which keeps their order.

    Raises:
        UnknownOperationError: if an axis of the image is cut.
    """
    if tuple(shape) == tuple(_length(parts) for parts in state):
        return state
    rest: list[Part] = []
    for part in (part for parts in state for part in parts):
        if part.lane is not None and part.size == 1:
            raise UnknownOperationError(f"reshapes a map that is one pixel long along axis {part.lane.axis}")
        if part.lane is None and rest and rest[-1].lane is None:
            rest[-1] = Part(rest[-1].size * part.size)
        else:
            rest.append(part)
    out: list[Parts] = []
    for size in shape:
        taken: list[Part] = []
        while size != (length := _length(taken)):
            need, part = size // length, rest.pop(0)
            if part.lane is None and part.size > need:
                rest.insert(0, Part(part.size // need))
                part = Part(need)
            if need % part.size:
                raise UnknownOperationError(f"cuts axis {part.lane.axis if part.lane else '?'} into pieces")
            taken.append(part)
        out.append(tuple(taken))
    return tuple(out)


def join(states: Sequence[State], shape: Sequence[int]) -> State:
    """Tensors combined element by element, broadcast to ``shape``.

    Raises:
        GlobalOperationError: if positions are paired that are not the same.
        UnknownOperationError: if some outputs of one tensor depend on nothing and those of another do. A later layer
            may pick just these, of columns say, and the rows, which are kept apart from them, would not know.
    """
    if len({_left_out(state) for state in states}) > 1 and len(_left_out(states[0])) > 1:
        raise UnknownOperationError("joins branches of which one leaves out outputs; measure with method='probe'")
    out: list[Parts] = []
    for back in range(len(shape), 0, -1):
        found = [state[-back] for state in states if len(state) >= back]
        out.append(_join_parts(found, shape[-back]))
    seen = [lane.axis for parts in out for lane in lanes(parts)]
    if len(seen) != len(set(seen)):
        raise GlobalOperationError("pairs every position along an axis with every other")
    return tuple(out)


def _left_out(state: State) -> tuple[tuple[int, tuple[bool, ...]], ...]:
    """For each axis, which outputs depend on nothing."""
    found = sorted((lane for parts in state for lane in lanes(parts)), key=lambda lane: lane.axis)
    holes = []
    for lane in found:
        nothing = tuple(not taps for taps in (*lane.field.taps, *(lane.edges or ())))
        holes.append((lane.axis, nothing if any(nothing) else ()))
    return tuple(holes)


def _join_parts(found: Sequence[Parts], size: int) -> Parts:
    with_lanes = [parts for parts in found if lanes(parts)]
    if any(_length(parts) != size for parts in with_lanes):
        raise GlobalOperationError("spreads one position over the whole image")
    if not with_lanes:
        return plain(size)
    first = with_lanes[0]
    for other in with_lanes[1:]:
        alike = len(first) == len(other) and all(
            a.size == b.size and (a.lane and a.lane.axis) == (b.lane and b.lane.axis)
            for a, b in zip(first, other, strict=True)
        )
        if not alike:
            raise GlobalOperationError("pairs every position along an axis with every other")
        both = zip(first, other, strict=True)
        first = tuple(Part(a.size, a.lane.join(b.lane) if a.lane and b.lane else None) for a, b in both)
    return first


def _length(parts: Sequence[Part]) -> int:
    return reduce(lambda length, part: length * part.size, parts, 1)
