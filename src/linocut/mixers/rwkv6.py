"""RWKV-6, Finch (Peng et al., *Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence*, 2024).

After RWKV-5 has made the state a matrix a head, as in linear attention with a decay a channel, Finch lets the tokens
decide: the decay of every channel, and how much each projection sees of the token before, are learnt constants plus a
function of low rank of the token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, register
from linocut.mixers.token_shift import ShiftedMixer, check_depth, ramp
from linocut.ops.affine import Diagonal
from linocut.ops.channel_decay import channel_decay_attention


@register(
    Info(
        name="rwkv6",
        paper="Peng et al., Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence, 2024",
        url="https://arxiv.org/abs/2404.05892",
        causal=True,
        cost="n d²/h",
        state="d²/h + d",
    )
)
class RWKV6(ShiftedMixer):
    """out(silu(g) ⊙ norm(Sᵀ r)) with S_t = diag(w_t) S_{t-1} + k_t v_tᵀ and w = exp(-exp(d(x))) (section 4.2).

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        rank: rank of what a token adds to the five shares of the token before.
        decay_rank: rank of what it adds to the decays.
        depth: where in the network the layer is, from 0 (first) to 1 (last); initial decays and shares differ with it.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, d_model: int, *, heads: int = 4, rank: int = 32, decay_rank: int = 64, depth: float = 0.0
    ) -> None:
        super().__init__(d_model)
        if heads < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        if rank < 1 or decay_rank < 1:
            raise ValueError(f"rank and decay_rank must be >= 1, got rank={rank} and decay_rank={decay_rank}")
        check_depth(depth)
        self.heads = heads
        along, share = ramp(d_model), (torch.arange(d_model) / d_model) ** (1 - depth)
        # λ of w, k, v, r, g: how much of the token before each sees; μ_x chooses what the ranks below look at
        shares = [1 - share, 1 - share, 1 - (share + 0.3 * depth), 1 - share**0.5, 1 - share**0.5]
        self.mix = nn.Parameter(torch.stack(shares))
        self.mix_in = nn.Parameter(1 - share)
        self.mix_down = nn.Parameter(torch.zeros(d_model, 5 * rank))
        self.mix_up = nn.Parameter(torch.empty(5, rank, d_model).uniform_(-0.01, 0.01))
        self.time_decay = nn.Parameter(-6 + 5 * along ** (0.7 + 1.3 * depth))
        self.decay_down = nn.Parameter(torch.zeros(d_model, decay_rank))
        self.decay_up = nn.Parameter(torch.empty(decay_rank, d_model).uniform_(-0.01, 0.01))
        zigzag = 0.1 * ((torch.arange(d_model) + 1) % 3 - 1)
        self.bonus = nn.Parameter((depth * (1 - along) + zigzag).view(heads, -1))
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.norm = nn.GroupNorm(heads, d_model, eps=64e-5)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def _mixed(self, x: Tensor, shifted: Tensor) -> list[Tensor]:
        """What w, k, v, r and g are made of: ddlerp, equation 16."""
        change = shifted - x
        low = torch.tanh(torch.addcmul(x, change, self.mix_in) @ self.mix_down).chunk(5, dim=-1)
        parts = zip(low, self.mix_up, self.mix, strict=True)
        return [torch.addcmul(x, change, F.linear(part, up.t(), base)) for part, up, base in parts]

    def _parts(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """r, k, v and the logarithm of w by heads; and the gate."""
        w, k, v, r, g = self._mixed(x, shifted)
        raised = self.time_decay + torch.tanh(w @ self.decay_down) @ self.decay_up
        log_decay = -raised.to(torch.promote_types(x.dtype, torch.float32)).exp()
        q, k, v = self.receptance(r), self.key(k), self.value(v)
        r, k, v, log_decay = (each.unflatten(-1, (self.heads, -1)) for each in (q, k, v, log_decay))
        return r, k, v, log_decay, F.silu(self.gate(g))

    def _init_inner(self, batch: int) -> Tensor:
        return self._zeros(batch, self.heads, self.d_model // self.heads, self.d_model // self.heads)

    def _scan_inner(self, x: Tensor, shifted: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        r, k, v, log_decay, gate = self._parts(x, shifted)
        y, inner = channel_decay_attention(r, k, v, log_decay, bonus=self.bonus, state=inner)
        normed = self.norm(y.reshape(-1, self.d_model)).view(x.shape)
        return self.out(gate * normed), inner

    def _summarize_inner(self, x: Tensor, shifted: Tensor) -> Diagonal:
        r, k, v, log_decay, _ = self._parts(x, shifted)
        _, shift = channel_decay_attention(r, k, v, log_decay, bonus=self.bonus)
        return Diagonal(log_decay.sum(1).exp()[..., None], shift)
