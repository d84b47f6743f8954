r"""TD(λ): every n-step return at once, weighted by λⁿ⁻¹, seen forward from a state or backward from an error.

.. math::
    G^\lambda_t = r_{t+1} + \gamma \, [(1 - \lambda) \, v(s_{t+1}) + \lambda \, G^\lambda_{t+1}]

The forward view waits for the end of the episode and moves v(s_t) towards G^λ_t. The backward view keeps a trace z(s)
of what was visited, which fades by γ λ a step, and gives every state its share of each error, at once. Both sum up to
the same changes as long as v stands still during an episode; true online TD(λ) corrects the backward view for its
moving.

Sources: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, sections 12.1, 12.2 and 12.5 (with one feature a
state); Singh & Sutton, 1996, for replacing traces; van Seijen et al., *True Online Temporal-Difference Learning*, 2016.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled
from linocut.agents.learning import ReportProgress
from linocut.agents.mdp import Tables, TabularMDP
from linocut.agents.planning import Policy
from linocut.agents.prediction import Predicting, Prediction, check_lambda, longest, note, predict
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.steps import draw, step_size
from linocut.agents.targets import td_target

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Words = NDArray[np.uint64]


def offline_lambda_return(
    mdp: TabularMDP,
    policy: Policy,
    *,
    alpha: Schedule | PerVisit,
    gamma: float,
    episodes: int,
    lambda_: float,
    max_steps: int = 100_000,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """The forward view: after an episode, move the value of each state of it, in their order, towards its λ-return.

    v(sₜ) ← v(sₜ) + α [Gₜ − v(sₜ)], Gₜ the λ-return of the values as they were during the episode. λ = 1 is Monte Carlo.

    Arguments and errors are those of :func:`~linocut.agents.td.td_zero`; ``lambda_`` in 0 … 1,
    and episodes are cut off after ``max_steps`` (the last state is bootstrapped then).

    Source: Sutton & Barto, section 12.1.
    """
    check_lambda(lambda_)
    predicting = Predicting("offline_lambda_return", gamma, alpha, episodes, seed, v0, history, {"lambda_": lambda_})
    length = longest(mdp, max_steps)
    arguments = np.zeros(length, np.int64), np.zeros(length), float(lambda_)
    return predict(_offline_lambda_return, mdp, policy, predicting, arguments=arguments, progress=progress)


@compiled
def _offline_lambda_return(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats, seen: Counts, targets: Floats, lambda_: float,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, _ = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and steps < seen.size:
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            seen[steps], targets[steps] = state, rewards[outcome]
            total, steps = total + rewards[outcome], steps + 1
            state, ended = next_state[outcome], terminated[outcome]
        # rewards become λ-returns from the end on; the last one has nothing but the bootstrap after it
        following, after = values[state], state
        for step in range(steps - 1, -1, -1):
            mixed = (1 - lambda_) * values[after] + lambda_ * following
            targets[step] = td_target(targets[step], gamma, mixed, ended and step == steps - 1)
            following, after = targets[step], seen[step]
        for step in range(steps):
            at = seen[step]
            values[at] += step_size(alpha[episode], power, visits, at, 0) * (targets[step] - values[at])
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


def td_lambda(
    mdp: TabularMDP,
    policy: Policy,
    *,
    alpha: Schedule,
    gamma: float,
    episodes: int,
    lambda_: float,
    replacing: bool = False,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """TD(λ), the backward view: traces spread every error back over the states that led to it.

    z ← γ λ z, then z(s) + 1 (or = 1); v ← v + α δ z, δ the error of TD(0). λ = 0 is TD(0).

    Arguments and errors are those of :func:`~linocut.agents.td.td_zero`; ``lambda_`` in 0 … 1,
    ``replacing`` sets the trace of a state to 1 where it otherwise grows by 1 (accumulating), and
    ``PerVisit`` step sizes are refused: one step updates all states.

    Source: Sutton & Barto, section 12.2.
    """
    predicting = _with_traces("td_lambda", alpha, gamma, episodes, seed, v0, history, lambda_)
    predicting.extra["replacing"] = replacing
    arguments = np.zeros(mdp.n_states), float(lambda_), bool(replacing)
    return predict(_td_lambda, mdp, policy, predicting, arguments=arguments, progress=progress)


@compiled
def _td_lambda(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats, traces: Floats, lambda_: float, replacing: bool,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        traces[:] = 0.0
        state = draw(start, 0, states, rng)
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            delta = td_target(reward, gamma, values[after], ended) - values[state]
            traces[state] = 1.0 if replacing else traces[state] + 1.0
            visits[state, 0] += 1
            for s in range(states):
                values[s] += alpha[episode] * delta * traces[s]
                traces[s] *= gamma * lambda_
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


def true_online_td(
    mdp: TabularMDP,
    policy: Policy,
    *,
    alpha: Schedule,
    gamma: float,
    episodes: int,
    lambda_: float,
    seed: int = 0,
    v0: float | Floats = 0.0,
    history: bool = False,
    progress: ReportProgress | None = None,
) -> Prediction:
    """True online TD(λ): at every step the values that the forward view would have reached with what was seen so far.

    z ← γ λ z + (1 − α γ λ z(s)) 1ₛ, then v ← v + α (δ + v(s) − v_old) z − α (v(s) − v_old) 1ₛ, v_old the value that s
    had when it was the next state.

    Arguments and errors are those of :func:`td_lambda`.

    Source: Sutton & Barto, section 12.5.
    """
    predicting = _with_traces("true_online_td", alpha, gamma, episodes, seed, v0, history, lambda_)
    arguments = np.zeros(mdp.n_states), float(lambda_)
    return predict(_true_online_td, mdp, policy, predicting, arguments=arguments, progress=progress)


@compiled
def _true_online_td(
    tables: Tables, choice: Words, values: Floats, visits: Counts, alpha: Floats, power: float, gamma: float,
    rng: Words, returns: Floats, lengths: Counts, history: Floats, traces: Floats, lambda_: float,
) -> None:  # fmt: skip
    threshold, next_state, rewards, terminated, start, legal, outcomes, horizon = tables
    states, actions = legal.shape
    for episode in range(alpha.size):
        traces[:] = 0.0
        size = alpha[episode]
        state = draw(start, 0, states, rng)
        before = values[state]
        total, steps, ended = 0.0, 0, False
        while not ended and (horizon == 0 or steps < horizon):
            pair = draw(choice, state * actions, actions, rng)
            outcome = draw(threshold, pair * outcomes, outcomes, rng)
            reward, after, ended = rewards[outcome], next_state[outcome], terminated[outcome]
            now, following = values[state], values[after]
            delta = td_target(reward, gamma, following, ended) - now
            traces[state] += 1 - size * traces[state]
            visits[state, 0] += 1
            for s in range(states):
                values[s] += size * (delta + now - before) * traces[s]
                traces[s] *= gamma * lambda_
            values[state] -= size * (now - before)
            before = following
            total, steps, state = total + reward, steps + 1, after
        returns[episode], lengths[episode] = total, steps
        note(history, episode, values)


def _with_traces(
    algorithm: str,
    alpha: Schedule,
    gamma: float,
    episodes: int,
    seed: int,
    v0: float | Floats,
    history: bool,
    lambda_: float,
) -> Predicting:
    """What the two methods with traces check."""
    check_lambda(lambda_)
    if isinstance(alpha, PerVisit):
        raise ValueError("a step size for each visit has no meaning where one step updates all; give a number")
    return Predicting(algorithm, gamma, alpha, episodes, seed, v0, history, {"lambda_": lambda_})
