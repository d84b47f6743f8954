"""Step sizes and exploration that change from episode to episode.

Wherever a method takes ``alpha`` or ``epsilon`` it takes a number, a function of the episode (counted from 0), or one
of these. Robbins and Monro's conditions for convergence, Σ α = ∞ and Σ α² < ∞, hold for :func:`harmonic` and
:class:`PerVisit`; a constant step size goes on following what it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Schedule = float | Callable[[int], float]


@dataclass(frozen=True)
class PerVisit:
    """α = scale / N^power, N the number of times this state and action were updated, this time included.

    Raises:
        ValueError: if power is not in 0 … 1 or scale not positive.
    """

    power: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise ValueError(f"power must be above 0 and at most 1, got {self.power}")
        if not self.scale > 0:
            raise ValueError(f"scale must be > 0, got {self.scale}")


def linear(start: float, end: float, episodes: int) -> Callable[[int], float]:
    """Go from start to end in so many episodes, then end.

    Raises:
        ValueError: if episodes is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be >= 1, got {episodes}")
    return lambda episode: start + (end - start) * min(1.0, episode / episodes)


def exponential(start: float, factor: float, least: float = 0.0) -> Callable[[int], float]:
    """Give start · factor^episode, but not below least.

    Raises:
        ValueError: if factor is not in 0 … 1.
    """
    if not 0 < factor <= 1:
        raise ValueError(f"factor must be above 0 and at most 1, got {factor}")
    return lambda episode: max(least, start * factor**episode)


def harmonic(scale: float = 1.0, delay: float = 1.0) -> Callable[[int], float]:
    """Give scale / (episode + delay): Robbins and Monro's.

    Raises:
        ValueError: if scale or delay is not positive.
    """
    if not (scale > 0 and delay > 0):
        raise ValueError(f"scale and delay must be > 0, got {scale} and {delay}")
    return lambda episode: scale / (episode + delay)


def values(schedule: Schedule, first: int, count: int, *, name: str) -> NDArray[np.float64]:
    """A schedule's values for the episodes first … first + count − 1.

    Raises:
        ValueError: if one is not in 0 … 1, saying which.
    """
    if callable(schedule):
        listed = np.array([schedule(episode) for episode in range(first, first + count)], np.float64)
    else:
        listed = np.full(count, schedule, np.float64)
    wrong = ~((listed >= 0) & (listed <= 1))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"{name} must be in 0 … 1, got {listed[at]} in episode {first + at}")
    return listed
