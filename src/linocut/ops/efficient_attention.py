r"""Efficient Attention: a softmax of the queries over channels and one of the keys over positions.

Shen, Zhang, Zhao, Yi, Li, *Efficient Attention: Attention with Linear Complexities*, WACV 2021
(https://arxiv.org/abs/1812.01243), equation 4 with the softmax of section 3.2:

.. math::
    Y = \rho_q(Q) \left(\rho_k(K)^T V\right), \qquad
    \rho_q = \mathrm{softmax} \text{ of every row}, \quad \rho_k = \mathrm{softmax} \text{ of every column}

The softmax over positions needs all positions; what a piece tells the rest is sums of exponentials under the maximum
it has seen, (Σ e^(k - m) vᵀ, Σ e^(k - m), m), which merge by going to the larger maximum. A causal form is absent
from the paper.

============= ==================================== =========================
symbol        meaning                              shape
============= ==================================== =========================
``q``, ``k``  queries and keys                     (batch, length, heads, dim)
``v``         values                               (batch, length, heads, value)
``m``         maximum of the keys, by channel      (batch, heads, dim)
============= ==================================== =========================

Cost: O(length · dim · value) time; the summary's size does not depend on the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import kernel, set_attention
from linocut.ops.arguments import floats

Summary = set_attention.StableSummary
merge = set_attention.merge

_MAP = set_attention.MAPS["stable_exp"]


def quadratic_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
) -> Float[Tensor, "batch length heads value"]:
    """The same function from the full attention matrix, as the paper's figure 1 compares them: the tests' oracle."""
    weights = torch.einsum("bihd,bjhd->bhij", q.softmax(dim=-1), k.softmax(dim=1))
    return torch.einsum("bhij,bjhe->bihe", weights, v)


@floats
def summarize(k: Float[Tensor, "batch length heads dim"], v: Float[Tensor, "batch length heads value"]) -> Summary:
    """Sums of exponentials of a piece, in float32 (float64 stays float64).

    Raises:
        ValueError: if the two do not describe the same tokens.
    """
    set_attention.check_tokens("summarize", k, v)
    if kernel.usable(k, v) and k.dtype == v.dtype:
        kv, z, m = set_attention.summarize(k, v, _MAP, None, 0.0)
        return Summary(kv, z, m.detach())
    wide = torch.promote_types(k.dtype, torch.float32)
    return set_attention.stable_sums(k.to(wide), v.to(wide))


@floats
def read(q: Float[Tensor, "batch length heads dim"], summary: Summary) -> Float[Tensor, "batch length heads value"]:
    """Answer every query from a summary of at least one token; the result has the dtype of ``q``.

    Raises:
        ValueError: if the queries and the parts of the summary do not fit together.
    """
    set_attention.check_reading("read", q, q.shape[-1], summary.kv, z=summary.z, m=summary.m)
    kv = summary.kv / summary.z[..., None]
    if set_attention.readable(q, kv):
        y: Tensor = set_attention.read(q, kv, kv.new_ones(kv.shape[:3]), None, _MAP, None, 0.0)
        return y
    return torch.einsum("bnhd,bhde->bnhe", q.to(kv.dtype).softmax(dim=-1), kv).to(q.dtype)


@floats
def efficient_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
) -> Float[Tensor, "batch length heads value"]:
    """Efficient Attention over the whole sequence: ``read(q, summarize(k, v))``.

    Example:
        >>> q = k = torch.zeros(1, 3, 1, 2)
        >>> v = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> efficient_attention(q, k, v).flatten().tolist()
        [2.0, 2.0, 2.0]
    """
    return read(q, summarize(k, v))
