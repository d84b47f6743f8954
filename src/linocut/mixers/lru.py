"""LRU, the linear recurrent unit (Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De, 2023).

A plain RNN without the nonlinearity in its recurrence, whose transition is diagonalised over the complex numbers. The
paper finds what makes it train: |λ| < 1 by parametrisation (section 3.3), eigenvalues on a ring near the unit circle
(3.2), and inputs scaled by γ = √(1 - |λ|²), so that states are of one size whatever λ is (3.4).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.mixers.s4d import PIECE
from linocut.ops.affine import Diagonal
from linocut.ops.diagonal_recurrence import complex_recurrence


@register(
    Info(
        name="lru",
        paper="Orvieto et al., Resurrecting Recurrent Neural Networks for Long Sequences, 2023",
        url="https://arxiv.org/abs/2303.06349",
        causal=True,
        cost="n d N",
        state="2 N",
    )
)
class LRU(OrderedMixer):
    """y_t = Re(C h_t) + D x_t with h_t = λ h_{t-1} + γ B x_t, λ = exp(-exp(ν) + i exp(θ)).

    Args:
        d_model: channels of a token.
        d_state: N, complex states; None for `d_model`.
        r_min: inner radius of the ring on which λ starts, >= 0.
        r_max: outer radius, at most 1.
        max_phase: largest initial phase of λ, in (0, 2π].

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__(d_model)
        n = d_model if d_state is None else d_state
        if n < 1:
            raise ValueError(f"d_state must be >= 1, got {d_state}")
        if not 0 <= r_min < r_max <= 1 or not 0 < max_phase <= 2 * math.pi:
            asked = f"r_min={r_min}, r_max={r_max} and max_phase={max_phase}"
            raise ValueError(f"a ring keeps 0 <= r_min < r_max <= 1 and 0 < max_phase <= 2π, got {asked}")
        # uniform over the ring's area (lemma 3.2); the ends, where logarithms are infinite, are left out
        area, turn = torch.rand(2, n).clamp(1e-6, 1 - 1e-6)
        nu = -0.5 * (area * (r_max**2 - r_min**2) + r_min**2).log()
        self.nu_log = nn.Parameter(nu.log())
        self.theta_log = nn.Parameter((max_phase * turn).log())
        self.gamma_log = nn.Parameter(0.5 * (-torch.expm1(-2 * nu)).log())
        # as complex numbers lie, so that each is one real matrix: real and imaginary rows of B in turn, and columns of
        # the conjugate of C, since Re(C h) = Re C Re h - Im C Im h
        self.B = nn.Parameter(torch.randn(n, 2, d_model) / math.sqrt(2 * d_model))
        self.C = nn.Parameter(torch.randn(d_model, n, 2) / math.sqrt(n))
        self.D = nn.Parameter(torch.randn(d_model))

    def eigenvalues(self) -> Complex[Tensor, " states"]:
        """λ."""
        wide = torch.promote_types(self.nu_log.dtype, torch.float32)
        return torch.polar((-self.nu_log.to(wide).exp()).exp(), self.theta_log.to(wide).exp())

    def _input_weight(self) -> Tensor:
        """γ B, as a real matrix."""
        return (self.gamma_log.exp()[:, None, None] * self.B).flatten(0, 1)

    def _inputs(self, x: Tensor, weight: Tensor) -> Tensor:
        """γ B x as complex numbers."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.view_as_complex(F.linear(x, weight).to(wide).reshape(*x.shape[:-1], self.nu_log.shape[0], 2))

    def init_state(self, batch: int) -> Complex[Tensor, "batch states"]:
        """Zeros, complex."""
        real = self._zeros(batch, *self.nu_log.shape)
        return torch.complex(real, real)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Complex[Tensor, "batch states"]
    ) -> tuple[Float[Tensor, "batch length d_model"], Complex[Tensor, "batch states"]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        lam, weight, outputs = self.eigenvalues(), self._input_weight(), []
        for part in torch.split(x, PIECE, dim=1):
            h, state = complex_recurrence(lam, self._inputs(part, weight), state=state)
            y = F.linear(torch.view_as_real(h).flatten(2).to(x.dtype), self.C.flatten(1))
            outputs.append(torch.addcmul(y, part, self.D))
        return torch.cat(outputs, dim=1), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Diagonal:
        """The piece as a map of the state: λⁿ and the state it leaves behind when it starts from zero."""
        self.check(x)
        lam = self.eigenvalues()
        _, shift = complex_recurrence(lam, self._inputs(x, self._input_weight()))
        return Diagonal(lam ** x.shape[1], shift)

    def compose(self, first: Diagonal, second: Diagonal) -> Diagonal:
        """Two adjoining pieces as one map."""
        return first.then(second)

    def advance(self, state: Complex[Tensor, "batch states"], summary: Diagonal) -> Tensor:
        """The state after a piece."""
        return summary.apply(state)
