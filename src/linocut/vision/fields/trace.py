"""Running a module without data, and watching what its operations do to the axes of the image.

The module runs on tensors that have shapes and no values (PyTorch's fake tensors), so whatever Python it is made of is
gone through as for an image. Every operation of PyTorch's core set is seen, whichever layer called it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from linocut.vision.fields.algebra import AxisField, Taps
from linocut.vision.fields.calls import Call
from linocut.vision.fields.errors import FieldError, UnknownOperationError
from linocut.vision.fields.lanes import Lane, Part, State, lanes, plain
from linocut.vision.fields.rules import RULES
from linocut.vision.fields.shapes import copied, pointwise
from linocut.vision.fields.windows import applied

Steps = Sequence[AxisField]
Custom = Mapping[Any, Callable[..., Steps]]
Known = State | FieldError | None
"""Of a tensor: its state; why it cannot be told; None if it does not depend on the image."""


class Tracer(TorchDispatchMode):
    """Keeps the state of every tensor.

    An operation without a rule is no error before its result is used for the output: many networks have other heads.

    Args:
        custom: registered rules, by class of module and name of operation.
    """

    def __init__(self, custom: Custom) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.custom = custom
        self._known: dict[int, Known] = {}
        self._kept: list[Tensor] = []  # as long as a tensor lives, its id is its own
        self._spoilt: dict[int, FieldError] = {}
        self._stack: list[str] = []
        self._muted = 0

    def know(self, tensor: Tensor, state: Known) -> None:
        """Note what a tensor depends on."""
        self._kept.append(tensor)
        self._known[id(tensor)] = state

    def of(self, tensor: Tensor) -> Known:
        """What a tensor depends on; parameters and constants on nothing."""
        if id(tensor) in self._known:
            return self._known[id(tensor)]
        if not isinstance(tensor, FakeTensor):
            return None
        return UnknownOperationError(self._says("uses a tensor that was made out of sight"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, then note what its results depend on."""
        result = func(*args, **(kwargs or {}))
        outs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if outs and not self._muted:
            before = [self.of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            states = self._states(func, args, kwargs or {}, result, before)
            if func._schema.is_mutable:
                self._written(outs, states[0])
            for out, state in zip(outs, states, strict=True):
                self.know(out, state)
        return result

    def _states(self, func: Any, args: Any, kwargs: Any, result: Any, before: list[Known]) -> list[Known]:
        """Of every result: by the rule, or the reason why there is none."""
        count = len([leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        name = func._schema.name.split("::")[1]
        overwrites = RULES.get(name) is copied
        if all(state is None for state in before) or name.endswith("_like") or name.startswith("new_"):
            return [None] * count
        for state in before[1:] if overwrites else before:
            if isinstance(state, FieldError):
                return [state] * count
        try:
            found = self._rule(func)(_call(func, args, kwargs, result, self._state))
        except FieldError as error:
            return [type(error)(self._says(f"applies {func._schema.name}, which {error}"))] * count
        states: list[Known] = [found] if isinstance(found, tuple) else list(found)
        reason = UnknownOperationError(self._says(f"uses what {func._schema.name} gives beside its first result"))
        return (states + [reason] * count)[:count]

    def _rule(self, func: Any) -> Callable[[Call], Any]:
        name = func._schema.name
        if name in self.custom:
            return lambda call: _by_hand(self.custom[name], call)
        short = name.split("::")[1]
        if name.startswith(("aten::", "linocut::")) and short in RULES:
            return RULES[short]
        if torch.Tag.pointwise in func.tags:
            return pointwise
        raise UnknownOperationError(
            f"has no rule; add one with register_rule({name!r}, ...) or measure with method='probe'"
        )

    def _state(self, tensor: Tensor) -> State | None:
        known = self.of(tensor)
        if isinstance(known, FieldError):
            raise known
        return known

    def _written(self, outs: list[Tensor], state: Known) -> None:
        """After a write in place, other views of the memory do not hold what was known of them."""
        if self._known.get(id(outs[0])) == state:
            return
        places = {out.untyped_storage()._cdata for out in outs}
        error = UnknownOperationError(self._says("reads memory of which a part was overwritten"))
        for tensor in self._kept:
            if tensor.untyped_storage()._cdata in places:
                self._known[id(tensor)] = error

    def _says(self, what: str) -> str:
        return f"{self._stack[-1] if self._stack else 'the function'} {what}"

    @contextmanager
    def watching(self, module: Callable[..., Any]) -> Iterator[None]:
        """Know at every operation which module applies it, and give way to registered rules.

        Afterwards the module is as it was: statistics it gathers, and tensors it keeps for the next time, are put back.
        """
        named = list(module.named_modules()) if isinstance(module, nn.Module) else []
        for path, part in named:
            if any(is_lazy(parameter) for parameter in part.parameters(recurse=False)):
                raise FieldError(f"{path} ({type(part).__name__}) has no sizes yet; run it once on an image")
        before = [(part, dict(vars(part)), dict(part._buffers)) for _, part in named]
        handles: list[Any] = []
        for path, part in named:
            part._buffers.update({name: None if kept is None else kept.clone() for name, kept in part._buffers.items()})
            label = f"{path or 'the module'} ({type(part).__name__})"
            handles.append(part.register_forward_pre_hook(partial(self._enter, label)))
            handles.append(part.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for part, attributes, buffers in before:
                vars(part).clear()
                vars(part).update(attributes)
                part._buffers.clear()
                part._buffers.update(buffers)

    def _enter(self, label: str, module: nn.Module, inputs: Any) -> None:  # noqa: ARG002 (PyTorch's signature)
        self._stack.append(label)
        self._muted += self._custom(module) is not None

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        rule = self._custom(module)
        if rule is not None:
            self._muted -= 1
            if not self._muted and isinstance(output, Tensor):
                self.know(output, self._ruled(partial(rule, module), inputs[0], output))
        self._stack.pop()

    def _custom(self, module: nn.Module) -> Callable[..., Steps] | None:
        """The rule of a module's class, or of the one it has its ``forward`` from."""
        for base in type(module).__mro__:
            if base in self.custom and getattr(base, "forward", None) is type(module).forward:
                return self.custom[base]
        return None

    def _ruled(self, rule: Callable[[], Steps], source: Tensor, output: Tensor) -> Known:
        state = self.of(source)
        if state is None or isinstance(state, FieldError):
            return state
        try:
            return applied(state, rule(), output.shape)
        except FieldError as error:
            return type(error)(self._says(str(error)))

    def circular(self, x: Tensor, pad: Sequence[int]) -> Tensor:
        """Circular padding, which PyTorch does by writing into slices."""
        self._muted += 1
        out = nn.functional.pad(x, pad, mode="circular")
        self._muted -= 1
        known = self.of(x)
        if known is not None and not isinstance(known, FieldError):
            known = RULES["_pad_circular"](Call({"self": x, "pad": pad}, out, self._state))  # type: ignore[assignment]
        self.know(out, known)
        return out


class _Circular(TorchFunctionMode):
    """Takes ``functional.pad`` before it falls apart."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode = (kwargs or {}).get("mode", args[2] if len(args) > 2 else None)
        if func is nn.functional.pad and mode == "circular":
            both = dict(zip(("input", "pad"), args, strict=False)) | (kwargs or {})
            return self.tracer.circular(both["input"], both["pad"])
        return func(*args, **(kwargs or {}))


def _call(func: Any, args: Any, kwargs: Any, result: Any, state_of: Callable[[Tensor], State | None]) -> Call:
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    values = {a.name: given.get(a.name, a.default_value) for a in func._schema.arguments}
    return Call(values, result, state_of)


def _by_hand(rule: Callable[..., Steps], call: Call) -> State:
    tensors = [value for value in tree_leaves(call.values) if isinstance(value, Tensor)]
    states = [state for tensor in tensors if (state := call.state_of(tensor)) is not None]
    if len(states) != 1:
        raise UnknownOperationError(f"takes {len(states)} tensors that depend on the input; its rule speaks of one")
    return applied(states[0], rule(**call.values), call.shape)


def trace(
    module: Callable[..., Any], shape: Sequence[int], *, edges: bool, custom: Custom, pick: Callable[[Any], Any]
) -> tuple[Lane, ...]:
    """The axes of the image in a module's output.

    Args:
        module: takes a batch of images.
        shape: (channels, *spatial) of an image.
        edges: follow every index of the image, not only the endless one.
        custom: registered rules.
        pick: takes the tensor in question out of what the module returns.

    Raises:
        FieldError: if an operation on the way is global or has no rule.
    """
    tracer = Tracer(custom)
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    first = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
    with tracer.watching(module), FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
        x = torch.empty(1, *shape, dtype=first.dtype, device=first.device)
        spatial = ((Part(size, Lane.of_input(axis, size, edges=edges)),) for axis, size in enumerate(shape[1:]))
        tracer.know(x, ((), plain(shape[0]), *spatial))
        with tracer, _Circular(tracer):
            output = pick(module(x))
        state = tracer.of(output)
    if isinstance(state, FieldError):
        raise state
    found = [lane for parts in state or () for lane in lanes(parts)]
    if not found:
        raise UnknownOperationError("the output does not depend on the input")
    if any(one.axis > two.axis for one, two in pairwise(found)):
        raise UnknownOperationError("the output has the axes of the image in another order; put them back")
    if any(_empty(lane) for lane in found):
        found = [lane.then(AxisField(1, (Taps(0, 0),)), len(lane.edges or ())) for lane in found]
    return tuple(found)


def _empty(lane: Lane) -> bool:
    """Whether no output depends on anything along an axis, so that none does at all."""
    return not any(lane.edges) if lane.edges is not None else not any(lane.field.taps)
