"""The protocol every mixer keeps, and the registry by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

_REGISTRY: dict[str, type[SetMixer]] = {}
_Class = TypeVar("_Class", bound="type[SetMixer]")


class SetMixer(nn.Module):
    """A mixer that sees a sequence as a set, through a summary that merges.

    A subclass gives three functions; parallel, chunked, tiled and distributed runs all follow from them. For pieces
    ``x1`` and ``x2`` of a sequence, ``read(x1, merge(summarize(x1), summarize(x2)))`` is the ``x1`` part of
    ``forward(cat(x1, x2))`` up to rounding.
    """

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> Any:
        """What the rest must know of this piece; its size does not depend on the length."""
        raise NotImplementedError

    def merge(self, a: Any, b: Any) -> Any:
        """The summary of two pieces together."""
        raise NotImplementedError

    def read(self, x: Float[Tensor, "batch length d_model"], summary: Any) -> Float[Tensor, "batch length d_model"]:
        """The output of this piece's tokens, given the summary of the whole."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        return self.read(x, self.summarize(x))


def register(name: str) -> Callable[[_Class], _Class]:
    """Class decorator that makes a mixer available by ``name``."""

    def add(cls: _Class) -> _Class:
        _REGISTRY[name] = cls
        return cls

    return add


def names() -> list[str]:
    """The names :func:`build` knows, sorted."""
    return sorted(_REGISTRY)


def build(name: str, d_model: int, **options: Any) -> SetMixer:
    """Build a mixer by name.

    Args:
        name: one of :func:`names`.
        d_model: channels of a token, >= 1.
        **options: handed to the mixer's constructor, which refuses those it does not know.

    Raises:
        ValueError: for an unknown name; the message lists the near ones.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4) or names()
        raise ValueError(f"unknown mixer {name!r}; did you mean {' or '.join(map(repr, near))}?")
    return _REGISTRY[name](d_model, **options)
