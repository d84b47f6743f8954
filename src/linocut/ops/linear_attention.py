r"""Linear attention without softmax, as a mergeable summary.

Katharopoulos, Vyas, Pappas, Fleuret, *Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention*,
ICML 2020 (https://arxiv.org/abs/2006.16236), equations 4 to 6, the form that is not causal:

.. math::
    y_i = \frac{\phi(q_i)^T S}{\phi(q_i)^T z}, \qquad S = \sum_j \phi(k_j) v_j^T, \quad z = \sum_j \phi(k_j)

and equations 16 to 20, the causal form, where the sums run over j ≤ i only. That is a recurrence:
S_i = S_{i-1} + φ(k_i) v_iᵀ, z_i = z_{i-1} + φ(k_i).

============= ==================================== =========================
symbol        meaning                              shape
============= ==================================== =========================
``q``, ``k``  queries and keys                     (batch, length, heads, dim)
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

from linocut.ops import chunk_kernel, kernel, set_attention
from linocut.ops import gated_linear_attention as gla
from linocut.ops.arguments import floats
from linocut.ops.feature_maps import elu_plus_one as elu_plus_one
from linocut.ops.feature_maps import mapping

_EPSILON = 1e-6


class Summary(NamedTuple):
    """What the rest of a sequence must know of a piece of it; always float32 or wider."""

    kv: Float[Tensor, "batch heads dim value"]
    z: Float[Tensor, "batch heads dim"]


@floats
def summarize(
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    *,
    feature_map: str = "identity",
) -> Summary:
    """Sum φ(k) vᵀ and φ(k) over a piece.

    The sums are kept in float32 (float64 stays float64): a million tokens do not add up in bfloat16's eight bits.

    Args:
        k: keys; with the identity, mapped already and positive.
        v: values.
        feature_map: φ.

    Raises:
        ValueError: if the two do not describe the same tokens, or for an unknown feature map.
    """
    set_attention.check_tokens("summarize", k, v)
    phi = mapping(feature_map)
    if kernel.usable(k, v) and k.dtype == v.dtype:
        kv, z, _ = set_attention.summarize(k, v, set_attention.MAPS[feature_map], None, 0.0)
        return Summary(kv, z)
    wide = torch.promote_types(k.dtype, torch.float32)
    k, v = phi(k.to(wide)), v.to(wide)
    return Summary(torch.einsum("bnhd,bnhe->bhde", k, v), k.sum(dim=1))


def merge(a: Summary, b: Summary) -> Summary:
    """The summary of two pieces together; associative and commutative."""
    return Summary(a.kv + b.kv, a.z + b.z)


@floats
def read(
    q: Float[Tensor, "batch length heads dim"],
    summary: Summary,
    *,
    feature_map: str = "identity",
    normalize: bool = True,
) -> Float[Tensor, "batch length heads value"]:
    """Answer every query from a summary; the result has the dtype of ``q``.

    The summary is divided by its mean normaliser first, so that its entries do not grow with the number of tokens and
    survive being rounded to the queries' dtype.

    Args:
        q: queries; with the identity, mapped already and, to be normalised, positive.
        summary: of all the tokens.
        feature_map: φ.
        normalize: whether to divide by φ(q)ᵀ z.

    Raises:
        ValueError: if the queries and the parts of the summary do not fit together, or for an unknown feature map.
    """
    set_attention.check_reading("read", q, q.shape[-1], summary.kv, z=summary.z)
    phi = mapping(feature_map)
    if set_attention.readable(q, *summary):
        z = summary.z if normalize else None
        y: Tensor = set_attention.read(q, summary.kv, z, None, set_attention.MAPS[feature_map], None, 0.0)
        return y
    mapped = phi(q)
    if not normalize:
        return torch.einsum("bnhd,bhde->bnhe", mapped.to(summary.kv.dtype), summary.kv).to(q.dtype)
    scale = summary.z.mean(dim=-1, keepdim=True).clamp_min(_EPSILON)[..., None]
    # numerator and denominator in one product: the sum of mapped keys is one more column of values
    columns = (torch.cat([summary.kv, summary.z[..., None]], dim=-1) / scale).to(q.dtype)
    product = torch.einsum("bnhd,bhde->bnhe", mapped, columns)
    return product[..., :-1] / product[..., -1:].clamp_min(_EPSILON)


@floats
def linear_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    *,
    feature_map: str = "identity",
    normalize: bool = True,
) -> Float[Tensor, "batch length heads value"]:
    """Attention over the whole sequence in linear time: ``read(q, summarize(k, v))``.

    Example:
        >>> q = k = torch.ones(1, 3, 1, 2)
        >>> v = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> linear_attention(q, k, v).flatten().tolist()
        [2.0, 2.0, 2.0]
    """
    summary = summarize(k, v, feature_map=feature_map)
    return read(q, summary, feature_map=feature_map, normalize=normalize)


def quadratic_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
) -> Float[Tensor, "batch length heads value"]:
    """The same function from the full attention matrix, equation 4 word by word: the tests' oracle, O(length²)."""
    weights = torch.einsum("bihd,bjhd->bhij", q, k)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.einsum("bhij,bjhe->bihe", weights, v)


def causal_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    kv: Float[Tensor, "batch heads dim value"],
    z: Float[Tensor, "batch heads dim"],
) -> tuple[
    Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"], Float[Tensor, "batch heads dim"]
]:
    """Equations 16 to 20 as a loop over mapped q and k: the oracle of the tests."""
    outputs = []
    for q_t, k_t, v_t in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        kv, z = kv + k_t[..., :, None] * v_t[..., None, :], z + k_t
        norm = torch.einsum("bhd,bhd->bh", q_t, z).clamp_min(_EPSILON)
        outputs.append(torch.einsum("bhd,bhde->bhe", q_t, kv) / norm[..., None])
    return (torch.stack(outputs, dim=1) if outputs else v), kv, z


def _causal_chunked(
    q: Tensor, k: Tensor, v: Tensor, normalize: bool, state: Summary | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The same in chunks; the normaliser is one more column of values, all ones."""
    heads, dim = k.shape[2:]
    if state is None:
        state = Summary(v.new_zeros(v.shape[0], heads, dim, v.shape[3]), k.new_zeros(k.shape[0], heads, dim))
    if not normalize:
        y, kv = gla.chunked(q, k, v, None, state.kv)
        return y, kv, state.z + k.sum(dim=1)
    columns = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    y, last = gla.chunked(q, k, columns, None, torch.cat([state.kv, state.z[..., None]], dim=-1))
    return y[..., :-1] / y[..., -1:].clamp_min(_EPSILON), last[..., :-1], last[..., -1]


@floats
def causal_linear_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    *,
    feature_map: str = "identity",
    normalize: bool = True,
    state: Summary | None = None,
) -> tuple[Float[Tensor, "batch length heads value"], Summary]:
    """Attention of every token to those up to itself: y_i = φ(q_i)ᵀ S_i / φ(q_i)ᵀ z_i, in linear time.

    Args:
        q: queries.
        k: keys.
        v: values.
        feature_map: φ, applied to q and k: identity (they are mapped already), elu (elu + 1), relu or exp.
        normalize: whether to divide; without, `z` of the summary is carried on all the same.
        state: summary of what came before, in float32 (float64 for float64 inputs); None for nothing.

    Returns:
        The outputs, in the dtype of ``v``, and the summary of everything up to the last token.

    Raises:
        ValueError: if the shapes do not fit together, or for an unknown feature map.

    Example:
        >>> ones, v = torch.ones(1, 3, 1, 2), torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> y, summary = causal_linear_attention(ones, ones, v)
        >>> y.flatten().tolist()
        [0.0, 0.5, 2.0]
    """
    gla.check_shapes("causal_linear_attention", q, k, v, None if state is None else state.kv)
    phi = mapping(feature_map)
    if q.shape[2] != v.shape[2]:
        raise ValueError(f"causal_linear_attention: q, k and v must share heads, got {q.shape[2]} and {v.shape[2]}")
    if state is not None and state.z.shape != state.kv.shape[:3]:
        expected = tuple(state.kv.shape[:3])
        raise ValueError(f"causal_linear_attention: z of state must be {expected}, got {tuple(state.z.shape)}")
    wide = gla.widest(q, k, v, *(state or ()))
    if chunk_kernel.usable(q, k, v, *(state or ())):
        y, kv, z = chunk_kernel.chunked_attention(
            q,
            k,
            v,
            state=None if state is None else state.kv,
            norm=state.z if normalize and state is not None else None,
            feature_map=feature_map,
            normalize=normalize,
        )
        if not normalize:
            z = phi(k.float()).sum(dim=1)
            z = z if state is None else state.z + z
        return y, Summary(kv, z)
    y, kv, z = _causal_chunked(phi(q.to(wide)), phi(k.to(wide)), v.to(wide), normalize, state)
    return y.to(v.dtype), Summary(kv, z)
