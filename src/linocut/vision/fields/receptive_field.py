"""The receptive field of a module: which pixels of the input each pixel of the output depends on, exactly.

Araujo, Norris & Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019,
https://distill.pub/2019/computing-receptive-fields. There strides are whole; :mod:`algebra` has the general case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from torch import Tensor, nn

from linocut.vision.fields.algebra import AxisField, Taps
from linocut.vision.fields.errors import FieldError, UnknownOperationError
from linocut.vision.fields.lanes import Lane
from linocut.vision.fields.trace import Steps, trace

Range = tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """Which inputs each output depends on, axis by axis.

    An axis is told of for itself: for a map, ``input_range((i, j))[0]`` are the rows that any output of row i reads.

    Attributes:
        axes: of an endless image.
        edges: with a known input size, for every axis and every index of the output the inputs in that image; borders
            are then exact, whatever the padding does.

    Example:
        >>> from linocut.vision import receptive_field
        >>> field = receptive_field(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)))
        >>> field.size, field.halo, field.input_range((0, 10))
        ((4, 4), ((1, 1), (1, 1)), ((-1, 2), (19, 22)))
    """

    axes: tuple[AxisField, ...]
    edges: tuple[tuple[Taps, ...], ...] | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Inputs from the first to the last that one output depends on; where that varies, the most."""
        return tuple(axis.size for axis in self.axes)

    @property
    def stride(self) -> tuple[Fraction, ...]:
        """Inputs that the field moves on by from one output to the next; 1/2 where the output is twice as dense."""
        return tuple(axis.stride for axis in self.axes)

    @property
    def offset(self) -> tuple[Fraction, ...]:
        """The centre of output i's field is offset + i · stride, in indices of the input (on average over phases)."""
        return tuple(axis.offset for axis in self.axes)

    @property
    def padding(self) -> tuple[int, ...]:
        """How many inputs before index 0 the outputs from 0 on reach; negative if they leave the first ones out."""
        return tuple(axis.padding for axis in self.axes)

    @property
    def halo(self) -> tuple[Range, ...]:
        """Inputs (before, after) that a tile needs beside its own; see :attr:`AxisField.halo`."""
        return tuple(axis.halo for axis in self.axes)

    def input_range(self, output_index: int | Sequence[int]) -> tuple[Range | None, ...]:
        """First and last input that an output depends on, on every axis; None where it depends on none.

        On an endless image, so that indices outside [0, n) mean padding; with a known input size, in that image.

        Args:
            output_index: one index an axis, or one for all.

        Raises:
            ValueError: if there are not as many indices as axes.
            IndexError: if the size of the input is known and there is no such output.
        """
        indices = self._each(output_index)
        if self.edges is None:
            return tuple(axis.input_range(index) for axis, index in zip(self.axes, indices, strict=True))
        for edge, index in zip(self.edges, indices, strict=True):
            if not 0 <= index < len(edge):
                raise IndexError(f"the output has the indices 0 to {len(edge) - 1}, got {index}")
        found = (edge[index] for edge, index in zip(self.edges, indices, strict=True))
        return tuple((taps.low, taps.high) if taps else None for taps in found)

    def output_range(self, input_index: int | Sequence[int]) -> tuple[Range | None, ...]:
        """First and last output that depends on an input, on every axis; as :meth:`input_range`, the other way."""
        indices = self._each(input_index)
        if self.edges is None:
            return tuple(axis.output_range(index) for axis, index in zip(self.axes, indices, strict=True))
        touched = [[i for i, t in enumerate(e) if at in t] for e, at in zip(self.edges, indices, strict=True)]
        return tuple((outputs[0], outputs[-1]) if outputs else None for outputs in touched)

    def then(self, after: ReceptiveField) -> ReceptiveField:
        """This module, and ``after`` on its output; on an endless image."""
        return ReceptiveField(tuple(a.then(b) for a, b in zip(self.axes, self._alike(after), strict=True)))

    def join(self, other: ReceptiveField) -> ReceptiveField:
        """Two branches on one input, added or concatenated; on an endless image.

        Raises:
            ValueError: if their strides differ.
        """
        return ReceptiveField(tuple(a.join(b) for a, b in zip(self.axes, self._alike(other), strict=True)))

    def _alike(self, other: ReceptiveField) -> tuple[AxisField, ...]:
        if len(other.axes) != len(self.axes):
            raise ValueError(f"both fields must have as many axes, got {len(self.axes)} and {len(other.axes)}")
        return other.axes

    def _each(self, index: int | Sequence[int]) -> Sequence[int]:
        indices = [index] * len(self.axes) if isinstance(index, int) else index
        if len(indices) != len(self.axes):
            raise ValueError(f"expected one index for each of {len(self.axes)} axes, got {tuple(indices)}")
        return indices


_CUSTOM: dict[Any, Callable[..., Steps]] = {}


def register_rule(target: type[nn.Module] | str, rule: Callable[..., Steps]) -> None:
    """Tell what a class of modules, or an operation, depends on; the last word on it, the inside is not looked at.

    Args:
        target: a class (its subclasses too, unless they have a ``forward`` of their own), or an operation's full name.
        rule: gives the field on each of the last axes; called with the module, or with the operation's arguments by
            name. What it does not cover, such as channels, is taken to be mixed.

    Example:
        >>> from linocut.vision import receptive_field
        >>> from linocut.vision.fields.algebra import window
        >>> class Blur(nn.Module):
        ...     def forward(self, x):
        ...         return x.cumsum(-1) * 0 + x  # a global operation, as far as one can see
        >>> register_rule(Blur, lambda module: [window(5, padding=2)] * 2)
        >>> receptive_field(Blur(), (3, 32, 32)).size
        (5, 5)
    """
    _CUSTOM[target] = rule


def receptive_field(
    module: Callable[..., Any],
    input_size: Sequence[int] | None = None,
    *,
    output: Hashable = None,
    method: Literal["trace", "probe"] = "trace",
) -> ReceptiveField:
    """The receptive field of a module, exactly; see :class:`ReceptiveField` for what it tells.

    The module runs once on tensors without values, and every operation is followed by a rule: convolutions of any kind,
    pooling, interpolation, padding, (un)shuffling of pixels, all that is element by element or along channels, sums and
    concatenations. Its mode counts: batch normalisation is local in ``eval()`` and global in training.

    Args:
        module: takes a batch (1, channels, *spatial); its device and mode stay as they are.
        input_size: (channels, *spatial) of an image. Needed where the field depends on it (adaptive pooling,
            ``align_corners``) and where no convolution tells the channels; then the borders of that image are exact
            too. Without it, the module is followed at two large sizes, which must agree.
        output: index or key of the output in question, where the module returns several.
        method: ``trace`` as above; ``probe`` marks inputs of an image with NaN instead, one row or column at a time,
            and looks where the NaN arrives: for modules with operations that have no rule; needs ``input_size``.

    Raises:
        GlobalOperationError: if the output depends on the whole input; the message names operation and module.
        UnknownOperationError: if there is no rule for an operation, see :func:`register_rule`.
        FieldError: both of these, and if ``input_size`` is needed.

    Example:
        >>> from linocut.vision import receptive_field
        >>> field = receptive_field(nn.Conv2d(3, 8, 3, stride=2, dilation=2))
        >>> field.size, field.stride, field.input_range((0, 4))
        ((5, 5), (Fraction(2, 1), Fraction(2, 1)), ((0, 4), (8, 12)))
    """
    pick = picker(output)
    if method == "probe":
        from linocut.vision.fields.probe import probe

        if input_size is None:
            raise FieldError("method='probe' needs input_size, (channels, *spatial)")
        return ReceptiveField(*probe(module, tuple(input_size), pick))
    if method != "trace":
        raise ValueError(f"method must be 'trace' or 'probe', got {method!r}")
    if input_size is not None:
        if len(input_size) < 2 or min(input_size) < 1:
            raise ValueError(f"input_size must be (channels, *spatial), each >= 1, got {tuple(input_size)}")
        lanes = _trace(module, tuple(input_size), pick, edges=True)
        edges = [lane.edges for lane in lanes if lane.edges is not None]
        return ReceptiveField(tuple(lane.field for lane in lanes), tuple(edges))
    first, second = (_fields(module, size, pick) for size in _sizes(module))
    if first != second:
        raise FieldError("the field depends on the size of the input; give it as input_size, (channels, *spatial)")
    return ReceptiveField(first)


def _fields(module: Callable[..., Any], size: tuple[int, ...], pick: Callable[[Any], Tensor]) -> tuple[AxisField, ...]:
    return tuple(lane.field for lane in _trace(module, size, pick, edges=False))


def _trace(
    module: Callable[..., Any], size: tuple[int, ...], pick: Callable[[Any], Tensor], *, edges: bool
) -> tuple[Lane, ...]:
    """The axes of the image in the output; what the module itself raises becomes a FieldError that says the size."""
    try:
        return trace(module, size, edges=edges, custom=_CUSTOM, pick=pick)
    except RuntimeError as error:
        raise FieldError(
            f"cannot run the module on an image of {size}, (channels, *spatial): {error}; give a size that it takes as "
            "input_size"
        ) from error


# Multiples of many numbers, so that ratios of sizes come out the same; without values their memory is not needed.
_LENGTHS = {1: (983040, 1179648), 2: (3840, 4608), 3: (960, 1152)}


def _sizes(module: Callable[..., Any]) -> Iterator[tuple[int, ...]]:
    """Two sizes of input that the first convolution takes, or the first layer that tells its number of axes."""
    for part in module.modules() if isinstance(module, nn.Module) else ():
        if isinstance(part, nn.modules.conv._ConvNd):
            rank, channels = part.weight.ndim - 2, part.in_channels
        elif (named := re.search(r"([123])d$", type(part).__name__)) and not list(part.children()):
            rank, channels = int(named[1]), int(getattr(part, "num_features", 1))
        else:
            continue
        yield from ((channels, *[length] * rank) for length in _LENGTHS[rank])
        return
    raise FieldError("no layer tells the input's channels and axes; give them as input_size, (channels, *spatial)")


def picker(output: Hashable) -> Callable[[Any], Tensor]:
    """A function that takes the output of this index or key out of what a module returns, the only one if None."""

    def pick(returned: Any) -> Tensor:
        found = returned if output is None else returned[output]
        if not isinstance(found, Tensor):
            raise UnknownOperationError(
                f"the module returns a {type(found).__name__}; say with output= which of its tensors is meant"
            )
        return found

    return pick
