"""COCO's average precision beside pycocotools, by hand, merged, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from linocut.metrics.average_precision import CocoAveragePrecision
from linocut.metrics.coco_scores import CocoScores

from .coco_cases import Image, coco_eval, counts, random_image

pytestmark = pytest.mark.usefixtures("form")


def images(seed: int, number: int = 6, **options: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [random_image(name, rng, **options) for name in range(1, number + 1)]


def filled(parts: list[Image], *, runs: bool = False, **options: object) -> CocoAveragePrecision:
    precision = CocoAveragePrecision(**options)
    for image in parts:
        image.add_to(precision, runs=runs)
    return precision


def twelve(scores: CocoScores) -> list[float]:
    return [scores.ap, scores.ap50, scores.ap75, *scores.ap_by_area, *scores.ar, *scores.ar_by_area]


class TestBesidePycocotools:
    @pytest.mark.parametrize("seed", range(8))
    def test_twelve_figures_and_every_point_of_every_curve(self, seed: int) -> None:
        parts = images(seed)
        theirs, ours = coco_eval(parts), filled(parts, runs=seed % 2 == 1).compute()
        np.testing.assert_allclose(
            [-1 if np.isnan(x) else x for x in twelve(ours)], theirs.stats, rtol=0, atol=1e-9, err_msg=str(seed)
        )
        np.testing.assert_allclose(np.nan_to_num(ours.precision, nan=-1), theirs.eval["precision"][..., -1], atol=1e-9)
        np.testing.assert_allclose(np.nan_to_num(ours.recall, nan=-1), theirs.eval["recall"][..., -1], atol=1e-9)
        assert 0.05 < ours.ap < 0.95, "a case that tells something"

    def test_few_detections_count(self) -> None:
        parts = images(3, detections=30)
        theirs = coco_eval(parts, (1, 2, 5))
        ours = filled(parts, max_detections=(1, 2, 5)).compute()
        np.testing.assert_allclose(np.nan_to_num(ours.precision, nan=-1), theirs.eval["precision"][..., -1], atol=1e-9)
        recall = np.moveaxis(np.nan_to_num(ours.recall_by_detections, nan=-1), -1, 0)
        for m in range(3):
            np.testing.assert_allclose(recall[m], theirs.eval["recall"][:, :, 0, m], atol=1e-9)

    def test_label_maps_stacks_and_runs_give_one_result(self) -> None:
        target, prediction = np.zeros((20, 30), np.uint16), np.zeros((20, 30), np.int32)
        target[2:8, 2:8], target[10:18, 10:20] = 5, 300
        prediction[3:8, 2:8], prediction[9:17, 11:20], prediction[0, 29] = 1, 2, 9
        stacks = [np.stack([m == v for v in np.unique(m)[1:]]) for m in (prediction, target)]
        forms = [(prediction, target), tuple(stacks), tuple(counts(s) for s in stacks), (stacks[0], counts(stacks[1]))]
        results = []
        for masks, targets in forms:
            precision = CocoAveragePrecision()
            precision.update("a", masks, [0.5, 0.9, 0.7], [1, 2, 1], targets, [1, 2])
            results.append(precision.to_json())
        assert len(set(results)) == 1
        precision = CocoAveragePrecision.from_json(results[0])
        # class 1: IoU 30/36 at 7 of 10 thresholds, after a surer mistake; class 2: IoU 63/89 at 5
        assert precision.compute().ap == pytest.approx((0.7 * 0.5 + 0.5) / 2)


class TestByHand:
    def test_half_the_objects_found(self) -> None:
        target, prediction = np.array([[1, 1, 0, 2, 2, 2]]), np.array([[1, 1, 2, 0, 0, 0]])
        precision = CocoAveragePrecision()
        precision.update(0, prediction, [0.3, 0.9], [1, 1], target, [1, 1])
        # the surer detection is wrong; then one of two objects: precision 1/2 up to recall 1/2, which is 51 of 101
        assert precision.compute().ap == pytest.approx(0.5 * 51 / 101)
        assert precision.compute().ar == (0.0, 0.5, 0.5)

    def test_a_crowd_excuses_any_number(self) -> None:
        target, prediction = np.array([[1, 1, 1, 1, 2, 2]]), np.array([[1, 2, 3, 0, 4, 4]])
        precision = CocoAveragePrecision()
        precision.update(0, prediction, [0.9, 0.8, 0.7, 0.6], [1] * 4, target, [1, 1], crowd=[True, False])
        assert precision.compute().ap == pytest.approx(1.0)

    def test_classes_do_not_match_each_other(self) -> None:
        precision = CocoAveragePrecision()
        precision.update(0, np.array([[1, 1]]), [0.9], [3], np.array([[1, 1]]), [4])
        scores = precision.compute()
        assert scores.classes == (3, 4)
        np.testing.assert_array_equal(scores.ap_by_class, [np.nan, 0.0])
        assert scores.ap == 0

    def test_nothing_has_no_figures(self) -> None:
        precision = CocoAveragePrecision()
        assert np.isnan(precision.compute().ap)
        precision.update(0, np.zeros((2, 2), int), [], [], np.zeros((2, 2), int), [])
        assert np.isnan(precision.compute().ap)


class TestMerging:
    def test_any_order_and_any_cut_give_the_same_bits(self) -> None:
        parts = images(11, 8)
        whole = filled(parts).compute()
        rng = np.random.default_rng(0)
        for _ in range(3):
            order = [parts[i] for i in rng.permutation(len(parts))]
            merged = filled(order[:3]) + CocoAveragePrecision() + filled(order[3:])
            again = pickle.loads(pickle.dumps(CocoAveragePrecision.from_json(merged.to_json())))  # noqa: S301
            for scores in (merged.compute(), again.compute()):
                np.testing.assert_array_equal(scores.precision, whole.precision)
                np.testing.assert_array_equal(scores.recall_by_detections, whole.recall_by_detections)

    def test_parts_are_left_alone(self) -> None:
        a, b = filled(images(1, 2)), filled(images(2, 4)[2:])
        total = a + b
        assert (len(a.records), len(b.records), len(total.records)) == (2, 2, 4)

    def test_an_image_comes_once(self) -> None:
        a, b = filled(images(1, 2)), filled(images(1, 1))
        with pytest.raises(ValueError, match="1 images are in both summaries, among them 1"):
            a + b
        with pytest.raises(ValueError, match="image 1 was added before"):
            images(1, 1)[0].add_to(a)

    def test_unlike_summaries_do_not_merge(self) -> None:
        with pytest.raises(ValueError, match="only with the same max_detections"):
            CocoAveragePrecision(max_detections=(1,)).merge(CocoAveragePrecision())


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"scores": [0.5]}, ValueError, r"scores must be one for each of 2 masks, got shape \(1,\)"),
            ({"scores": [0.5, float("nan")]}, ValueError, "scores must not be NaN"),
            ({"classes": [0.5, 1.0]}, TypeError, "classes must hold integers, got float64"),
            ({"target_classes": [1, 2]}, ValueError, "target_classes must be one for each of 1 masks"),
            ({"crowd": [1]}, TypeError, "crowd must hold bools"),
            ({"masks": np.zeros((1, 3))}, TypeError, r"masks must be a bool stack .* got float64 of shape \(1, 3\)"),
            ({"masks": -np.ones((1, 3), int)}, ValueError, "labels must hold labels >= 0"),
            ({"target_masks": np.ones((2, 3), int)}, ValueError, "of one image, got sizes"),
            ({"masks": [[3], [1, 1]]}, ValueError, "must add up to 3 pixels, got 2 for mask 1"),
            ({"masks": [[3], [4, -1]]}, ValueError, "run lengths must be >= 0, got -1"),
            ({"masks": [[3], [1.5, 1.5]]}, TypeError, "flat list of integers"),
        ],
    )
    def test_says_what_is_wrong(self, change: dict[str, object], error: type[Exception], words: str) -> None:
        good = {
            "masks": np.array([[1, 2, 0]]),
            "scores": [0.5, 0.4],
            "classes": [1, 1],
            "target_masks": np.array([[1, 1, 0]]),
            "target_classes": [1],
        }
        precision = CocoAveragePrecision()
        with pytest.raises(error, match=words):
            precision.update("a", **{**good, **change})
        assert not precision.records
        precision.update("a", **good)

    @pytest.mark.parametrize(
        "settings", [{"thresholds": ()}, {"thresholds": (0.6, 0.5)}, {"max_detections": (0,)}, {"thresholds": (1.5,)}]
    )
    def test_settings(self, settings: dict[str, tuple[float, ...]]) -> None:
        with pytest.raises(ValueError, match="must"):
            CocoAveragePrecision(**settings)

    def test_threshold_that_was_not_counted(self) -> None:
        with pytest.raises(ValueError, match="threshold must be one of"):
            CocoAveragePrecision().compute().at(0.42)
