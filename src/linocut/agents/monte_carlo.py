"""Monte Carlo: learn from whole episodes, without a model and without bootstrapping.

Of Zhao's three algorithms, MC Basic, MC Exploring Starts and MC ε-Greedy, each needs less than the one before: first a
simulation of every state and action for every improvement, then every pair as a first one, then none of that.

Sources: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, chapter 5; Sutton & Barto, *Reinforcement
Learning*, 2nd ed., 2018, chapter 5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import Learning, ReportProgress, check_gamma, learn
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.planning import Plan, action_values
from linocut.agents.random import below
from linocut.agents.result import Result
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, epsilon_greedy, step_size

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def mc_basic(mdp: TabularMDP, *, gamma: float, horizon: int, improvements: int = 1_000) -> Plan:
    """MC Basic on a process whose outcomes are certain: policy iteration with returns of episodes in place of values.

    An episode from each state and action follows the policy for ``horizon`` steps in all; where every outcome is
    certain, one episode is the mean of many.

    Args:
        mdp: the process.
        gamma: discount rate in 0 … 1.
        horizon: steps of an episode, >= 1. Too few, and states far from the reward learn nothing.
        improvements: at most so many; it ends when the policy's returns stand still.

    Raises:
        ValueError: if an outcome is not certain (estimate it with the other methods), or a number is out of range.

    Source: Zhao, algorithm 5.1.
    """
    check_gamma(gamma)
    if horizon < 1 or improvements < 1:
        raise ValueError(f"horizon and improvements must be >= 1, got {horizon} and {improvements}")
    if ((mdp.probability > 0) & (mdp.probability < 1)).any():
        raise ValueError("MC Basic here takes processes whose outcomes are certain; this one draws them")
    policy = np.asarray(mdp.legal).argmax(axis=1)
    errors: list[float] = []
    values = np.full(mdp.n_states, np.inf)
    while True:
        follow = np.zeros(mdp.n_states)
        rows = np.arange(mdp.n_states)
        for _ in range(horizon - 1):
            follow = mdp.expected_reward[rows, policy] + gamma * (mdp.transition[rows, policy] @ follow)
        q = action_values(mdp, follow, gamma=gamma)
        before, values = values, q.max(axis=1)
        errors.append(float(np.abs(values - before).max()))
        policy = mdp.policy_of(q)
        if errors[-1] == 0 or len(errors) == improvements:
            return Plan(values, q, policy, len(errors), np.array(errors))


def mc_epsilon_greedy(
    mdp: TabularMDP,
    *,
    gamma: float,
    epsilon: Schedule,
    episodes: int,
    alpha: Schedule | PerVisit = PerVisit(),  # noqa: B008  (frozen)
    every_visit: bool = True,
    max_steps: int = 100_000,
    seed: int = 0,
    q0: float = 0.0,
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """MC ε-Greedy: follow the ε-greedy policy of the mean returns so far; no exploring starts are needed.

    q(s, a) ← q(s, a) + α [r₊₁ + γ r₊₂ + … − q(s, a)] for what the episode visited, from its end to its beginning. With
    α = 1/N, the default, q is the mean of all returns, old policies' too; a constant α forgets them.

    Args:
        mdp: the process; only stepped through.
        gamma: discount rate in 0 … 1.
        epsilon: exploration in 0 … 1, or a function of the episode.
        episodes: how many, >= 1.
        alpha: as in :func:`~linocut.agents.control.q_learning`.
        every_visit: learn from each visit of an episode, or from the first one only.
        max_steps: episodes are cut off here, and at the process's horizon; the return that is missing then counts as 0.
        seed: decides everything that is random.
        q0: value of every action before the first update.
        progress: called with the number of episodes done and all of them.
        resume: an earlier run, to be gone on with up to ``episodes`` in all.

    Raises:
        ValueError: if a number is out of range, or ``resume`` does not fit.

    Source: Zhao, algorithm 5.3; Sutton & Barto, section 5.4.
    """
    learning = Learning("mc_epsilon_greedy", gamma, alpha, epsilon, episodes, seed, q0, {"every_visit": every_visit})
    return _learn(mdp, learning, max_steps, exploring=False, progress=progress, resume=resume)


def mc_exploring_starts(
    mdp: TabularMDP,
    *,
    gamma: float,
    episodes: int,
    alpha: Schedule | PerVisit = PerVisit(),  # noqa: B008  (frozen)
    every_visit: bool = False,
    max_steps: int = 100_000,
    seed: int = 0,
    q0: float = 0.0,
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """MC Exploring Starts: every state and action is as likely to begin an episode; then the greedy policy is followed.

    Arguments and errors are those of :func:`mc_epsilon_greedy`. A greedy policy may walk in a circle for ever, so give
    a process without terminal states a horizon.

    Source: Zhao, algorithm 5.2; Sutton & Barto, section 5.3.
    """
    learning = Learning("mc_exploring_starts", gamma, alpha, 0.0, episodes, seed, q0, {"every_visit": every_visit})
    return _learn(mdp, learning, max_steps, exploring=True, progress=progress, resume=resume)


def _learn(
    mdp: TabularMDP,
    learning: Learning,
    max_steps: int,
    *,
    exploring: bool,
    progress: ReportProgress | None,
    resume: Result | None,
) -> Result:
    if max_steps < 1:
        raise ValueError(f"max_steps must be >= 1, got {max_steps}")
    length = min(max_steps, mdp.horizon or max_steps)
    episode = np.zeros(length, np.int64), np.zeros(length, np.int64), np.zeros(length)
    first = np.zeros((mdp.n_states, mdp.n_actions), np.int64)
    every_visit = bool(learning.extra["every_visit"])
    arguments = (*episode, first, every_visit, exploring)
    return learn(_monte_carlo, mdp, learning, arguments=arguments, progress=progress, resume=resume)


@compiled
def _monte_carlo(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
    rng: Words, returns: Floats, lengths: Counts,
    seen: Counts, taken: Counts, earned: Floats, first: Counts, every_visit: bool, exploring: bool,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, _ = tables
    states, actions = q.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        action = epsilon_greedy(q, legal, state, epsilon[episode], rng)
        if exploring:
            state, action = below(rng, states), below(rng, actions)
            while not legal[state, action]:
                state, action = below(rng, states), below(rng, actions)
        total, steps, ended = 0.0, 0, False
        while not ended and steps < seen.size:
            outcome = draw(threshold, (state * actions + action) * outcomes, outcomes, rng)
            seen[steps], taken[steps], earned[steps] = state, action, rewards[outcome]
            total, steps = total + rewards[outcome], steps + 1
            state, ended = next_state[outcome], terminated[outcome]
            action = 0 if ended else epsilon_greedy(q, legal, state, epsilon[episode], rng)
        if not every_visit:
            for step in range(steps - 1, -1, -1):
                first[seen[step], taken[step]] = step
        target = 0.0
        for step in range(steps - 1, -1, -1):
            state, action = seen[step], taken[step]
            target = earned[step] + gamma * target
            if every_visit or first[state, action] == step:
                size = step_size(alpha[episode], power, visits, state, action)
                q[state, action] += size * (target - q[state, action])
        returns[episode], lengths[episode] = total, steps
