r"""Mamba (Gu and Dao, *Mamba: Linear-Time Sequence Modeling with Selective State Spaces*, 2023).

Earlier state spaces (S4, S4D) move their state in the same way at every token, and so cannot tell tokens that matter
from those that do not. Mamba makes the step size Δ, the input map B and the output map C functions of the token:

.. math::
    x, z = W_{in} u, \quad x \leftarrow \mathrm{silu}(\mathrm{conv}(x)), \quad
    \Delta', B, C = W_x x, \quad \Delta = \mathrm{softplus}(W_\Delta \Delta' + b_\Delta), \\
    h_t = e^{\Delta_t A} \odot h_{t-1} + \Delta_t B_t x_t, \quad
    y_t = (C_t^\top h_t + D x_t) \odot \mathrm{silu}(z_t), \quad W_{out} y_t

The parameters carry the names of the authors' code, so their weights, and those of Transformers, load as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own custom
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops import affine
from linocut.ops import mamba_step as fused
from linocut.ops.selective_scan import selective_scan
from linocut.ops.short_convolution import short_convolution

# The modules of a block, in the order of the step's kernel.
_PARTS = ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj")


class MambaState(NamedTuple):
    """What is behind a token.

    Attributes:
        tail: the last ``d_conv - 1`` inputs of the convolution, (batch, d_conv - 1, d_inner).
        h: the states of the scan, (batch, d_inner, d_state).
    """

    tail: Tensor
    h: Tensor


class MambaSummary(NamedTuple):
    """What a piece of the sequence does to the state.

    Attributes:
        tail: the one after it.
        map: of h.
    """

    tail: Tensor
    map: affine.Diagonal


@register(
    Info(
        name="mamba",
        paper="Gu and Dao, Mamba, 2023",
        url="https://arxiv.org/abs/2312.00752",
        causal=True,
        cost="n d (d + N)",
        state="2d (N + w - 1)",
    )
)
class Mamba(OrderedMixer):
    """The Mamba block: gate, short convolution and selective scan between two projections.

    Args:
        d_model: channels of a token.
        d_state: N, states of one channel.
        d_conv: width of the convolution.
        expand: channels inside for one outside.
        dt_rank: channels that Δ is made of; None for ``ceil(d_model / 16)``.
        dt_min: smallest Δ at the start of training; they lie evenly on a logarithmic scale.
        dt_max: largest Δ at the start of training.
        bias: whether the outer projections have one.
        conv_bias: whether the convolution has one.

    Raises:
        ValueError: if a size is below 1, or the range of Δ is none.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        bias: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__(d_model)
        dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        sizes = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "dt_rank": dt_rank}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"dt_min must be > 0 and at most dt_max, got {dt_min} and {dt_max}")
        self.d_state, self.d_inner, self.dt_rank, self.halo = d_state, expand * d_model, dt_rank, d_conv - 1
        d = self.d_inner
        self.in_proj = nn.Linear(d_model, 2 * d, bias=bias)
        self.conv1d = nn.Conv1d(d, d, d_conv, groups=d, padding=d_conv - 1, bias=conv_bias)
        self.x_proj = nn.Linear(d, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d)
        self.A_log = nn.Parameter(torch.empty(d, d_state))
        self.D = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, d_model, bias=bias)
        self._reset(dt_min, dt_max)

    def _reset(self, dt_min: float, dt_max: float) -> None:
        """A from S4D-Real, A[:, n] = -(n + 1); Δ's bias so that softplus of it is spread from dt_min to dt_max."""
        with torch.no_grad():
            self.A_log.copy_(torch.arange(1, self.d_state + 1).float().log().expand_as(self.A_log))
            nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            low, high = math.log(dt_min), math.log(dt_max)
            dt = torch.exp(torch.rand(self.d_inner) * (high - low) + low).clamp(min=1e-4)
            # the inverse of softplus
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def init_state(self, batch: int) -> MambaState:
        """Zeros: nothing was there before the first token."""
        return MambaState(self._zeros(batch, self.halo, self.d_inner), self._zeros(batch, self.d_inner, self.d_state))

    def _rates(self) -> Tensor:
        """A; in float32 at least, since a decay rounded to bf16 is another decay."""
        return -torch.exp(self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)))

    def _maps(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The convolution, and what is made of it: x, Δ before its bias, B, C, and the next tail."""
        x, tail = short_convolution(x, self.conv1d.weight[:, 0], bias=self.conv1d.bias, state=tail, activation="silu")
        dt, B, C = torch.split(self.x_proj(x), [self.dt_rank, self.d_state, self.d_state], dim=-1)  # noqa: N806
        return x, F.linear(dt, self.dt_proj.weight), B, C, tail

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: MambaState
    ) -> tuple[Float[Tensor, "batch length d_model"], MambaState]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        inner, z = self.in_proj(x).chunk(2, dim=-1)
        inner, delta, B, C, tail = self._maps(inner, state.tail)  # noqa: N806
        y, h = selective_scan(
            inner,
            delta,
            self._rates(),
            B,
            C,
            D=self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            state=state.h,
        )
        return self.out_proj(y), MambaState(tail, h)

    def step(
        self, x_t: Float[Tensor, "batch d_model"], state: MambaState
    ) -> tuple[Float[Tensor, "batch d_model"], MambaState]:
        """One token: its output and the state after it; in one native call where nothing is to be differentiated."""
        self.check_token(x_t)
        done = fused.mamba_step(x_t, *state, self._for_step())
        if done is None:
            y, state = self.scan(x_t[:, None], state)
            return y[:, 0], state
        return done[0], MambaState(*done[1:])

    def _for_step(self) -> tuple[Tensor | None, ...]:
        """The parameters in the order of the step's kernel, past the slow look-up of modules."""
        parts = [self._modules[name]._parameters for name in _PARTS]  # type: ignore[union-attr]
        in_proj, conv, x_proj, dt_proj, out_proj = [(part["weight"], part["bias"]) for part in parts]
        own = self._parameters
        return (*in_proj, *conv, x_proj[0], *dt_proj, own["A_log"], own["D"], *out_proj)

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> MambaSummary:
        """The map of the state that a piece is, from the piece and the ``d_conv - 1`` tokens before it."""
        self.check(x)
        known = 0 if before is None else before.shape[1]
        tokens = x if before is None else torch.cat([before, x], dim=1)
        inner_half = [each[: self.d_inner] for each in self.in_proj.parameters()]
        inner = F.linear(tokens, *inner_half)
        blank = self.init_state(x.shape[0])
        tail = torch.cat([blank.tail[:, known:], inner[:, :known].to(blank.tail.dtype)], dim=1)
        inner, delta, B, C, tail = self._maps(inner[:, known:], tail)  # noqa: N806
        delta = F.softplus((delta + self.dt_proj.bias).to(blank.h.dtype))
        wide = [each.to(blank.h.dtype) for each in (inner, B, C)]
        A = self._rates()  # noqa: N806
        _, shift = selective_scan(wide[0], delta, A, *wide[1:], state=blank.h)
        return MambaSummary(tail, affine.Diagonal(torch.exp(delta.sum(1)[..., None] * A), shift))

    def compose(self, first: MambaSummary, second: MambaSummary) -> MambaSummary:
        """The map of two adjoining pieces."""
        return MambaSummary(second.tail, first.map.then(second.map))

    def advance(self, state: MambaState, summary: MambaSummary) -> MambaState:
        """The state after a piece."""
        return MambaState(summary.tail, summary.map.apply(state.h))
