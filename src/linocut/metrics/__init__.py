"""Measures of segmentation: NumPy and the native core, and nothing else of Linocut, so they serve on their own."""

from linocut.metrics.confusion import ConfusionMatrix, ConfusionScores
from linocut.metrics.contingency import Contingency, contingency
from linocut.metrics.interaction import STANDARD_THRESHOLDS, ClickCurve, ClickScores, iou

__all__ = [
    "STANDARD_THRESHOLDS",
    "ClickCurve",
    "ClickScores",
    "ConfusionMatrix",
    "ConfusionScores",
    "Contingency",
    "contingency",
    "iou",
]
