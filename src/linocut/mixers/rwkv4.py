"""RWKV-4's time mixing (Peng et al., *RWKV: Reinventing RNNs for the Transformer Era*, 2023).

Attention Free Transformers weigh values by e^k, with a learnt bias in the exponent for every pair of positions. RWKV
makes that bias a decay a channel, so the sums have a recurrence, gives the token itself a weight of its own, and lets
keys, values and the gate see the token before, each channel with its own share.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from linocut.mixers.base import Info, register
from linocut.mixers.token_shift import ShiftedMixer, check_depth, ramp
from linocut.ops import wkv as ops


class Piece(NamedTuple):
    """A piece of a sequence as it acts on the sums: they fade by e^-decay, and the piece's own are added.

    Attributes:
        decay: w times the piece's length, (d_model).
        sums: of the piece alone.
    """

    decay: Tensor
    sums: ops.State

    def apply(self, state: ops.State) -> ops.State:
        """The sums after the piece."""
        return state.then(self.sums, self.decay)

    def then(self, second: Piece) -> Piece:
        """This piece, then another."""
        return Piece(self.decay + second.decay, second.apply(self.sums))


@register(
    Info(
        name="rwkv4",
        paper="Peng et al., RWKV: Reinventing RNNs for the Transformer Era, 2023",
        url="https://arxiv.org/abs/2305.13048",
        causal=True,
        cost="n d",
        state="4 d",
    )
)
class RWKV4(ShiftedMixer):
    """out(σ(r) ⊙ WKV(k, v)), with r, k and v from shares of a token and the one before (equations 11 to 16).

    Args:
        d_model: channels of a token.
        depth: where in the network the layer is, from 0 (first) to 1 (last); initial decays and shares differ with it.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, d_model: int, *, depth: float = 0.0) -> None:
        super().__init__(d_model)
        check_depth(depth)
        # appendix E: decays from long to short over the channels, bonuses in turn higher and lower
        along = ramp(d_model)
        self.time_decay = nn.Parameter(-5 + 8 * along ** (0.7 + 1.3 * depth))
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(d_model) + 1) % 3 - 1))
        share = (torch.arange(d_model) / d_model) ** (1 - depth)
        self.mix_key = nn.Parameter(share.clone())
        self.mix_value = nn.Parameter(share + 0.3 * depth)
        self.mix_receptance = nn.Parameter(share**0.5)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def _decay(self) -> Tensor:
        return self.time_decay.to(torch.promote_types(self.time_decay.dtype, torch.float32)).exp()

    def _key_value(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        return self.key(torch.lerp(shifted, x, self.mix_key)), self.value(torch.lerp(shifted, x, self.mix_value))

    def _init_inner(self, batch: int) -> ops.State:
        return ops.empty_state(self._zeros(batch, 0, self.d_model))

    def _scan_inner(self, x: Tensor, shifted: Tensor, inner: ops.State) -> tuple[Tensor, ops.State]:
        k, v = self._key_value(x, shifted)
        gate = self.receptance(torch.lerp(shifted, x, self.mix_receptance)).sigmoid()
        y, inner = ops.wkv(k, v, self._decay(), self.time_first, state=inner)
        return self.out(gate * y), inner

    def _summarize_inner(self, x: Tensor, shifted: Tensor) -> Piece:
        decay = self._decay()
        _, sums = ops.wkv(*self._key_value(x, shifted), decay, self.time_first)
        return Piece(x.shape[1] * decay, sums)
