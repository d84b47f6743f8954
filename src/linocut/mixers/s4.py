"""S4, the structured state space sequence model (Gu, Goel, Ré, ICLR 2022).

The paper makes HiPPO's long memory affordable: in the basis where LegS is diagonal plus low rank, its kernel costs as
much as a few Cauchy products and an FFT, and its recurrence O(N) a token.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.mixers.s4d import PIECE, gated_output, log_steps
from linocut.ops import s4
from linocut.ops.affine import Matrix
from linocut.ops.hippo import dplr_legs


@register(
    Info(
        name="s4",
        paper="Gu et al., Efficiently Modeling Long Sequences with Structured State Spaces, 2021",
        url="https://arxiv.org/abs/2111.00396",
        causal=True,
        cost="n d (N + log n) + n d²",
        state="d N",
    )
)
class S4(OrderedMixer):
    """A HiPPO-LegS state space for each channel, then GELU and a linear layer with GLU.

    A sequence is scanned in chunks, or convolved at once by FFT (`convolve`); a step takes O(N) a channel.

    Args:
        d_model: channels of a token.
        d_state: N, order of a channel's state space, even.
        dt_min: smallest initial step.
        dt_max: largest initial step.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, d_model: int, *, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__(d_model)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"d_state must be even and >= 2, got {d_state}")
        lam, p, b, _ = dplr_legs(d_state).halved()
        self.log_dt = nn.Parameter(log_steps(d_model, dt_min, dt_max))
        self.log_A_real = nn.Parameter((-lam.real).log().float().repeat(d_model, 1))
        self.A_imag = nn.Parameter(lam.imag.float().repeat(d_model, 1))
        self.P = nn.Parameter(torch.view_as_real(p).float().repeat(d_model, 1, 1))
        self.B = nn.Parameter(torch.view_as_real(b).float().repeat(d_model, 1, 1))
        self.C = nn.Parameter(torch.randn(d_model, d_state // 2, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(d_model))
        self.out = nn.Linear(d_model, 2 * d_model)

    def system(self) -> s4.DPLR:
        """The state spaces that the parameters stand for."""
        wide = torch.promote_types(self.D.dtype, torch.float32)
        lam = torch.complex(-self.log_A_real.to(wide).exp(), self.A_imag.to(wide))
        p, b, c = (torch.view_as_complex(x.to(wide)) for x in (self.P, self.B, self.C))
        return s4.DPLR(lam, p, b, c, self.log_dt.to(wide).exp())

    def convolve(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """The whole sequence as one FFT convolution with the Cauchy kernel: the paper's way, equal to `forward`.

        `forward` scans in chunks instead.
        """
        self.check(x)
        return self._out(s4.convolve(x, s4.kernel(self.system(), x.shape[1])), x)

    def _out(self, y: Tensor, x: Tensor) -> Tensor:
        pieces = zip(torch.split(y, PIECE, dim=1), torch.split(x, PIECE, dim=1), strict=True)
        return torch.cat([gated_output(part + self.D * skip, self.out) for part, skip in pieces], dim=1)

    def init_state(self, batch: int) -> Float[Tensor, "batch d_model d_state"]:
        """Zeros."""
        return self._zeros(batch, self.d_model, 2 * self.A_imag.shape[1])

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Float[Tensor, "batch d_model d_state"]
    ) -> tuple[Float[Tensor, "batch length d_model"], Float[Tensor, "batch d_model d_state"]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        y, state = s4.scan(x, self.system(), state=state)
        return self._out(y, x), state

    def step(
        self, x_t: Float[Tensor, "batch d_model"], state: Float[Tensor, "batch d_model d_state"]
    ) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, "batch d_model d_state"]]:
        """One token: its output and the state after it."""
        self.check_token(x_t)
        y, state = s4.step(x_t, self.system(), state)
        return gated_output((y + self.D * x_t)[:, None], self.out)[:, 0], state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Matrix:
        """The piece as a map of the state: Āⁿ and the state it leaves behind when it starts from zero."""
        self.check(x)
        system = self.system()
        _, shift = s4.scan(x, system)
        power = torch.linalg.matrix_power(s4.discrete(system).gate, x.shape[1])
        return Matrix(power.to(shift.dtype), shift[..., None])

    def compose(self, first: Matrix, second: Matrix) -> Matrix:
        """Two adjoining pieces as one map."""
        return first.then(second)

    def advance(self, state: Float[Tensor, "batch d_model d_state"], summary: Matrix) -> Tensor:
        """The state after a piece."""
        return summary.apply(state[..., None])[..., 0]
