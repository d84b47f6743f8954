"""The small worlds of the textbook: random walks, the windy grid, and worlds worked out by sampling.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, examples 6.2, 6.5 and 7.1, exercises 6.9 and 6.10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from linocut.agents.mdp import Outcome, TabularMDP

MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
"""Rows and columns that each move goes by."""

DIAGONALS = {"up right": (-1, 1), "down right": (1, 1), "down left": (1, -1), "up left": (-1, -1)}
"""What a king of chess may do besides."""


def random_walk(n_states: int = 5, *, r_left: float = 0.0, r_right: float = 1.0) -> TabularMDP:
    """A row of states, walked through from the middle one until it is left at either end.

    With actions left and right, each as likely, the values of ``random_walk(5)`` are 1/6 … 5/6 (example 6.2); example
    7.1 is ``random_walk(19, r_left=-1)``.

    Args:
        n_states: how many, odd.
        r_left: reward of leaving at the left end.
        r_right: reward of leaving at the right end; all other rewards are 0.

    Raises:
        ValueError: if there is no state in the middle.

    Example:
        >>> import numpy as np
        >>> from linocut.agents import evaluate
        >>> evaluate(random_walk(3), np.full((3, 2), 0.5), gamma=1).round(9).tolist()
        [0.25, 0.5, 0.75]
    """
    if n_states < 1 or n_states % 2 == 0:
        raise ValueError(f"n_states must be odd and >= 1, so that there is a middle, got {n_states}")
    size = n_states, 2, 1
    following, reward, terminated = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, bool)
    places = np.arange(n_states)
    following[:, :, 0] = np.stack([places - 1, places + 1], axis=1).clip(0, n_states - 1)
    terminated[0, 0], terminated[-1, 1] = True, True
    reward[0, 0], reward[-1, 1] = r_left, r_right
    start = np.eye(n_states)[n_states // 2]
    return TabularMDP(
        np.ones(size), following, reward, terminated, start, action_names=("left", "right"), shape=(1, n_states)
    )


def windy_grid(
    *,
    kings_moves: bool = False,
    stay: bool = False,
    stochastic: bool = False,
    wind: Sequence[int] = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0),
    rows: int = 7,
    start: tuple[int, int] = (4, 1),
    target: tuple[int, int] = (4, 8),
) -> TabularMDP:
    """A grid with a wind that blows upwards, by so many cells in each column; every step costs 1 until the target.

    The wind is that of the column a move begins in. Moves and gusts that would leave the grid end at its edge. The
    shortest way takes 15 steps, with king's moves 7.

    Args:
        kings_moves: allow the diagonals too (exercise 6.9).
        stay: allow a move by the wind alone.
        stochastic: where a wind blows, let it be 1 stronger or weaker a third of the time each (exercise 6.10).
        wind: cells of each column, >= 0; as many as there are columns.
        rows: of the grid.
        start: row and column, from 1.
        target: row and column, from 1; the episode ends there.

    Raises:
        ValueError: if a cell lies outside the grid, start and target are one, or a wind blows downwards.
    """
    columns = len(wind)
    for cell in (start, target):
        if not (1 <= cell[0] <= rows and 1 <= cell[1] <= columns):
            raise ValueError(f"cells must lie in 1 … {rows} × 1 … {columns}, got {cell}")
    if start == target or min(wind) < 0:
        raise ValueError(f"start and target must differ and winds be >= 0, got {start}, {target} and {tuple(wind)}")
    moves = MOVES | (DIAGONALS if kings_moves else {}) | ({"stay": (0, 0)} if stay else {})
    gusts = (0, -1, 1) if stochastic else (0,)
    cells = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
    size = len(cells), len(moves), len(gusts)
    probability, following = np.zeros(size), np.zeros(size, np.int64)
    for number, (row, column) in enumerate(cells):
        for action, (down, right) in enumerate(moves.values()):
            strength = wind[column - 1]
            blowing = gusts if strength else (0,)
            for k, gust in enumerate(blowing):
                after_row = min(max(row + down - strength - gust, 1), rows)
                after_column = min(max(column + right, 1), columns)
                following[number, action, k] = (after_row - 1) * columns + after_column - 1
                probability[number, action, k] = 1 / len(blowing)
    goal = (target[0] - 1) * columns + target[1] - 1
    first = np.eye(len(cells))[(start[0] - 1) * columns + start[1] - 1]
    return TabularMDP(
        probability, following, np.full(size, -1.0), following == goal, first, None, None, tuple(cells), tuple(moves),
        (rows, columns),
    )  # fmt: skip


def estimate_mdp(env: Any, *, samples: int, seed: int = 0) -> TabularMDP:
    """Build a table by sampling: how often each outcome followed each state and action, and each first state came.

    Of the actions of a state the one that was tried least is tried next. Where an action never was, it is not legal in
    the table; a state in which none was (the ends of episodes) stays as it is and ends. The time limit becomes the
    horizon, and is no end.

    Args:
        env: an environment with finitely many observations (``Discrete``, or tuples of it) and ``Discrete`` actions, or
            the name it is registered under.
        samples: steps to take, >= 1.
        seed: decides everything that is random.

    Returns:
        A process with all states of a ``Discrete`` space, otherwise those seen, named by their observations.

    Raises:
        TypeError: if a space is not finite.
        ValueError: if there is nothing to sample.

    Example:
        >>> mdp = estimate_mdp("CliffWalking-v1", samples=500)
        >>> mdp.n_states, mdp.n_actions, mdp.expected_reward.max().item()
        (48, 4, 0.0)
    """
    import gymnasium

    env = gymnasium.make(env) if isinstance(env, str) else env
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    seen_in, taken_in = env.observation_space, env.action_space
    if not isinstance(taken_in, gymnasium.spaces.Discrete) or not _is_finite(seen_in):
        raise TypeError(f"a table needs finitely many states and actions; {env} has {seen_in} and {taken_in}")
    counts, starts = _sample(env, samples, seed)
    return _from_counts(env, counts, starts)


_Counts = dict[Any, list[Counter[tuple[Any, float, bool]]]]


def _sample(env: Any, samples: int, seed: int) -> tuple[_Counts, Counter[Any]]:
    """Count what follows each state and action, and the first states."""
    rng = np.random.default_rng(seed)
    actions = int(env.action_space.n)
    counts: _Counts = {}
    starts: Counter[Any] = Counter()
    state: Any = None
    for step in range(samples):
        if state is None:
            state = _name(env.reset(seed=seed if step == 0 else None)[0])
            starts[state] += 1
        row = counts.setdefault(state, [Counter() for _ in range(actions)])
        tried = np.array([sum(outcomes.values()) for outcomes in row])
        action = int(rng.choice(np.flatnonzero(tried == tried.min())))
        observation, reward, terminated, truncated, _ = env.step(action + int(env.action_space.start))
        after = _name(observation)
        row[action][after, float(reward), bool(terminated)] += 1
        state = None if terminated or truncated else after
    return counts, starts


def _from_counts(env: Any, counts: _Counts, starts: Counter[Any]) -> TabularMDP:
    """Frequencies as probabilities."""
    space = env.observation_space
    followed = {after for row in counts.values() for outcomes in row for after, _, _ in outcomes}
    names = (
        [int(space.start) + place for place in range(int(space.n))]
        if hasattr(space, "n") and np.ndim(space.n) == 0
        else sorted({*counts, *followed})
    )
    actions = range(int(env.action_space.n))
    rows: dict[Any, dict[int, list[Outcome]]] = {}
    for name in names:
        tried = {action: outcomes for action, outcomes in enumerate(counts.get(name, [])) if outcomes}
        rows[name] = {
            action: [(n / outcomes.total(), *what) for what, n in outcomes.items()]
            for action, outcomes in sorted(tried.items())
        } or {action: [(1.0, name, 0.0, True)] for action in actions}
    # the first state may lack an action, so that the order in which they come is not theirs
    mdp_actions = [str(action) for action in dict.fromkeys(a for row in rows.values() for a in row)]
    total = starts.total()
    limit = None if env.spec is None else env.spec.max_episode_steps
    mdp = TabularMDP.from_dict(rows, start={name: n / total for name, n in starts.items()}, horizon=limit)
    order = np.argsort([int(action) for action in mdp_actions])
    return replace(
        mdp,
        probability=mdp.probability[:, order],
        next_state=mdp.next_state[:, order],
        reward=mdp.reward[:, order],
        terminated=mdp.terminated[:, order],
        legal=np.asarray(mdp.legal)[:, order],
        action_names=tuple(mdp_actions[place] for place in order),
    )


def _is_finite(space: Any) -> bool:
    from gymnasium import spaces

    if isinstance(space, spaces.Tuple):
        return all(_is_finite(part) for part in space.spaces)
    return isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))


def _name(observation: Any) -> Any:
    """An observation as something to look up: whole numbers and tuples of them."""
    if isinstance(observation, tuple):
        return tuple(_name(part) for part in observation)
    listed = np.asarray(observation).tolist()
    return int(listed) if isinstance(listed, (int, bool)) else tuple(int(part) for part in np.ravel(listed))
