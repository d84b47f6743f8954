"""Zhao's grid world: cells to walk between, walls of the grid to bump into, forbidden cells to avoid, one target.

Source: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, section 1.1, figures 1.2, 3.4, 5.4, 7.4, 8.5.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from linocut.agents.mdp import TabularMDP

ACTIONS = ("up", "right", "down", "left", "stay")
ARROWS = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))
"""Rows and columns that each of :data:`ACTIONS` moves by."""

Cell = tuple[int, int]

FORBIDDEN: frozenset[Cell] = frozenset({(2, 2), (2, 3), (3, 3), (4, 2), (4, 4), (5, 2)})
"""The book's forbidden cells, row and column from 1."""


def grid_world(
    *,
    r_boundary: float = -1.0,
    r_forbidden: float = -1.0,
    r_target: float = 1.0,
    r_other: float = 0.0,
    shape: tuple[int, int] = (5, 5),
    target: Cell = (4, 3),
    forbidden: Collection[Cell] = FORBIDDEN,
    ends: bool = False,
    boundary_adds_cell: bool = False,
    horizon: int | None = None,
) -> TabularMDP:
    """The grid world of Zhao's book, in any of its reward settings.

    The agent moves up, right, down, left or stays. A move off the grid leaves it where it is, at the price
    ``r_boundary``; otherwise the reward is that of the cell it comes to. Forbidden cells can be entered. In the book
    the target is a cell like any other: the process never ends, and staying there pays ``r_target`` for ever.

    Args:
        r_boundary: reward of a move off the grid.
        r_forbidden: of coming to (or staying in) a forbidden cell.
        r_target: of coming to (or staying in) the target.
        r_other: of any other move.
        shape: rows and columns.
        target: row and column, from 1.
        forbidden: cells, row and column from 1.
        ends: whether coming to the target ends the episode.
        boundary_adds_cell: whether a move off the grid also pays for the cell the agent stays in, as figures 5.6 and
            5.7 of the book do it and its text does not.
        horizon: steps after which an episode is truncated.

    Returns:
        A process with states row by row, named by (row, column), and five actions.

    Raises:
        ValueError: if a cell lies outside the grid, or the target is forbidden.

    Example:
        >>> mdp = grid_world()
        >>> mdp.n_states, mdp.action_names
        (25, ('up', 'right', 'down', 'left', 'stay'))
    """
    rows, columns = shape
    for cell in (target, *forbidden):
        if not (1 <= cell[0] <= rows and 1 <= cell[1] <= columns):
            raise ValueError(f"cells must lie in 1 … {rows} × 1 … {columns}, got {cell}")
    if target in forbidden:
        raise ValueError(f"the target {target} must not be forbidden")
    cells = [(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
    price = {cell: r_target if cell == target else r_forbidden if cell in forbidden else r_other for cell in cells}
    number = {cell: index for index, cell in enumerate(cells)}
    size = len(cells), len(ACTIONS), 1
    following, reward, terminated = np.zeros(size, np.int64), np.zeros(size), np.zeros(size, bool)
    for cell in cells:
        for action, (down, right) in enumerate(ARROWS):
            place, after = (number[cell], action, 0), (cell[0] + down, cell[1] + right)
            if after in number:
                reward[place] = price[after]
            else:
                after = cell
                reward[place] = r_boundary + (price[cell] if boundary_adds_cell else 0.0)
            following[place], terminated[place] = number[after], ends and after == target
    return TabularMDP(
        np.ones(size), following, reward, terminated, None, None, horizon, tuple(cells), ACTIONS, (rows, columns)
    )
