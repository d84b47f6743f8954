"""A process as a Gymnasium environment: what is written for Gymnasium runs on any table of this room."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from linocut.agents.mdp import Outcome, TabularMDP


class TabularEnv(gymnasium.Env[np.int64, np.int64]):
    """Step through a :class:`~linocut.agents.mdp.TabularMDP` with Gymnasium's API.

    Observations and actions are numbers of states and actions. An episode is ``terminated`` where the process ends and
    ``truncated`` when its horizon is reached without that. ``info`` holds the probability of what happened (``prob``)
    and which actions are legal now (``action_mask``), as Gymnasium's toy-text environments do.

    Args:
        mdp: the process.

    Example:
        >>> from linocut.agents import random_walk
        >>> env = TabularEnv(random_walk())
        >>> env.reset(seed=0)[0], env.step(1)[:4]
        (2, (3, 0.0, False, False))
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own declaration)

    def __init__(self, mdp: TabularMDP) -> None:
        self.mdp = mdp
        self.observation_space = spaces.Discrete(mdp.n_states)
        self.action_space = spaces.Discrete(mdp.n_actions)
        self._state: int | None = None
        self._steps = 0

    @property
    def P(self) -> dict[int, dict[int, list[Outcome]]]:  # noqa: N802  (Gymnasium's name)
        """What may happen: state → action → list of (probability, next state, reward, terminated)."""
        mdp, legal = self.mdp, np.asarray(self.mdp.legal)
        return {
            state: {
                action: [
                    (float(p), int(mdp.next_state[state, action, k]), float(mdp.reward[state, action, k]),
                     bool(mdp.terminated[state, action, k]))
                    for k, p in enumerate(mdp.probability[state, action])
                    if p > 0
                ]
                for action in range(mdp.n_actions)
                if legal[state, action]
            }
            for state in range(mdp.n_states)
        }  # fmt: skip

    @property
    def initial_state_distrib(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(S,) distribution of the first state."""
        return np.asarray(self.mdp.start, np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: decides what is random from here on; None goes on with the generator there is.
            options: none are known.

        Returns:
            The first state and ``info``.
        """
        super().reset(seed=seed, options=options)
        self._steps = 0
        self._state = self._draw(self.initial_state_distrib)
        return self._state, self._info(1.0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action.

        Returns:
            The next state, the reward, terminated, truncated, ``info``.

        Raises:
            ValueError: if the action is not legal in this state.
            RuntimeError: if no episode has begun, or it is over.
        """
        if self._state is None:
            raise RuntimeError("there is no episode to step through: call reset() first, and after each one's end")
        mdp, state = self.mdp, self._state
        if not self.action_space.contains(action) or not np.asarray(mdp.legal)[state, action]:
            allowed = np.flatnonzero(np.asarray(mdp.legal)[state]).tolist()
            raise ValueError(f"in state {mdp.state_names[state]!r} actions are {allowed}, got {action!r}")
        outcome = self._draw(mdp.probability[state, action])
        self._steps += 1
        terminated = bool(mdp.terminated[state, action, outcome])
        truncated = not terminated and mdp.horizon is not None and self._steps >= mdp.horizon
        self._state = int(mdp.next_state[state, action, outcome])
        info = self._info(float(mdp.probability[state, action, outcome]))
        observation = self._state
        if terminated or truncated:
            self._state = None
        return observation, float(mdp.reward[state, action, outcome]), terminated, truncated, info

    def _draw(self, probability: Any) -> int:
        # the last one that is possible takes what rounding leaves of 1
        total = np.cumsum(probability)
        return int(min(np.searchsorted(total, self.np_random.random(), "right"), np.flatnonzero(probability)[-1]))

    def _info(self, probability: float) -> dict[str, Any]:
        return {"prob": probability, "action_mask": np.asarray(self.mdp.legal)[self._state].astype(np.int8)}
