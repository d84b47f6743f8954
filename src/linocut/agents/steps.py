"""The two draws of every tabular loop: an action from a policy, an outcome from the tables."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.random import below, next_word, uniform
from linocut.agents.targets import q_learning_target


@compiled
def draw(threshold: NDArray[np.uint64], first: int, count: int, rng: NDArray[np.uint64]) -> int:
    """Which of ``count`` entries from ``first`` on is drawn, by their thresholds; for one entry no word is drawn."""
    if count == 1:
        return first
    word = next_word(rng)
    place = first
    for entry in range(first, first + count - 1):
        place += word >= threshold[entry]
    return place


@compiled
def greedy(q: NDArray[np.float64], legal: NDArray[np.bool_], state: int, rng: NDArray[np.uint64]) -> int:
    """A best legal action; ties are broken at random."""
    best = q_learning_target(q, legal, state)
    chosen, ties = 0, 0
    for action in range(q.shape[1]):
        if legal[state, action] and q[state, action] == best:
            if ties == 0:
                chosen = action
            ties += 1
    if ties == 1:
        return chosen
    skip = below(rng, ties)
    for action in range(chosen, q.shape[1]):
        if legal[state, action] and q[state, action] == best:
            if skip == 0:
                return action
            skip -= 1
    return chosen


@compiled
def any_action(legal: NDArray[np.bool_], state: int, rng: NDArray[np.uint64]) -> int:
    """A legal action, each as likely as the others."""
    count = 0
    for action in range(legal.shape[1]):
        count += legal[state, action]
    skip = below(rng, count)
    for action in range(legal.shape[1]):
        if legal[state, action]:
            if skip == 0:
                return action
            skip -= 1
    return 0


@compiled
def epsilon_greedy(
    q: NDArray[np.float64], legal: NDArray[np.bool_], state: int, epsilon: float, rng: NDArray[np.uint64]
) -> int:
    """With probability ε any legal action, otherwise a best one."""
    if epsilon > 0 and uniform(rng) < epsilon:
        return any_action(legal, state, rng)
    return greedy(q, legal, state, rng)


@compiled
def step_size(alpha: float, power: float, visits: NDArray[np.int64], state: int, action: int) -> float:
    """α, or α / N^power where power is not 0; counts the visit."""
    visits[state, action] += 1
    if power == 0:
        return alpha
    if power == 1:
        return alpha / visits[state, action]
    # not **: of scalars NumPy takes a power of its own, which differs from the compiled one in the last bit
    return alpha / math.pow(visits[state, action], power)
