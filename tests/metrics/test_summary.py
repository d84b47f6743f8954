"""What every mergeable summary promises: any order, any cut, any way of writing it down give the same bits."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.metrics.aggregated_jaccard import AggregatedJaccard
from linocut.metrics.boundary_scores import BoundaryScores
from linocut.metrics.bsds import BoundaryBenchmark
from linocut.metrics.instances import InstanceMatching
from linocut.metrics.interaction import ClickCurve
from linocut.metrics.panoptic import PanopticQuality
from linocut.metrics.summary import Summary, exact_parts, exact_total, mean_of_known, ratio
from linocut.metrics.surface import SurfaceDistances

Update = Callable[[Any, np.random.Generator], None]


def maps(rng: np.random.Generator, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """A blocky label map, and the same with mistakes."""
    target = np.kron(rng.integers(0, labels, (4, 5)), np.ones((4, 4), np.int64))
    prediction = np.where(rng.random(target.shape) < 0.15, rng.integers(0, labels, target.shape), target)
    return np.roll(prediction, rng.integers(-1, 2), 1), target


def masks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = maps(rng, 3)
    return prediction == 1, target == 1


def add_panoptic(summary: PanopticQuality, rng: np.random.Generator) -> None:
    prediction, target = maps(rng, 9)
    summary.update(prediction, target, {i: i % 3 for i in range(9)}, {i: i % 3 for i in range(9)}, crowd=(8,))


def add_strength(summary: BoundaryBenchmark, rng: np.random.Generator) -> None:
    summary.update(rng.random((16, 20)), [rng.random((16, 20)) < 0.2 for _ in range(2)])


SUMMARIES: dict[str, tuple[Callable[[], Summary], Update]] = {
    "instances": (InstanceMatching, lambda s, rng: s.update(*maps(rng, 9))),
    "greedy": (
        lambda: InstanceMatching(thresholds=(0.1, 0.3), method="greedy", inclusive=True),
        lambda s, rng: s.update(*maps(rng, 9)),
    ),
    "panoptic": (lambda: PanopticQuality(classes=(0, 1, 2), things=(1,)), add_panoptic),
    "jaccard": (AggregatedJaccard, lambda s, rng: s.update(*maps(rng, 9))),
    "boundaries": (lambda: BoundaryScores(3, ignore=(9,), tolerance=1), lambda s, rng: s.update(*maps(rng, 3))),
    "surfaces": (lambda: SurfaceDistances(spacing=(0.5, 0.5)), lambda s, rng: s.update(*masks(rng))),
    "bsds": (lambda: BoundaryBenchmark(thresholds=(0.3, 0.8), max_distance=0.05), add_strength),
    "clicks": (lambda: ClickCurve(5), lambda s, rng: s.update(rng.random(rng.integers(1, 6)).tolist())),
}


def figures(summary: Summary) -> str:
    """All that is read off, to the last bit."""
    return json.dumps(asdict(summary.compute()), default=lambda array: array.tolist())


def filled(name: str, seeds: list[int]) -> Summary:
    make, update = SUMMARIES[name]
    summary = make()
    for seed in seeds:
        update(summary, np.random.default_rng(seed))
    return summary


@pytest.mark.parametrize("name", SUMMARIES)
class TestEverySummary:
    def test_any_order_and_any_cut_give_the_same_bits(self, name: str) -> None:
        seeds = list(range(12))
        whole = figures(filled(name, seeds))
        rng = np.random.default_rng(1)
        for cut in (0, 1, 5):
            order = [int(i) for i in rng.permutation(seeds)]
            left, right = filled(name, order[:cut]), filled(name, order[cut:])
            assert figures(left + right) == whole
            left.merge(right)
            assert figures(left) == whole
            assert figures(right) == figures(filled(name, order[cut:])), "merging leaves the other alone"

    def test_more_data_change_the_figures(self, name: str) -> None:
        assert figures(filled(name, [1, 2, 3])) != figures(filled(name, [1, 2, 3, 4]))

    def test_adding_leaves_both_parts_alone(self, name: str) -> None:
        a, b = filled(name, [1]), filled(name, [2])
        before = a.to_json(), b.to_json()
        total = a + b
        SUMMARIES[name][1](total, np.random.default_rng(3))
        assert (a.to_json(), b.to_json()) == before

    def test_adds_to_itself(self, name: str) -> None:
        twice, once = filled(name, [4]), filled(name, [4])
        twice.merge(twice)
        assert twice.to_json() == (once + once).to_json()

    def test_is_written_down_and_read_back(self, name: str) -> None:
        summary = filled(name, [5, 6])
        for again in (
            type(summary).from_json(summary.to_json()),
            type(summary).from_state(summary.state()),
            pickle.loads(pickle.dumps(summary)),  # noqa: S301
        ):
            assert again.to_json() == summary.to_json()
            assert figures(again + filled(name, [7])) == figures(filled(name, [5, 6, 7]))

    def test_state_is_a_copy(self, name: str) -> None:
        summary = filled(name, [5])
        text = summary.to_json()
        for value in summary.state().values():
            if isinstance(value, np.ndarray):
                value += 1
        assert summary.to_json() == text

    def test_states_that_are_none_are_refused(self, name: str) -> None:
        summary = filled(name, [5])
        state = summary.state()
        with pytest.raises(ValueError, match="must hold"):
            type(summary).from_state({**state, "more": 1})
        with pytest.raises(ValueError, match="must hold"):
            type(summary).from_state(dict(list(state.items())[:-1]))

    def test_another_kind_is_refused(self, name: str) -> None:
        class Other(Summary):
            pass

        with pytest.raises(TypeError, match="merges with its like, got Other"):
            filled(name, [1]).merge(Other())
        with pytest.raises(TypeError, match="merges with its like, got int"):
            filled(name, [1]) + 1


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (InstanceMatching(), InstanceMatching(background=1), "same background, got 0 and 1"),
        (PanopticQuality(classes=(1,)), PanopticQuality(classes=(2,)), r"same classes, got \(1,\) and \(2,\)"),
        (BoundaryScores(2), BoundaryScores(2, width=3.0), "same width, got 0.02 and 3.0"),
        (SurfaceDistances(), SurfaceDistances(q=90.0), "same q"),
        (BoundaryBenchmark(), BoundaryBenchmark(thinned=False), "same thinned"),
        (ClickCurve(5), ClickCurve(6), "same max_clicks"),
    ],
)
def test_unlike_settings_do_not_merge(a: Summary, b: Summary, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        a.merge(b)
    with pytest.raises(ValueError, match=words):
        a + b


def test_an_array_of_another_shape_is_refused() -> None:
    state = InstanceMatching().state()
    with pytest.raises(ValueError, match=r"tp of InstanceMatching must have the shape \(10,\), got \(3,\)"):
        InstanceMatching.from_state({**state, "tp": [1, 2, 3]})


@given(st.lists(st.floats(0, 1), max_size=40), st.randoms())
def test_exact_sums_are_right_and_do_not_depend_on_the_order(values: list[float], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    total, again = (exact_total(exact_parts(v).reshape(-1, 2).sum(axis=0)) for v in (values, shuffled))
    assert total == again
    assert abs(Fraction(float(total)) - sum(map(Fraction, values))) <= len(values) * Fraction(1, 2**60) + Fraction(
        math.ulp(float(total))
    )


def test_ratio_and_mean_leave_out_what_does_not_exist() -> None:
    np.testing.assert_array_equal(ratio([1, 0, 3], [2, 0, 0]), [0.5, np.nan, np.nan])
    assert mean_of_known(np.array([1.0, np.nan, 2.0])) == 1.5
    assert math.isnan(mean_of_known(np.array([np.nan])))
