"""The gated attention unit (Hua, Dai, Liu, Le, *Transformer Quality in Linear Time*, ICML 2022, section 3).

Attention and a gated feed-forward network in one layer: x ↦ (u ⊙ A v) Wₒ, with u = silu(x Wᵤ) and v = silu(x Wᵥ)
twice as wide as x, and a single head whose queries and keys are cheap: scales and offsets of one z = silu(x W_z) of 128
channels. The gate makes the softmax needless: A = relu(QKᵀ)². A network of these is the paper's FLASH-Quad; FLASH,
with attention of linear cost, is in `linocut.mixers.flash`. Positions come in by rotary queries and keys. Norm and
residual belong to the network around the mixer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, Mixer, register
from linocut.mixers.positions import rotary
from linocut.ops.mixed_chunk_attention import squared_relu_attention

_PAPER = "Hua et al., Transformer Quality in Linear Time, 2022"
_URL = "https://arxiv.org/abs/2202.10447"


class GatedUnit(Mixer):
    """What GAU and FLASH share: projections, scales and offsets, gate.

    Args:
        d_model: channels of a token.
        expansion: u and v are this many times as wide.
        size: channels s of queries and keys, a multiple of 2.
        pairs: queries and keys made of z, by a scale and an offset each.

    Raises:
        ValueError: if the expansion is below 1 or the size not a positive multiple of 2.
    """

    def __init__(self, d_model: int, *, expansion: int, size: int, pairs: int) -> None:
        if expansion < 1:
            raise ValueError(f"expansion must be >= 1, got {expansion}")
        if size < 2 or size % 2:
            raise ValueError(f"size must be a positive multiple of 2, got {size}")
        super().__init__(d_model)
        self.size, self.width = size, expansion * d_model
        self.hidden = nn.Linear(d_model, 2 * self.width + size)
        self.scale = nn.Parameter(torch.ones(pairs, size) + 0.02 * torch.randn(pairs, size))
        self.offset = nn.Parameter(torch.zeros(pairs, size))
        self.out = nn.Linear(self.width, d_model)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, v and z."""
        edges = (self.width, 2 * self.width)
        u, v, z = nn.functional.silu(self.hidden(x)).tensor_split(edges, dim=-1)
        return u, v, z

    def turned(self, z: Tensor, which: tuple[int, ...], start: int = 0) -> tuple[Tensor, ...]:
        """Queries or keys of z, of tokens from position `start` on."""
        rows = list(which)
        each = torch.addcmul(self.offset[rows], z[:, :, None], self.scale[rows])
        positions = torch.arange(start, start + z.shape[1], dtype=torch.float64, device=z.device)
        return rotary(each, positions).unbind(2)

    def gated(self, u: Tensor, y: Tensor) -> Tensor:
        """The gate and the last projection."""
        out: Tensor = self.out(u * y)
        return out


class _GAU(GatedUnit):
    """Gated attention over all tokens, or all so far.

    Args:
        d_model: channels of a token.
        expansion: u and v are this many times as wide.
        size: channels of queries and keys, a multiple of 2.

    Raises:
        ValueError: if the expansion is below 1 or the size not a positive multiple of 2.
    """

    def __init__(self, d_model: int, *, expansion: int = 2, size: int = 128) -> None:
        super().__init__(d_model, expansion=expansion, size=size, pairs=2)

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        u, v, z = self.project(x)
        q, k = self.turned(z, (0, 1))
        return self.gated(u, squared_relu_attention(q, k, v, causal=self.info.causal))


@register(Info(name="gau", paper=_PAPER, url=_URL, causal=False, cost="n² (s + e)", state="none"))
class GAU(_GAU):
    """The gated attention unit over all tokens; the arguments are those of both forms (`_GAU`)."""


@register(Info(name="gau", paper=_PAPER, url=_URL, causal=True, cost="n² (s + e)", state="none"))
class CausalGAU(_GAU):
    """The gated attention unit over the tokens so far; the arguments are those of both forms (`_GAU`)."""
