r"""Monte Carlo prediction: means of returns, of the policy's own episodes or, by importance sampling, of another's.

.. math::
    \rho_t = \prod_{k=t}^{T-1} \frac{\pi(a_k \mid s_k)}{b(a_k \mid s_k)}, \qquad
    v(s) \approx \frac{\sum \rho_t G_t}{n} \text{ (ordinary)}, \qquad
    v(s) \approx \frac{\sum \rho_t G_t}{\sum \rho_t} \text{ (weighted)}

The sums are over visits to s, n their number. The ordinary estimate is right on average, but its variance may be
infinite; the weighted one is biased by less and less, and its variance goes to 0.

Sources: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, sections 5.1, 5.5 and 5.6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import ReportProgress
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.planning import Policy, probabilities
from linocut.agents.prediction import Predicting, Prediction, longest, note, predict
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, step_size

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def mc_prediction(
    mdp: TabularMDP,
    policy: Policy,
    *,
    gamma: float,
    episodes: int,
    alpha: Schedule | PerVisit = PerVisit(),  # noqa: B008  (frozen)
    every_visit: bool = False,
    max_steps: int = 100_000,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """Monte Carlo prediction: the mean of the returns that followed a state.

    v(s) ← v(s) + α [G − v(s)], from the end of an episode to its beginning; with α = 1/N, the default, v is the mean.

    Arguments and errors are those of :func:`~linocut.agents.td.td_zero`; ``every_visit`` learns from
    each visit of an episode, otherwise from the first one only, and episodes are cut off after ``max_steps``
    and at the process's horizon: the return that is missing then counts as 0.

    Example:
        >>> import numpy as np
        >>> from linocut.agents import random_walk
        >>> learnt = mc_prediction(random_walk(), np.full((5, 2), 0.5), gamma=1, episodes=20_000)
        >>> learnt.values.round(1).tolist()
        [0.2, 0.3, 0.5, 0.7, 0.8]

    Source: Sutton & Barto, section 5.1.
    """
    extra = {"every_visit": every_visit}
    predicting = Predicting("mc_prediction", gamma, alpha, episodes, seed, v0, history, extra)
    length = longest(mdp, max_steps)
    arguments = np.zeros(length, np.int64), np.zeros(length), np.zeros(mdp.n_states, np.int64), bool(every_visit)
    return predict(_mc_prediction, mdp, policy, predicting, arguments=arguments, progress=progress)


@compiled
def _mc_prediction(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats,
    seen: Counts, earned: Floats, first: Counts, every_visit: bool,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, _ = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and steps < seen.size:
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            seen[steps], earned[steps] = state, rewards[outcome]
            total, steps = total + rewards[outcome], steps + 1
            state, ended = next_state[outcome], terminated[outcome]
        for step in range(steps - 1, -1, -1):
            first[seen[step]] = step
        target = 0.0
        for step in range(steps - 1, -1, -1):
            at = seen[step]
            target = earned[step] + gamma * target
            if every_visit or first[at] == step:
                values[at] += step_size(alpha[episode], power, visits, at, 0) * (target - values[at])
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


def off_policy_mc(
    mdp: TabularMDP,
    policy: Policy,
    *,
    behaviour: Policy,
    gamma: float,
    episodes: int,
    weighted: bool = True,
    every_visit: bool = False,
    max_steps: int = 100_000,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """Off-policy Monte Carlo prediction: what a policy is worth, from episodes of another.

    Weighted: w(s) ← w(s) + ρ, v(s) ← v(s) + ρ/w(s) [G − v(s)]. Ordinary: v(s) ← v(s) + 1/N(s) [ρ G − v(s)].

    Arguments and errors are those of :func:`mc_prediction`, and:

    Args:
        mdp: the process.
        policy: the one whose values are asked for.
        behaviour: the one that is followed.
        gamma: discount rate in 0 … 1.
        episodes: how many, >= 1.
        weighted: weighted importance sampling, otherwise ordinary.
        every_visit: learn from each visit of an episode, or from the first one only.
        max_steps: as in :func:`mc_prediction`.
        seed: decides everything that is random.
        v0: values of states that were not visited.
        history: keep the values after every episode.
        progress: called with the number of episodes done and all of them.

    Raises:
        ValueError: if ``behaviour`` never takes an action that ``policy`` may take, or a number is out of range.

    Source: Sutton & Barto, equations 5.5 and 5.6, section 5.6.
    """
    wanted, followed = probabilities(mdp, policy), probabilities(mdp, behaviour)
    uncovered = (wanted > 0) & (followed == 0)
    if uncovered.any():
        state, action = (int(place) for place in np.argwhere(uncovered)[0])
        raise ValueError(
            f"behaviour must take every action that policy may take; in state {mdp.state_names[state]!r} it never "
            f"takes {mdp.action_names[action]!r}"
        )
    ratio = np.divide(wanted, followed, out=np.zeros_like(wanted), where=followed > 0).ravel()
    extra = {"weighted": weighted, "every_visit": every_visit}
    predicting = Predicting("off_policy_mc", gamma, 0.0, episodes, seed, v0, history, extra)
    length, size = longest(mdp, max_steps), mdp.n_states
    arguments = (
        np.zeros(length, np.int64), np.zeros(length), np.zeros(size, np.int64), ratio, np.zeros(size),
        bool(weighted), bool(every_visit),
    )  # fmt: skip
    return predict(_off_policy_mc, mdp, behaviour, predicting, arguments=arguments, progress=progress)


@compiled
def _off_policy_mc(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats,
    taken: Counts, earned: Floats, first: Counts, ratio: Floats, weights: Floats, weighted: bool, every_visit: bool,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, _ = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and steps < taken.size:
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            taken[steps], earned[steps] = pair, rewards[outcome]
            total, steps = total + rewards[outcome], steps + 1
            state, ended = next_state[outcome], terminated[outcome]
        for step in range(steps - 1, -1, -1):
            first[taken[step] // actions] = step
        target, rho = 0.0, 1.0
        for step in range(steps - 1, -1, -1):
            at = taken[step] // actions
            target = earned[step] + gamma * target
            rho *= ratio[taken[step]]
            if every_visit or first[at] == step:
                visits[at, 0] += 1
                weights[at] += rho
                if not weighted:
                    values[at] += (rho * target - values[at]) / visits[at, 0]
                elif rho > 0:
                    values[at] += rho / weights[at] * (target - values[at])
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)
