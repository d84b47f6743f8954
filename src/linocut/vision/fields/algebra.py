r"""Which inputs an output depends on, along one axis: sets of indices that repeat, and how they compose.

Along an axis of an endless image, every layer here looks the same again after a *period* of p outputs, moved on by an
*advance* of J inputs: a convolution of stride 3 has p = 1 and J = 3, a transposed one of stride 2 p = 2 and J = 1, an
interpolation from 3 to 4 samples p = 4 and J = 3. With T_φ the inputs that output φ = 0, …, p − 1 depends on,

    field(i) = T_{i mod p} + J · ⌊i / p⌋         the inputs that output i depends on
    stride   = J / p                              inputs an output, a fraction where outputs are denser than inputs
    (f then g)(i) = ⋃ f(t) over t in g(i)         g on the output of f
    (f join g)(i) = f(i) ∪ g(i)                   two branches, added or concatenated

The sets are kept whole (as the bits of an integer), not as intervals: so the holes of dilated stacks are there, and
the ends stay exact where a layer skips inputs. The size is the widest max T_φ − min T_φ + 1. (Araujo, Norris &
Sim, *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019, have the case p = 1.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import gcd, lcm


@dataclass(frozen=True)
class Taps:
    """A finite set of indices: ``start`` + k for every bit k set in ``mask``; the lowest bit is set, or none."""

    start: int
    mask: int

    @classmethod
    def of(cls, indices: Iterable[int]) -> Taps:
        """The set of these indices.

        Example:
            >>> Taps.of([4, 2]).indices()
            [2, 4]
        """
        found = set(indices)
        start = min(found, default=0)
        return cls(start, sum(1 << (index - start) for index in found))

    @property
    def low(self) -> int:
        """The smallest index; of a set that is not empty."""
        return self.start

    @property
    def high(self) -> int:
        """The largest index; of a set that is not empty."""
        return self.start + self.mask.bit_length() - 1

    def __bool__(self) -> bool:
        return self.mask != 0

    def __iter__(self) -> Iterator[int]:
        mask, index = self.mask, self.start
        while mask:
            step = (mask & -mask).bit_length()
            yield index + step - 1
            mask >>= step
            index += step

    def indices(self) -> list[int]:
        """In rising order."""
        return list(self)

    def shifted(self, by: int) -> Taps:
        """Every index moved."""
        return Taps(self.start + by, self.mask) if self.mask else self

    def __or__(self, other: Taps) -> Taps:
        if not (self.mask and other.mask):
            return self if self.mask else other
        start = min(self.start, other.start)
        return Taps(start, self.mask << (self.start - start) | other.mask << (other.start - start))

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index >= self.start and bool(self.mask >> (index - self.start) & 1)


@dataclass(frozen=True)
class AxisField:
    """The inputs that every output depends on, along one axis of an endless image; see the module for the symbols.

    Attributes:
        advance: J >= 1, how far the inputs move on in a period of outputs.
        taps: T_0, …, T_{p−1}; a set may be empty (a transposed convolution whose kernel is shorter than its stride).

    Example:
        >>> conv = window(3, stride=2, padding=1)
        >>> two = conv.then(conv)
        >>> two.size, two.stride, two.padding, two.offset
        (7, Fraction(4, 1), 3, Fraction(0, 1))
    """

    advance: int
    taps: tuple[Taps, ...]

    def __post_init__(self) -> None:
        if self.advance < 1 or not self.taps:
            raise ValueError(f"a field needs advance >= 1 and a period >= 1, got {self.advance} and {len(self.taps)}")

    @property
    def period(self) -> int:
        """After so many outputs the field is the same, ``advance`` inputs on."""
        return len(self.taps)

    @property
    def stride(self) -> Fraction:
        """Inputs an output moves on by: above 1 the map has become coarser, below 1 finer."""
        return Fraction(self.advance, self.period)

    @property
    def size(self) -> int:
        """Inputs from the first to the last that one output depends on, holes included; the widest of all phases."""
        return max((taps.high - taps.low + 1 for taps in self.taps if taps), default=0)

    @property
    def padding(self) -> int:
        """How many inputs before index 0 the outputs from 0 on reach; negative if they leave the first inputs out."""
        return -self._low

    @property
    def offset(self) -> Fraction:
        """Where output 0 looks: output i's field has its centre at offset + i · stride, the mean over the phases."""
        centres = [Fraction(t.low + t.high, 2) - phase * self.stride for phase, t in enumerate(self.taps) if t]
        return sum(centres, Fraction(0)) / len(centres) if centres else Fraction(0)

    @property
    def halo(self) -> tuple[int, int]:
        """Inputs (before, after) that a tile needs beside its own.

        The tile of outputs m · p to n · p − 1 owns the inputs m · J to n · J − 1; its outputs reach beyond by this.
        """
        high = max((taps.high for taps in self.taps if taps), default=0)
        return max(0, self.padding), max(0, high - (self.advance - 1))

    @property
    def _low(self) -> int:
        return min((taps.low for taps in self.taps if taps), default=0)

    def at(self, index: int) -> Taps:
        """The inputs that output ``index`` depends on; indices outside the image are its padding."""
        block, phase = divmod(index, self.period)
        return self.taps[phase].shifted(block * self.advance)

    def input_range(self, index: int) -> tuple[int, int] | None:
        """First and last of the inputs that output ``index`` depends on, both included; None if there are none."""
        taps = self.at(index)
        return (taps.low, taps.high) if taps else None

    def output_range(self, index: int) -> tuple[int, int] | None:
        """First and last of the outputs that depend on input ``index``; None if there are none.

        Example:
            >>> window(3, stride=2).output_range(4)
            (1, 2)
        """
        touched = []
        for phase, taps in enumerate(self.taps):
            if taps:
                blocks = range(-((taps.high - index) // self.advance), (index - taps.low) // self.advance + 1)
                touched += [m * self.period + phase for m in blocks if index - m * self.advance in taps]
        return (min(touched), max(touched)) if touched else None

    def then(self, after: AxisField) -> AxisField:
        """This layer, and ``after`` on its output.

        Example:
            >>> window(3, dilation=2).then(window(3, dilation=2)).at(0).indices()  # gridding: every other input
            [0, 2, 4, 6, 8]
        """
        repeat = self.period // gcd(self.period, after.advance)
        taps = tuple(self.through(after.at(index)) for index in range(repeat * after.period))
        return _reduced(repeat * after.advance // self.period * self.advance, taps)

    def through(self, outputs: Taps) -> Taps:
        """The inputs that any of these outputs depends on."""
        return reduce(Taps.__or__, (self.at(index) for index in outputs), Taps(0, 0))

    def join(self, other: AxisField) -> AxisField:
        """Two branches of one input, their outputs added or concatenated index by index.

        Raises:
            ValueError: if the strides differ, so that the two drift apart.
        """
        if self.stride != other.stride:
            raise ValueError(f"branches to be joined must have one stride, got {self.stride} and {other.stride}")
        period = lcm(self.period, other.period)
        taps = tuple(self.at(index) | other.at(index) for index in range(period))
        return _reduced(period // self.period * self.advance, taps)


def _reduced(advance: int, taps: tuple[Taps, ...]) -> AxisField:
    """The same field with its shortest period, so that equal fields are equal."""
    for period in range(1, len(taps)):
        step, rest = divmod(advance * period, len(taps))
        if len(taps) % period == 0 and rest == 0:
            again = (taps[i - period].shifted(step) == taps[i] for i in range(period, len(taps)))
            if all(again):
                return AxisField(step, taps[:period])
    return AxisField(advance, taps)


IDENTITY = AxisField(1, (Taps(0, 1),))
"""Every output depends on the input of the same index."""


def window(kernel: int, *, stride: int = 1, dilation: int = 1, padding: int = 0) -> AxisField:
    """Convolution or pooling: output i reads the inputs i · stride − padding + k · dilation, 0 <= k < kernel.

    Args:
        kernel: taps, >= 1.
        stride: >= 1.
        dilation: distance of the taps, >= 1.
        padding: inputs added before the first one.

    Example:
        >>> window(3, stride=2, dilation=4, padding=4).input_range(1)
        (-2, 6)
    """
    _positive(kernel=kernel, stride=stride, dilation=dilation)
    return AxisField(stride, (Taps.of(k * dilation - padding for k in range(kernel)),))


def transposed(kernel: int, *, stride: int = 1, dilation: int = 1, padding: int = 0) -> AxisField:
    """Transposed convolution: input j is spread over the outputs j · stride − padding + k · dilation, 0 <= k < kernel.

    An output i so reads the inputs (i + padding − k · dilation) / stride, where that is whole: period = stride.

    Example:
        >>> [transposed(3, stride=2).at(i).indices() for i in range(3)]
        [[-1, 0], [0], [0, 1]]
    """
    _positive(kernel=kernel, stride=stride, dilation=dilation)
    reach = [[phase + padding - k * dilation for k in range(kernel)] for phase in range(stride)]
    return _reduced(1, tuple(Taps.of(at // stride for at in ends if at % stride == 0) for ends in reach))


def resampled(scale: Fraction, *, mode: str, align_corners: bool = False) -> AxisField:
    """Interpolation at the sources torch takes, in exact arithmetic.

    ``nearest``: ⌊i·scale⌋. ``nearest-exact``: ⌊(i + ½)·scale⌋. Otherwise at (i + ½)·scale − ½, or at i·scale with
    ``align_corners``: the two (``linear``) or four (``cubic``) samples around it, or the one it falls on.

    Args:
        scale: inputs an output moves on by; 1/2 doubles the size.
        mode: ``nearest``, ``nearest-exact``, ``linear`` or ``cubic``.
        align_corners: the first and last samples' centres are kept, not the edges.

    Example:
        >>> [resampled(Fraction(1, 2), mode="linear").at(i).indices() for i in range(2)]
        [[-1, 0], [0, 1]]
    """
    if mode not in _AROUND:
        raise ValueError(f"mode must be one of {', '.join(_AROUND)}, got {mode!r}")
    half = Fraction(0) if align_corners or mode == "nearest" else Fraction(1, 2)
    shift = Fraction(0) if mode == "nearest-exact" else half
    sources = [(index + half) * scale - shift for index in range(scale.denominator)]
    below, above = _AROUND[mode]
    taps = (
        Taps.of([at.numerator // at.denominator])
        if below == above or at.denominator == 1
        else Taps.of(range(at.numerator // at.denominator - below, at.numerator // at.denominator + above + 1))
        for at in sources
    )
    return _reduced(scale.numerator, tuple(taps))


_AROUND = {"nearest": (0, 0), "nearest-exact": (0, 0), "linear": (0, 1), "cubic": (1, 2)}


def divided(inputs: int, outputs: int) -> AxisField:
    """Adaptive pooling: output i reads the inputs ⌊i·n/m⌋ to ⌈(i + 1)·n/m⌉ − 1 of n, for m outputs.

    Example:
        >>> divided(10, 4).period, divided(12, 4) == window(3, stride=3)
        (2, True)
    """
    _positive(inputs=inputs, outputs=outputs)
    ends = ((i * inputs // outputs, -(-(i + 1) * inputs // outputs)) for i in range(outputs))
    taps = (Taps(start, (1 << (stop - start)) - 1) for start, stop in ends)
    return _reduced(inputs, tuple(taps))


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
