"""Measuring a receptive field: mark inputs with NaN and see which outputs become NaN.

Sums, products, maxima and activations pass NaN on, whatever the weights, so this finds what could be read, not what
happens to matter. In an image of this size the result is exact, but for weights of exactly zero (a masked kernel,
a bilinear source on a pixel), which pass NaN on too. An operation that *hides* NaN would lose
inputs (a comparison, ``nan_to_num``); so every mark is checked with a finite change, which must not show elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from linocut.vision.fields.algebra import AxisField, Taps
from linocut.vision.fields.errors import FieldError, GlobalOperationError

Edges = tuple[tuple[Taps, ...], ...]


def probe(
    module: Callable[..., Any], shape: Sequence[int], pick: Callable[[Any], Tensor]
) -> tuple[tuple[AxisField, ...], Edges]:
    """The fields on an endless image and in this one; needs 2 Σ size + 1 runs of the module (sizes of all axes).

    Args:
        module: takes a batch (1, channels, *spatial), gives a map of as many axes behind batch and channels.
        shape: (channels, *spatial).
        pick: takes the tensor in question out of what the module returns.

    Raises:
        GlobalOperationError: if every output depends on every input.
        FieldError: if NaN is lost on the way, or the image is too small to tell how the field goes on.
    """
    rank = len(shape) - 1
    module = deepcopy(module)  # in training, batch normalisation would keep the NaN
    first = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(1, *shape, generator=generator)
    if first is not None:
        base = base.to(first)
    with torch.no_grad():
        clean = pick(module(base.clone()))
        if clean.ndim != rank + 2 or not clean.isfinite().all():
            raise FieldError(f"expected finite outputs (1, channels, {rank} axes), got the shape {tuple(clean.shape)}")
        runs = [_marked(module, base, clean, axis, pick) for axis in range(rank)]
    edges = tuple(tuple(Taps.of(column.nonzero().flatten().tolist()) for column in run.T) for run in runs)
    fields = []
    for axis, (edge, length) in enumerate(zip(edges, shape[1:], strict=True)):
        if length > 1 and all(taps.mask.bit_count() == length for taps in edge):
            raise GlobalOperationError(f"every output depends on the whole of axis {axis} of the input, {length} long")
        fields.append(_endless(edge, length, axis))
    return tuple(fields), edges


def _marked(
    module: Callable[..., Any], base: Tensor, clean: Tensor, axis: int, pick: Callable[[Any], Tensor]
) -> Tensor:
    """(inputs, outputs) on an axis: which inputs, marked one by one, which outputs show."""
    shows = torch.zeros(base.shape[axis + 2], clean.shape[axis + 2], dtype=torch.bool)
    for index in range(base.shape[axis + 2]):
        marked, moved = base.clone(), base.clone()
        marked.select(axis + 2, index).fill_(torch.nan)
        moved.select(axis + 2, index).add_(1)
        hit = _along(pick(module(marked)).isnan(), axis)
        changed = _along((pick(module(moved)) - clean).abs() > 1e-3 * clean.abs().amax(), axis)
        if (changed & ~hit).any():
            raise FieldError(
                f"outputs change with input {index} of axis {axis}, but do not become NaN with it: an operation hides "
                "NaN, so probing cannot tell the field; register_rule can"
            )
        shows[index] = hit.cpu()
    return shows


def _along(flags: Tensor, axis: int) -> Tensor:
    return flags.movedim(axis + 2, 0).flatten(1).any(1)


def _endless(edge: Sequence[Taps], length: int, axis: int) -> AxisField:
    """The field that goes on for ever, from the outputs of an image that see none of its borders.

    The shortest period and advance are taken under which all of them agree, at least three periods of them.
    """
    inside = [i for i, taps in enumerate(edge) if taps and taps.low > 0 and taps.high < length - 1]
    if inside:
        first, last = inside[0], inside[-1]
        for period in range(1, (last - first + 1) // 3 + 1):
            for advance in _advances(edge, first, period):
                if all(edge[i + period] == edge[i].shifted(advance) for i in range(first, last + 1 - period)):
                    start = -(-first // period) * period
                    taps = tuple(edge[start + k].shifted(-start // period * advance) for k in range(period))
                    return AxisField(advance, taps)
    raise FieldError(
        f"an image {length} long on axis {axis} is too small to tell how the field goes on: fewer than three periods "
        "of outputs see none of its borders; give a larger input_size"
    )


def _advances(edge: Sequence[Taps], first: int, period: int) -> Sequence[int]:
    here, there = edge[first], edge[first + period]
    return [there.low - here.low] if there and there.low > here.low else []
