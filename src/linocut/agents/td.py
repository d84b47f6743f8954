"""TD(0) and n-step TD: learn a policy's values from the difference between one guess and a later one.

Sources: Sutton, *Learning to Predict by the Methods of Temporal Differences*, 1988; Sutton & Barto, *Reinforcement
Learning*, 2nd ed., 2018, sections 6.1 and 7.1; Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025,
section 7.1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import ReportProgress
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.planning import Policy
from linocut.agents.prediction import Predicting, Prediction, note, predict
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, step_size
from linocut.agents.targets import td_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def td_zero(
    mdp: TabularMDP,
    policy: Policy,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    episodes: int,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """TD(0): move each value towards the reward and the value that followed.

    v(s) ← v(s) + α [r + γ v(s′) − v(s)].

    Args:
        mdp: the process; only stepped through.
        policy: what is followed, (S,) actions or (S, A) probabilities.
        alpha: step size in 0 … 1, a function of the episode, or :class:`~linocut.agents.schedules.PerVisit`.
        gamma: discount rate in 0 … 1.
        episodes: how many, >= 1.
        seed: decides everything that is random.
        v0: values before the first update, one number or (S,).
        history: keep the values after every episode.
        progress: called with the number of episodes done and all of them.

    Raises:
        ValueError: if a number is out of range, or the policy or ``v0`` does not fit.

    Example:
        >>> import numpy as np
        >>> from linocut.agents import random_walk
        >>> walk = random_walk()
        >>> td_zero(walk, np.full((5, 2), 0.5), alpha=0.1, gamma=1, episodes=1, v0=0.5).values.tolist()
        [0.5, 0.5, 0.5, 0.5, 0.55]

    Source: Sutton & Barto, section 6.1; Zhao, equation 7.1.
    """
    return predict(
        _td_zero, mdp, policy, Predicting("td_zero", gamma, alpha, episodes, seed, v0, history), progress=progress
    )


@compiled
def _td_zero(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            target = td_target(reward, gamma, values[after], ended)
            values[state] += step_size(alpha[episode], power, visits, state, 0) * (target - values[state])
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


def n_step_td(
    mdp: TabularMDP,
    policy: Policy,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    episodes: int,
    n_step: int,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """n-step TD: one step is TD(0), as many as an episode has is Monte Carlo.

    v(sₜ) ← v(sₜ) + α [rₜ₊₁ + γ rₜ₊₂ + … + γⁿ v(sₜ₊ₙ) − v(sₜ)].

    Arguments and errors are those of :func:`td_zero`, and ``n_step`` >= 1.

    Source: Sutton & Barto, section 7.1.
    """
    if n_step < 1:
        raise ValueError(f"n_step must be >= 1, got {n_step}")
    predicting = Predicting("n_step_td", gamma, alpha, episodes, seed, v0, history, {"n_step": n_step})
    arguments = np.zeros(n_step, np.int64), np.zeros(n_step)
    return predict(_n_step_td, mdp, policy, predicting, arguments=arguments, progress=progress)


@compiled
def _n_step_td(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats, seen: Counts, earned: Floats,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = legal.shape
    n_step = seen.size
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            seen[steps % n_step], earned[steps % n_step] = state, rewards[outcome]
            total, steps = total + rewards[outcome], steps + 1
            state, ended = next_state[outcome], terminated[outcome]
            if steps >= n_step:
                _update(values, visits, seen, earned, steps - n_step, steps, alpha[episode], power, gamma, ended, state)
        # what is left at the end has fewer than n rewards ahead of it
        for step in range(max(0, steps - n_step + 1), steps):
            _update(values, visits, seen, earned, step, steps, alpha[episode], power, gamma, ended, state)
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


@compiled
def _update(
    values: Floats, visits: Counts, seen: Counts, earned: Floats, step: int, steps: int, alpha: float, power: float,
    gamma: float, ended: bool, state: int,
) -> None:  # fmt: skip
    """Move the value of the state at ``step`` towards the rewards since, and the value of the state they led to."""
    target = 0.0 if ended else values[state]
    for later in range(steps - 1, step - 1, -1):
        target = earned[later % seen.size] + gamma * target
    at = seen[step % seen.size]
    values[at] += step_size(alpha, power, visits, at, 0) * (target - values[at])
