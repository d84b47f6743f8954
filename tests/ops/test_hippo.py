"""HiPPO: what the papers prove and claim of its matrices, its projections and its discretisations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from linocut.ops import hippo

MEASURES = ("legs", "legt", "fout")


def signal(length: int) -> Tensor:
    """Band-limited and smooth, with nothing special about its ends."""
    t = (torch.arange(length, dtype=torch.float64) + 0.5) / length
    return (5 * t).sin() + 0.5 * (13 * t + 1).cos() + t


def middles(length: int) -> Tensor:
    return (torch.arange(length, dtype=torch.float64) + 0.5) / length


def test_small_matrices_are_the_papers() -> None:
    A, B = hippo.transition("legs", 3)  # noqa: N806
    root = math.sqrt
    expected = -torch.tensor([[1, 0, 0], [root(3), 2, 0], [root(5), root(15), 3]], dtype=torch.float64)
    torch.testing.assert_close(A, expected)
    torch.testing.assert_close(B, torch.tensor([1, root(3), root(5)], dtype=torch.float64))
    A, _ = hippo.transition("legt", 3)  # noqa: N806
    expected = -torch.tensor(
        [[1, -root(3), root(5)], [root(3), 3, -root(15)], [root(5), root(15), 5]], dtype=torch.float64
    )
    torch.testing.assert_close(A, expected)
    A, B = hippo.transition("fout", 5)  # noqa: N806
    two, turn = 2 * root(2), 2 * math.pi
    expected = torch.tensor(
        [
            [-2, -two, 0, -two, 0],
            [-two, -4, -turn, -4, 0],
            [0, turn, 0, 0, 0],
            [-two, -4, 0, -4, -2 * turn],
            [0, 0, 0, 2 * turn, 0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(A, expected)
    torch.testing.assert_close(B, torch.tensor([2, two, 0, two, 0], dtype=torch.float64))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("order", [1, 3, 5, 33])
def test_the_differential_equations_forget(measure: hippo.Measure, order: int) -> None:
    A, _ = hippo.transition(measure, order)  # noqa: N806
    assert torch.linalg.eigvals(A).real.max() < 0


@pytest.mark.parametrize("measure", MEASURES)
def test_the_basis_is_orthonormal(measure: hippo.Measure) -> None:
    g = hippo.basis(measure, 9, middles(20000))
    torch.testing.assert_close(g.mT @ g / 20000, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_coefficients_are_the_projection(measure: hippo.Measure) -> None:
    """A long history: what the equation follows is the integral of signal times basis."""
    f, order = signal(4000), 4 if measure != "fout" else 9
    window = None if measure == "legs" else 2000
    c = hippo.project(f, measure, order, window=window)[-1]
    seen = f if window is None else f[-window:]
    direct = hippo.basis(measure, order, middles(len(seen))).mT @ seen / len(seen)
    # LegS's equation is exact; the other two guess what leaves the window from what they know of it
    torch.testing.assert_close(c, direct, rtol=0, atol=2e-3 if measure == "legs" else 0.3)


def test_legs_reconstructs_and_its_error_falls_with_the_order() -> None:
    f, grid = signal(2000), middles(2000)
    errors = []
    for order in (2, 4, 8, 16, 32):
        c = hippo.project(f, "legs", order)[-1]
        errors.append((hippo.reconstruct(c, "legs", grid) - f).square().mean().sqrt().item())
    assert errors[1] < errors[0]
    assert errors[2] < 0.3 * errors[1]
    assert errors[3] < 0.1 * errors[2]
    assert errors[-1] < 1e-2


@pytest.mark.parametrize("measure", ["legt", "fout"])
def test_a_window_is_reconstructed(measure: hippo.Measure) -> None:
    f, window = signal(4000), 1000
    errors = []
    for order in (5, 33):
        c = hippo.project(f, measure, order, window=window)[-1]
        inner = slice(window // 20, -(window // 20))
        rebuilt = hippo.reconstruct(c, measure, middles(window))
        errors.append((rebuilt - f[-window:])[inner].square().mean().sqrt().item())
    assert errors[1] < 0.05
    assert errors[1] < errors[0] or errors[0] < 1e-2


@pytest.mark.parametrize("method", ["forward", "backward", "bilinear", "zoh"])
def test_legs_does_not_depend_on_the_timescale(method: hippo.Method) -> None:
    """Proposition 3: dilating the input dilates the coefficients. Slow and fast samples of one signal meet."""
    order = 4
    slow, fast = (hippo.project(signal(n), "legs", order, method=method)[-1] for n in (1000, 4000))
    torch.testing.assert_close(slow, fast, rtol=0, atol=1e-2)
    held = hippo.project(signal(1000).repeat_interleave(4), "legs", order, method=method)[3::4]
    torch.testing.assert_close(
        held[100:], hippo.project(signal(1000), "legs", order, method=method)[100:], rtol=0, atol=2e-2
    )


def test_a_window_does_depend_on_the_timescale() -> None:
    slow, fast = (hippo.project(signal(n), "legt", 4, window=500)[-1] for n in (1000, 4000))
    assert (slow - fast).abs().max() > 0.05


def test_zero_order_hold_makes_legs_exact_for_held_samples() -> None:
    f = signal(50)
    c = hippo.project(f, "legs", 6, method="zoh")[-1]
    fine = 400
    g = hippo.basis("legs", 6, middles(50 * fine))
    torch.testing.assert_close(c, g.mT @ f.repeat_interleave(fine) / (50 * fine), rtol=0, atol=1e-6)


def test_the_bilinear_methods_have_their_order_of_accuracy() -> None:
    A, B = hippo.transition("legs", 5)  # noqa: N806
    errors = {}
    for method in ("forward", "backward", "bilinear"):
        errors[method] = []
        for dt in (1e-2, 5e-3):
            exact, _ = hippo.discretize(A, B, dt, method="zoh")
            found, _ = hippo.discretize(A, B, dt, method=method)
            errors[method].append((found - exact).abs().max().item())
    assert 3.5 < errors["forward"][0] / errors["forward"][1] < 4.5
    assert 3.5 < errors["backward"][0] / errors["backward"][1] < 4.5
    assert 7 < errors["bilinear"][0] / errors["bilinear"][1] < 9


def test_the_generalised_transform_contains_the_three() -> None:
    A, B = hippo.transition("legt", 4)  # noqa: N806
    for alpha, method in ((0.0, "forward"), (0.5, "bilinear"), (1.0, "backward")):
        for one, two in zip(
            hippo.discretize(A, B, 0.1, alpha=alpha), hippo.discretize(A, B, 0.1, method=method), strict=True
        ):
            assert torch.equal(one, two)


def test_zero_order_hold_is_its_formula_and_stands_a_singular_matrix() -> None:
    A, B = hippo.transition("legs", 4)  # noqa: N806
    gate, into = hippo.discretize(A, B, 0.3, method="zoh")
    torch.testing.assert_close(gate, torch.linalg.matrix_exp(0.3 * A))
    torch.testing.assert_close(into, torch.linalg.solve(A, (gate - torch.eye(4, dtype=A.dtype)) @ B))
    _, into = hippo.discretize(torch.zeros(1, 1), torch.ones(1), 0.3, method="zoh")
    torch.testing.assert_close(into, torch.tensor([0.3]))


def test_one_step_for_each_of_a_batch() -> None:
    A, B = hippo.transition("legs", 3)  # noqa: N806
    steps = torch.tensor([0.1, 0.2], dtype=torch.float64)
    gates, into = hippo.discretize(A.expand(2, 3, 3), B.expand(2, 3), steps)
    for i, dt in enumerate((0.1, 0.2)):
        torch.testing.assert_close((gates[i], into[i]), hippo.discretize(A, B, dt))


@pytest.mark.parametrize("order", [1, 2, 3, 8, 64])
def test_legs_is_diagonal_plus_low_rank(order: int) -> None:
    A, B = hippo.transition("legs", order)  # noqa: N806
    form = hippo.dplr_legs(order)
    eye = torch.eye(order, dtype=torch.complex128)
    torch.testing.assert_close(form.basis.mH @ form.basis, eye, rtol=0, atol=1e-12)
    rebuilt = form.basis @ (torch.diag(form.lam) - torch.outer(form.p, form.p.conj())) @ form.basis.mH
    torch.testing.assert_close(rebuilt, A.to(torch.complex128), rtol=0, atol=1e-10 * order)
    torch.testing.assert_close(form.basis @ form.b, B.to(torch.complex128), rtol=0, atol=1e-12 * order)


def test_halves_are_conjugate_pairs() -> None:
    form = hippo.dplr_legs(16)
    half = form.halved()
    assert (half.lam.imag > 0).all()
    for whole, upper in ((form.lam, half.lam), (form.p, half.p), (form.b, half.b)):
        torch.testing.assert_close(whole[:8].flip(0), upper.conj(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("measure", MEASURES)
def test_batches_and_empty_signals(measure: hippo.Measure) -> None:
    window = None if measure == "legs" else 10
    f = signal(40).reshape(2, 20)
    both = hippo.project(f, measure, 3, window=window)
    assert both.shape == (2, 20, 3)
    torch.testing.assert_close(both[1], hippo.project(f[1], measure, 3, window=window))
    assert hippo.project(f[:, :0], measure, 3, window=window).shape == (2, 0, 3)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="order must be >= 1, got 0"):
        hippo.transition("legs", 0)
    with pytest.raises(ValueError, match=r"fout takes an odd order, .* got 4"):
        hippo.transition("fout", 4)
    with pytest.raises(ValueError, match="window"):
        hippo.project(signal(4), "fout", 3)
    with pytest.raises(ValueError, match="legs remembers everything and takes no window, got 3"):
        hippo.project(signal(4), "legs", 2, window=3)
    with pytest.raises(ValueError, match="legt needs a window > 0, got None"):
        hippo.project(signal(4), "legt", 2)
    A, B = hippo.transition("legs", 2)  # noqa: N806
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 2"):
        hippo.discretize(A, B, 0.1, alpha=2)
