"""What operations without a window do to the lanes of a tensor: element by element, views, reductions, products."""

from __future__ import annotations

from torch import Tensor

from linocut.vision.fields.algebra import AxisField, Taps
from linocut.vision.fields.calls import Call
from linocut.vision.fields.errors import UnknownOperationError
from linocut.vision.fields.lanes import State, join, lanes, needs_no_lane, plain, regroup, slide


def permute(call: Call) -> State:
    """The dimensions in another order."""
    state = call.state("self")
    return tuple(state[dim] for dim in call.dims("dims"))


def transpose(call: Call) -> State:
    """Two dimensions change places; the first two, for ``t``."""
    state = list(call.state("self"))
    one, other = (call.values[name] for name in ("dim0", "dim1")) if "dim0" in call.values else (0, -1)
    if state:
        state[one], state[other] = state[other], state[one]
    return tuple(state)


def squeeze(call: Call) -> State:
    """Dimensions of length 1 are dropped, if no axis of the image is."""
    state, shape = call.state("self"), call.values["self"].shape
    gone = [dim for dim in call.dims() if shape[dim] == 1]
    for lane in (lane for dim in gone for lane in lanes(state[dim])):
        raise UnknownOperationError(f"drops axis {lane.axis}, which is one pixel long here")
    return tuple(parts for dim, parts in enumerate(state) if dim not in gone)


def unsqueeze(call: Call) -> State:
    """A new dimension of length 1."""
    state = list(call.state("self"))
    state.insert(call.values["dim"] % (len(state) + 1), ())
    return tuple(state)


def view(call: Call) -> State:
    """The same elements in the same order."""
    return regroup(call.state("self"), call.shape)


def expand(call: Call) -> State:
    """Dimensions of length 1, or new ones, repeated."""
    return join([call.state("self")], call.shape)


def sliced(call: Call) -> State:
    """Every so many entries of a dimension, from one on."""
    dim, state = call.dims()[0] if call.values.get("dim") else 0, call.state("self")
    size, start = call.values["self"].shape[dim], call.values.get("start") or 0
    return _cut(state, dim, min(start + size if start < 0 else start, size), call.shape[dim], call.values["step"])


def _cut(state: State, dim: int, start: int, size: int, step: int = 1) -> State:
    """``size`` entries of a dimension from ``start`` on."""
    parts = slide(state[dim], AxisField(step, (Taps(start, 1),)), size)
    return *state[:dim], parts, *state[dim + 1 :]


def split(call: Call) -> list[State]:
    """A dimension in pieces."""
    dim = call.dims()[0] if call.values.get("dim") else 0
    starts, pieces = 0, []
    for piece in call.result:
        pieces.append(_cut(call.state("self"), dim, starts, piece.shape[dim]))
        starts += piece.shape[dim]
    return pieces


def select(call: Call) -> State:
    """One entry of a dimension."""
    dim, state = call.dims()[0] if call.values["dim"] else 0, call.state("self")
    if lanes(state[dim]):
        raise UnknownOperationError(f"picks one position of axis {lanes(state[dim])[0].axis}")
    return state[:dim] + state[dim + 1 :]


def unbind(call: Call) -> list[State]:
    """All entries of a dimension, each for itself."""
    return [select(call)] * len(call.result)


def cat(call: Call) -> State:
    """End to end: along channels, or along an axis between constants."""
    tensors = call.values["tensors"]
    dim, size = call.values["dim"] % len(call.shape), call.shape[call.values["dim"]]
    known = [(i, s) for i, t in enumerate(tensors) if (s := call.state_of(t)) is not None]
    along = [index for index, state in known if lanes(state[dim])]
    if along:
        if len(known) > 1:
            raise UnknownOperationError(f"joins pieces end to end along axis {lanes(known[0][1][dim])[0].axis}")
        before = sum(t.shape[dim] for t in tensors[: along[0]])
        return _cut(known[0][1], dim, -before, size)
    parts: list[State] = [(*state[:dim], (), *state[dim + 1 :]) for _, state in known]
    out = join(parts, [1 if i == dim else n for i, n in enumerate(call.shape)])
    return *out[:dim], plain(size), *out[dim + 1 :]


def stack(call: Call) -> State:
    """Along a new dimension."""
    known = [state for tensor in call.values["tensors"] if (state := call.state_of(tensor)) is not None]
    dim = call.values["dim"] % len(call.shape)
    out = join(known, [size for i, size in enumerate(call.shape) if i != dim])
    return *out[:dim], plain(call.shape[dim]), *out[dim:]


def repeat(call: Call) -> State:
    """Tiled along dimensions that are no axis of the image."""
    state = ((),) * (len(call.shape) - len(call.state("self"))) + call.state("self")
    out = []
    for parts, times, size in zip(state, call.values["repeats"], call.shape, strict=True):
        if times != 1 and lanes(parts):
            raise UnknownOperationError(f"repeats axis {lanes(parts)[0].axis}")
        out.append(parts if times == 1 else plain(size))
    return tuple(out)


def reduce(call: Call) -> State:
    """Sums, means, maxima: over dimensions that are no axis of the image."""
    state, dims = call.state(call.first), call.dims()
    for dim in dims:
        needs_no_lane(state[dim], "reduces")
    if call.values.get("keepdim"):
        return tuple(() if dim in dims else parts for dim, parts in enumerate(state))
    return tuple(parts for dim, parts in enumerate(state) if dim not in dims)


def reduce_both(call: Call) -> list[State]:
    """The same with two results, a maximum and where it is."""
    return [reduce(call)] * 2


def along(call: Call) -> State:
    """A dimension read as a whole: softmax, sums that run, halves gated."""
    state, dim = call.state(call.first), call.values["dim"] % len(call.shape)
    needs_no_lane(state[dim], "runs over")
    return *state[:dim], plain(call.shape[dim]), *state[dim + 1 :]


def along_both(call: Call) -> list[State]:
    """The same with two results, the sorted values and where they were."""
    return [along(call)] * 2


def flip(call: Call) -> State:
    """Turned round or rolled, along dimensions that are no axis of the image."""
    state = call.state("self")
    for lane in (lane for dim in call.dims("dims") for lane in lanes(state[dim])):
        raise UnknownOperationError(f"turns axis {lane.axis} round")
    return state


def matmul(call: Call) -> State:
    """(…, n, k) · (…, k, m), with a summand if there are three."""
    names = [name for name, value in call.values.items() if isinstance(value, Tensor)]
    left, right = (call.state(name) for name in names[-2:])
    summands = [call.state(name) for name in names[:-2] if call.state_of(call.values[name]) is not None]
    needs_no_lane(left[-1], "sums over")
    needs_no_lane(right[-2], "sums over")
    rows: State = (*left[:-1], ()) if any(map(lanes, left)) else ()
    columns: State = (*right[:-2], (), right[-1]) if any(map(lanes, right)) else ()
    return join([state for state in (rows, columns, *summands) if state], call.shape)


def linear(call: Call) -> State:
    """The last dimension times a matrix."""
    state = call.state("input")
    if call.state_of(call.values["weight"]) is not None:
        raise UnknownOperationError("multiplies by a matrix that depends on the input")
    needs_no_lane(state[-1], "sums over")
    return *state[:-1], plain(call.shape[-1])


def attention(call: Call) -> State:
    """Softmax attention: over tokens that are no pixels only."""
    for name in ("query", "key", "value"):
        for parts in call.state(name)[-2:]:
            needs_no_lane(parts, "attends over")
    return join([call.state(name)[:-2] for name in ("query", "key", "value")], call.shape[:-2]) + tuple(
        plain(size) for size in call.shape[-2:]
    )


def channels_only(call: Call) -> State:
    """Channels in another order."""
    needs_no_lane(call.state(call.first)[1], "shuffles")
    return call.state(call.first)


def pointwise(call: Call) -> State:
    """Element by element, with broadcasting."""
    tensors = [value for value in call.values.values() if isinstance(value, Tensor)]
    found = (call.state_of(tensor) for tensor in tensors)
    return join([state for state in found if state is not None], call.shape)


def copied(call: Call) -> State:
    """One tensor written over another: what was there before is gone."""
    state = call.state_of(call.values["src"])
    return tuple(map(plain, call.shape)) if state is None else join([state], call.shape)
