"""The aggregated Jaccard index: IoU summed over objects, so that every object missed or invented costs its pixels.

    AJI = Σ_i |G_i ∩ P_m(i)| / (Σ_i |G_i ∪ P_m(i)| + Σ_unused |P_k|)

AJI pairs each true object with the prediction of highest IoU; one prediction can serve several objects, and then its
surplus is counted each time. AJI+ lets each serve at most one, so that the sum of IoU is highest. A true object that no
prediction touches adds its own pixels to the union.

Sources: Kumar et al., "A Dataset and a Technique for Generalized Nuclear Segmentation for Computational Pathology",
IEEE TMI 36(7), 2017, algorithm 1; Graham et al., "HoVer-Net", Medical Image Analysis 58, 2019
(https://arxiv.org/abs/1812.06499), appendix, for AJI+.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from linocut.metrics.assignment import best_pairs
from linocut.metrics.overlaps import Overlaps, overlaps
from linocut.metrics.summary import IntArray, Summary, exact_parts, exact_total, ratio


@dataclass(frozen=True)
class JaccardScores:
    """The figures read off an `AggregatedJaccard`, each in [0, 1], NaN if no image held an object.

    Attributes:
        aji: AJI over all images, their intersections and unions added.
        aji_plus: AJI+ over all images.
        image_aji: the mean of the images' AJI.
        image_aji_plus: the mean of the images' AJI+.
        images: images that held an object, true or predicted.
    """

    aji: float
    aji_plus: float
    image_aji: float
    image_aji_plus: float
    images: int


@dataclass
class AggregatedJaccard(Summary):
    """A mergeable summary of AJI and AJI+; AJI+ needs SciPy.

    Attributes:
        background: the label, in both maps, of what is no object.
        images: images so far that held an object, true or predicted.
        pixels: (2, 2) int64; intersection and union of AJI, then of AJI+.
        image_parts: (2, 2) int64; sums over images of AJI and of AJI+, see `exact_parts`.

    Example:
        >>> jaccard = AggregatedJaccard()
        >>> jaccard.update(np.array([[1, 1, 1, 1, 0, 2]]), np.array([[5, 5, 6, 6, 0, 0]]))
        >>> scores = jaccard.compute()
        >>> scores.aji  # object 1 serves both: (2 + 2) / (4 + 4 + 1)
        0.4444444444444444
        >>> scores.aji_plus  # it serves one: 2 / (4 + 2 + 1)
        0.2857142857142857
    """

    SETTINGS = ("background",)
    SUMS = ("images", "pixels", "image_parts")

    background: int = 0
    images: int = field(default=0, init=False)
    pixels: IntArray = field(init=False, repr=False)
    image_parts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros((2, 2), np.int64)
        self.image_parts = np.zeros((2, 2), np.int64)

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike, *, ignore: npt.ArrayLike | None = None) -> None:
        """Add one image.

        Args:
            prediction: label map, integers ≥ 0 of any shape: one label an object.
            target: label map of the same shape.
            ignore: bool map of the same shape; pixels that count for no object.

        Raises:
            TypeError: if a map does not hold integers.
            ValueError: if the shapes differ, or a label is negative.
        """
        found = overlaps(prediction, target, ignore=ignore).without(self.background)
        if not found.prediction_labels.size + found.target_labels.size:
            return
        pixels = np.stack(
            [_pixels(found, _best(found)), _pixels(found, best_pairs(found.rows, found.columns, found.iou))]
        )
        self.images += 1
        self.pixels += pixels
        self.image_parts += exact_parts(pixels[:, 0] / pixels[:, 1])

    def compute(self) -> JaccardScores:
        """Read the figures off the sums."""
        pooled = ratio(self.pixels[:, 0], self.pixels[:, 1])
        mean = ratio(exact_total(self.image_parts), self.images)
        return JaccardScores(float(pooled[0]), float(pooled[1]), float(mean[0]), float(mean[1]), self.images)


def _pixels(found: Overlaps, pairs: IntArray) -> IntArray:
    """Intersection and union summed over pairs, and in the union the objects that are in no pair."""
    alone_rows = np.ones(found.prediction_labels.size, np.bool_)
    alone_columns = np.ones(found.target_labels.size, np.bool_)
    alone_rows[found.rows[pairs]] = False
    alone_columns[found.columns[pairs]] = False
    alone = found.prediction_areas[alone_rows].sum() + found.target_areas[alone_columns].sum()
    return np.array([found.shared[pairs].sum(), found.union[pairs].sum() + alone], np.int64)


def _best(found: Overlaps) -> IntArray:
    """For each true object that a prediction touches, the pair of highest IoU, of equal ones the lowest label's."""
    order = np.lexsort((found.rows, -found.iou, found.columns))
    columns = found.columns[order]
    first = np.ones(order.size, np.bool_)
    first[1:] = columns[1:] != columns[:-1]
    return order[first]
