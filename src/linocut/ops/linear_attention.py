r"""Linear attention without softmax, as a mergeable summary.

Katharopoulos, Vyas, Pappas, Fleuret, *Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention*,
ICML 2020 (https://arxiv.org/abs/2006.16236), equations 4 to 6, the form that is not causal:

.. math::
    y_i = \frac{\phi(q_i)^T S}{\phi(q_i)^T z}, \qquad S = \sum_j \phi(k_j) v_j^T, \quad z = \sum_j \phi(k_j)

============= ==================================== =========================
symbol        meaning                              shape
============= ==================================== =========================
``q``, ``k``  queries and keys, already mapped     (batch, length, heads, dim)
``v``         values                               (batch, length, heads, value)
``S``         sum of outer products                (batch, heads, dim, value)
``z``         sum of mapped keys                   (batch, heads, dim)
============= ==================================== =========================

Cost: O(length · dim · value) time, and a summary whose size does not depend on the length. The summary is a sum, so the
summaries of two pieces merge by addition, and any cut of the sequence gives the same answer up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_EPSILON = 1e-6


class Summary(NamedTuple):
    """What the rest of a sequence must know of a piece of it; always float32 or wider."""

    kv: Float[Tensor, "batch heads dim value"]
    z: Float[Tensor, "batch heads dim"]


def elu_plus_one(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, the positive feature map of the paper's equation 7."""
    return torch.nn.functional.elu(x).add_(1)


def summarize(k: Float[Tensor, "batch length heads dim"], v: Float[Tensor, "batch length heads value"]) -> Summary:
    """Sum φ(k) vᵀ and φ(k) over a piece. ``k`` is already mapped and positive.

    The sums are kept in float32 (float64 stays float64): a million tokens do not add up in bfloat16's eight bits.

    Raises:
        ValueError: if the two do not describe the same tokens.
    """
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"summarize: k and v must share (batch, length, heads), got {tuple(k.shape)} and {tuple(v.shape)}"
        )
    wide = torch.promote_types(k.dtype, torch.float32)
    k, v = k.to(wide), v.to(wide)
    return Summary(torch.einsum("bnhd,bnhe->bhde", k, v), k.sum(dim=1))


def merge(a: Summary, b: Summary) -> Summary:
    """The summary of two pieces together; associative and commutative."""
    return Summary(a.kv + b.kv, a.z + b.z)


def read(q: Float[Tensor, "batch length heads dim"], summary: Summary) -> Float[Tensor, "batch length heads value"]:
    """Answer every (mapped, positive) query from a summary; the result has the dtype of ``q``.

    The summary is divided by its mean normaliser first, so that its entries do not grow with the number of tokens and
    survive being rounded to the queries' dtype.
    """
    scale = summary.z.mean(dim=-1, keepdim=True).clamp_min(_EPSILON)[..., None]
    # numerator and denominator in one product: the sum of mapped keys is one more column of values
    columns = (torch.cat([summary.kv, summary.z[..., None]], dim=-1) / scale).to(q.dtype)
    product = torch.einsum("bnhd,bhde->bnhe", q, columns)
    return product[..., :-1] / product[..., -1:].clamp_min(_EPSILON)


def linear_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
) -> Float[Tensor, "batch length heads value"]:
    """Attention over the whole sequence in linear time: ``read(q, summarize(k, v))``.

    Example:
        >>> q = k = torch.ones(1, 3, 1, 2)
        >>> v = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> linear_attention(q, k, v).flatten().tolist()
        [2.0, 2.0, 2.0]
    """
    return read(q, summarize(k, v))


def quadratic_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
) -> Float[Tensor, "batch length heads value"]:
    """The same function from the full attention matrix, equation 4 word by word: the tests' oracle, O(length²)."""
    weights = torch.einsum("bihd,bjhd->bhij", q, k)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.einsum("bhij,bjhe->bihe", weights, v)
