"""Stochastic approximation against the book's numbers, closed forms and its own conditions."""

from __future__ import annotations

import numpy as np
import pytest

from linocut.agents.estimation import (
    StepSizes,
    incremental_mean,
    robbins_monro,
    sample_mean,
    stochastic_gradient_descent,
)

SAMPLES = np.random.default_rng(0).normal(3.0, 2.0, (50, 2))


def test_the_incremental_mean_is_the_mean_of_the_samples_so_far() -> None:
    path = incremental_mean(SAMPLES).path
    for count in range(1, 51):
        np.testing.assert_allclose(path[count], sample_mean(SAMPLES[:count]), atol=1e-13)


def test_a_constant_step_size_forgets_by_a_power() -> None:
    """Σ a (1 − a)ⁿ⁻ⁱ xᵢ + (1 − a)ⁿ w₁."""
    weights = 0.2 * 0.8 ** np.arange(49, -1, -1)
    expected = weights @ SAMPLES + 0.8**50 * 7.0
    np.testing.assert_allclose(incremental_mean(SAMPLES, steps=StepSizes(0.2, 0), start=7.0).value, expected)


def test_figure_6_4() -> None:
    found = robbins_monro(lambda w: np.tanh(w - 1), start=3.0, iterations=4)
    np.testing.assert_array_equal(found.path.round(4), [3, 2.0360, 1.6478, 1.4578, 1.3507])
    assert found.conditions == {"Σ a = ∞": True, "Σ a² < ∞": True, "0 < g′ < ∞ along the path": True}
    assert not found.diverged


def test_figure_6_3_diverges_as_stated_and_converges_with_smaller_steps() -> None:
    """A slip of the book: w³ − 5 from 0 with a = 1/k runs off, for its slope is unbounded; with 1/(k + 10) it stays."""

    def cubic(w: np.float64) -> np.float64:
        return w**3 - 5

    stated = robbins_monro(cubic, start=0.0, iterations=50)
    assert stated.diverged
    np.testing.assert_array_equal(stated.path[:3], [0, 5, -55])
    assert stated.steps.converges  # so it is condition (a) that fails
    assert stated.slopes[1] > 1e6
    smaller = robbins_monro(cubic, start=0.0, iterations=1_000, steps=StepSizes(delay=10))
    assert not smaller.diverged
    assert round(float(smaller.value), 3) == 1.710
    assert float(smaller.value) == pytest.approx(5 ** (1 / 3), abs=1e-9)


def test_noise_dies_out_with_falling_steps_and_not_with_constant_ones() -> None:
    """w − 2 under noise of deviation 1: variance 1/n with a = 1/k, a / (2 − a) with a constant."""
    runs = {
        steps: np.array(
            [
                robbins_monro(
                    lambda w: w - 2, start=0.0, iterations=400, steps=steps, noise=lambda rng: rng.normal(), seed=seed
                ).value
                for seed in range(300)
            ]
        )
        for steps in (StepSizes(), StepSizes(0.5, 0))
    }
    for steps, variance in ((StepSizes(), 1 / 400), (StepSizes(0.5, 0), 1 / 3)):
        found = runs[steps]
        assert abs(found.mean() - 2) < 4 * np.sqrt(variance / 300)
        # a variance of 300 normal numbers has the relative deviation √(2/299)
        assert abs(found.var(ddof=1) / variance - 1) < 4 * np.sqrt(2 / 299)


@pytest.mark.parametrize(
    ("power", "infinite", "finite"),
    [(0, True, False), (0.5, True, False), (0.51, True, True), (1, True, True), (1.1, False, True)],
)
def test_conditions_on_step_sizes(power: float, infinite: bool, finite: bool) -> None:
    steps = StepSizes(2.0, power, 3.0)
    assert (steps.sum_is_infinite, steps.squares_are_finite, steps.converges) == (
        infinite, finite, infinite and finite
    )  # fmt: skip
    assert steps(1) == pytest.approx(2 / 4**power)


def test_a_function_that_falls_is_noticed() -> None:
    found = robbins_monro(lambda w: -w, start=1.0, iterations=10)
    assert not found.conditions["0 < g′ < ∞ along the path"]
    assert found.slopes == pytest.approx((-1, -1))


def mean_gradient(w: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Of ½ |w − x|²."""
    return w - batch.mean(axis=0)


def test_stochastic_gradient_descent_in_order_is_the_incremental_mean() -> None:
    found = stochastic_gradient_descent(mean_gradient, SAMPLES, start=np.zeros(2), iterations=50, seed=None)
    np.testing.assert_allclose(found.path, incremental_mean(SAMPLES).path, atol=1e-12)


def test_all_samples_at_once_are_gradient_descent() -> None:
    found = stochastic_gradient_descent(
        mean_gradient, SAMPLES, start=np.zeros(2), iterations=30, steps=StepSizes(0.5, 0), batch_size=None
    )
    np.testing.assert_allclose(found.value, (1 - 0.5**30) * sample_mean(SAMPLES))


@pytest.mark.parametrize("batch_size", [1, 10])
def test_larger_batches_have_less_variance(batch_size: int) -> None:
    """After n steps of 1/k the mean of n·m draws, its variance that of the samples over n·m."""
    variance = SAMPLES.var(axis=0) / (100 * batch_size)
    found = np.array(
        [
            stochastic_gradient_descent(
                mean_gradient, SAMPLES, start=np.zeros(2), iterations=100, batch_size=batch_size, seed=seed
            ).value
            for seed in range(300)
        ]
    )
    assert (np.abs(found.mean(axis=0) - sample_mean(SAMPLES)) < 4 * np.sqrt(variance / 300)).all()
    assert (np.abs(found.var(axis=0, ddof=1) / variance - 1) < 4.5 * np.sqrt(2 / 299)).all()


def test_a_line_is_fitted() -> None:
    """Least squares through noise-free points: the mean gradient of ½ (x·w − y)²."""
    x = np.column_stack([np.ones(40), np.linspace(-1, 1, 40)])
    data = np.column_stack([x, x @ [2.0, -3.0]])
    found = stochastic_gradient_descent(
        lambda w, batch: batch[:, :2].T @ (batch[:, :2] @ w - batch[:, 2]) / len(batch),
        data, start=[0.0, 0.0], iterations=3_000, steps=StepSizes(0.5, 0),
    )  # fmt: skip
    np.testing.assert_allclose(found.value, [2, -3], atol=1e-9)


def test_steps_that_are_too_large_are_told() -> None:
    found = stochastic_gradient_descent(
        mean_gradient, SAMPLES, start=np.zeros(2), iterations=5_000, steps=StepSizes(3.0, 0)
    )
    assert found.diverged
    assert np.isfinite(found.path).all()
    assert found.conditions == {"Σ a = ∞": True, "Σ a² < ∞": False}


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="a mean needs one sample or more"):
        sample_mean([])
    with pytest.raises(ValueError, match="samples must be finite"):
        incremental_mean([1.0, np.nan])
    with pytest.raises(ValueError, match="scale must be > 0, power and delay >= 0, got 0, 1"):
        StepSizes(0)
    with pytest.raises(ValueError, match="iterations must be >= 1, got 0"):
        robbins_monro(np.tanh, start=0.0, iterations=0)
    with pytest.raises(ValueError, match="batch_size must be >= 1, or None for all samples, got 0"):
        stochastic_gradient_descent(mean_gradient, SAMPLES, start=np.zeros(2), iterations=1, batch_size=0)
    with pytest.raises(ValueError, match=r"gradient must be shaped like w, \(3,\), got \(2,\)"):
        stochastic_gradient_descent(lambda _, x: x[0], SAMPLES, start=np.zeros(3), iterations=1)
