"""The assignment problem: the pairs with the highest sum of gains in which nobody comes twice. Needs SciPy."""

from __future__ import annotations

import numpy as np

from linocut.metrics.summary import FloatArray, IntArray


def best_pairs(rows: IntArray, columns: IntArray, gain: FloatArray) -> IntArray:
    """Choose pairs for the highest sum of gains.

    The problem falls apart into the connected components of the graph of pairs, most of them small, and each is solved
    as a dense one; so the cost does not grow with the square of the number of objects.

    Args:
        rows: (k,) int64 ≥ 0; one partner of each pair.
        columns: (k,) int64 ≥ 0; the other. No pair comes twice.
        gain: (k,) float64 > 0; what a pair adds.

    Returns:
        (p,) int64: places of the chosen pairs, ascending.

    Example:
        >>> best_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.5, 0.4, 0.3])).tolist()
        [1, 2]
    """
    if rows.size == 0:
        return np.zeros(0, np.int64)
    chosen = [
        members if members.size == 1 else members[_solve(rows[members], columns[members], gain[members])]
        for members in _components(rows, columns)
    ]
    return np.sort(np.concatenate(chosen))


def _components(rows: IntArray, columns: IntArray) -> list[IntArray]:
    """Places of the pairs of each connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(rows.max()) + 1
    size = first + int(columns.max()) + 1
    graph = coo_array((np.ones(rows.size, np.int8), (rows, first + columns)), shape=(size, size))
    _, names = connected_components(graph, directed=False)
    order = np.argsort(names[rows], kind="stable")
    return np.split(order, np.flatnonzero(np.diff(names[rows][order])) + 1)


def _solve(rows: IntArray, columns: IntArray, gain: FloatArray) -> IntArray:
    from scipy.optimize import linear_sum_assignment

    names, rows = np.unique(rows, return_inverse=True)
    others, columns = np.unique(columns, return_inverse=True)
    table, place = np.zeros((names.size, others.size)), np.full((names.size, others.size), -1, np.int64)
    table[rows, columns] = gain
    place[rows, columns] = np.arange(rows.size)
    chosen: IntArray = place[linear_sum_assignment(table, maximize=True)]
    return chosen[chosen >= 0]
