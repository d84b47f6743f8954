"""Measures of segmentation: NumPy only, and nothing of the rest of Linocut, so they can be used on their own."""

from linocut.metrics.interaction import STANDARD_THRESHOLDS, ClickCurve, ClickScores, iou

__all__ = ["STANDARD_THRESHOLDS", "ClickCurve", "ClickScores", "iou"]
