"""The interaction metrics: exact values worked out by hand, merging, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linocut.metrics.interaction import ClickCurve, iou

masks = hnp.arrays(np.bool_, (5, 7))
curves = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=12)


def filled(objects: list[list[float]], max_clicks: int = 6) -> ClickCurve:
    curve = ClickCurve(max_clicks)
    for ious in objects:
        curve.update(ious)
    return curve


class TestIou:
    def test_counts_pixels(self) -> None:
        prediction, target = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
        prediction[0, :3] = True  # 3 pixels
        target[0, 1:] = True  # 3 pixels, 2 of them shared
        assert iou(prediction, target) == 2 / 4

    def test_two_empty_masks_agree(self) -> None:
        empty = np.zeros((3, 3), bool)
        assert iou(empty, empty) == 1.0

    def test_one_empty_mask_is_wrong_throughout(self) -> None:
        assert iou(np.zeros((3, 3), bool), np.ones((3, 3), bool)) == 0.0

    def test_ignored_pixels_count_for_neither(self) -> None:
        prediction, target = np.array([True, True, True, False]), np.array([True, True, False, True])
        assert iou(prediction, target) == 2 / 4
        assert iou(prediction, target, ignore=np.array([False, False, True, False])) == 2 / 3
        assert iou(prediction, target, ignore=np.array([True, False, True, True])) == 1.0

    @given(masks, masks)
    def test_is_symmetric_and_bounded(self, a: np.ndarray, b: np.ndarray) -> None:
        assert iou(a, b) == iou(b, a)
        assert 0 <= iou(a, b) <= 1
        assert (iou(a, b) == 1) == bool(np.array_equal(a, b))

    def test_refuses_masks_that_are_not_bool(self) -> None:
        with pytest.raises(TypeError, match="prediction must be a bool array, got uint8"):
            iou(np.full((2, 2), 255, np.uint8), np.ones((2, 2), bool))

    def test_refuses_two_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
            iou(np.ones((2, 3), bool), np.ones((3, 2), bool))


class TestClickCurve:
    def test_three_objects_by_hand(self) -> None:
        scores = filled([[0.5, 0.83, 0.91], [0.95], [0.1, 0.2, 0.84, 0.86, 0.3, 0.4]]).compute()
        assert scores.objects == 3
        assert scores.noc_at(0.80) == pytest.approx((2 + 1 + 3) / 3)
        assert scores.noc_at(0.85) == pytest.approx((3 + 1 + 4) / 3)
        assert scores.noc_at(0.90) == pytest.approx((3 + 1 + 6) / 3)  # never counts as all six clicks
        assert scores.fail_at(0.85) == 0  # it was reached once, though lost again later
        assert scores.fail_at(0.90) == pytest.approx(1 / 3)
        assert scores.iou_after(1) == pytest.approx((0.5 + 0.95 + 0.1) / 3)
        assert scores.iou_after(6) == pytest.approx((0.91 + 0.95 + 0.4) / 3)  # stopped early: the last IoU stays

    def test_reaching_at_the_last_click_is_not_failing(self) -> None:
        scores = filled([[0.1, 0.1, 0.90]], max_clicks=3).compute()
        assert scores.noc_at(0.90) == 3
        assert scores.fail_at(0.90) == 0

    @given(curves)
    def test_agrees_with_the_definition(self, objects: list[list[float]]) -> None:
        scores = filled(objects).compute()
        for t in (0.80, 0.85, 0.90):
            first = [next((k for k, v in enumerate(o, 1) if v >= t), 6) for o in objects]
            assert scores.noc_at(t) == pytest.approx(np.mean(first))
            assert scores.fail_at(t) == pytest.approx(np.mean([max(o) < t for o in objects]))
        for k in range(1, 7):
            assert scores.iou_after(k) == pytest.approx(np.mean([o[min(k, len(o)) - 1] for o in objects]))

    @given(curves, curves)
    def test_merging_is_the_summary_of_both(self, left: list[list[float]], right: list[list[float]]) -> None:
        a, b, both = filled(left), filled(right), filled(left + right)
        total = a + b
        np.testing.assert_array_equal(total.first_reached, both.first_reached)
        np.testing.assert_allclose(total.iou_sum, both.iou_sum, rtol=1e-12)
        assert total.objects == both.objects
        assert a.objects == len(left), "adding leaves its parts alone"
        a.merge(b)
        np.testing.assert_array_equal(a.iou_sum, total.iou_sum)
        assert b.objects == len(right)

    def test_merging_with_nothing_changes_nothing(self) -> None:
        curve = filled([[0.3, 0.95]])
        assert (curve + ClickCurve(6)).compute() == curve.compute()

    def test_refuses_to_merge_unlike_curves(self) -> None:
        with pytest.raises(ValueError, match="same max_clicks, got 5 and 6"):
            ClickCurve(5) + ClickCurve(6)
        with pytest.raises(ValueError, match="same thresholds"):
            ClickCurve(5).merge(ClickCurve(5, (0.5,)))

    @pytest.mark.parametrize("ious", [[], [0.1] * 4, [[0.1]], [1.1], [-0.1], [float("nan")]])
    def test_refuses_what_is_not_a_run(self, ious: list[float]) -> None:
        curve = ClickCurve(3)
        with pytest.raises(ValueError, match="ious must"):
            curve.update(ious)
        assert curve.objects == 0
        assert not curve.iou_sum.any()

    @pytest.mark.parametrize(
        ("clicks", "thresholds"), [(0, (0.8,)), (3, ()), (3, (0.9, 0.8)), (3, (0.8, 0.8)), (3, (80,))]
    )
    def test_refuses_bad_settings(self, clicks: int, thresholds: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r"max_clicks must|thresholds must"):
            ClickCurve(clicks, thresholds)

    def test_no_objects_have_no_figures(self) -> None:
        with pytest.raises(ValueError, match="no objects"):
            ClickCurve().compute()

    def test_figures_that_were_not_kept_are_refused(self) -> None:
        scores = filled([[0.5]]).compute()
        with pytest.raises(ValueError, match="threshold must be one of"):
            scores.noc_at(0.5)
        with pytest.raises(ValueError, match=r"clicks must be in 1 … 6, got 7"):
            scores.iou_after(7)


def test_imports_nothing_but_numpy_and_the_native_core() -> None:
    code = (
        "import sys, linocut.metrics.interaction\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('torch', 'cv2', 'matplotlib', 'PIL')\n"
        "       or m.startswith('linocut.') and m.split('.')[1] not in ('metrics', 'native', '_native')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
