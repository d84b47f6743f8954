"""The confusion matrix: worked by hand, counted by brute force, beside scikit-learn, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from linocut.metrics import ConfusionMatrix
from linocut.metrics.confusion import DENSE_CLASSES

DTYPES = [np.bool_, *(np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64))]
# what is kept as a table of bytes, as a table, and as a list
SIZES = [2, 3, 150, 254, 255, 256, 257, DENSE_CLASSES, DENSE_CLASSES + 1, 65_535]

pytestmark = pytest.mark.usefixtures("isa")


def brute_force(prediction: NDArray[Any], target: NDArray[Any], ignore: tuple[int, ...] = ()) -> dict[Any, int]:
    """One pixel after the other."""
    pairs = zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True)
    return dict(Counter((int(t), int(p)) for t, p in pairs if int(t) not in ignore))


def counted(matrix: ConfusionMatrix) -> dict[Any, int]:
    pairs = matrix.pairs
    return dict(
        zip(
            zip(pairs.target.tolist(), pairs.prediction.tolist(), strict=True),
            pairs.counts.tolist(),
            strict=True,
        )
    )


def labels(dtype: Any, num_classes: int, *, seed: int) -> NDArray[Any]:
    """A map of all labels that the dtype has of so many classes."""
    most = 1 if dtype is np.bool_ else min(np.iinfo(dtype).max, num_classes - 1)
    return np.random.default_rng(seed).integers(0, most, (37, 53), endpoint=True).astype(dtype)


def filled(prediction: Any, target: Any, num_classes: int, ignore: Any = None) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes, ignore)
    matrix.update(np.asarray(prediction), np.asarray(target))
    return matrix


class TestCounts:
    def test_rows_are_the_target(self) -> None:
        assert filled([1], [0], 2).matrix.tolist() == [[0, 1], [0, 0]]

    @pytest.mark.parametrize("num_classes", [150, 300])
    @pytest.mark.parametrize("of_target", DTYPES)
    @pytest.mark.parametrize("of_prediction", DTYPES)
    def test_every_pair_of_dtypes(self, num_classes: int, of_target: Any, of_prediction: Any) -> None:
        prediction, target = labels(of_prediction, num_classes, seed=0), labels(of_target, num_classes, seed=1)
        assert counted(filled(prediction, target, num_classes)) == brute_force(prediction, target)

    @pytest.mark.parametrize("num_classes", SIZES)
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
    def test_every_storage(self, num_classes: int, dtype: Any) -> None:
        prediction, target = labels(dtype, num_classes, seed=0), labels(dtype, num_classes, seed=1)
        assert counted(filled(prediction, target, num_classes)) == brute_force(prediction, target)

    @pytest.mark.parametrize("num_classes", [3, 300, 3000])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64])
    def test_ignored_targets(self, num_classes: int, dtype: Any) -> None:
        ignore = (-1, 1, 100, 255, 2**63)
        held = [v for v in ignore if np.iinfo(dtype).min <= v <= np.iinfo(dtype).max]
        rng = np.random.default_rng(1)
        target = rng.choice(np.array([0, 2, *held], dtype=object), (40, 41)).astype(dtype)
        prediction = rng.integers(0, 3, target.shape)
        prediction[np.isin(target, np.array(held).astype(dtype))] = 9999  # whatever lies there does not matter
        assert counted(filled(prediction, target, num_classes, ignore)) == brute_force(prediction, target, ignore)

    @pytest.mark.parametrize("num_classes", [5, 300])
    def test_layouts_agree(self, num_classes: int) -> None:
        rng = np.random.default_rng(2)
        wide = rng.integers(0, 5, (2, 64, 66, 3), dtype=np.int16)
        views = {
            "transposed": lambda a: a.transpose(0, 2, 1, 3),
            "every second": lambda a: a[:, ::2, 1::3],
            "backwards": lambda a: a[:, ::-1, ::-1],
            "one channel": lambda a: a[..., 1],
            "swapped bytes": lambda a: a.astype(a.dtype.newbyteorder()),
            "at odd addresses": lambda a: np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
            "repeated": lambda a: np.broadcast_to(a[:, :1], a.shape),
        }
        for name, view in views.items():
            prediction, target = view(wide)
            assert counted(filled(prediction, target, num_classes)) == brute_force(prediction, target), name

    def test_layouts_may_differ_in_a_pair(self) -> None:
        rng = np.random.default_rng(3)
        prediction, target = rng.integers(0, 4, (300, 200)), rng.integers(0, 4, (200, 300)).T
        assert counted(filled(prediction, target, 4)) == brute_force(prediction, target)

    def test_a_view_is_not_copied(self) -> None:
        import tracemalloc

        pair = np.zeros((2, 2048, 4096), np.uint8)[:, :, ::2]
        tracemalloc.start()
        filled(*pair, 2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < pair[0].size, "less than one of the maps"

    @pytest.mark.parametrize("shape", [(), (1,), (70_001,), (3, 1, 5), (2, 3, 4, 5)])
    def test_any_shape(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(4)
        prediction, target = rng.integers(0, 7, (2, *shape))
        assert counted(filled(prediction, target, 7)) == brute_force(prediction, target)

    @pytest.mark.parametrize("length", [1, 63, 64, 65, 255, 256, 4095, 4097, 65_536, 70_003])
    @pytest.mark.parametrize("labels", [1, 2, 4, 20])
    def test_runs_of_every_length(self, length: int, labels: int) -> None:
        rng = np.random.default_rng(5)
        prediction, target = (np.repeat(rng.integers(0, labels, 300), rng.integers(0, 500, 300))[:length] for _ in "pt")
        n = min(prediction.size, target.size)
        prediction, target = prediction[:n].astype(np.uint8), target[:n].astype(np.uint8)
        assert counted(filled(prediction, target, 20)) == brute_force(prediction, target)

    @pytest.mark.parametrize("num_classes", [2, 4, 20])
    @pytest.mark.parametrize("ignore", [(), (255,), (1,), (3, 255), (254,)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16])
    def test_few_labels_and_ignored_ones_among_them(
        self, num_classes: int, ignore: tuple[int, ...], dtype: Any
    ) -> None:
        rng = np.random.default_rng(9)
        held = np.array([0, 1, *([2, 3] if num_classes > 2 else []), *ignore], dtype)
        target = rng.choice(held, 20_000)
        prediction = rng.integers(0, min(num_classes, 4), target.size).astype(dtype)
        wild = np.isin(target, ignore)
        prediction[wild] = rng.integers(0, 256, np.count_nonzero(wild)).astype(dtype)
        assert counted(filled(prediction, target, num_classes, ignore)) == brute_force(prediction, target, ignore)

    def test_more_of_one_pair_than_a_small_counter_holds(self) -> None:
        ones = np.ones(300_000, np.uint8)
        ones[1] = 0
        assert filled(ones, ones, 2).matrix.tolist() == [[1, 0], [0, 299_999]]


class TestFigures:
    """Worked by hand: target 0 0 0 0 1 1 2 2 2 2, prediction 0 0 1 3 1 1 2 2 0 3, of five classes."""

    @pytest.fixture
    def matrix(self) -> ConfusionMatrix:
        return filled([0, 0, 1, 3, 1, 1, 2, 2, 0, 3], [0, 0, 0, 0, 1, 1, 2, 2, 2, 2], 5)

    def test_per_class(self, matrix: ConfusionMatrix) -> None:
        # class 3 is absent from the target, class 4 from both
        nan = math.nan
        np.testing.assert_array_equal(matrix.support, [4, 2, 4, 0, 0])
        np.testing.assert_array_equal(matrix.predicted, [3, 3, 2, 2, 0])
        np.testing.assert_array_equal(matrix.recall, [2 / 4, 2 / 2, 2 / 4, nan, nan])
        np.testing.assert_array_equal(matrix.precision, [2 / 3, 2 / 3, 2 / 2, 0, nan])
        np.testing.assert_array_equal(matrix.iou, [2 / 5, 2 / 3, 2 / 4, 0, nan])
        np.testing.assert_array_equal(matrix.f1, [4 / 7, 4 / 5, 4 / 6, 0, nan])
        np.testing.assert_array_equal(matrix.dice, matrix.f1)

    def test_of_all_classes(self, matrix: ConfusionMatrix) -> None:
        assert matrix.total == 10
        assert matrix.pa == 6 / 10
        assert matrix.mpa == 2 / 3  # (1/2 + 1 + 1/2) / 3
        assert matrix.miou == pytest.approx((2 / 5 + 2 / 3 + 2 / 4 + 0) / 4, abs=1e-15)
        assert matrix.fwiou == pytest.approx((4 * 2 / 5 + 2 * 2 / 3 + 4 * 2 / 4) / 10, abs=1e-15)
        # by chance: 4·3 + 2·3 + 4·2 = 26 of 100
        assert matrix.kappa == (60 - 26) / (100 - 26)
        assert matrix.mcc == pytest.approx((60 - 26) / math.sqrt((100 - 36) * (100 - 26)), abs=1e-15)

    def test_compute_gives_the_same(self, matrix: ConfusionMatrix) -> None:
        scores = matrix.compute()
        for name in ("total", "pa", "mpa", "miou", "fwiou", "kappa", "mcc"):
            assert getattr(scores, name) == getattr(matrix, name), name
        for name in ("iou", "recall", "precision", "f1", "dice", "support", "predicted"):
            np.testing.assert_array_equal(getattr(scores, name), getattr(matrix, name), err_msg=name)

    def test_perfect(self) -> None:
        matrix = filled([0, 1, 1], [0, 1, 1], 3)
        assert (matrix.pa, matrix.mpa, matrix.miou, matrix.fwiou, matrix.kappa, matrix.mcc) == (1,) * 6

    def test_nothing_counted(self) -> None:
        for matrix in (ConfusionMatrix(2), filled([9, 9], [255, 255], 2, 255)):
            scores = matrix.compute()
            assert scores.total == 0
            assert all(math.isnan(getattr(scores, name)) for name in ("pa", "mpa", "miou", "fwiou", "kappa", "mcc"))
            assert np.isnan([scores.iou, scores.recall, scores.precision, scores.f1]).all()

    def test_one_class_throughout_agrees_with_chance(self) -> None:
        matrix = filled([1, 1], [1, 1], 2)
        assert math.isnan(matrix.kappa)
        assert math.isnan(matrix.mcc)

    def test_an_ignored_class_is_in_no_mean(self) -> None:
        # class 0 is void: it is predicted once where the target is 1, which is wrong, but it has no figure of its own
        matrix = filled([0, 1, 1, 2], [0, 0, 1, 2], 3, ignore=0)
        matrix.update(np.array([0]), np.array([1]))
        np.testing.assert_array_equal(matrix.iou, [math.nan, 1 / 2, 1])
        assert matrix.miou == 3 / 4

    def test_no_figure_overflows(self) -> None:
        huge = ConfusionMatrix.from_state(
            {"num_classes": 2, "ignore": [], "target": [0, 1], "prediction": [0, 1], "counts": [2**40, 2**40]}
        )
        assert (huge.kappa, huge.mcc, huge.miou) == (1, 1, 1)

    @pytest.mark.parametrize("num_classes", [4, 300, 3000])
    def test_storage_makes_no_difference(self, num_classes: int) -> None:
        small = filled([0, 1, 3, 3, 2], [0, 1, 1, 3, 3], 4).compute()
        large = filled([0, 1, 3, 3, 2], [0, 1, 1, 3, 3], num_classes).compute()
        for name in ("total", "pa", "mpa", "miou", "fwiou", "kappa", "mcc"):
            assert getattr(small, name) == getattr(large, name), name
        np.testing.assert_array_equal(large.iou[:4], small.iou)
        assert np.isnan(large.iou[4:]).all()


class TestAgainstScikitLearn:
    def test_every_figure(self) -> None:
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(6)
        target = rng.integers(0, 6, 5000)
        prediction = np.where(rng.random(5000) < 0.6, target, rng.integers(0, 6, 5000))
        matrix = filled(prediction, target, 6)
        np.testing.assert_array_equal(matrix.matrix, metrics.confusion_matrix(target, prediction))
        close = {"rtol": 1e-13, "atol": 0}
        np.testing.assert_allclose(matrix.iou, metrics.jaccard_score(target, prediction, average=None), **close)
        np.testing.assert_allclose(matrix.recall, metrics.recall_score(target, prediction, average=None), **close)
        np.testing.assert_allclose(matrix.precision, metrics.precision_score(target, prediction, average=None), **close)
        np.testing.assert_allclose(matrix.f1, metrics.f1_score(target, prediction, average=None), **close)
        assert matrix.pa == metrics.accuracy_score(target, prediction)
        assert matrix.mpa == pytest.approx(metrics.balanced_accuracy_score(target, prediction), rel=1e-13)
        assert matrix.miou == pytest.approx(metrics.jaccard_score(target, prediction, average="macro"), rel=1e-13)
        weighted = metrics.jaccard_score(target, prediction, average="weighted")
        assert matrix.fwiou == pytest.approx(weighted, rel=1e-13)
        assert matrix.kappa == pytest.approx(metrics.cohen_kappa_score(target, prediction), rel=1e-13)
        assert matrix.mcc == pytest.approx(metrics.matthews_corrcoef(target, prediction), rel=1e-13)


pieces = st.lists(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.uint8, n, elements=st.integers(0, 3)),
            hnp.arrays(np.uint8, n, elements=st.sampled_from([0, 1, 2, 3, 255])),
        )
    ),
    min_size=1,
    max_size=5,
)
class_counts = st.sampled_from([4, 300, 3000])
FIGURES = ("pa", "mpa", "miou", "fwiou", "kappa", "mcc")


class TestProperties:
    @given(pieces, class_counts)
    def test_merging_is_one_pass(self, pairs: list[Any], num_classes: int) -> None:
        whole = ConfusionMatrix(num_classes, 255)
        whole.update(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
        forwards, backwards = ConfusionMatrix(num_classes, 255), ConfusionMatrix(num_classes, 255)
        for pair in pairs:
            forwards.update(*pair)
        for pair in reversed(pairs):
            backwards = backwards + filled(*pair, num_classes, 255)
        assert whole == forwards == backwards
        for name in FIGURES:
            np.testing.assert_array_equal(getattr(forwards, name), getattr(whole, name), err_msg=name)

    @given(pieces, class_counts)
    def test_written_down_and_read_back(self, pairs: list[Any], num_classes: int) -> None:
        matrix = filled(*pairs[0], num_classes, ignore=(255, 7))
        assert pickle.loads(pickle.dumps(matrix)) == matrix  # noqa: S301  # our own
        assert ConfusionMatrix.from_state(matrix.state()) == matrix
        assert ConfusionMatrix.from_json(json.dumps(json.loads(matrix.to_json()))) == matrix

    @given(pieces)
    def test_target_and_prediction_change_places(self, pairs: list[Any]) -> None:
        prediction, target = pairs[0]
        target = np.where(target == 255, 0, target)
        one, other = filled(prediction, target, 4), filled(target, prediction, 4)
        np.testing.assert_array_equal(one.matrix, other.matrix.T)
        np.testing.assert_array_equal(one.iou, other.iou)
        np.testing.assert_array_equal(one.recall, other.precision)
        for name in ("pa", "miou", "kappa", "mcc"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)

    @given(pieces, st.permutations(range(4)))
    def test_names_of_classes_do_not_matter(self, pairs: list[Any], order: list[int]) -> None:
        prediction, target = pairs[0]
        renamed = np.array([*order, *[255] * 252])
        one, other = filled(prediction, target, 4, 255), filled(renamed[prediction], renamed[target], 4, 255)
        np.testing.assert_array_equal(one.iou, other.iou[order])
        for name in FIGURES:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)

    @given(pieces)
    def test_bounds(self, pairs: list[Any]) -> None:
        scores = filled(*pairs[0], 4, 255).compute()
        within = [scores.iou, scores.recall, scores.precision, scores.f1, [scores.pa, scores.mpa, scores.miou]]
        values = np.concatenate([*within, [scores.fwiou]])
        assert np.all((values >= 0) & (values <= 1) | np.isnan(values))
        assert not any(abs(value) > 1 for value in (scores.kappa, scores.mcc))
        assert not np.any(scores.iou > scores.f1), "2x/(1+x) >= x"
        assert scores.total == int(scores.support.sum()) == int(scores.predicted.sum())


class TestScores:
    def test_probabilities_and_logits_and_torch(self) -> None:
        rng = np.random.default_rng(7)
        logits = rng.normal(size=(2, 5, 8, 9)).astype(np.float32)
        target = rng.integers(0, 5, (2, 8, 9))
        expected = filled(logits.argmax(1), target, 5)
        tensor = torch.tensor(logits, requires_grad=True)
        for scores in (logits, tensor, tensor.softmax(1), tensor.double()):
            matrix = ConfusionMatrix(5)
            matrix.update(scores, torch.from_numpy(target))  # type: ignore[arg-type]
            assert matrix == expected

    def test_bfloat16(self) -> None:
        matrix = ConfusionMatrix(2)
        scores = torch.tensor([[0.25, 0.5], [3, 2]], dtype=torch.bfloat16)
        matrix.update(scores, torch.tensor([1, 1]))  # type: ignore[arg-type]
        assert matrix.matrix.tolist() == [[0, 0], [1, 1]]

    def test_equal_scores_go_to_the_first_class(self) -> None:
        matrix = ConfusionMatrix(3)
        matrix.update(np.array([[-np.inf, -np.inf, -np.inf], [0.0, 1.0, 1.0]]), np.array([0, 0]))
        assert matrix.matrix[0].tolist() == [1, 1, 0]

    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
    def test_class_axis(self, axis: int) -> None:
        rng = np.random.default_rng(8)
        scores, target = rng.random((3, 4, 5)), rng.integers(0, 3, (4, 5))
        matrix = ConfusionMatrix(3)
        matrix.update(np.moveaxis(scores, 0, axis), target, class_axis=axis)
        assert matrix == filled(scores.argmax(0), target, 3)

    def test_a_single_map_must_say_its_axis(self) -> None:
        with pytest.raises(
            ValueError, match=r"shape \(4, 5\) .* class_axis=1, got \(3, 4, 5\); class_axis=0 would fit"
        ):
            ConfusionMatrix(3).update(np.zeros((3, 4, 5)), np.zeros((4, 5), int))

    def test_scores_that_fit_nowhere(self) -> None:
        with pytest.raises(ValueError, match=r"an axis of 2 classes .*; no axis would fit"):
            ConfusionMatrix(2).update(np.zeros((3, 4, 5)), np.zeros((4, 5), int))

    def test_nan(self) -> None:
        scores = np.zeros((1, 2, 2, 2))
        scores[0, 1, 1, 0] = np.nan
        with pytest.raises(ValueError, match=r"got NaN at \(0, 1, 0\); 1 of 4 places"):
            ConfusionMatrix(2).update(scores, np.zeros((1, 2, 2), int))

    def test_probabilities_of_one_class(self) -> None:
        with pytest.raises(TypeError, match=r"got float64 of the target's shape \(2,\); compare"):
            ConfusionMatrix(2).update(np.array([0.2, 0.7]), np.array([0, 1]))


class TestErrors:
    @pytest.mark.parametrize("num_classes", [3, 300, 3000])
    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64])
    def test_labels_outside(self, num_classes: int, dtype: Any) -> None:
        matrix = filled([0, 1], [1, 1], num_classes, ignore=(-1, 99))
        before = matrix.state()
        good = np.zeros((50, 60), dtype)
        for name, bad_value in (("prediction", -7), ("target", -2), ("prediction", np.iinfo(dtype).max)):
            if dtype is np.int8 and bad_value > 0 and num_classes > bad_value:
                continue
            bad, ignored = good.copy(), good.copy()
            bad[20:22, 7] = bad_value
            ignored[21, 7] = 99
            pair = {"prediction": good, "target": good, name: bad}
            with pytest.raises(
                ValueError,
                match=rf"{name} must hold classes of 0 … {num_classes - 1}, got {bad_value} at \(20, 7\), 2 of 3000 ",
            ):
                matrix.update(**pair)
            if name == "prediction":
                with pytest.raises(ValueError, match=r"at \(20, 7\), 1 of 3000 labels are outside"):
                    matrix.update(bad, ignored)
        for key, value in before.items():
            np.testing.assert_array_equal(matrix.state()[key], value)

    def test_place_is_in_the_order_of_the_axes(self) -> None:
        target = np.zeros((30, 40), np.uint8)
        target[3, 20] = target[20, 3] = 9
        with pytest.raises(ValueError, match=r"got 9 at \(3, 20\), 2 of 1200 .*; if it marks .* pass ignore=9"):
            filled(target * 0, np.asfortranarray(target), 2)

    def test_masks_of_255(self) -> None:
        with pytest.raises(ValueError, match="prediction must hold classes of 0 … 1, got 255 at"):
            filled(np.array([0, 255], np.uint8), np.array([0, 1], np.uint8), 2)

    def test_int8_has_no_class_200(self) -> None:
        labels = np.array([-56], np.int8)  # the bits of 200
        with pytest.raises(ValueError, match="prediction must hold classes of 0 … 219, got -56"):
            filled(labels, np.array([0], np.int8), 220)

    @pytest.mark.parametrize("num_classes", [3, 300])
    def test_labels_beyond_63_bits(self, num_classes: int) -> None:
        with pytest.raises(ValueError, match=f"got {2**63 + 1} at"):
            filled(np.array([0], np.uint64), np.array([2**63 + 1], np.uint64), num_classes, ignore=-1)

    @pytest.mark.parametrize("target", [np.zeros(3), np.zeros(3, complex), np.array(["a"] * 3), np.zeros(3, object)])
    def test_target_that_is_no_label_map(self, target: NDArray[Any]) -> None:
        with pytest.raises(TypeError, match=f"target must be a label map of integers or bools, got {target.dtype}"):
            ConfusionMatrix(2).update(np.zeros(3, int), target)

    def test_prediction_of_no_number(self) -> None:
        with pytest.raises(TypeError, match="prediction must be a label map of integers or bools, got complex128"):
            ConfusionMatrix(2).update(np.zeros(3, complex), np.zeros(3, int))

    def test_masked_array(self) -> None:
        with pytest.raises(TypeError, match="target is a masked array"):
            ConfusionMatrix(2).update(np.zeros(3, int), np.ma.masked_equal(np.zeros(3, int), 0))

    def test_shapes_differ(self) -> None:
        with pytest.raises(ValueError, match=r"must have one shape, got \(1, 3\) and \(3,\)"):
            filled(np.zeros((1, 3), int), np.zeros(3, int), 2)

    def test_empty_pair(self) -> None:
        with pytest.raises(ValueError, match=r"at least one label, got shape \(0, 4\)"):
            filled(np.zeros((0, 4), int), np.zeros((0, 4), int), 2)

    @pytest.mark.parametrize("num_classes", [0, -1, 65_536])
    def test_number_of_classes(self, num_classes: int) -> None:
        with pytest.raises(ValueError, match=f"num_classes must be in 1 … 65535, got {num_classes}"):
            ConfusionMatrix(num_classes)

    def test_arguments_that_are_no_integers(self) -> None:
        with pytest.raises(TypeError, match=r"num_classes must be an integer, got 2\.5"):
            ConfusionMatrix(2.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"ignore must be an integer, got '255'"):
            ConfusionMatrix(2, ignore=["255"])  # type: ignore[list-item]

    def test_table_of_too_many_classes(self) -> None:
        with pytest.raises(ValueError, match=r"65535² counts would take 34\.4 GB; above 2048 classes read \.pairs"):
            filled([1], [1], 65_535).matrix  # noqa: B018

    def test_merging_what_differs(self) -> None:
        with pytest.raises(ValueError, match=r"same num_classes and ignore, got 2 \(\) and 2 \(255,\)"):
            ConfusionMatrix(2).merge(ConfusionMatrix(2, 255))
        with pytest.raises(TypeError, match="merges with a confusion matrix, got int"):
            ConfusionMatrix(2).merge(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="unsupported operand"):
            ConfusionMatrix(2) + 3  # type: ignore[operator]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"extra": 1}, "must hold .* got .*extra"),
            ({"counts": [1]}, "lists of integers of one length"),
            ({"counts": [1.5, 2.0]}, "lists of integers of one length"),
            ({"counts": [1, -2]}, "counts >= 0"),
            ({"target": [0, 2]}, "classes of 0 … 1"),
            ({"prediction": [-1, 0]}, "classes of 0 … 1"),
        ],
    )
    def test_states_that_are_none(self, change: dict[str, Any], message: str) -> None:
        state = filled([0, 1], [0, 1], 2).state() | change
        with pytest.raises(ValueError, match=message):
            ConfusionMatrix.from_state(state)


def test_what_is_read_is_a_copy() -> None:
    matrix = filled([0], [0], 2)
    matrix.matrix[:] = 9
    matrix.state()["counts"][:] = 9
    assert matrix.matrix.tolist() == [[1, 0], [0, 0]]


def test_a_sum_leaves_its_parts() -> None:
    one, other = filled([0], [0], 2), filled([1], [1], 2)
    assert (one + other).matrix.tolist() == [[1, 0], [0, 1]]
    assert one.total == other.total == 1
