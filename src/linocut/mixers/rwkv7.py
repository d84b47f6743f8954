"""RWKV-7, Goose (Peng et al., *RWKV-7 "Goose" with Expressive Dynamic State Evolution*, 2025).

RWKV-6's state only fades. Here a token also takes from it what lies along a direction of its own, with a rate a
channel, before it adds its value: a delta rule whose key to forget and key to write may differ.

What the paper mixes into the values from the first layer of a network is not here: a mixer sees one layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, register
from linocut.mixers.token_shift import ShiftedMixer, check_depth, ramp
from linocut.ops.affine import Matrix
from linocut.ops.generalized_delta_rule import generalized_delta_rule


class _LowRank(nn.Module):
    """A learnt constant plus a function of low rank: base + f(x down) up."""

    def __init__(self, d_model: int, rank: int, base: Tensor | None = None) -> None:
        super().__init__()
        self.base = None if base is None else nn.Parameter(base)
        self.down = nn.Parameter(torch.zeros(d_model, rank))
        self.up = nn.Parameter(torch.empty(rank, d_model))
        nn.init.orthogonal_(self.up, gain=0.1)

    def forward(self, x: Tensor, inner: str = "none") -> Tensor:
        low = x @ self.down
        low = torch.tanh(low) if inner == "tanh" else low.sigmoid() if inner == "sigmoid" else low
        return low @ self.up if self.base is None else self.base + low @ self.up


@register(
    Info(
        name="rwkv7",
        paper='Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025',
        url="https://arxiv.org/abs/2503.14456",
        causal=True,
        cost="n d²/h",
        state="d²/h + d",
    )
)
class RWKV7(ShiftedMixer):
    """out(g ⊙ (norm(Sᵀ r) + (r · ρ k) v)), S_t = (diag(w_t) - (α_t ⊙ κ_t) κ_tᵀ) S_{t-1} + k_t v_tᵀ.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        rank: rank of what a token adds to decays and rates, and of the gate.
        depth: where in the network the layer is, from 0 (first) to 1 (last); initial decays and shares differ with it.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, d_model: int, *, heads: int = 4, rank: int = 64, depth: float = 0.0) -> None:
        super().__init__(d_model)
        if heads < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        if rank < 1:
            raise ValueError(f"rank must be >= 1, got {rank}")
        check_depth(depth)
        self.heads = heads
        # how much of the token before r, w, k, v, a and g see
        share, powers = torch.arange(d_model) / d_model, (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)
        self.mix = nn.Parameter(torch.stack([1 - share ** (power * (1 - depth)) for power in powers]))
        self.decay = _LowRank(d_model, rank, -6.5 + 5 * ramp(d_model) ** (0.85 + depth**0.5))
        self.rate = _LowRank(d_model, rank, torch.zeros(d_model))
        self.gate = _LowRank(d_model, rank)
        self.forget_key = nn.Parameter(torch.full((d_model,), 0.85))
        self.write_key = nn.Parameter(torch.ones(d_model))
        self.bonus = nn.Parameter(torch.zeros(heads, d_model // heads))
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.norm = nn.GroupNorm(heads, d_model, eps=64e-5)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1) if x.numel() else x.new_empty(*x.shape[:2], *self.bonus.shape)

    def _parts(self, x: Tensor, shifted: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """r, k, v, log w, -κ and α ⊙ κ by heads; and the gate."""
        for_r, for_w, for_k, for_v, for_a, for_g = (x + (shifted - x) * share for share in self.mix)
        raised = self.decay(for_w, "tanh").to(torch.promote_types(x.dtype, torch.float32))
        rate, key = self.rate(for_a).sigmoid(), self.key(for_k)
        log_decay = -math.exp(-0.5) * raised.sigmoid()
        away = F.normalize(self._heads(key * self.forget_key), dim=-1)
        written = key * torch.lerp(torch.ones_like(rate), rate, self.write_key)
        r, k, v, log_decay = map(self._heads, (self.receptance(for_r), written, self.value(for_v), log_decay))
        return (r, k, v, log_decay, -away, self._heads(rate) * away), self.gate(for_g, "sigmoid")

    def _init_inner(self, batch: int) -> Tensor:
        return self._zeros(batch, self.heads, self.d_model // self.heads, self.d_model // self.heads)

    def _scan_inner(self, x: Tensor, shifted: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
        parts, gate = self._parts(x, shifted)
        r, k, v, *_ = parts
        y, inner = generalized_delta_rule(*parts, state=inner)
        normed = self.norm(y.reshape(-1, self.d_model)).view(x.shape)
        own = (r * k * self.bonus).sum(-1, keepdim=True) * v
        return self.out(gate * (normed + own.flatten(2))), inner

    def _summarize_inner(self, x: Tensor, shifted: Tensor) -> Matrix:
        (r, k, v, log_decay, a, b), _ = self._parts(x, shifted)
        _, shift = generalized_delta_rule(r, k, v, log_decay, a, b)
        eye = torch.eye(r.shape[-1], dtype=shift.dtype, device=shift.device).expand_as(shift)
        _, transition = generalized_delta_rule(r, k, torch.zeros_like(k), log_decay, a, b, state=eye)
        return Matrix(transition, shift)
