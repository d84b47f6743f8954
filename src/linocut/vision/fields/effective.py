"""The effective receptive field: how much, not whether, an output depends on each input.

Luo, Li, Urtasun & Zemel, *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*,
NIPS 2016, https://arxiv.org/abs/1701.04128: the gradient of the central output, of all its channels, by the input; its
magnitude over random inputs has about the shape of a Gaussian, much narrower than the theoretical field.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import gamma, pi
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.vision.fields.receptive_field import picker

TWO_SIGMA = 0.0455
"""1 − 95.45 %: Luo et al. count the inputs whose gradient is at least this share of the largest one."""


@dataclass(frozen=True)
class EffectiveField:
    """Where the gradient of one output comes from.

    Attributes:
        map: (*spatial), >= 0, sums to 1: the share of each input in the mean absolute gradient.
        output: the index of the output.
        centre: its place in the input: the mean position, weighted by the shares.
    """

    map: Tensor
    output: tuple[int, ...]
    centre: tuple[float, ...]

    def count(self, threshold: float = TWO_SIGMA) -> int:
        """Inputs whose gradient is at least ``threshold`` of the largest one's."""
        return int((self.map >= threshold * self.map.max()).sum())

    def size(self, threshold: float = TWO_SIGMA) -> float:
        """The side of a square (cube, line) of :meth:`count` inputs, to compare with the theoretical size."""
        return float(self.count(threshold) ** (1 / self.map.ndim))

    def radius(self, threshold: float = TWO_SIGMA) -> float:
        """The radius of a disc (ball, line) of :meth:`count` inputs: in two dimensions √(count / π)."""
        rank = self.map.ndim
        ball = pi ** (rank / 2) / gamma(rank / 2 + 1)
        return float((self.count(threshold) / ball) ** (1 / rank))

    def within(self, distance: float) -> float:
        """The share of the gradient no further than ``distance`` inputs from the centre on any axis.

        Example:
            >>> field = EffectiveField(torch.tensor([0.1, 0.8, 0.1]), (1,), (1.0,))
            >>> round(field.within(0), 3), round(field.within(1), 3)
            (0.8, 1.0)
        """
        inside = self.map
        for axis, (length, centre) in enumerate(zip(self.map.shape, self.centre, strict=True)):
            near = ((torch.arange(length) - centre).abs() <= distance + 1e-6).to(self.map)
            inside = inside * near.reshape([-1 if dim == axis else 1 for dim in range(self.map.ndim)])
        return float(inside.sum())


def effective_receptive_field(
    module: Callable[..., Any],
    input_size: Sequence[int],
    *,
    at: Sequence[int] | None = None,
    output: Hashable = None,
    samples: int = 16,
    seed: int = 0,
) -> EffectiveField:
    r"""The mean absolute gradient of one output by the input, over random inputs.

    .. math:: E(p) ∝ \sum_{x ∼ N(0, 1)} \sum_{c} | ∂ \sum_k y_k(q) / ∂ x_c(p) |

    for the output position q with channels k, and the input position p with channels c.

    Args:
        module: takes a batch (1, channels, *spatial), gives (1, channels, *spatial). It stays as it is, its
            mode too.
        input_size: (channels, *spatial).
        at: q; the middle of the output if not given.
        output: index or key of the output in question, where the module returns several.
        samples: inputs drawn, >= 1.
        seed: of the inputs; they are the same on every machine.

    Raises:
        ValueError: if ``samples`` < 1, ``at`` is no index of the output, or the gradient is zero for every sample (the
            output does not depend on the input, or every activation is dead).

    Example:
        >>> from linocut.vision import effective_receptive_field
        >>> field = effective_receptive_field(nn.AvgPool2d(3, stride=1), (1, 9, 9))
        >>> field.count(), round(field.size(), 2), round(field.within(1), 3)
        (9, 3.0, 1.0)
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    pick, generator = picker(output), torch.Generator().manual_seed(seed)
    module = deepcopy(module)  # in training, batch normalisation keeps what it saw
    first = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    total: Tensor | None = None
    where: tuple[int, ...] = ()
    for _ in range(samples):
        x = torch.randn(1, *input_size, generator=generator)
        x = (x if first is None else x.to(first)).requires_grad_()
        with torch.enable_grad():
            y = pick(module(x))
            where = _position(y, at)
            flat = int(np.ravel_multi_index(where, y.shape[2:]))
            (gradient,) = torch.autograd.grad(y[0].flatten(1)[:, flat].sum(), x, allow_unused=True)
        if gradient is not None:
            share = gradient[0].abs().sum(0).double().cpu()
            total = share if total is None else total + share
    if total is None or not total.sum() > 0:
        raise ValueError(f"the gradient of output {where} is zero or not a number for all of {samples} inputs")
    shares = total / total.sum()
    return EffectiveField(shares, where, _centre(shares))


def _position(y: Float[Tensor, "1 channels *spatial"], at: Sequence[int] | None) -> tuple[int, ...]:
    lengths = tuple(y.shape[2:])
    where = tuple(length // 2 for length in lengths) if at is None else tuple(at)
    if len(where) != len(lengths) or not all(0 <= i < n for i, n in zip(where, lengths, strict=True)):
        raise ValueError(f"at must be an index of an output of size {lengths}, got {where}")
    return where


def _centre(shares: Float[Tensor, "*spatial"]) -> tuple[float, ...]:
    means = []
    for axis, length in enumerate(shares.shape):
        other = [dim for dim in range(shares.ndim) if dim != axis]
        along = shares.sum(other) if other else shares
        means.append(float((along * torch.arange(length)).sum()))
    return tuple(means)
