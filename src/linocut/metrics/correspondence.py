"""Which boundary pixels of two maps are the same boundary: pairs at most a distance apart, each pixel in one at most.

Of all ways to pair, the one of least cost: a pair costs its distance, a pixel without a partner the outlier cost, by
default 100 times the largest distance. So as many pairs as possible are made, and of these ways the shortest, unless
one pair more would cost the others 100 times the largest distance. Needs SciPy.

Source: Martin, Fowlkes, Malik, "Learning to detect natural image boundaries using local brightness, color, and texture
cues", IEEE TPAMI 26(5), 2004, section 4.1 and appendix. Their solver (Goldberg's CSA) has whole numbers for costs, a
hundredth of a pixel each, and joins each pixel to six outliers drawn at random; this one is exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from linocut.metrics.overlaps import mask_pair
from linocut.metrics.summary import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

MAX_DISTANCE = 0.0075
OUTLIER_COST = 100.0


def correspond(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    max_distance: float = MAX_DISTANCE,
    outlier_cost: float = OUTLIER_COST,
) -> tuple[BoolArray, BoolArray]:
    """Pair the boundary pixels of two maps.

    Args:
        first: bool (h, w).
        second: bool (h, w).
        max_distance: the largest distance of a pair, a share of the image's diagonal, ≥ 0.
        outlier_cost: cost of a pixel without a partner in largest distances, > 1.

    Returns:
        Two bool (h, w): the pixels of each map that have a partner; there are as many in both.

    Raises:
        TypeError: if a map is not bool.
        ValueError: if the shapes differ or have not two axes, or a number is not as above.

    Example:
        >>> first, second = np.zeros((1, 7), bool), np.zeros((1, 7), bool)
        >>> first[0, [1, 3]], second[0, [3, 5]] = True, True
        >>> [int(pixels.sum()) for pixels in correspond(first, second, max_distance=2 / 50 ** 0.5)]
        [2, 2]
        >>> [int(pixels.sum()) for pixels in correspond(first, second, max_distance=1 / 50 ** 0.5)]
        [1, 1]
    """
    a, b = mask_pair(first, second)
    if a.ndim != 2:
        raise ValueError(f"boundary maps must have the shape (h, w), got {a.shape}")
    if not max_distance >= 0:
        raise ValueError(f"max_distance must be >= 0, a share of the diagonal, got {max_distance}")
    if not outlier_cost > 1:
        raise ValueError(f"outlier_cost must be > 1, got {outlier_cost}")
    reach = max_distance * float(np.hypot(a.shape[0], a.shape[1]))
    matched_a, matched_b = np.zeros(a.shape, np.bool_), np.zeros(b.shape, np.bool_)
    places_a, places_b, distances = _pairs_within(a, b, reach)
    if distances.size:
        rows, columns = _cheapest(places_a, places_b, distances, outlier_cost * reach)
        matched_a.ravel()[rows] = True
        matched_b.ravel()[columns] = True
    return matched_a, matched_b


def _pairs_within(a: BoolArray, b: BoolArray, reach: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Flat places in both maps, and distances, of all pairs of pixels that are within reach."""
    # a rim of nothing, so that no step leads out of the array or round a corner of it
    r = int(np.ceil(reach))
    height, width = a.shape
    padded = np.zeros((height + 2 * r, width + 2 * r), np.bool_)
    padded[r : r + height, r : r + width] = b
    ys, xs = np.nonzero(a)
    targets, sources, found, distances = padded.ravel(), ys * width + xs, [], []
    base = (ys + r) * padded.shape[1] + xs + r
    for down in range(-r, r + 1):
        for across in range(-r, r + 1):
            squared = down * down + across * across
            # the slack takes up the rounding of the diagonal's root
            if squared > reach * reach * (1 + 1e-12):
                continue
            hits = np.flatnonzero(targets[base + down * padded.shape[1] + across])
            found.append((sources[hits], sources[hits] + down * width + across))
            distances.append(np.full(hits.size, np.sqrt(squared)))
    places_a, places_b = (np.concatenate(places).astype(np.int64) for places in zip(*found, strict=True))
    return places_a, places_b, np.concatenate(distances)


def _cheapest(rows: IntArray, columns: IntArray, cost: FloatArray, alone: float) -> tuple[IntArray, IntArray]:
    """The pairs of least cost, where a member without a partner costs `alone`."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    names, rows = np.unique(rows, return_inverse=True)
    others, columns = np.unique(columns, return_inverse=True)
    # Every row has a column of its own to stay alone in, so a full matching exists. In the authors' graph every pair
    # more saves the cost of one outlier, and so it does here. SciPy takes 0 for no edge, hence the 1.
    size, selves = names.size, np.arange(names.size)
    weights = np.concatenate([cost + 1, np.full(size, alone + 1)])
    graph = csr_array(
        (weights, (np.concatenate([rows, selves]), np.concatenate([columns, others.size + selves]))),
        shape=(size, others.size + size),
    )
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(graph)
    paired = chosen_columns < others.size
    return names[chosen_rows[paired]], others[chosen_columns[paired]]
