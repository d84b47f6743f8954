"""How far apart two surfaces are: Hausdorff distance, its 95th percentile, and the average symmetric distance.

With A and B the surfaces, d(a, B) the distance of a from the nearest point of B:

    HD = max(max_a d(a, B), max_b d(b, A))
    HD_q = max(q-th percentile of d(a, B), q-th percentile of d(b, A))
    ASSD = (Σ_a d(a, B) + Σ_b d(b, A)) / (|A| + |B|)

A surface is made of the pixels of a mask that have a neighbour across a face outside it; beyond the image's rim all is
outside. Some libraries (MedPy) take one percentile over both directions together; this is the larger of the two.

Empty masks: two empty masks are at distance 0. If one is empty there is no distance, and it is infinite; the summary
leaves such pairs out of its means and says how many there were.

Sources: Huttenlocher, Klanderman, Rucklidge, "Comparing images using the Hausdorff distance", IEEE TPAMI 15(9), 1993;
Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", IEEE TMI 28(8), 2009;
Maier-Hein, Reinke et al., "Metrics reloaded", Nature Methods 21, 2024, for the choice of percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from linocut.metrics.overlaps import as_mask, mask_pair
from linocut.metrics.summary import FloatArray, Summary

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances between two surfaces, in the unit of the spacing; see the module for their formulas.

    Attributes:
        hausdorff: HD.
        percentile: HD_q.
        average: ASSD.
    """

    hausdorff: float
    percentile: float
    average: float


def surface(mask: BoolArray) -> BoolArray:
    """The pixels of a mask that have a neighbour across a face outside it, or lie at the rim.

    Args:
        mask: bool array of one or more axes.

    Returns:
        bool array of the same shape.

    Example:
        >>> surface(np.ones((3, 4), bool)).astype(int).tolist()
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    padded = np.pad(mask, 1)
    inner = mask.copy()
    centre = (slice(1, -1),) * mask.ndim
    for axis in range(mask.ndim):
        for shift in (slice(0, -2), slice(2, None)):
            inner &= padded[(*centre[:axis], shift, *centre[axis + 1 :])]
    return mask & ~inner


def surface_distance(
    prediction: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    spacing: float | Sequence[float] = 1.0,
    percentile: float = 95.0,
) -> SurfaceDistance:
    """The distances between the surfaces of two masks.

    Args:
        prediction: bool array of one or more axes.
        target: bool array of the same shape.
        spacing: size of a pixel, > 0, in any unit: one number, or one for each axis. Pixels that are not square, and
            masks with other than two axes, need SciPy.
        percentile: q in [0, 100].

    Returns:
        The distances in the unit of the spacing: 0 for two empty masks, infinite if one is empty.

    Raises:
        TypeError: if a mask is not bool.
        ValueError: if the shapes differ, or spacing or percentile are not as above.

    Example:
        >>> a, b = np.zeros((1, 9), bool), np.zeros((1, 9), bool)
        >>> a[0, 2], b[0, 2], b[0, 6] = True, True, True
        >>> distance = surface_distance(a, b, spacing=0.5)
        >>> distance.hausdorff, distance.average  # (0 + 0 + 4) · 0.5 / 3
        (2.0, 0.6666666666666666)
    """
    a, b = mask_pair(prediction, target)
    sizes = _spacing(spacing, a.ndim)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {percentile}")
    if not (a.any() and b.any()):
        apart = math.inf if a.any() or b.any() else 0.0
        return SurfaceDistance(apart, apart, apart)
    skin_a, skin_b = surface(a), surface(b)
    # nothing outside the box around both matters
    box = _box(skin_a | skin_b)
    skin_a, skin_b = skin_a[box], skin_b[box]
    there, back = _distance_to(skin_b, sizes)[skin_a], _distance_to(skin_a, sizes)[skin_b]
    return SurfaceDistance(
        float(max(there.max(), back.max())),
        float(max(np.percentile(there, percentile), np.percentile(back, percentile))),
        math.fsum([*there.tolist(), *back.tolist()]) / (there.size + back.size),
    )


def _spacing(spacing: float | Sequence[float], axes: int) -> tuple[float, ...]:
    sizes = (
        tuple(float(size) for size in np.broadcast_to(np.asarray(spacing, np.float64), (axes,)))
        if (np.ndim(spacing) == 0 or np.shape(spacing) == (axes,))
        else ()
    )
    if not sizes or not all(size > 0 and math.isfinite(size) for size in sizes):
        raise ValueError(f"spacing must be a number > 0, or {axes} of them, one for each axis; got {spacing}")
    return sizes


def _box(points: BoolArray) -> tuple[slice, ...]:
    found = []
    for axis in range(points.ndim):
        places = np.flatnonzero(points.any(axis=tuple(other for other in range(points.ndim) if other != axis)))
        found.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(found)


def _distance_to(points: BoolArray, spacing: tuple[float, ...]) -> FloatArray:
    """The distance of every pixel from the nearest point."""
    if points.ndim == 2 and spacing[0] == spacing[1]:
        import cv2

        distance = cv2.distanceTransform(
            np.ascontiguousarray(~points).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        # squared distances are integers; rounding them undoes the rounding of the transform's float32 roots
        return np.asarray(np.sqrt(np.rint(np.square(distance, dtype=np.float64))) * spacing[0], np.float64)
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~points, sampling=spacing), np.float64)


@dataclass(frozen=True)
class SurfaceScores:
    """The figures read off a `SurfaceDistances`.

    Attributes:
        pairs: pairs of masks that both hold something; the means are theirs, NaN if there is none.
        hausdorff: mean HD.
        percentile: mean HD_q.
        average: mean ASSD.
        worst: the largest HD.
        one_empty: pairs of which one mask is empty, which have no distance.
        both_empty: pairs of empty masks.
    """

    pairs: int
    hausdorff: float
    percentile: float
    average: float
    worst: float
    one_empty: int
    both_empty: int


@dataclass
class SurfaceDistances(Summary):
    """A mergeable summary of the distances of many pairs of masks; it keeps three numbers a pair.

    Attributes:
        spacing: size of a pixel: one number, or one for each axis.
        q: the percentile, in [0, 100].
        one_empty: pairs so far of which one mask is empty.
        both_empty: pairs so far of empty masks.
        distances: (n, 3) float64; HD, HD_q and ASSD of the other pairs.

    Raises:
        ValueError: if q is not in [0, 100].

    Example:
        >>> distances = SurfaceDistances()
        >>> a, b = np.zeros((1, 9), bool), np.zeros((1, 9), bool)
        >>> a[0, 2], b[0, 6] = True, True
        >>> distances.update(a, b)
        >>> distances.update(a, a)
        >>> distances.update(a, np.zeros_like(a))
        >>> scores = distances.compute()
        >>> scores.hausdorff, scores.pairs, scores.one_empty
        (2.0, 2, 1)
    """

    SETTINGS = ("spacing", "q")
    SUMS = ("one_empty", "both_empty", "distances")

    spacing: float | tuple[float, ...] = 1.0
    q: float = 95.0
    one_empty: int = field(default=0, init=False)
    both_empty: int = field(default=0, init=False)
    distances: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.q <= 100:
            raise ValueError(f"q must be in [0, 100], got {self.q}")
        self.distances = np.zeros((0, 3))

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike) -> None:
        """Add one pair of masks; arguments and errors are those of `surface_distance`."""
        distance = surface_distance(prediction, target, spacing=self.spacing, percentile=self.q)
        if math.isinf(distance.hausdorff):
            self.one_empty += 1
        elif not as_mask(target, "target").any():
            self.both_empty += 1
        else:
            row = [[distance.hausdorff, distance.percentile, distance.average]]
            self.distances = np.concatenate([self.distances, row])

    def merge(self, other: SurfaceDistances) -> None:
        """Add the pairs of another summary to this one; raises what `Summary.merge` raises."""
        self._check_alike(other)
        self.one_empty += other.one_empty
        self.both_empty += other.both_empty
        self.distances = np.concatenate([self.distances, other.distances])

    def compute(self) -> SurfaceScores:
        """Read the figures off the pairs; the same to the last bit in whatever order they came."""
        pairs = len(self.distances)
        # fsum rounds once, so the order does not matter
        means = [math.fsum(column) / pairs if pairs else math.nan for column in self.distances.T.tolist()]
        worst = float(self.distances[:, 0].max()) if pairs else math.nan
        hausdorff, percentile, average = means
        return SurfaceScores(pairs, hausdorff, percentile, average, worst, self.one_empty, self.both_empty)

    def _read_sum(self, name: str, value: object) -> object:
        if name == "distances":
            return np.array(value, np.float64).reshape(-1, 3)
        return super()._read_sum(name, value)
