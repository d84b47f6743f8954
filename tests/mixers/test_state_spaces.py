"""What the papers of the time-invariant state spaces say of their layers: initial values, parametrisation, kernels."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from linocut import mixers
from linocut.mixers import s4d
from linocut.ops import hippo, s4


@pytest.mark.parametrize("name", ["s4d", "s4", "lru"])
def test_pieces_on_the_way_are_not_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = mixers.build(name, 4).double(), torch.randn(2, 50, 4, dtype=torch.float64)
    whole = layer(x)
    for module in (s4d, mixers.s4, mixers.lru):
        monkeypatch.setattr(module, "PIECE", 16)
    torch.testing.assert_close(layer(x), whole, rtol=1e-10, atol=1e-10)


def test_s4d_is_the_papers_listing() -> None:
    """S4D, listing 1 and appendix: the kernel by a Vandermonde product, an FFT convolution, GELU, GLU."""
    torch.manual_seed(0)
    layer = mixers.S4D(6, d_state=8).double()
    x, length = torch.randn(2, 50, 6, dtype=torch.float64), 50
    dt, a = layer.log_dt.exp(), -layer.log_A_real.exp() + 1j * layer.A_imag
    dt_a = a * dt[:, None]
    c = torch.view_as_complex(layer.C) * (dt_a.exp() - 1) / a
    kernel = 2 * torch.einsum("hn,hnl->hl", c, torch.exp(dt_a[..., None] * torch.arange(length))).real
    u = x.mT
    y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length))[..., :length]
    expected = F.glu(layer.out(F.gelu(y + u * layer.D[:, None]).mT), dim=-1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_s4d_discretises_as_hippo_does(discretization: s4d.Discretization) -> None:
    layer = mixers.S4D(3, d_state=4, discretization=discretization).double()
    a = torch.complex(-layer.log_A_real.exp(), layer.A_imag)[0]
    c = torch.view_as_complex(layer.C)[0]
    lam, weight = (x[0] for x in layer.discretized())
    # a diagonal complex matrix as the real one it is
    rotation = torch.block_diag(
        *(torch.stack([torch.stack([z.real, -z.imag]), torch.stack([z.imag, z.real])]) for z in a)
    )
    gate, into = hippo.discretize(
        rotation, torch.tensor([1.0, 0.0] * 2).double(), layer.log_dt[0].exp().item(), method=discretization
    )
    torch.testing.assert_close(gate[0::2, 0::2].diagonal(), lam.real)
    torch.testing.assert_close(gate[1::2, 0::2].diagonal(), lam.imag)
    torch.testing.assert_close(torch.complex(into[0::2], into[1::2]) * c, weight)


def test_s4d_legs_is_the_diagonal_of_the_normal_part() -> None:
    found = s4d.eigenvalues("legs", 16)
    p = (torch.arange(16, dtype=torch.float64) + 0.5).sqrt()
    normal = hippo.transition("legs", 16)[0] + torch.outer(p, p)
    expected = torch.linalg.eigvals(normal)
    expected = expected[expected.imag > 0]
    torch.testing.assert_close(found, expected[expected.imag.argsort()], rtol=0, atol=1e-10)


def test_the_other_inits_approximate_it() -> None:
    """S4D, section 4.2: Inv follows LegS's spectrum, whose largest value Lin does not reach."""
    n = 64
    legs = s4d.eigenvalues("legs", n).imag.flip(0)
    inverse, linear = s4d.eigenvalues("inv", n).imag, s4d.eigenvalues("lin", n).imag
    torch.testing.assert_close(inverse, legs, rtol=0.25, atol=0)
    torch.testing.assert_close(linear, math.pi * torch.arange(n // 2, dtype=torch.float64))
    assert linear.max() < 0.25 * legs.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 3}, "d_state must be even and >= 2, got 3"),
        ({"dt_min": 0.2}, "0 < dt_min <= dt_max, got dt_min=0.2 and dt_max=0.1"),
    ],
)
def test_s4d_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("s4d", 4, **options)


def test_s4_starts_as_legs() -> None:
    """Its discretised transition is that of HiPPO-LegS up to a change of basis, so it has the same eigenvalues."""
    layer = mixers.S4(2, d_state=8)
    gate, _, _ = s4.discrete(layer.system())
    for i, dt in enumerate(layer.log_dt.exp().tolist()):
        expected, _ = hippo.discretize(*hippo.transition("legs", 8), dt)
        for power in (1, 2, 5):
            traces = (torch.linalg.matrix_power(m, power).diagonal().sum() for m in (gate[i], expected))
            torch.testing.assert_close(*traces, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 64, 300])
def test_s4_convolves_what_it_scans(length: int) -> None:
    torch.manual_seed(0)
    layer = mixers.S4(4, d_state=16).double()
    x = torch.randn(2, length, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.scan(x, layer.init_state(2))[0], rtol=1e-9, atol=1e-9)


def test_lru_is_a_convolution_with_powers() -> None:
    """y_t = sum over s of Re(C lam^s gamma B x_{t-s}) + D x_t."""
    torch.manual_seed(0)
    layer = mixers.LRU(5, d_state=7).double()
    x = torch.randn(2, 30, 5, dtype=torch.float64)
    lam = torch.exp(-layer.nu_log.exp() + 1j * layer.theta_log.exp())
    b = torch.complex(*layer.B.unbind(1)) * layer.gamma_log.exp()[:, None]
    c = torch.view_as_complex(layer.C).conj()
    expected = x * layer.D
    for lag in range(30):
        response = (c * lam**lag @ b).real
        expected[:, lag:] += x[:, : 30 - lag] @ response.mT
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_lru_starts_on_a_ring_uniformly() -> None:
    torch.manual_seed(0)
    layer = mixers.LRU(1, d_state=20000, r_min=0.5, r_max=0.9, max_phase=1.0)
    radius, phase = layer.eigenvalues().abs(), layer.eigenvalues().angle()
    assert radius.min() >= 0.5 - 1e-6
    assert radius.max() <= 0.9 + 1e-6
    assert phase.min() >= 0
    assert phase.max() <= 1
    # uniform over the area: half of it lies beyond the radius whose square is in the middle
    beyond = (radius.square() > (0.25 + 0.81) / 2).float().mean().item()
    assert abs(beyond - 0.5) < 5 * 0.5 / math.sqrt(20000)
    assert abs(phase.mean().item() - 0.5) < 5 / math.sqrt(12 * 20000)


def test_lru_stays_stable_whatever_is_learnt() -> None:
    layer = mixers.LRU(3)
    for scale in (-10.0, 0.0, 5.0):
        layer.nu_log.data.fill_(scale)
        assert (layer.eigenvalues().abs() < 1).all()


def test_gamma_keeps_states_of_one_size() -> None:
    """LRU, section 3.4: under white noise E|h|^2 does not depend on lam."""
    torch.manual_seed(0)
    layer = mixers.LRU(64, d_state=2)
    layer.nu_log.data = torch.tensor([0.7, 0.01]).log()
    layer.gamma_log.data = (1 - layer.eigenvalues().abs().square()).sqrt().log().detach()
    x = torch.randn(256, 500, 64)
    with torch.no_grad():
        _, state = layer.scan(x, layer.init_state(256))
    weights = layer.B.square().sum((1, 2))
    energy = (state.abs().square().mean(0) / weights).detach()
    torch.testing.assert_close(energy, torch.ones(2), rtol=0, atol=6 / math.sqrt(256))


@pytest.mark.parametrize("options", [{"r_min": 0.9, "r_max": 0.5}, {"r_max": 1.5}, {"max_phase": 0.0}])
def test_lru_refuses_what_is_no_ring(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a ring keeps 0 <= r_min < r_max <= 1"):
        mixers.build("lru", 4, **options)
