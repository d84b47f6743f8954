"""n-step Sarsa: targets that look n rewards ahead, from one step to a whole episode.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, section 7.2; Zhao, *Mathematical Foundations of
Reinforcement Learning*, 2025, section 7.2.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import Learning, ReportProgress, learn
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.result import Result
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, epsilon_greedy, step_size
from linocut.agents.targets import sarsa_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def n_step_sarsa(
    mdp: TabularMDP,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    epsilon: Schedule,
    episodes: int,
    n_step: int,
    seed: int = 0,
    q0: float = 0.0,
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """n-step Sarsa: one step is Sarsa, as many as an episode has is Monte Carlo.

    q(sₜ, aₜ) ← q(sₜ, aₜ) + α [r₊₁ + γ r₊₂ + … + γⁿ q(sₜ₊ₙ, aₜ₊ₙ) − q(sₜ, aₜ)].

    Arguments and errors are those of :func:`~linocut.agents.control.q_learning`, and
    ``n_step`` >= 1.

    Source: Sutton & Barto, section 7.2.
    """
    if n_step < 1:
        raise ValueError(f"n_step must be >= 1, got {n_step}")
    learning = Learning("n_step_sarsa", gamma, alpha, epsilon, episodes, seed, q0, {"n_step": n_step})
    return learn(
        _n_step_sarsa,
        mdp,
        learning,
        arguments=(np.zeros(n_step, np.int64), np.zeros(n_step, np.int64), np.zeros(n_step)),
        progress=progress,
        resume=resume,
    )


@compiled
def _n_step_sarsa(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, seen: Counts, taken: Counts, earned: Floats,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = q.shape
    n_step = seen.size
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        action = epsilon_greedy(q, legal, state, epsilon[episode], rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            outcome = draw(threshold, (state * actions + action) * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            place = steps % n_step
            seen[place], taken[place], earned[place] = state, action, reward
            following = 0 if ended else epsilon_greedy(q, legal, after, epsilon[episode], rng)
            total, steps, state, action = total + reward, steps + 1, after, following
            if steps >= n_step:
                size = alpha[episode]
                _update(q, visits, seen, taken, earned, steps - n_step, steps, size, power, gamma, ended, state, action)
        # what is left at the end has fewer than n rewards ahead of it
        for step in range(max(0, steps - n_step + 1), steps):
            _update(q, visits, seen, taken, earned, step, steps, alpha[episode], power, gamma, ended, state, action)
        returns[episode], lengths[episode] = total, steps


@compiled
def _update(
    q: Floats, visits: Counts, seen: Counts, taken: Counts, earned: Floats, step: int, steps: int, alpha: float,
    power: float, gamma: float, ended: bool, state: int, action: int,
) -> None:  # fmt: skip
    """Move the value of the action taken at ``step`` towards the rewards since, and the value of what comes next."""
    target = 0.0 if ended else sarsa_target(q, state, action)
    for later in range(steps - 1, step - 1, -1):
        target = earned[later % seen.size] + gamma * target
    place = step % seen.size
    size = step_size(alpha, power, visits, seen[place], taken[place])
    q[seen[place], taken[place]] += size * (target - q[seen[place], taken[place]])
