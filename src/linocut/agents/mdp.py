"""Markov decision processes as tables: what may happen, with which probability, in arrays that loops can step through.

For each state and action there are up to K outcomes; outcome k has a probability, a reward, a next state and says
whether the episode ends there. Every algorithm of this room takes a :class:`TabularMDP`; planning reads its
expectations, learning only steps through it.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, section 3.1, p(s′, r | s, a).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outcome = tuple[float, Any, float, bool]
"""Probability, next state, reward, whether the episode ends: as Gymnasium's ``P[s][a]`` lists them."""

TOLERANCE = 1e-8
"""Probabilities of one state and action may miss the sum 1 by so much."""


class Tables(NamedTuple):
    """An MDP as loops read it: arrays alone, outcomes as one flat axis, K for each (state, action).

    Attributes:
        threshold: (S·A·K,) uint64; the outcome drawn by a random word is the first whose threshold is above it.
        next_state: (S·A·K,) int64.
        reward: (S·A·K,) float64.
        terminated: (S·A·K,) bool.
        start: (S,) uint64 thresholds of the first state.
        legal: (S, A) bool.
        outcomes: K.
        horizon: steps after which an episode is truncated, 0 for never.
    """

    threshold: NDArray[np.uint64]
    next_state: NDArray[np.int64]
    reward: Floats
    terminated: NDArray[np.bool_]
    start: NDArray[np.uint64]
    legal: NDArray[np.bool_]
    outcomes: int
    horizon: int


@dataclass(frozen=True, eq=False, repr=False)
class TabularMDP:
    """A finite Markov decision process.

    Args:
        probability: (S, A, K), sums to 1 over K for every legal action; unused outcomes have probability 0.
        next_state: (S, A, K), 0 … S − 1.
        reward: (S, A, K).
        terminated: (S, A, K), true where the episode ends: no value follows.
        start: (S,) distribution of the first state; None is uniform.
        legal: (S, A), false where an action cannot be taken; None allows all.
        horizon: after so many steps an episode is cut off (truncated; its last value is bootstrapped); None is never.
        state_names: S names; None counts from 0.
        action_names: A names.
        shape: (rows, columns) if the states are cells of a grid, row by row.

    Raises:
        ValueError: if a shape does not fit, probabilities of a state and action do not sum to 1, a next state does not
            exist, a state has no legal action, or something is not finite; the message names the place.

    Example:
        >>> mdp = TabularMDP.from_dict({"a": {"go": [(1.0, "b", 1.0, True)]}, "b": {"go": [(1.0, "b", 0.0, True)]}})
        >>> mdp.n_states, mdp.n_actions, mdp.expected_reward.tolist()
        (2, 1, [[1.0], [0.0]])
    """

    probability: Float[NDArray[Any], "states actions outcomes"]
    next_state: Int[NDArray[Any], "states actions outcomes"]
    reward: Float[NDArray[Any], "states actions outcomes"]
    terminated: Bool[NDArray[Any], "states actions outcomes"]
    start: Floats | None = None
    legal: NDArray[np.bool_] | None = None
    horizon: int | None = None
    state_names: tuple[Any, ...] = ()
    action_names: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        states, actions, _ = self.probability.shape
        given = {
            "start": np.full(states, 1 / states) if self.start is None else np.asarray(self.start, np.float64),
            "legal": np.ones((states, actions), bool) if self.legal is None else np.asarray(self.legal, bool),
            "state_names": tuple(self.state_names) or tuple(range(states)),
            "action_names": tuple(self.action_names) or tuple(str(action) for action in range(actions)),
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        _check(self)

    def __repr__(self) -> str:
        grid = "" if self.shape is None else f", a grid of {self.shape[0]} × {self.shape[1]}"
        limit = "" if self.horizon is None else f", horizon {self.horizon}"
        return f"TabularMDP({self.n_states} states, {self.n_actions} actions{grid}{limit})"

    @property
    def n_states(self) -> int:
        """S."""
        return int(self.probability.shape[0])

    @property
    def n_actions(self) -> int:
        """A."""
        return int(self.probability.shape[1])

    @cached_property
    def expected_reward(self) -> Float[NDArray[Any], "states actions"]:
        """r(s, a) = Σ p r."""
        return np.asarray((self.probability * self.reward).sum(axis=2), np.float64)

    @cached_property
    def transition(self) -> Float[NDArray[Any], "states actions states"]:
        """p(s′ | s, a) of going on: what ends the episode is left out, so rows sum to 1 less the chance of an end.

        With it the Bellman equation has one form, q = r + γ P v, terminal or not.
        """
        states, actions, _ = self.probability.shape
        dense = np.zeros((states, actions, states))
        s, a, _ = np.indices(self.probability.shape)
        np.add.at(dense, (s, a, self.next_state), self.probability * ~self.terminated)
        return dense

    @cached_property
    def tables(self) -> Tables:
        """The arrays that loops step through."""
        return Tables(
            thresholds(self.probability).ravel(),
            np.ascontiguousarray(self.next_state, np.int64).ravel(),
            np.ascontiguousarray(self.reward, np.float64).ravel(),
            np.ascontiguousarray(self.terminated, np.bool_).ravel(),
            thresholds(np.asarray(self.start)),
            np.ascontiguousarray(self.legal, np.bool_),
            int(self.probability.shape[2]),
            self.horizon or 0,
        )

    def policy_of(self, q: Float[NDArray[Any], "states actions"]) -> Int[NDArray[np.int64], " states"]:
        """The greedy policy of action values; the first of the best among those that are legal."""
        return np.asarray(np.where(np.asarray(self.legal), q, -np.inf).argmax(axis=1), np.int64)

    @classmethod
    def from_dict(
        cls,
        outcomes: Mapping[Any, Mapping[Any, Sequence[Outcome]]],
        *,
        start: Mapping[Any, float] | None = None,
        horizon: int | None = None,
        shape: tuple[int, int] | None = None,
    ) -> TabularMDP:
        """Build from a dictionary: state → action → list of (probability, next state, reward, terminated).

        States and actions may be anything hashable; they are numbered in the order in which they come. A state may lack
        actions that others have.

        Args:
            outcomes: the process.
            start: probability of each first state; None is uniform.
            horizon: see the class.
            shape: see the class.

        Raises:
            ValueError: if a next state or a first state is none of the states, or as the class says.
        """
        states = {name: index for index, name in enumerate(outcomes)}
        actions = {name: index for index, name in enumerate(dict.fromkeys(a for row in outcomes.values() for a in row))}
        if not states or not actions:
            raise ValueError(f"an MDP must have states and actions, got {len(states)} and {len(actions)}")
        most = max(len(listed) for row in outcomes.values() for listed in row.values())
        size = len(states), len(actions), max(1, most)
        probability, reward = np.zeros(size), np.zeros(size)
        following, terminated, legal = np.zeros(size, np.int64), np.zeros(size, bool), np.zeros(size[:2], bool)
        for state, row in outcomes.items():
            for action, listed in row.items():
                place = states[state], actions[action]
                legal[place] = True
                for k, (p, after, r, ends) in enumerate(listed):
                    if after not in states:
                        raise ValueError(f"state {state!r}, action {action!r} leads to {after!r}, which is no state")
                    probability[place][k], following[place][k] = p, states[after]
                    reward[place][k], terminated[place][k] = r, ends
        first = None
        if start is not None:
            unknown = [name for name in start if name not in states]
            if unknown:
                raise ValueError(f"start names {unknown[0]!r}, which is no state")
            first = np.array([start.get(name, 0.0) for name in states])
        names = tuple(str(name) for name in actions)
        return cls(probability, following, reward, terminated, first, legal, horizon, tuple(states), names, shape)

    @classmethod
    def from_gymnasium(cls, env: Any) -> TabularMDP:
        """Build from a Gymnasium environment that lists its outcomes: the toy-text ones with ``P`` do.

        Its time limit becomes the horizon, its grid the shape.

        Args:
            env: an environment, or the name it is registered under (``"FrozenLake-v1"``).

        Raises:
            ImportError: if Gymnasium is not installed.
            TypeError: if its states or actions are no finite set, or it has no table ``P`` (sample it:
                :func:`linocut.agents.worlds.estimate_mdp`).
        """
        try:
            import gymnasium
        except ImportError as error:
            raise ImportError(
                'environments come from Gymnasium: install it with pip install "linocut[agents]"'
            ) from error

        env = gymnasium.make(env) if isinstance(env, str) else env
        inner, spec = env.unwrapped, env.spec
        for kind in ("observation_space", "action_space"):
            space = getattr(env, kind)
            if not isinstance(space, gymnasium.spaces.Discrete):
                raise TypeError(f"a table needs finitely many states and actions; {inner}'s {kind} is {space}")
        listed = getattr(inner, "P", None)
        if listed is None:
            raise TypeError(f"{inner} has no table P of its outcomes; estimate one with estimate_mdp(env, …)")
        distribution = getattr(inner, "initial_state_distrib", None)
        start = None if distribution is None else {s: float(p) for s, p in enumerate(distribution)}
        shape = tuple(getattr(inner, "shape", (getattr(inner, "nrow", 0), getattr(inner, "ncol", 0))))
        limit = None if spec is None else spec.max_episode_steps
        is_grid = len(shape) == 2 and shape[0] * shape[1] == len(listed)
        return cls.from_dict(listed, start=start, horizon=limit, shape=shape if is_grid else None)


def thresholds(probability: Floats) -> NDArray[np.uint64]:
    """Cumulative probabilities of the last axis as words; the last that is possible, and all after, the highest."""
    total = np.cumsum(probability, axis=-1)
    scaled = np.minimum(total / total[..., -1:].clip(1e-300), 1.0) * 2.0**64
    words = np.where(scaled >= 2.0**64, 2.0**64 - 2048, scaled).astype(np.uint64)
    words[scaled >= 2.0**64 * (1 - 1e-12)] = np.iinfo(np.uint64).max
    return np.ascontiguousarray(words)


def _check(mdp: TabularMDP) -> None:
    """Refuse what is no MDP.

    Raises:
        ValueError: naming the place.
    """
    shape = mdp.probability.shape
    for name in ("next_state", "reward", "terminated"):
        if getattr(mdp, name).shape != shape:
            raise ValueError(f"{name} must have the shape of probability, {shape}, got {getattr(mdp, name).shape}")
    start, legal = np.asarray(mdp.start), np.asarray(mdp.legal)
    if start.shape != shape[:1] or legal.shape != shape[:2]:
        raise ValueError(f"start must be {shape[:1]} and legal {shape[:2]}, got {start.shape} and {legal.shape}")
    if len(mdp.state_names) != shape[0] or len(mdp.action_names) != shape[1]:
        raise ValueError(f"{shape[0]} states and {shape[1]} actions need as many names")
    if mdp.horizon is not None and mdp.horizon < 1:
        raise ValueError(f"horizon must be >= 1, or None for none, got {mdp.horizon}")
    if not legal.any(axis=1).all():
        state = mdp.state_names[int(np.argmin(legal.any(axis=1)))]
        raise ValueError(f"state {state!r} has no action; give one that stays and ends the episode")
    if not (np.isfinite(mdp.probability).all() and np.isfinite(mdp.reward).all() and np.isfinite(start).all()):
        raise ValueError("probabilities and rewards must be finite numbers")
    if (mdp.probability < 0).any() or (start < 0).any() or abs(start.sum() - 1) > TOLERANCE:
        raise ValueError(f"probabilities must be >= 0 and those of start sum to 1, got a sum of {start.sum():.6g}")
    wrong = legal & (np.abs(mdp.probability.sum(axis=2) - 1) > TOLERANCE)
    if wrong.any():
        s, a = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"probabilities of state {mdp.state_names[s]!r}, action {mdp.action_names[a]!r} must sum to 1, "
            f"got {mdp.probability[s, a].sum():.6g}"
        )
    if mdp.next_state.size and not (mdp.next_state.min() >= 0 and mdp.next_state.max() < shape[0]):
        raise ValueError(f"next states must be 0 … {shape[0] - 1}, got {mdp.next_state.min()} … {mdp.next_state.max()}")
