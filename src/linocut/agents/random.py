"""Random numbers for loops: SplitMix64, the same in compiled code and in Python, one state a run.

A generator is an array of one uint64, which :func:`next_word` moves on, with a period of 2⁶⁴.

Source: Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014, figure 17
(https://doi.org/10.1145/2660193.2660195).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled, run

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_UNIT = 2.0**-53


def generator(seed: int) -> NDArray[np.uint64]:
    """A generator; seeds that are near give sequences that have nothing in common.

    Args:
        seed: 0 … 2⁶⁴ − 1.

    Raises:
        ValueError: if the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in 0 … 2**64 - 1, got {seed}")
    state = np.array([seed], np.uint64)
    # one word ahead, so that seeds 0, 1, 2, … do not start neighbouring sequences
    state[0] = run(next_word, state)
    return state


@compiled
def next_word(state: NDArray[np.uint64]) -> np.uint64:
    """Draw 64 random bits."""
    state[0] += _STEP
    word = state[0]
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@compiled
def uniform(state: NDArray[np.uint64]) -> float:
    """Draw a number in [0, 1), a multiple of 2⁻⁵³."""
    return float(next_word(state) >> _11) * _UNIT


@compiled
def below(state: NDArray[np.uint64], count: int) -> int:
    """Draw a whole number in 0 … count − 1, count < 2³²; uneven by at most count / 2³²."""
    return np.int64(((next_word(state) >> _32) * np.uint64(count)) >> _32)  # type: ignore[return-value]
