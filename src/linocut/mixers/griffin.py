r"""Griffin's recurrent block (De et al., *Griffin: Mixing Gated Linear Recurrences with Local Attention*, 2024).

Two branches, multiplied: a GeLU gate, and a short convolution before the RG-LRU (section 2.4). The paper gates the LRU
by the token, in its decay and in its input, and keeps the state's size by a factor that goes with the decay:

.. math::
    r_t = \sigma(W_a u_t + b_a), \quad i_t = \sigma(W_x u_t + b_x), \quad \log a_t = -c \log(1 + e^{-\Lambda}) r_t

    h_t = a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i_t \odot u_t)

with c = 8 and gate matrices of diagonal blocks. It is causal by its nature.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Diagonal
from linocut.ops.linear_recurrence import linear_recurrence
from linocut.ops.short_convolution import short_convolution

_SHARPNESS = 8.0
_CHUNK = 2048
State = tuple[Tensor, Tensor]


class Summary(NamedTuple):
    """A piece as a map of the state.

    Attributes:
        tail: what the convolution will want of it: its last inputs, fewer if it is shorter.
        state: the map of h.
    """

    tail: Tensor
    state: Diagonal


@register(
    Info(
        name="griffin",
        paper="De et al., Griffin, 2024",
        url="https://arxiv.org/abs/2402.19427",
        causal=True,
        cost="n d²",
        state="taps · width",
    )
)
class Griffin(OrderedMixer):
    """The recurrent block of Griffin and RecurrentGemma around the RG-LRU.

    Args:
        d_model: channels of a token.
        width: channels of the recurrence, >= 1; `d_model` unless given.
        heads: blocks of the gates' matrices; must divide the width.
        taps: of the convolution, >= 1.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(self, d_model: int, *, width: int | None = None, heads: int = 4, taps: int = 4) -> None:
        super().__init__(d_model)
        width = d_model if width is None else width
        if heads < 1 or width < 1 or width % heads:
            raise ValueError(f"heads must be >= 1 and divide the width, got width={width} and heads={heads}")
        if taps < 1:
            raise ValueError(f"taps must be >= 1, got {taps}")
        self.width, self.heads, self.taps, self.halo = width, heads, taps, taps - 1
        self.gate = nn.Linear(d_model, width)
        self.input = nn.Linear(d_model, width)
        self.out = nn.Linear(width, d_model)
        bound = taps**-0.5
        self.convolution = nn.Parameter(torch.empty(width, taps).uniform_(-bound, bound))
        self.convolution_bias = nn.Parameter(torch.zeros(width))
        block = width // heads
        # of the recurrence gate r, then of the input gate i
        self.gates = nn.Parameter(torch.randn(heads, block, 2 * block) * block**-0.5)
        self.gates_bias = nn.Parameter(torch.zeros(heads, 1, 2 * block))
        # -Λ of the paper, such that a^c lies between 0.9 and 0.999
        start = torch.empty(width).uniform_(0.9, 0.999)
        self.decay = nn.Parameter((-start.log() / _SHARPNESS).expm1().log())

    def init_state(self, batch: int) -> State:
        """The convolution's last inputs and h, all zero."""
        return self._zeros(batch, self.halo, self.width), self._zeros(batch, self.width)

    def _recurrence(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logarithms of a, a and the gated inputs; float32 or wider, since a decay of 0.999 is 1 in bfloat16."""
        blocks = u.reshape(u.shape[0] * u.shape[1], self.heads, self.width // self.heads).transpose(0, 1)
        wide = torch.promote_types(u.dtype, torch.float32)
        gates = torch.baddbmm(self.gates_bias, blocks, self.gates).to(wide).sigmoid()
        r, i = (gate.transpose(0, 1).reshape(u.shape) for gate in gates.chunk(2, dim=-1))
        log_a = r * (-_SHARPNESS * functional.softplus(self.decay.to(wide)))
        # the square root has no derivative at 0, where a gate is closed for good
        size = (-torch.expm1(2 * log_a)).clamp_min(torch.finfo(wide).tiny).sqrt()
        return log_a, log_a.exp(), size * (i * u)

    def _convolve(self, inputs: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        return short_convolution(inputs, self.convolution, bias=self.convolution_bias, state=tail)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: State
    ) -> tuple[Float[Tensor, "batch length d_model"], State]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        if x.shape[1] > _CHUNK and not torch.is_grad_enabled():
            # in pieces that stay in cache, since the gates make several tensors as large as the sequence
            outputs = []
            for piece in x.split(_CHUNK, dim=1):  # type: ignore[no-untyped-call]  # torch does not annotate it
                found, state = self.scan(piece, state)
                outputs.append(found)
            return torch.cat(outputs, dim=1), state
        u, tail = self._convolve(self.input(x), state[0])
        _, a, b = self._recurrence(u)
        h, last = linear_recurrence(a, b, state=state[1])
        y: Tensor = self.out(functional.gelu(self.gate(x)) * h.to(x.dtype))
        return y, (tail, last)

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> Summary:
        """The map of the state that a piece is."""
        self.check(x)
        tail = self.init_state(x.shape[0])[0]
        if before is not None and before.shape[1]:
            tail = torch.cat([tail, self.input(before).to(tail.dtype)], dim=1)[:, before.shape[1] :]
        inputs = self.input(x)
        log_a, a, b = self._recurrence(self._convolve(inputs, tail)[0])
        shift = linear_recurrence(a, b)[1]
        rest = inputs[:, max(0, x.shape[1] - self.halo) :].to(tail.dtype)
        return Summary(rest, Diagonal(log_a.sum(dim=1).exp(), shift))

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """The last inputs of two pieces together."""
        both = torch.cat([first, second], dim=1)
        return both[:, max(0, both.shape[1] - self.halo) :]

    def compose(self, first: Summary, second: Summary) -> Summary:
        """The map of two adjoining pieces."""
        return Summary(self._joined(first.tail, second.tail), first.state.then(second.state))

    def advance(self, state: State, summary: Summary) -> State:
        """The state after a piece."""
        return self._joined(state[0], summary.tail), summary.state.apply(state[1])
