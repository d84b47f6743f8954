"""The protocol every mixer keeps, by the kind of summary it has, and the registry by name.

What a token must know of the rest of the sequence decides which forms a mixer has:

================ ================================= ================================= ==============================
type             summary of a piece                pieces are joined by              forms
================ ================================= ================================= ==============================
`SetMixer`       a sum, whatever the order         `merge`, commutative              parallel, chunked, tiled,
                                                                                     distributed
`OrderedMixer`   a map of the state                `compose`, associative            the same, and recurrent
`LocalMixer`     a halo of `reach` tokens          cutting and pasting               parallel, tiled
`Mixer`          none that is small                not at all                        parallel
================ ================================= ================================= ==============================
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

_REGISTRY: dict[tuple[str, bool], type[Mixer]] = {}
_Class = TypeVar("_Class", bound="type[Mixer]")


@dataclass(frozen=True)
class Info:
    """What a table of mixers says of one.

    Attributes:
        name: by which :func:`build` finds it.
        paper: authors, short title, year.
        url: where the paper is.
        causal: whether token t sees only tokens up to t; one class is one or the other.
        cost: time over a sequence of n tokens, as a formula in n and the mixer's sizes.
        state: numbers the summary or state of one sequence holds, as a formula; "none" where there is no small one.
    """

    name: str
    paper: str
    url: str
    causal: bool
    cost: str
    state: str


class Mixer(nn.Module):
    """Maps (batch, length, d_model) to the same shape; needs the whole sequence unless a subclass says otherwise.

    Args:
        d_model: channels of a token, >= 1.

    Raises:
        ValueError: if `d_model` is below 1.
    """

    info: ClassVar[Info]

    def __init__(self, d_model: int) -> None:
        super().__init__()
        if d_model < 1:
            raise ValueError(f"d_model must be >= 1, got {d_model}")
        self.d_model = d_model

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it mixes")

    def check(self, x: Tensor) -> None:
        """Refuse what is not (batch, length, d_model) of the parameters' kind of numbers.

        Raises:
            TypeError: if it is no tensor, or its dtype not that of the parameters; autocast may have another.
            ValueError: if the shape is another.
        """
        self._check_floats(x)
        weight = next(self.parameters(), x)
        if x.dtype != weight.dtype and not weight.is_complex() and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"{self._called()} has parameters of {weight.dtype} and takes the same, got {x.dtype}; "
                f"x.to({weight.dtype}) or mixer.to({x.dtype}) would do"
            )
        if x.dim() != 3 or x.shape[-1] != self.d_model:
            raise ValueError(f"{self._called()} takes (batch, length, {self.d_model}), got {tuple(x.shape)}")

    def check_token(self, x_t: Tensor) -> None:
        """Refuse what is not one token of each sequence, (batch, d_model).

        Raises:
            TypeError: if it is no tensor of floating-point numbers.
            ValueError: if the shape is another.
        """
        self._check_floats(x_t)
        if x_t.dim() != 2 or x_t.shape[-1] != self.d_model:
            raise ValueError(f"{self._called()}.step takes (batch, {self.d_model}), got {tuple(x_t.shape)}")

    def _check_floats(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            # NumPy arrays and nested lists come here, whatever the annotation says
            came = f"{type(x).__module__}.{type(x).__qualname__}"
            raise TypeError(f"{self._called()} takes a torch.Tensor, got {came}; torch.as_tensor(x) would make one")
        if not x.is_floating_point():
            raise TypeError(
                f"{self._called()} takes floating-point numbers, got {x.dtype}; x.float() would do, or an embedding if "
                "these are indices"
            )

    def _called(self) -> str:
        """The name in the registry, or the class's where it is not registered."""
        return self.info.name if hasattr(self, "info") else type(self).__name__


class SetMixer(Mixer):
    """A mixer that sees a sequence as a set, through a summary that merges.

    A subclass gives three functions; parallel, chunked, tiled and distributed runs all follow from them. For pieces
    ``x1`` and ``x2`` of a sequence, ``read(x1, merge(summarize(x1), summarize(x2)))`` is the ``x1`` part of
    ``forward(cat(x1, x2))`` up to rounding.
    """

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> Any:
        """What the rest must know of this piece; its size does not depend on the length."""
        raise NotImplementedError

    def merge(self, a: Any, b: Any) -> Any:
        """The summary of two pieces together; associative and commutative."""
        raise NotImplementedError

    def read(self, x: Float[Tensor, "batch length d_model"], summary: Any) -> Float[Tensor, "batch length d_model"]:
        """The output of this piece's tokens, given the summary of the whole."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        return self.read(x, self.summarize(x))


class OrderedMixer(Mixer):
    """A causal mixer with a state: what is behind a token acts on it through the state alone.

    A piece of the sequence is a map of the state. `scan` applies it and gives the outputs on the way; `summarize` gives
    the map itself, from the piece and the `halo` tokens before it, so that workers can summarise their pieces side by
    side, `compose` the maps in order, `advance` the first state through them and scan each piece from its own state.

    A state is a (nested) tuple of tensors with the batch first, and is never changed in place.

    Attributes:
        halo: tokens before a piece that its summary depends on (a short convolution, a shift); 0 without such.
    """

    halo: int = 0

    def init_state(self, batch: int) -> Any:
        """The state before the first token, for `batch` sequences, on the device and in the dtype of the parameters."""
        raise NotImplementedError

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Any
    ) -> tuple[Float[Tensor, "batch length d_model"], Any]:
        """The outputs of a piece and the state after it, given the state before it."""
        raise NotImplementedError

    def step(self, x_t: Float[Tensor, "batch d_model"], state: Any) -> tuple[Float[Tensor, "batch d_model"], Any]:
        """One token: its output and the state after it."""
        self.check_token(x_t)
        y, state = self.scan(x_t[:, None], state)
        return y[:, 0], state

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> Any:
        """The map of the state that a piece is; its size does not depend on the length.

        Args:
            x: the piece.
            before: the `halo` tokens before it, fewer near the start of the sequence; None at the start.
        """
        raise NotImplementedError

    def compose(self, first: Any, second: Any) -> Any:
        """The map of two adjoining pieces, the second after the first; associative."""
        raise NotImplementedError

    def advance(self, state: Any, summary: Any) -> Any:
        """The state after a piece, from the state before it and the piece's summary."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        return self.scan(x, self.init_state(x.shape[0]))[0]

    def _zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros beside the parameters; float32 or wider unless a dtype is asked for."""
        weight = next(self.parameters())
        return torch.zeros(shape, device=weight.device, dtype=dtype or torch.promote_types(weight.dtype, torch.float32))


class LocalMixer(Mixer):
    """A mixer whose tokens see only their neighbourhood: a piece needs a halo, and nothing else of the rest.

    Attributes:
        reach: tokens that a token sees behind it and ahead of it.
    """

    reach: tuple[int, int]

    def mix(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch behind d_model"],
        after: Float[Tensor, "batch ahead d_model"],
    ) -> Float[Tensor, "batch length d_model"]:
        """The outputs of a piece between its halos, which are shorter only where the sequence ends."""
        whole = self(torch.cat([before, x, after], dim=1))
        piece: Tensor = whole[:, before.shape[1] : before.shape[1] + x.shape[1]]
        return piece


def register(info: Info) -> Callable[[_Class], _Class]:
    """Class decorator that makes a mixer available as ``info.name``, in the form ``info.causal``."""

    def add(cls: _Class) -> _Class:
        cls.info = info
        _REGISTRY[info.name, info.causal] = cls
        return cls

    return add


def names() -> list[str]:
    """The names :func:`build` knows, sorted."""
    return sorted({name for name, _ in _REGISTRY})


def exists(name: str, *, causal: bool) -> bool:
    """Whether a mixer has the form asked for.

    Raises:
        ValueError: for an unknown name, with the near ones.
    """
    return (_known(name), causal) in _REGISTRY


def classes() -> list[type[Mixer]]:
    """Every registered class, sorted by name, the causal form first."""
    return [_REGISTRY[key] for key in sorted(_REGISTRY, key=lambda key: (key[0], not key[1]))]


def build(name: str, d_model: int, *, causal: bool = True, **options: Any) -> Mixer:
    """Build a mixer by name.

    Args:
        name: one of :func:`names`.
        d_model: channels of a token, >= 1.
        causal: whether token t sees only tokens up to t. Not every paper has both forms; :func:`table` tells.
        **options: handed to the mixer's constructor, which refuses those it does not know.

    Raises:
        ValueError: for an unknown name, with the near ones, or for a form that the paper lacks.
        TypeError: for an option that the mixer does not have, with those it has, near ones first.
    """
    if not exists(name, causal=causal):
        hint = "mixers.Bidirectional runs a causal one both ways" if not causal else "it sees the sequence as a whole"
        raise ValueError(f"{name!r} exists only with causal={not causal}, got causal={causal}; {hint}")
    cls = _REGISTRY[name, causal]
    known = [option for option in inspect.signature(cls).parameters if option != "d_model"]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=len(known), cutoff=0)
            raise TypeError(f"{name} has no option {option!r}; it has {', '.join(near) or 'none'}")
    return cls(d_model, **options)


def table(only: Iterable[str] | None = None) -> None:
    """Print every mixer: name, paper, causal or not, cost, state size, forms.

    Args:
        only: the names to list; None for all.

    Raises:
        ValueError: for an unknown name, with the near ones.
    """
    from rich.console import Console
    from rich.table import Column, Table

    wanted = set(names()) if only is None else {_known(name) for name in only}
    rows = Table(
        Column("name", no_wrap=True, overflow="fold"),
        "causal",
        "paper",
        "cost of n tokens",
        "state",
        "forms",
        title="linocut.mixers",
    )
    for cls in classes():
        info = cls.info
        if info.name in wanted:
            rows.add_row(info.name, "yes" if info.causal else "no", info.paper, info.cost, info.state, _forms(cls))
    Console().print(rows)


def _forms(cls: type[Mixer]) -> str:
    """The forms in which a mixer of this type can be run."""
    kinds: dict[type[Mixer], str] = {
        SetMixer: "parallel, chunked, tiled, distributed",
        OrderedMixer: "parallel, chunked, recurrent, tiled, distributed",
        LocalMixer: "parallel, tiled with a halo",
    }
    found = [forms for kind, forms in kinds.items() if issubclass(cls, kind)]
    return found[0] if found else "parallel"


def _known(name: str) -> str:
    """The name itself, if it is one."""
    if name not in (known := names()):
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ValueError(f"unknown mixer {name!r}; did you mean {' or '.join(map(repr, near))}?")
    return name
