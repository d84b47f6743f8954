r"""Strided attention: token i sees the tokens j with (i - j) mod stride = 0, every stride-th key.

.. math::
    y_i = \sum_{j \equiv i} a_{ij} v_j, \qquad a_{ij} \propto \exp(q_i \cdot k_j / \sqrt{d})

The second factor of Child et al., *Generating Long Sequences with Sparse Transformers*, 2019
(https://arxiv.org/abs/1904.10509, section 4.3), on its own; an atrous convolution's pattern without its end. The tokens
of one residue see each other and no one else, so this is `stride` dense attentions over length / stride tokens each.

Cost: O(length² / stride · dim) time and O(length) memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from linocut.ops.arguments import floats


@floats
def strided_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads dim"],
    *,
    stride: int,
    causal: bool,
) -> Float[Tensor, "batch length heads dim"]:
    """Attend to every stride-th token.

    Args:
        q: queries.
        k: keys.
        v: values.
        stride: distance of the tokens seen, >= 1; 1 is dense attention.
        causal: whether those after the query are hidden.

    Raises:
        ValueError: if the stride is below 1 or the shapes differ.

    Example:
        >>> q = k = torch.zeros(1, 4, 1, 1)
        >>> v = torch.tensor([0.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1, 1)
        >>> strided_attention(q, k, v, stride=2, causal=False).flatten().tolist()
        [1.0, 3.0, 1.0, 3.0]
    """
    if stride < 1:
        raise ValueError(f"strided_attention: stride must be >= 1, got {stride}")
    if not q.shape == k.shape == v.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
        raise ValueError(f"strided_attention: q, k and v must have one shape, got {shapes}")
    length, heads = q.shape[1:3]
    missing = -length % stride
    rows = (length + missing) // stride

    def fold(x: Tensor) -> Tensor:
        x = functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
        return x.reshape(x.shape[0], rows, stride * heads, -1).transpose(1, 2)

    q, k, v = fold(q), fold(k), fold(v)
    if causal or not missing:
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    else:
        # the last residues have one token less, and nobody may see the padding
        full = (stride - missing) * heads
        longer = functional.scaled_dot_product_attention(q[:, :full], k[:, :full], v[:, :full])
        q, k, v = (x[:, full:, : rows - 1] for x in (q, k, v))
        shorter = functional.scaled_dot_product_attention(q, k, v)
        out = torch.cat([longer, functional.pad(shorter, (0, 0, 0, 1))], dim=1)
    return out.transpose(1, 2).reshape(out.shape[0], rows * stride, heads, -1)[:, :length]
