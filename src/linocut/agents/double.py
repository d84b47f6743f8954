"""Double Q-learning: two tables, one chooses the action that the other values.

Source: van Hasselt, *Double Q-learning*, NeurIPS 2010, algorithm 1; Sutton & Barto, *Reinforcement Learning*, 2nd ed.,
2018, section 6.7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import Learning, ReportProgress, learn
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.random import below
from linocut.agents.result import Result
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, epsilon_greedy, greedy, step_size
from linocut.agents.targets import td_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def double_q_learning(
    mdp: TabularMDP,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    epsilon: Schedule,
    episodes: int,
    seed: int = 0,
    q0: float = 0.0,
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """Double Q-learning: no bias towards actions whose value was overestimated by luck.

    One of two tables, drawn evenly, moves towards r + γ q₂(s′, argmax q₁(s′, ·)); the behaviour is ε-greedy in their
    mean.

    Arguments and errors are those of :func:`~linocut.agents.control.q_learning`;
    ``Result.q`` is the mean of both tables, which are in ``Result.tables`` as ``first`` and ``second``; ``visits`` and
    ``second_visits`` count the updates of each.

    Source: van Hasselt, 2010; Sutton & Barto, section 6.7.
    """
    size = mdp.n_states, mdp.n_actions
    tables = {"first": np.full(size, q0), "second": np.full(size, q0), "second_visits": np.zeros(size, np.int64)}
    learning = Learning("double_q_learning", gamma, alpha, epsilon, episodes, seed, q0)
    return learn(_double_q_learning, mdp, learning, tables=tables, progress=progress, resume=resume)


@compiled
def _double_q_learning(
    tables: Tables, q: Floats, visits: Counts, first: Floats, second: Floats, second_visits: Counts,
    alpha: Floats, power: float, epsilon: Floats, gamma: float,
    rng: Words, returns: Floats, lengths: Counts,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = q.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            action = epsilon_greedy(q, legal, state, epsilon[episode], rng)
            outcome = draw(threshold, (state * actions + action) * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            is_first = below(rng, 2) == 0
            chooser, valuer = (first, second) if is_first else (second, first)
            counts = visits if is_first else second_visits
            best = 0 if ended else greedy(chooser, legal, after, rng)
            target = td_target(reward, gamma, valuer[after, best], ended)
            size = step_size(alpha[episode], power, counts, state, action)
            chooser[state, action] += size * (target - chooser[state, action])
            q[state, action] = 0.5 * (first[state, action] + second[state, action])
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps
