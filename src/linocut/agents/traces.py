"""Sarsa(λ): eligibility traces spread every error back over what led to it.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, sections 12.2, 12.5 and 12.7 (with one feature a state
and action); Singh & Sutton, 1996, for replacing traces.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import Learning, ReportProgress, learn
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.result import Result
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, epsilon_greedy
from linocut.agents.targets import sarsa_target, td_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def sarsa_lambda(
    mdp: TabularMDP,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    epsilon: Schedule,
    episodes: int,
    lambda_: float,
    replacing: bool = False,
    seed: int = 0,
    q0: float = 0.0,
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """Sarsa(λ): λ = 0 is Sarsa, λ = 1 near Monte Carlo, without waiting for the end.

    e ← γ λ e, e(s, a) + 1 (or = 1); q ← q + α δ e, δ the error of Sarsa.

    Arguments and errors are those of :func:`~linocut.agents.control.q_learning`; ``lambda_``
    in 0 … 1, and ``replacing`` sets a trace to 1 where it otherwise grows by 1. ``PerVisit`` step sizes are refused.

    Source: Sutton & Barto, section 12.7.
    """
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ must be in 0 … 1, got {lambda_}")
    if isinstance(alpha, PerVisit):
        raise ValueError("a step size for each visit has no meaning where one step updates all; give a number")
    traces = np.zeros((mdp.n_states, mdp.n_actions))
    learning = Learning(
        "sarsa_lambda", gamma, alpha, epsilon, episodes, seed, q0, {"lambda_": lambda_, "replacing": replacing}
    )
    return learn(_sarsa_lambda, mdp, learning, arguments=(traces, lambda_, replacing), progress=progress, resume=resume)


@compiled
def _sarsa_lambda(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, traces: Floats, lambda_: float, replacing: bool,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = q.shape
    for episode in range(alpha.size):
        traces[:] = 0.0
        state = draw(start, 0, states, rng)
        action = epsilon_greedy(q, legal, state, epsilon[episode], rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            outcome = draw(threshold, (state * actions + action) * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            following = 0 if ended else epsilon_greedy(q, legal, after, epsilon[episode], rng)
            delta = td_target(reward, gamma, sarsa_target(q, after, following), ended) - q[state, action]
            traces[state, action] = 1.0 if replacing else traces[state, action] + 1.0
            visits[state, action] += 1
            for s in range(states):
                for a in range(actions):
                    q[s, a] += alpha[episode] * delta * traces[s, a]
                    traces[s, a] *= gamma * lambda_
            total, steps, state, action = total + reward, steps + 1, after, following
        returns[episode], lengths[episode] = total, steps
