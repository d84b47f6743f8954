"""S4: the paper's theorem that kernel, convolution and recurrence are one, and what each form must stand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import hippo, s4


def legs(channels: int, order: int, seed: int = 0) -> s4.DPLR:
    """LegS with a random read-out, at steps between 0.001 and 0.1."""
    generator = torch.Generator().manual_seed(seed)
    form = hippo.dplr_legs(order).halved()
    c = torch.randn(channels, order // 2, generator=generator, dtype=torch.complex128)
    dt = torch.logspace(-3, -1, channels, dtype=torch.float64)
    lam, p, b = (x.repeat(channels, 1) for x in form[:3])
    return s4.DPLR(lam, p, b, c, dt)


def rough(channels: int, order: int) -> s4.DPLR:
    """Nothing special: random, stable."""
    generator = torch.Generator().manual_seed(1)
    shape = (4, channels, order // 2)
    lam, p, b, c = torch.randn(shape, generator=generator, dtype=torch.complex128)
    return s4.DPLR(torch.complex(-lam.real.exp(), 3 * lam.imag), p, b, c, torch.full((channels,), 0.2).double())


def tokens(length: int, channels: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, length, channels, generator=generator, dtype=torch.float64)


def loop(u: Tensor, system: s4.DPLR, x: Tensor) -> tuple[Tensor, Tensor]:
    gate, into, read = s4.discrete(system)
    outputs = []
    for t in range(u.shape[1]):
        x = torch.einsum("dij,bdj->bdi", gate, x) + into * u[:, t, :, None]
        outputs.append((read * x).sum(-1))
    return (torch.stack(outputs, 1) if outputs else u), x


def test_dense_matrices_are_the_discretised_hippo() -> None:
    """The real basis is LegS's own up to a rotation: responses are those of A, B in Legendre's basis."""
    order, dt = 8, 0.05
    form = hippo.dplr_legs(order).halved()
    # y = the coefficient of P_3: row 3 of V times the state
    c = form.basis[3]
    system = s4.DPLR(*(x[None] for x in (form.lam, form.p, form.b, c)), torch.tensor([dt], dtype=torch.float64))
    gate, into = hippo.discretize(*hippo.transition("legs", order), dt)
    expected = torch.stack([(torch.linalg.matrix_power(gate, k) @ into)[3] for k in range(40)])
    torch.testing.assert_close(s4.kernel_by_powers(system, 40)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 63, 64, 500])
@pytest.mark.parametrize("order", [2, 8, 64])
def test_the_kernel_by_cauchy_is_the_kernel_by_powers(length: int, order: int) -> None:
    for system in (legs(3, order), rough(3, order)):
        expected = s4.kernel_by_powers(system, length)
        scale = expected.abs().max().item()
        torch.testing.assert_close(s4.kernel(system, length), expected, rtol=0, atol=1e-9 * max(1.0, scale))


def test_the_kernel_by_blocks_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = list(legs(3, 8))
    whole = with_gradients(lambda *x: [s4.kernel(s4.DPLR(*x), 100)], inputs)
    monkeypatch.setattr(s4, "_BLOCK", 100)
    assert_all_close(with_gradients(lambda *x: [s4.kernel(s4.DPLR(*x), 100)], inputs), whole, 1e-11)
    powers = with_gradients(lambda *x: [s4.kernel_by_powers(s4.DPLR(*x), 100)], inputs)
    assert_all_close(whole, powers, 1e-9)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 500])
def test_the_convolution_is_the_recurrence(length: int) -> None:
    for system in (legs(3, 16), rough(3, 16)):
        u = tokens(length, 3)
        expected, _ = loop(u, system, torch.zeros(2, 3, 16, dtype=torch.float64))
        y = s4.convolve(u, s4.kernel(system, length))
        assert_all_close([y], [expected], 1e-9)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 500])
def test_chunks_are_the_recurrence(length: int) -> None:
    for system in (legs(3, 16), rough(3, 16)):
        u, state = tokens(length, 3), torch.linspace(-1, 1, 96, dtype=torch.float64).reshape(2, 3, 16)
        inputs = [u, state, *system]
        expected = with_gradients(lambda u, x, *s: loop(u, s4.DPLR(*s), x), inputs)
        found = with_gradients(lambda u, x, *s: s4.scan(u, s4.DPLR(*s), state=x), inputs)
        assert_all_close(found, expected, 1e-9)


@pytest.mark.parametrize("length", [0, 7, 300])
def test_an_empty_batch_has_empty_outputs(length: int) -> None:
    u, state = torch.zeros(0, length, 3, dtype=torch.float64), torch.zeros(0, 3, 8, dtype=torch.float64)
    system = legs(3, 8)
    found = with_gradients(lambda u, x, *s: s4.scan(u, s4.DPLR(*s), state=x), [u, state, *system])
    assert [x.shape for x in found] == [u.shape, state.shape, u.shape, state.shape, *(x.shape for x in system)]
    assert not any(x.any() for x in found)


def test_steps_are_the_recurrence() -> None:
    for system in (legs(3, 16), rough(3, 16)):
        u, x = tokens(30, 3), torch.linspace(-1, 1, 96, dtype=torch.float64).reshape(2, 3, 16)
        expected, last = loop(u, system, x)
        outputs = []
        for u_t in u.unbind(1):
            y, x = s4.step(u_t, system, x)
            outputs.append(y)
        assert_all_close([torch.stack(outputs, 1), x], [expected, last], 1e-11)


def test_single_precision_is_near() -> None:
    system = legs(4, 64)
    narrow = s4.DPLR(*(x.to(torch.complex64) for x in system[:4]), system.dt.float())
    u = tokens(2000, 4)
    expected = s4.convolve(u, s4.kernel(system, 2000))
    assert_all_close([s4.convolve(u.float(), s4.kernel(narrow, 2000))], [expected], 1e-4)
    assert_all_close([s4.scan(u.float(), narrow)[0]], [expected], 1e-4)


def test_a_kernel_does_not_depend_on_how_long_it_is_asked_to_be() -> None:
    system = legs(3, 16)
    torch.testing.assert_close(s4.kernel(system, 300)[:, :77], s4.kernel(system, 77), rtol=0, atol=1e-9)


def test_the_convolution_keeps_what_is_not_finite_to_its_future() -> None:
    u = tokens(20, 3)
    u[0, 7, 1] = torch.inf
    y = s4.convolve(u, s4.kernel(legs(3, 8), 20))
    assert y[0, 7:, 1].isnan().all()
    assert y.isnan().sum() == 13


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"u must be \(batch, length, 3\), got \(2, 5, 4\)"):
        s4.scan(tokens(5, 4), legs(3, 8))
    with pytest.raises(ValueError, match=r"state must be \(2, 3, 8\), got \(2, 3, 4\)"):
        s4.scan(tokens(5, 3), legs(3, 8), state=torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="chunk_size must be >= 1, got 0"):
        s4.scan(tokens(5, 3), legs(3, 8), chunk_size=0)
    with pytest.raises(ValueError, match=r"u must be \(batch, 3\), got \(2, 1, 3\)"):
        s4.step(tokens(1, 3), legs(3, 8), torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match=r"u must be \(batch, 3\), got \(2, 1\)"):
        s4.step(tokens(1, 1)[:, 0], legs(3, 8), torch.zeros(2, 3, 8))
    with pytest.raises(ValueError, match=r"state must be \(2, 3, 8\), got \(1, 3, 8\)"):
        s4.step(tokens(1, 3)[:, 0], legs(3, 8), torch.zeros(1, 3, 8))
