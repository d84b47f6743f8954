"""The small worlds of the textbook: random walks, the windy grid. Blackjack has a file of its own.

Source: Sutton & Barto, *Reinforcement Learning*, 2nd ed., 2018, examples 6.2, 6.5 and 7.1, exercises 6.9 and 6.10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linocut.agents.mdp import TabularMDP

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
        >>> evaluate(random_walk(3), np.full((3, 2), 0.5), gamma=1).tolist()
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
