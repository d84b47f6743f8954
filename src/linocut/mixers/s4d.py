"""S4D: state spaces with a diagonal transition (Gu, Gupta, Goel, Ré, 2022).

The paper drops S4's low-rank correction: with the right initial eigenvalues a diagonal transition is as good, and
kernel and recurrence become a line each. Every channel is a state space of its own; a gated linear layer mixes them.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Diagonal
from linocut.ops.diagonal_recurrence import diagonal_ssm
from linocut.ops.hippo import dplr_legs

Init = Literal["lin", "inv", "legs"]
Discretization = Literal["zoh", "bilinear"]
PIECE = 2048  # tokens from one end of the layer to the other at a time, so that what lies between stays in cache


def eigenvalues(init: Init, d_state: int) -> Complex[Tensor, " pairs"]:
    """One of each conjugate pair of initial eigenvalues.

    Args:
        init: "lin", -1/2 + iπn (equation 10); "inv", -1/2 + i N/π (N/(2n+1) - 1) (equation 9); "legs", those of the
            normal part of HiPPO-LegS, of which the two are approximations.
        d_state: N, twice the number of pairs.

    Raises:
        ValueError: if `d_state` is not a positive even number, or the init is unknown.
    """
    if d_state < 2 or d_state % 2:
        raise ValueError(f"d_state must be even and >= 2, got {d_state}")
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}, got {init!r}")
    if init == "legs":
        return dplr_legs(d_state).halved().lam
    n = torch.arange(d_state // 2, dtype=torch.float64)
    imaginary = math.pi * n if init == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), imaginary)


def log_steps(d_model: int, dt_min: float, dt_max: float) -> Float[Tensor, " d_model"]:
    """Logarithms of initial step sizes, uniform between those of two bounds.

    Raises:
        ValueError: unless 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"steps must keep 0 < dt_min <= dt_max, got dt_min={dt_min} and dt_max={dt_max}")
    return math.log(dt_min) + torch.rand(d_model) * math.log(dt_max / dt_min)


def gated_output(y: Float[Tensor, "batch length d_model"], out: nn.Linear) -> Float[Tensor, "batch length d_model"]:
    """GELU, a linear layer to twice the channels, GLU."""
    return F.glu(out(F.gelu(y)), dim=-1)


@register(
    Info(
        name="s4d",
        paper="Gu et al., On the Parameterization and Initialization of Diagonal State Space Models, 2022",
        url="https://arxiv.org/abs/2206.11893",
        causal=True,
        cost="n d N + n d²",
        state="d N",
    )
)
class S4D(OrderedMixer):
    """Diagonal state space layer: a recurrence for each channel, GELU, a linear layer with GLU.

    Args:
        d_model: channels of a token.
        d_state: N, states of a channel, even: N/2 conjugate pairs.
        init: "lin", "inv" or "legs"; see :func:`eigenvalues`.
        discretization: "zoh" or "bilinear".
        dt_min: smallest initial step.
        dt_max: largest initial step.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: Init = "lin",
        discretization: Discretization = "zoh",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__(d_model)
        if discretization not in get_args(Discretization):
            raise ValueError(f"discretization must be zoh or bilinear, got {discretization!r}")
        lam = eigenvalues(init, d_state)
        self.discretization = discretization
        self.log_dt = nn.Parameter(log_steps(d_model, dt_min, dt_max))
        self.log_A_real = nn.Parameter((-lam.real).log().float().repeat(d_model, 1))
        self.A_imag = nn.Parameter(lam.imag.float().repeat(d_model, 1))
        self.C = nn.Parameter(torch.randn(d_model, d_state // 2, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(d_model))
        self.out = nn.Linear(d_model, 2 * d_model)

    def discretized(self) -> tuple[Complex[Tensor, "d_model pairs"], Complex[Tensor, "d_model pairs"]]:
        """The transition of one step, and read-out times input weight; B is 1."""
        wide = torch.promote_types(self.D.dtype, torch.float32)
        real, imaginary = -self.log_A_real.to(wide).exp(), self.A_imag.to(wide)
        A, C = torch.complex(real, imaginary), torch.view_as_complex(self.C.to(wide))  # noqa: N806  # the paper's
        dt = self.log_dt.to(wide).exp()[:, None]
        if self.discretization == "zoh":
            # exp(dt A) by its length and angle, which avoids torch's complex exp
            lam = torch.polar((dt * real).exp(), dt * imaginary)
            return lam, C * (lam - 1) / A
        ahead = 1 / (1 - A * dt / 2)
        return (1 + A * dt / 2) * ahead, C * dt * ahead

    def init_state(self, batch: int) -> Complex[Tensor, "batch d_model pairs"]:
        """Zeros, complex."""
        real = self._zeros(batch, *self.A_imag.shape)
        return torch.complex(real, real)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Complex[Tensor, "batch d_model pairs"]
    ) -> tuple[Float[Tensor, "batch length d_model"], Complex[Tensor, "batch d_model pairs"]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        lam, c = self.discretized()
        outputs = []
        for part in torch.split(x, PIECE, dim=1):
            y, state = diagonal_ssm(part, lam, c, D=self.D, state=state)
            outputs.append(gated_output(y, self.out))
        return torch.cat(outputs, dim=1), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Diagonal:
        """The piece as a map of the state: λⁿ and the state it leaves behind when it starts from zero."""
        self.check(x)
        lam, c = self.discretized()
        _, shift = diagonal_ssm(x, lam, c)
        return Diagonal(lam ** x.shape[1], shift)

    def compose(self, first: Diagonal, second: Diagonal) -> Diagonal:
        """Two adjoining pieces as one map."""
        return first.then(second)

    def advance(self, state: Complex[Tensor, "batch d_model pairs"], summary: Diagonal) -> Tensor:
        """The state after a piece."""
        return summary.apply(state)
