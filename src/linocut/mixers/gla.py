"""Gated linear attention (Yang, Wang, Shen, Panda, Kim, *Gated Linear Attention Transformers*, 2023).

Linear attention never forgets, RetNet forgets at a fixed pace. Here the token decides, for every key channel: a gate of
low rank, whose sixteenth root keeps it near one, so that what is old can still be reached at the start of a training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Diagonal
from linocut.ops.channel_decay import channel_decay_attention


@register(
    Info(
        name="gla",
        paper="Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, 2023",
        url="https://arxiv.org/abs/2312.06635",
        causal=True,
        cost="n d²/2h",
        state="d²/2h",
    )
)
class GatedLinearAttention(OrderedMixer):
    """out(silu(r) ⊙ norm(Sᵀ q)) with S_t = diag(α_t) S_{t-1} + k_t v_tᵀ and α = σ(W₂ W₁ x + b)^(1/16) (section 4.4).

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model`` and ``d_key``.
        d_key: key channels of all heads together; None for half of ``d_model``.
        rank: rank of the gate.
        temperature: of whose power the gate is the root; the paper's 16.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, d_model: int, *, heads: int = 4, d_key: int | None = None, rank: int = 16, temperature: float = 16.0
    ) -> None:
        super().__init__(d_model)
        d_key = d_model // 2 if d_key is None else d_key
        if heads < 1 or d_key < 1 or d_model % heads or d_key % heads:
            asked = f"d_model={d_model}, d_key={d_key} and heads={heads}"
            raise ValueError(f"heads must be >= 1 and divide d_model and d_key, got {asked}")
        if rank < 1 or temperature <= 0:
            raise ValueError(f"rank must be >= 1 and temperature > 0, got rank={rank} and temperature={temperature}")
        self.heads, self.d_key, self.temperature = heads, d_key, temperature
        self.query = nn.Linear(d_model, d_key, bias=False)
        self.key = nn.Linear(d_model, d_key, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.decay = nn.Sequential(nn.Linear(d_model, rank, bias=False), nn.Linear(rank, d_key))
        self.gate = nn.Linear(d_model, d_model)
        self.norm = nn.RMSNorm(d_model // heads, eps=1e-5)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def _key_side(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """k, v and the logarithm of α, by heads."""
        gate = self.decay(x).to(torch.promote_types(x.dtype, torch.float32))
        parts = self.key(x), self.value(x), F.logsigmoid(gate) / self.temperature
        k, v, log_decay = (each.unflatten(-1, (self.heads, -1)) for each in parts)
        return k, v, log_decay

    def init_state(self, batch: int) -> Float[Tensor, "batch heads dim value"]:
        """Zeros."""
        return self._zeros(batch, self.heads, self.d_key // self.heads, self.d_model // self.heads)

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: Float[Tensor, "batch heads dim value"]
    ) -> tuple[Float[Tensor, "batch length d_model"], Float[Tensor, "batch heads dim value"]]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        q = self.query(x).unflatten(-1, (self.heads, -1)) * (self.d_key // self.heads) ** -0.5
        y, state = channel_decay_attention(q, *self._key_side(x), state=state)
        return self.out(F.silu(self.gate(x)) * self.norm(y).flatten(2)), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Diagonal:
        """The piece as a map of the state: the product of its decays, and the state it makes from nothing."""
        self.check(x)
        k, v, log_decay = self._key_side(x)
        _, shift = channel_decay_attention(torch.zeros_like(k), k, v, log_decay)
        return Diagonal(log_decay.sum(1).exp()[..., None], shift)

    def compose(self, first: Diagonal, second: Diagonal) -> Diagonal:
        """Two adjoining pieces as one map."""
        return first.then(second)

    def advance(self, state: Float[Tensor, "batch heads dim value"], summary: Diagonal) -> Tensor:
        """The state after a piece."""
        return summary.apply(state)
