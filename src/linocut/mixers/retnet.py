"""Retention (Sun et al., *Retentive Network: A Successor to Transformer*, 2023).

The paper takes linear attention without its normaliser, lets the state decay by a fixed γ of the head, turns queries
and keys by their position (rotary, which is xPos with γ as its decay), and normalises every head's output instead. All
of it in three forms that agree: parallel, chunked, recurrent.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Diagonal
from linocut.ops.gated_linear_attention import gated_linear_attention


@register(
    Info(
        name="retnet",
        paper="Sun et al., Retentive Network, 2023",
        url="https://arxiv.org/abs/2307.08621",
        causal=True,
        cost="n e d²/h + n d²",
        state="e d²/h",
    )
)
class RetNet(OrderedMixer):
    r"""Gated multi-scale retention, equations 5 to 8: W_O (swish(X W_G) ⊙ norm(retention of every head)).

    Head h decays by γ = 1 - 2^(-5-h) a token. The state holds keys as seen from the next token: a token's passing
    decays and turns it, S ↦ λ S with λ = γ e^{-iθ} for every pair of channels, so no position is ever counted and a
    sequence may go on for ever.

    Args:
        d_model: channels of a token.
        heads: h, number of heads; must divide ``d_model`` into an even number of channels.
        expand: e, channels of values and gate over those of the model; 2 in the paper.

    Raises:
        ValueError: if the channels do not divide as they must.
    """

    def __init__(self, d_model: int, *, heads: int = 4, expand: int = 2) -> None:
        if heads < 1 or d_model < 1 or d_model % (2 * heads):
            raise ValueError(f"d_model must be a multiple of 2 * heads, got d_model={d_model} and heads={heads}")
        if expand < 1:
            raise ValueError(f"expand must be >= 1, got {expand}")
        super().__init__(d_model)
        self.heads, self.expand = heads, expand
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, expand * d_model, bias=False)
        self.gate = nn.Linear(d_model, expand * d_model, bias=False)
        self.out = nn.Linear(expand * d_model, d_model, bias=False)

    def log_decay(self) -> Float[Tensor, " heads"]:
        """Logarithms of γ, in float64: bfloat16 would round the slow ones to no decay at all."""
        scale = torch.arange(self.heads, device=self.query.weight.device, dtype=torch.float64)
        return torch.log1p(-(2.0 ** (-5 - scale)))

    def frequencies(self) -> Float[Tensor, " pairs"]:
        """θ, geometric from 1 to 1/10000, in float64."""
        pairs = self.d_model // self.heads // 2
        return 10_000.0 ** -torch.linspace(0, 1, pairs, device=self.query.weight.device, dtype=torch.float64)

    def init_state(self, batch: int) -> Float[Tensor, "batch heads dim value"]:
        """Zeros."""
        dim = self.d_model // self.heads
        return self._zeros(batch, self.heads, dim, self.expand * dim)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Float[Tensor, "batch heads dim value"]
    ) -> tuple[Float[Tensor, "batch length d_model"], Float[Tensor, "batch heads dim value"]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        angles = self.frequencies() * torch.arange(x.shape[1], device=x.device, dtype=torch.float64)[:, None]
        turn = torch.stack([angles.cos(), angles.sin()]).to(x.dtype)
        q = _turned(self._split(self.query(x)), turn)
        v = self._split(self.value(x))
        y, last = gated_linear_attention(q, self._keys(x, turn), v, log_decay=self.log_decay().to(state), state=state)
        y = F.layer_norm(y, y.shape[-1:]).flatten(2)
        return self.out(F.silu(self.gate(x)) * y), _real(self._turn_back(x.shape[1], state) * _complex(last))

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)

    def _keys(self, x: Tensor, turn: Tensor) -> Tensor:
        keys: Tensor = self.key(x) * (self.d_model // self.heads) ** -0.5
        return _turned(self._split(keys), turn)

    def _turn_back(self, tokens: int, like: Tensor) -> Complex[Tensor, "pairs 1"]:
        angles = self.frequencies()[:, None] * -tokens
        return torch.complex(angles.cos().to(like), angles.sin().to(like))

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Diagonal:
        """The piece as a map of the state's complex pairs: λⁿ and what it adds."""
        self.check(x)
        zeros = self.init_state(x.shape[0])
        _, last = self.scan(x, zeros)
        gamma = (self.log_decay() * x.shape[1]).exp().to(zeros)
        return Diagonal(gamma[:, None, None] * self._turn_back(x.shape[1], zeros), _complex(last))

    def compose(self, first: Diagonal, second: Diagonal) -> Diagonal:
        """Two adjoining pieces as one map."""
        return first.then(second)

    def advance(self, state: Float[Tensor, "batch heads dim value"], summary: Diagonal) -> Tensor:
        """The state after a piece."""
        return _real(summary.apply(_complex(state)))


def _turned(x: Float[Tensor, "batch length heads dim"], turn: Float[Tensor, "2 length pairs"]) -> Tensor:
    """Channels 2i and 2i + 1 as one complex number, times e^{iθt}."""
    if x.shape[1] == 1:
        return x  # the first token of a piece is where angles start
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn[:, :, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _complex(state: Float[Tensor, "batch heads dim value"]) -> Complex[Tensor, "batch heads pairs value"]:
    return torch.complex(state[:, :, 0::2], state[:, :, 1::2])


def _real(state: Complex[Tensor, "batch heads pairs value"]) -> Float[Tensor, "batch heads dim value"]:
    return torch.stack([state.real, state.imag], dim=3).flatten(2, 3)
