"""Prediction: what a policy is worth, learnt from episodes of it. The frame around every method of it, and the result.

Where control asks for the best policy, prediction is given one and asks for v_π(s), the expected discounted return from
each state. Planning's :func:`~linocut.agents.planning.evaluate` solves for the same values from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from linocut.agents import random
from linocut.agents.compiled import compiled, run
from linocut.agents.learning import ReportProgress, check_gamma
from linocut.agents.mdp import TabularMDP, thresholds
from linocut.agents.planning import Policy, probabilities
from linocut.agents.schedules import PerVisit, Schedule
from linocut.agents.schedules import values as scheduled

_CHUNKS = 200
"""So many reports a long run gives."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Learnt values of a policy.

    Attributes:
        algorithm: the method's name.
        values: (S,) what it ended with.
        history: (episodes + 1, S) values before the first episode and after each; None if it was not asked for.
        returns: (episodes,) sum of the rewards, not discounted, of each episode.
        lengths: (episodes,) steps of each episode.
        visits: (S,) how often each value was updated.
        settings: what it was called with, as JSON can hold it.
    """

    algorithm: str
    values: Float[NDArray[np.float64], " states"]
    history: Float[NDArray[np.float64], "episodes_and_start states"] | None = field(repr=False)
    returns: NDArray[np.float64] = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    visits: NDArray[np.int64] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)

    def rms_errors(self, truth: Float[NDArray[Any], " states"]) -> Float[NDArray[np.float64], " episodes_and_start"]:
        """Root of the mean squared error over the states, before the first episode and after each.

        Raises:
            ValueError: if there is no history, or the truth is not one value for each state.
        """
        if self.history is None:
            raise ValueError("errors of every episode need the history: predict with history=True")
        if np.shape(truth) != self.values.shape:
            raise ValueError(f"truth must be {self.values.shape}, got {np.shape(truth)}")
        return np.asarray(np.sqrt(np.square(self.history - truth).mean(axis=1)), np.float64)


@dataclass(frozen=True)
class Predicting:
    """What every method is told; see :func:`~linocut.agents.td.td_zero`.

    Raises:
        ValueError: if gamma is not in 0 … 1, or there is no episode.
    """

    algorithm: str
    gamma: float
    alpha: Schedule | PerVisit
    episodes: int
    seed: int
    v0: float | NDArray[np.float64] = 0.0
    history: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        if self.episodes < 1:
            raise ValueError(f"episodes must be >= 1, got {self.episodes}")

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON can hold it: a schedule by its name."""
        alpha = self.alpha if isinstance(self.alpha, (int, float)) else repr(self.alpha)
        v0 = self.v0 if isinstance(self.v0, (int, float)) else np.asarray(self.v0).tolist()
        return {
            "gamma": self.gamma,
            "alpha": alpha,
            "episodes": self.episodes,
            "seed": self.seed,
            "v0": v0,
        } | self.extra


def predict(
    loop: Callable[..., None],
    mdp: TabularMDP,
    policy: Policy,
    predicting: Predicting,
    *,
    arguments: tuple[Any, ...] = (),
    progress: ReportProgress | None = None,
) -> Prediction:
    """Run a loop over episodes of a policy.

    Args:
        loop: called as ``loop(tables, choice, values, visits, alpha, power, gamma, rng, returns, lengths, history,
            *arguments)``; ``choice`` holds the thresholds of the policy's actions, (S·A,), ``visits`` is (S, 1), and
            ``history`` has a row for each episode, or no row.
        mdp: the process.
        policy: (S,) actions or (S, A) probabilities.
        predicting: how.
        arguments: what else the loop takes.
        progress: called with episodes done and all of them.

    Raises:
        ValueError: if the policy or ``v0`` does not fit, or the step size leaves 0 … 1.
    """
    choice = thresholds(probabilities(mdp, policy)).ravel()
    values = _first_values(mdp, predicting.v0)
    alpha = predicting.alpha
    power, schedule = (alpha.power, alpha.scale) if isinstance(alpha, PerVisit) else (0.0, alpha)
    episodes, rng = predicting.episodes, random.generator(predicting.seed)
    sizes = scheduled(schedule, 0, episodes, name="alpha")
    visits = np.zeros((mdp.n_states, 1), np.int64)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    history = np.empty((episodes + 1 if predicting.history else 0, mdp.n_states))
    history[:1] = values
    chunk = episodes if progress is None else max(1, episodes // _CHUNKS)
    for done in range(0, episodes, chunk):
        part = slice(done, done + chunk)
        run(
            loop, mdp.tables, choice, values, visits, sizes[part], power, float(predicting.gamma), rng, returns[part],
            lengths[part], history[1:][part], *arguments,
        )  # fmt: skip
        if progress:
            progress(min(done + chunk, episodes), episodes)
    kept = history if predicting.history else None
    return Prediction(predicting.algorithm, values, kept, returns, lengths, visits[:, 0], predicting.settings)


def _first_values(mdp: TabularMDP, v0: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """One number for all states, or one for each; always a copy."""
    if np.ndim(v0) == 0:
        return np.full(mdp.n_states, v0, np.float64)
    if np.shape(v0) != (mdp.n_states,):
        raise ValueError(f"v0 must be a number or {(mdp.n_states,)}, got {np.shape(v0)}")
    return np.array(v0, np.float64)


def check_lambda(lambda_: float) -> None:
    """Refuse a λ outside 0 … 1.

    Raises:
        ValueError: with its value.
    """
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ must be in 0 … 1, got {lambda_}")


def longest(mdp: TabularMDP, max_steps: int) -> int:
    """How many steps of an episode a method must be able to remember.

    Raises:
        ValueError: if it is none.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be >= 1, got {max_steps}")
    return min(max_steps, mdp.horizon or max_steps)


@compiled
def note(history: NDArray[np.float64], episode: int, values: NDArray[np.float64]) -> None:
    """Write down the values after an episode, if a history is kept."""
    if history.shape[0] > 0:
        for state in range(values.size):
            history[episode, state] = values[state]
