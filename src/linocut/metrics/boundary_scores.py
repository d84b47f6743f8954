"""The measures of `boundaries` over many images and classes, as one mergeable summary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from linocut.metrics.boundaries import (
    BOUNDARY_WIDTH,
    TOLERANCE,
    TRIMAP_WIDTH,
    BoolArray,
    band_counts,
    contour_counts,
    f_measure,
    in_pixels,
    trimap_counts,
)
from linocut.metrics.overlaps import label_map
from linocut.metrics.summary import FloatArray, IntArray, Summary, exact_parts, exact_total, mean_of_known, ratio


@dataclass(frozen=True)
class BoundaryReport:
    """The figures read off a `BoundaryScores`; arrays have an entry for each class, NaN where it did not occur.

    Attributes:
        iou: boundary IoU, the bands of all images added.
        f: boundary F, the mean over the images in which the class has a contour, true or predicted.
        precision: share of the predicted contours near the true ones, all images added.
        recall: share of the true contours near the predicted ones, all images added.
        trimap_iou: trimap IoU, the zones of all images added.
        mean_iou: mean of `iou` over the classes that occur.
        mean_f: mean of `f`.
        mean_trimap_iou: mean of `trimap_iou`.
    """

    iou: FloatArray
    f: FloatArray
    precision: FloatArray
    recall: FloatArray
    trimap_iou: FloatArray
    mean_iou: float
    mean_f: float
    mean_trimap_iou: float


@dataclass
class BoundaryScores(Summary):
    """A mergeable summary of boundary IoU, boundary F and trimap IoU for each class.

    Attributes:
        num_classes: classes are 0 … num_classes - 1. A mask is the class map of two classes; class 1 is the object.
        ignore: labels of the target that count for nothing: such a pixel belongs to no class in either map.
        width: d of boundary IoU; pixels, or below 1 a share of the diagonal.
        tolerance: that of boundary F, likewise.
        trimap_width: that of trimap IoU, likewise.
        band: (C, 2) int64; pixels of the bands' intersections and unions.
        trimap: (C, 2) int64; the same of the trimaps.
        contour: (C, 4) int64; pixels predicted near a true contour, predicted, true near a predicted one, true.
        images: (C,) int64; images in which the class has a contour.
        f_parts: (C, 2) int64; sum of the images' F, see `exact_parts`.

    Raises:
        ValueError: if num_classes is below 1, or a length is not positive.

    Example:
        >>> scores = BoundaryScores(num_classes=2, tolerance=1)
        >>> target, prediction = np.zeros((6, 9), np.uint8), np.zeros((6, 9), np.uint8)
        >>> target[:, :4], prediction[:, :6] = 1, 1
        >>> scores.update(prediction, target)
        >>> scores.compute().f.tolist()
        [0.0, 0.0]
        >>> scores.update(target, target)
        >>> scores.compute().f.tolist()
        [0.5, 0.5]
    """

    SETTINGS = ("num_classes", "ignore", "width", "tolerance", "trimap_width")
    SUMS = ("band", "trimap", "contour", "images", "f_parts")

    num_classes: int
    ignore: tuple[int, ...] = ()
    width: float = BOUNDARY_WIDTH
    tolerance: float = TOLERANCE
    trimap_width: float = TRIMAP_WIDTH
    band: IntArray = field(init=False, repr=False)
    trimap: IntArray = field(init=False, repr=False)
    contour: IntArray = field(init=False, repr=False)
    images: IntArray = field(init=False, repr=False)
    f_parts: IntArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {self.num_classes}")
        for name in ("width", "tolerance", "trimap_width"):
            in_pixels(getattr(self, name), (1, 1), name)
        self.band, self.trimap, self.f_parts = (np.zeros((self.num_classes, 2), np.int64) for _ in range(3))
        self.contour = np.zeros((self.num_classes, 4), np.int64)
        self.images = np.zeros(self.num_classes, np.int64)

    def update(self, prediction: npt.ArrayLike, target: npt.ArrayLike) -> None:
        """Add one image.

        Args:
            prediction: class map (h, w), integers 0 … num_classes - 1, or bool for two classes.
            target: class map (h, w); besides, labels to ignore.

        Raises:
            TypeError: if a map holds neither integers nor bools.
            ValueError: if the shapes differ or have not two axes, or a label is out of range.
        """
        for cls, guessed, wanted in self._masks(prediction, target):
            self.band[cls] += band_counts(guessed, wanted, self.width)
            self.trimap[cls] += trimap_counts(guessed, wanted, self.trimap_width)
            counts = contour_counts(guessed, wanted, self.tolerance)
            self.contour[cls] += counts
            if counts.any():
                self.images[cls] += 1
                self.f_parts[cls] += exact_parts(f_measure(counts))

    def compute(self) -> BoundaryReport:
        """Read the figures off the sums."""
        iou, trimap = ratio(self.band[:, 0], self.band[:, 1]), ratio(self.trimap[:, 0], self.trimap[:, 1])
        f = ratio(exact_total(self.f_parts), self.images)
        return BoundaryReport(
            iou=iou,
            f=f,
            precision=ratio(self.contour[:, 0], self.contour[:, 1]),
            recall=ratio(self.contour[:, 2], self.contour[:, 3]),
            trimap_iou=trimap,
            mean_iou=mean_of_known(iou),
            mean_f=mean_of_known(f),
            mean_trimap_iou=mean_of_known(trimap),
        )

    def _masks(self, prediction: npt.ArrayLike, target: npt.ArrayLike) -> Iterator[tuple[int, BoolArray, BoolArray]]:
        """The two masks of each class that occurs."""
        maps = [label_map(prediction, "prediction"), label_map(target, "target")]
        guessed, wanted = maps
        if guessed.ndim != 2 or guessed.shape != wanted.shape:
            raise ValueError(f"prediction and target must have one shape (h, w), got {guessed.shape}, {wanted.shape}")
        counted = ~np.isin(wanted, self.ignore)
        labels = [np.unique(values[counted]) for values in maps]
        for values, name in zip(labels, ("prediction", "target"), strict=True):
            if values.size and values[-1] >= self.num_classes:
                raise ValueError(
                    f"{name} must hold labels below num_classes = {self.num_classes}"
                    f"{f' or to ignore, {self.ignore},' if self.ignore else ''} got {values[-1]}"
                )
        for cls in np.union1d(*labels).tolist():
            yield int(cls), (guessed == cls) & counted, (wanted == cls) & counted
