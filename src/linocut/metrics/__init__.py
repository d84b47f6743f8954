"""Measures of segmentation: NumPy and the native core, and nothing else of Linocut, so they serve on their own."""

from linocut.metrics.aggregated_jaccard import AggregatedJaccard, JaccardScores
from linocut.metrics.average_precision import CocoAveragePrecision
from linocut.metrics.boundaries import boundary_f, boundary_iou, trimap_iou
from linocut.metrics.boundary_scores import BoundaryReport, BoundaryScores
from linocut.metrics.bsds import BoundaryBenchmark, BoundaryCurve, region_boundaries
from linocut.metrics.coco_scores import CocoScores
from linocut.metrics.confusion import ConfusionMatrix, ConfusionScores
from linocut.metrics.contingency import Contingency, contingency
from linocut.metrics.instances import InstanceMatching, InstanceScores, match
from linocut.metrics.interaction import STANDARD_THRESHOLDS, ClickCurve, ClickScores, iou
from linocut.metrics.overlaps import Overlaps, overlaps
from linocut.metrics.panoptic import PanopticMean, PanopticQuality, PanopticScores
from linocut.metrics.summary import Summary
from linocut.metrics.surface import SurfaceDistance, SurfaceDistances, SurfaceScores, surface_distance

__all__ = [
    "STANDARD_THRESHOLDS",
    "AggregatedJaccard",
    "BoundaryBenchmark",
    "BoundaryCurve",
    "BoundaryReport",
    "BoundaryScores",
    "ClickCurve",
    "ClickScores",
    "CocoAveragePrecision",
    "CocoScores",
    "ConfusionMatrix",
    "ConfusionScores",
    "Contingency",
    "InstanceMatching",
    "InstanceScores",
    "JaccardScores",
    "Overlaps",
    "PanopticMean",
    "PanopticQuality",
    "PanopticScores",
    "Summary",
    "SurfaceDistance",
    "SurfaceDistances",
    "SurfaceScores",
    "boundary_f",
    "boundary_iou",
    "contingency",
    "iou",
    "match",
    "overlaps",
    "region_boundaries",
    "surface_distance",
    "trimap_iou",
]
