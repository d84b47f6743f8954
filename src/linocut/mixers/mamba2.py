"""Mamba-2 (Dao and Gu, *Transformers are SSMs*, ICML 2024).

Against Mamba the transition is one number for a whole head, which turns the scan into products of matrices (state space
duality); all inputs of the recurrence come from one projection, and a norm stands before the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Diagonal
from linocut.ops.short_convolution import short_convolution
from linocut.ops.ssd import ssd


class State(NamedTuple):
    """Of a sequence so far.

    Attributes:
        inputs: the last inputs of the convolution.
        memory: S of every head.
    """

    inputs: Float[Tensor, "batch halo channels"]
    memory: Float[Tensor, "batch heads d_state head_dim"]


class Piece(NamedTuple):
    """A piece as a map of the state.

    Attributes:
        inputs: the piece's own last inputs of the convolution, at most `halo` of them.
        memory: decay and shift of S.
    """

    inputs: Float[Tensor, "batch tail channels"]
    memory: Diagonal


class GatedRMSNorm(nn.Module):
    """RMS norm of y · silu(z), the channels of each group by themselves.

    Args:
        channels: of y and z.
        groups: must divide the channels.
        eps: added to the mean square.
    """

    def __init__(self, channels: int, *, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, y: Float[Tensor, "*batch channels"], z: Float[Tensor, "*batch channels"]) -> Tensor:
        """Gate, then norm."""
        gated = (y * F.silu(z)).reshape(*y.shape[:-1], self.groups, y.shape[-1] // self.groups)
        return F.rms_norm(gated, gated.shape[-1:], eps=self.eps).flatten(-2) * self.weight


@register(
    Info(
        name="mamba2",
        paper="Dao and Gu, Transformers are SSMs, 2024",
        url="https://arxiv.org/abs/2405.21060",
        causal=True,
        cost="n e d N + n e d²",
        state="e d N + w (e d + 2 g N)",
    )
)
class Mamba2(OrderedMixer):
    """Mamba-2's block without its residual: projection, short convolution, SSD, gated norm, projection.

    Parameters are named and shaped as in the authors' code and in Transformers.

    Args:
        d_model: channels of a token.
        d_state: N, rows of a head's state.
        head_dim: channels of a head.
        expand: e, channels inside over those outside.
        groups: g, groups of heads that share B and C.
        d_conv: w, taps of the convolution.
        dt_min: smallest initial step.
        dt_max: largest initial step.

    Raises:
        ValueError: if the heads do not divide the channels or the groups not the heads, or a size is below 1.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        head_dim: int = 64,
        expand: int = 2,
        groups: int = 1,
        d_conv: int = 4,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__(d_model)
        if min(d_state, head_dim, expand, groups, d_conv) < 1 or expand * d_model % (head_dim * groups):
            raise ValueError(
                "d_state, head_dim, expand, groups and d_conv must be >= 1, and head_dim * groups divide expand * "
                f"d_model, got {d_state}, {head_dim}, {expand}, {groups} and {d_conv} for d_model={d_model}"
            )
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"steps must keep 0 < dt_min <= dt_max, got dt_min={dt_min} and dt_max={dt_max}")
        self.d_inner, self.d_state, self.groups = expand * d_model, d_state, groups
        self.heads, self.head_dim, self.halo = self.d_inner // head_dim, head_dim, d_conv - 1
        channels = self.d_inner + 2 * groups * d_state
        self.in_proj = nn.Linear(d_model, self.d_inner + channels + self.heads, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, groups=channels)
        dt = torch.exp(math.log(dt_min) + torch.rand(self.heads) * math.log(dt_max / dt_min))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(self.d_inner, groups=groups)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def init_state(self, batch: int) -> State:
        """Zeros."""
        memory = self._zeros(batch, self.heads, self.d_state, self.head_dim)
        return State(self._zeros(batch, self.halo, self.conv1d.in_channels), memory)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gate, inputs of the convolution, steps in float32 or wider."""
        z, inputs, dt = self.in_proj(x).split([self.d_inner, self.conv1d.in_channels, self.heads], dim=-1)
        wide = torch.promote_types(dt.dtype, torch.float32)
        return z, inputs, F.softplus(dt.to(wide) + self.dt_bias)

    def _rates(self) -> Tensor:
        return -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()

    def _mix(self, inputs: Tensor, dt: Tensor, state: State) -> tuple[Tensor, State]:
        mixed, last = short_convolution(
            inputs, self.conv1d.weight[:, 0], bias=self.conv1d.bias, state=state.inputs, activation="silu"
        )
        x, B, C = torch.split(mixed, [self.d_inner] + 2 * [self.groups * self.d_state], dim=-1)  # noqa: N806
        y, memory = ssd(
            torch.unflatten(x, -1, (self.heads, self.head_dim)),
            dt,
            self._rates(),
            *(torch.unflatten(part, -1, (self.groups, self.d_state)) for part in (B, C)),
            D=self.D,
            state=state.memory,
        )
        return y.flatten(2), State(last, memory)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: State
    ) -> tuple[Float[Tensor, "batch length d_model"], State]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        z, inputs, dt = self._project(x)
        y, state = self._mix(inputs, dt, state)
        return self.out_proj(self.norm(y, z)), state

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> Piece:
        """The piece as a map of the state."""
        self.check(x)
        state = self.init_state(x.shape[0])
        if before is not None:
            state = State(self._tail(state.inputs, self._project(before)[1]), state.memory)
        _, inputs, dt = self._project(x)
        _, last = self._mix(inputs, dt, state)
        decay = (dt.sum(dim=1) * self._rates()).exp()[..., None, None]
        return Piece(self._tail(inputs[:, :0], inputs), Diagonal(decay, last.memory))

    def compose(self, first: Piece, second: Piece) -> Piece:
        """Two adjoining pieces as one map."""
        return Piece(self._tail(first.inputs, second.inputs), first.memory.then(second.memory))

    def advance(self, state: State, summary: Piece) -> State:
        """The state after a piece."""
        return State(self._tail(state.inputs, summary.inputs), summary.memory.apply(state.memory))

    def _tail(self, first: Tensor, second: Tensor) -> Tensor:
        """The last `halo` tokens of two runs of them, in the dtype of the first."""
        both = torch.cat([first, second.to(first.dtype)], dim=1)
        return both[:, max(0, both.shape[1] - self.halo) :]
