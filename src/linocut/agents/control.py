"""One-step control: Sarsa, Expected Sarsa, Q-learning. Three loops, alike but for the target.

Sources: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, sections 7.2 to 7.4 (algorithms 7.1 to 7.3);
Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, sections 6.4 to 6.6.
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
from linocut.agents.targets import expected_sarsa_target, q_learning_target, sarsa_target, td_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def q_learning(
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
    """Q-learning: learn the optimal values while following the ε-greedy policy of what is learnt (Watkins, 1989).

    q(s, a) ← q(s, a) + α [r + γ max q(s′, ·) − q(s, a)].

    Args:
        mdp: the process; only stepped through.
        alpha: step size in 0 … 1, a function of the episode, or :class:`~linocut.agents.schedules.PerVisit`.
        gamma: discount rate in 0 … 1.
        epsilon: exploration in 0 … 1, or a function of the episode.
        episodes: how many, >= 1.
        seed: decides everything that is random.
        q0: value of every action before the first update.
        progress: called with the number of episodes done and all of them.
        resume: an earlier run, to be gone on with up to ``episodes`` in all.

    Raises:
        ValueError: if a number is out of range, or ``resume`` does not fit.

    Example:
        >>> from linocut.agents import TabularMDP
        >>> mdp = TabularMDP.from_dict({"a": {"go": [(1.0, "a", 1.0, True)], "wait": [(1.0, "a", 0.0, False)]}})
        >>> q_learning(mdp, alpha=0.5, gamma=0.9, epsilon=0.1, episodes=100).q.round(2).tolist()
        [[1.0, 0.89]]

    Source: Zhao, algorithm 7.3 (off-policy version with the ε-greedy behaviour policy); Sutton & Barto, section 6.5.
    """
    learning = Learning("q_learning", gamma, alpha, epsilon, episodes, seed, q0)
    return learn(_q_learning, mdp, learning, progress=progress, resume=resume)


@compiled
def _q_learning(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
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
            target = td_target(reward, gamma, q_learning_target(q, legal, after), ended)
            q[state, action] += step_size(alpha[episode], power, visits, state, action) * (target - q[state, action])
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps


def sarsa(
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
    """Sarsa: learn the values of the ε-greedy policy that is followed.

    q(s, a) ← q(s, a) + α [r + γ q(s′, a′) − q(s, a)], a′ the action taken next.

    Arguments and errors are those of :func:`q_learning`.

    Source: Zhao, algorithm 7.1; Sutton & Barto, section 6.4.
    """
    learning = Learning("sarsa", gamma, alpha, epsilon, episodes, seed, q0)
    return learn(_sarsa, mdp, learning, progress=progress, resume=resume)


@compiled
def _sarsa(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
    rng: Words, returns: Floats, lengths: Counts,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = q.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        action = epsilon_greedy(q, legal, state, epsilon[episode], rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            outcome = draw(threshold, (state * actions + action) * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            following = 0 if ended else epsilon_greedy(q, legal, after, epsilon[episode], rng)
            target = td_target(reward, gamma, sarsa_target(q, after, following), ended)
            q[state, action] += step_size(alpha[episode], power, visits, state, action) * (target - q[state, action])
            total, steps, state, action = total + reward, steps + 1, after, following
        returns[episode], lengths[episode] = total, steps


def expected_sarsa(
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
    """Expected Sarsa: Sarsa with the mean over the next action, in place of the one that is taken.

    q(s, a) ← q(s, a) + α [r + γ Σ π(a′ | s′) q(s′, a′) − q(s, a)], π the ε-greedy policy.

    Arguments and errors are those of :func:`q_learning`.

    Source: Zhao, section 7.3; Sutton & Barto, section 6.6.
    """
    learning = Learning("expected_sarsa", gamma, alpha, epsilon, episodes, seed, q0)
    return learn(_expected_sarsa, mdp, learning, progress=progress, resume=resume)


@compiled
def _expected_sarsa(
    tables: Tables, q: Floats, visits: Counts, alpha: Floats, power: float, epsilon: Floats, gamma: float,
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
            target = td_target(reward, gamma, expected_sarsa_target(q, legal, after, epsilon[episode]), ended)
            q[state, action] += step_size(alpha[episode], power, visits, state, action) * (target - q[state, action])
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps
