"""Linformer (Wang et al., *Linformer: Self-Attention with Linear Complexity*, 2020).

The paper projects the n keys and n values along the length to `rank` of each, by learnt matrices E and F (equation 7):
softmax(Q (E K)ᵀ / √d) (F V). A row of E is a weight for every position, so there is a longest length, a shorter
sequence uses the first columns, and there is no causal form: every projected key mixes the whole sequence.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from linocut.mixers.base import Info, Mixer, register

# How many matrices, and for how many heads each, by what is shared.
_SHARING = {"none": (2, None), "headwise": (2, 1), "key_value": (1, 1)}


@register(
    Info(
        name="linformer",
        paper="Wang et al., Linformer: Self-Attention with Linear Complexity, 2020",
        url="https://arxiv.org/abs/2006.04768",
        causal=False,
        cost="n rank d",
        state="none",
    )
)
class Linformer(Mixer):
    """Attention to keys and values projected to a fixed number of them.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        max_length: tokens of the longest sequence, >= 1; a shorter one uses the first columns of E and F.
        rank: the paper's k, projected keys, >= 1.
        share: what has matrices in common (the paper's section 4): "none", each head its own E and F; "headwise", one E
            and one F; "key_value", one matrix for both. The paper's fourth way, one matrix for all layers, is to assign
            the `projection` of one layer to the others.

    Raises:
        ValueError: for an argument out of its range, and on a sequence longer than `max_length`.
    """

    def __init__(
        self, d_model: int, *, heads: int = 4, max_length: int = 4096, rank: int = 256, share: str = "headwise"
    ) -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        super().__init__(d_model)
        if max_length < 1 or rank < 1:
            raise ValueError(f"max_length and rank must be >= 1, got max_length={max_length} and rank={rank}")
        if share not in _SHARING:
            raise ValueError(f"share must be one of {', '.join(_SHARING)}, got {share!r}")
        self.heads, self.max_length, self.rank = heads, max_length, rank
        self.query = nn.Linear(d_model, d_model)
        # without biases, so that E (X W) is (E X) W: the paper's W are matrices
        self.key_value = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model)
        matrices, each = _SHARING[share]
        bound = max_length**-0.5
        self.projection = nn.Parameter(torch.empty(matrices, each or heads, rank, max_length).uniform_(-bound, bound))

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E K and F V, (batch, heads, rank, dim)."""
        matrices, each, rank, _ = self.projection.shape
        columns = self.projection[..., : x.shape[1]]
        if each == 1:
            # shared by the heads: projecting the tokens first leaves `rank` of them for the other matrix
            tokens = (columns.flatten(0, 2) @ x).reshape(-1, matrices, rank, self.d_model)
            keys, values = tokens[:, 0], tokens[:, -1]
            to_key, to_value = self.key_value.weight.chunk(2)
            k, v = functional.linear(keys, to_key), functional.linear(values, to_value)
            k, v = (y.reshape(*y.shape[:2], self.heads, -1).transpose(1, 2) for y in (k, v))
            return k, v
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return columns[0] @ k, columns[1] @ v

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        if x.shape[1] > self.max_length:
            raise ValueError(f"linformer takes at most max_length={self.max_length} tokens, got {x.shape[1]}")
        if x.numel() == 0:
            return x
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self._projected(x)
        y: Tensor = self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y
