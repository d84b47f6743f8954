r"""Stochastic approximation: means of samples, roots and minima seen through noise; what all of learning rests on.

.. math::
    w_{k+1} = w_k - a_k \, \tilde g(w_k, \eta_k)

Robbins and Monro: w_k converges to the root of g with probability 1 if (a) 0 < c₁ ≤ g′ ≤ c₂ everywhere, (b) Σ aₖ = ∞
and Σ aₖ² < ∞, (c) the noise has mean 0 and a bounded variance, given the past. The mean of a sample (g(w) = w − E[x]),
stochastic gradient descent (g a gradient) and temporal differences are cases.

Source: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, chapter 6; Robbins & Monro, *A Stochastic
Approximation Method*, 1951.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepSizes:
    """aₖ = scale / (k + delay)^power, k = 1, 2, …; power 0 is a constant.

    Raises:
        ValueError: if scale is not positive, or power or delay is negative.

    Example:
        >>> StepSizes()(1), StepSizes(delay=10)(1), StepSizes(power=0.5).converges
        (1.0, 0.09090909090909091, False)
    """

    scale: float = 1.0
    power: float = 1.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.power >= 0 and self.delay >= 0):
            raise ValueError(f"scale must be > 0, power and delay >= 0, got {self.scale}, {self.power}, {self.delay}")

    def __call__(self, k: int) -> float:
        """a_k."""
        return float(self.scale / (k + self.delay) ** self.power)

    @property
    def sum_is_infinite(self) -> bool:
        """Whether Σ aₖ = ∞, so that any root can be reached from anywhere: power ≤ 1."""
        return self.power <= 1

    @property
    def squares_are_finite(self) -> bool:
        """Whether Σ aₖ² < ∞, so that noise dies out: power > ½."""
        return self.power > 0.5

    @property
    def converges(self) -> bool:
        """Robbins and Monro's condition (b)."""
        return self.sum_is_infinite and self.squares_are_finite


@dataclass(frozen=True, eq=False)
class Estimate:
    """Where an iteration went, and which conditions of convergence held.

    Attributes:
        path: (iterations + 1, …) w₁, w₂, …; shorter if it ran off to infinity.
        diverged: whether it did.
        steps: the step sizes, which know condition (b).
        slopes: smallest and largest slope of g between successive points, what was seen of condition (a); (NaN, NaN)
            where it has no meaning.
    """

    path: Floats = field(repr=False)
    diverged: bool
    steps: StepSizes
    slopes: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def value(self) -> Floats:
        """The last w."""
        return np.asarray(self.path[-1])

    @property
    def conditions(self) -> dict[str, bool]:
        """What is known of Robbins and Monro's conditions, in words; a slope is only known where the path went."""
        known = {"Σ a = ∞": self.steps.sum_is_infinite, "Σ a² < ∞": self.steps.squares_are_finite}
        if not np.isnan(self.slopes[0]):
            known["0 < g′ < ∞ along the path"] = self.slopes[0] > 0 and np.isfinite(self.slopes[1])
        return known


def sample_mean(samples: ArrayLike) -> Floats:
    """The mean over the first axis, waiting for all samples: (1/n) Σ xᵢ.

    Raises:
        ValueError: if there are none, or one is not finite.

    Source: Zhao, equation 6.1.
    """
    return np.asarray(_samples(samples).mean(axis=0), np.float64)


def incremental_mean(samples: ArrayLike, *, steps: StepSizes = StepSizes(), start: ArrayLike = 0.0) -> Estimate:
    """The mean as samples come: w ← w − aₖ (w − xₖ); with aₖ = 1/k, the default, the mean of those so far exactly.

    Args:
        samples: (n, …), in their order.
        steps: aₖ; a constant gives a mean that forgets, 1/k keeps all.
        start: w₁; a₁ = 1 forgets it.

    Raises:
        ValueError: as :func:`sample_mean`.

    Example:
        >>> incremental_mean([2.0, 4.0, 9.0]).path.tolist()
        [0.0, 2.0, 3.0, 5.0]

    Source: Zhao, equations 6.3 and 6.4.
    """
    given = _samples(samples)
    path = np.empty((len(given) + 1, *given.shape[1:]))
    path[0] = start
    for k, sample in enumerate(given, 1):
        path[k] = path[k - 1] - steps(k) * (path[k - 1] - sample)
    return Estimate(path, False, steps)  # noqa: FBT003  (means of finite numbers are finite)


def robbins_monro(
    g: Callable[[np.float64], float],
    *,
    start: float,
    iterations: int,
    steps: StepSizes = StepSizes(),
    noise: Callable[[np.random.Generator], float] | None = None,
    seed: int = 0,
) -> Estimate:
    """Find the root of a function of which only noisy values are seen: w ← w − aₖ [g(w) + η].

    Args:
        g: a function that grows.
        start: w₁.
        iterations: how many, >= 1; fewer are done if w runs off to infinity.
        steps: aₖ.
        noise: draws η, of mean 0; None for none.
        seed: of the noise.

    Returns:
        The path, with the slopes of g that it met.

    Raises:
        ValueError: if there is no iteration.

    Example:
        >>> import numpy as np
        >>> robbins_monro(lambda w: np.tanh(w - 1), start=3, iterations=4).path.round(4).tolist()
        [3.0, 2.036, 1.6478, 1.4578, 1.3507]

    Source: Zhao, equation 6.5, theorem 6.1.
    """
    _check_iterations(iterations)
    rng = np.random.default_rng(seed)
    path, seen = [np.float64(start)], []
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, iterations + 1):
            exact = np.float64(g(path[-1]))
            after = path[-1] - steps(k) * (exact + (noise(rng) if noise else 0.0))
            seen.append(exact)
            if not np.isfinite(after):
                break
            path.append(after)
    points, values = np.array(path[: len(seen)]), np.array(seen)
    return Estimate(np.array(path), len(path) <= iterations, steps, _slopes(points, values))


def stochastic_gradient_descent(
    gradient: Callable[[Floats, Floats], ArrayLike],
    samples: ArrayLike,
    *,
    start: ArrayLike,
    iterations: int,
    steps: StepSizes = StepSizes(),
    batch_size: int | None = 1,
    seed: int | None = 0,
) -> Estimate:
    """Minimise the mean of f(w, x) over samples: w ← w − aₖ (1/m) Σ ∇f(w, xⱼ), m samples an iteration.

    Args:
        gradient: (w, batch of m samples) ↦ the mean of ∇f over the batch, shaped like w.
        samples: (n, …).
        start: w₁.
        iterations: how many, >= 1; fewer are done if w runs off to infinity.
        steps: aₖ.
        batch_size: m; None takes all samples each time (gradient descent).
        seed: of the choice, with replacement; None takes the samples in their order, over and over.

    Raises:
        ValueError: if a number is out of range, or a gradient has another shape than w.

    Example:
        >>> stochastic_gradient_descent(
        ...     lambda w, x: w - x.mean(axis=0), [2.0, 4.0, 9.0], start=0.0, iterations=3, seed=None
        ... ).path.tolist()
        [0.0, 2.0, 3.0, 5.0]

    Source: Zhao, sections 6.4 and 6.5 (equations 6.12 to 6.18).
    """
    _check_iterations(iterations)
    given = _samples(samples)
    size = len(given) if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size must be >= 1, or None for all samples, got {batch_size}")
    rng = None if seed is None else np.random.default_rng(seed)
    path = [np.array(start, np.float64)]
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, iterations + 1):
            if batch_size is None:
                batch = given
            elif rng is None:
                batch = given[np.arange((k - 1) * size, k * size) % len(given)]
            else:
                batch = given[rng.integers(len(given), size=size)]
            slope = np.asarray(gradient(path[-1], batch), np.float64)
            if slope.shape != path[0].shape:
                raise ValueError(f"gradient must be shaped like w, {path[0].shape}, got {slope.shape}")
            after = path[-1] - steps(k) * slope
            if not np.isfinite(after).all():
                break
            path.append(after)
    return Estimate(np.array(path), len(path) <= iterations, steps)


def _check_iterations(iterations: int) -> None:
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")


def _samples(samples: ArrayLike) -> Float[NDArray[np.float64], "count ..."]:
    given = np.asarray(samples, np.float64)
    if given.ndim == 0 or len(given) == 0:
        raise ValueError(f"a mean needs one sample or more along the first axis, got shape {given.shape}")
    if not np.isfinite(given).all():
        raise ValueError("samples must be finite numbers")
    return given


def _slopes(points: Floats, values: Floats) -> tuple[float, float]:
    """Smallest and largest slope between successive points that differ."""
    with np.errstate(over="ignore", invalid="ignore"):
        moved, rose = np.diff(points), np.diff(values)
        found = rose[moved != 0] / moved[moved != 0]
    return (float(found.min()), float(found.max())) if found.size else (float("nan"), float("nan"))
