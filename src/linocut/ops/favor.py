r"""FAVOR+: attention whose softmax is estimated by random features, in linear time.

Choromanski et al., *Rethinking Attention with Performers*, ICLR 2021 (https://arxiv.org/abs/2009.14794), equations 3, 4
and Lemma 1: with φ of `linocut.ops.feature_maps` E[φ(q)ᵀφ(k)] = exp(qᵀk), so that

.. math::
    y_i = \frac{\phi(q_i)^T \sum_j \phi(k_j) v_j^T}{\phi(q_i)^T \sum_j \phi(k_j)}

estimates softmax attention; the sums run over all j, or over j ≤ i in the causal form. Where the authors' code adds a
small number to every feature and subtracts a maximum over all keys, the sums here carry the maximum m that they were
taken under, and pieces merge exactly: nothing overflows, nothing is added, and the causal form looks at no later key.

============== ==================================== ==============================
symbol         meaning                              shape
============== ==================================== ==============================
``q``, ``k``   queries and keys, not mapped         (batch, length, heads, dim)
``v``          values                               (batch, length, heads, value)
``projection`` ω, a row a feature (or a pair)       (rows, dim)
``S``          Σ φ(k) vᵀ e^(-m)                     (batch, heads, features, value)
``z``          Σ φ(k) e^(-m)                        (batch, heads, features)
``m``          maximum exponent: of every feature,  (batch, heads, features)
               in the causal form of all            (batch, heads, 1)
============== ==================================== ==============================

Cost: O(length · features · (dim + value)) time; the state's size does not depend on the length.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import feature_maps, kernel, set_attention
from linocut.ops.arguments import floats
from linocut.ops.gated_linear_attention import gated_linear_attention

Summary = set_attention.StableSummary
merge = set_attention.merge

_TINY = 1e-30
_PIECE = 1024  # tokens whose features the causal form holds at a time when no gradient is asked for


class Features(NamedTuple):
    """Random features, and the scale s of the softmax exp(s qᵀk) that they estimate.

    Attributes:
        projection: the ω, from :func:`linocut.ops.feature_maps.draw_projection`.
        kind: positive, hyperbolic or trigonometric.
        scale: s; None for 1 / √dim.
    """

    projection: Float[Tensor, "rows dim"]
    kind: str = "positive"
    scale: float | None = None

    @property
    def number(self) -> int:
        """Features of a token."""
        return self.projection.shape[0] * (1 if self.kind == "positive" else 2)

    @property
    def norm(self) -> float:
        """What |x|² is multiplied by in the exponent."""
        return (self.projection.shape[1] ** -0.5 if self.scale is None else self.scale) / 2

    def rows(self, dtype: torch.dtype) -> Float[Tensor, "features dim"]:
        """The ω times √s; for hyperbolic features also their negatives."""
        rows = self.projection.to(dtype) * math.sqrt(2 * self.norm)
        return torch.cat([rows, -rows]) if self.kind == "hyperbolic" else rows


def quadratic_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    features: Features,
    *,
    causal: bool = False,
) -> Float[Tensor, "batch length heads value"]:
    """Equation 3 from the full matrix of estimated weights, without a stabiliser: the oracle of the tests."""
    root = math.sqrt(2 * features.norm)
    mapped = [feature_maps.random_features(features.kind, root * x, features.projection) for x in (q, k)]
    weights = torch.einsum("bihd,bjhd->bhij", *mapped)
    if causal:
        weights = weights.tril()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.einsum("bhij,bjhe->bihe", weights, v)


def _exponents(x: Tensor, features: Features) -> Tensor:
    """Log φ of positive and hyperbolic features, up to a constant."""
    return x @ features.rows(x.dtype).T - features.norm * x.square().sum(dim=-1, keepdim=True)


def _waves(x: Tensor, features: Features) -> Tensor:
    """Sin and cos of the trigonometric features."""
    u = x @ features.rows(x.dtype).T
    return torch.cat([u.sin(), u.cos()], dim=-1)


def _check(features: Features, q: Tensor) -> None:
    feature_maps.check_random(features.kind)
    if features.projection.dim() != 2 or features.projection.shape[1] != q.shape[-1]:
        rows = tuple(features.projection.shape)
        raise ValueError(f"favor: projection must be (rows, {q.shape[-1]}) for queries {tuple(q.shape)}, got {rows}")


def _is_native(features: Features, *tensors: Tensor) -> bool:
    same = len({x.dtype for x in tensors}) == 1
    return same and features.kind != "trigonometric" and kernel.usable(*tensors, features.projection)


@floats
def summarize(
    k: Float[Tensor, "batch length heads dim"], v: Float[Tensor, "batch length heads value"], features: Features
) -> Summary:
    """Sums of the features of a piece, in float32 (float64 stays float64).

    Raises:
        ValueError: if the shapes do not fit together, or for an unknown kind of features.
    """
    set_attention.check_tokens("summarize", k, v)
    _check(features, k)
    if _is_native(features, k, v):
        rows = features.rows(torch.float32)
        return Summary(*set_attention.summarize(k, v, set_attention.MAPS["random"], rows, features.norm))
    wide = torch.promote_types(k.dtype, torch.float32)
    k, v = k.to(wide), v.to(wide)
    if features.kind != "trigonometric":
        return set_attention.stable_sums(_exponents(k, features), v)
    waves, size = _waves(k, features), features.norm * k.square().sum(dim=-1, keepdim=True)
    m = set_attention.maximum(size)
    f = waves * (size - m[:, None]).exp()
    return Summary(torch.einsum("bnhf,bnhe->bhfe", f, v), f.sum(dim=1), m.expand(-1, -1, features.number))


@floats
def read(
    q: Float[Tensor, "batch length heads dim"], summary: Summary, features: Features
) -> Float[Tensor, "batch length heads value"]:
    """Answer every query from a summary of at least one token; the result has the dtype of ``q``.

    Raises:
        ValueError: if the queries and the parts of the summary do not fit together, or for an unknown kind of features.
    """
    _check(features, q)
    set_attention.check_reading("read", q, features.number, summary.kv, z=summary.z, m=summary.m)
    kv, z, m = summary.kv, summary.z, summary.m.detach()
    if _is_native(features, q) and set_attention.readable(q, kv, z, m):
        rows = features.rows(torch.float32)
        y: Tensor = set_attention.read(q, kv, z, m, set_attention.MAPS["random"], rows, features.norm)
        return y
    wide = functools.reduce(torch.promote_types, (kv.dtype, z.dtype, m.dtype), q.dtype)
    if features.kind == "trigonometric":
        f = _waves(q.to(wide), features)
    else:
        u = _exponents(q.to(wide), features) + m[:, None]
        f = (u - u.detach().amax(dim=-1, keepdim=True)).exp()
    return (
        torch.einsum("bnhf,bhfe->bnhe", f, kv.to(wide)) / torch.einsum("bnhf,bhf->bnh", f, z.to(wide))[..., None]
    ).to(q.dtype)


@floats
def favor_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    features: Features,
) -> Float[Tensor, "batch length heads value"]:
    """Estimated softmax attention over the whole sequence: ``read(q, summarize(k, v, features), features)``.

    Example:
        >>> features = Features(feature_maps.draw_projection(8, 2).float())
        >>> q = k = torch.zeros(1, 3, 1, 2)
        >>> v = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> [round(y, 4) for y in favor_attention(q, k, v, features).flatten().tolist()]
        [2.0, 2.0, 2.0]
    """
    return read(q, summarize(k, v, features), features)


def first_state(v: Float[Tensor, "batch length heads value"], features: Features) -> Summary:
    """The causal form's state before the first token."""
    batch, _, heads, value = v.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    z = torch.zeros(batch, heads, features.number, dtype=wide, device=v.device)
    return Summary(z.new_zeros(batch, heads, features.number, value), z, z.new_full((batch, heads, 1), -torch.inf))


def _mapped(x: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    """Features under a maximum of each token, and the maxima (batch, length, heads)."""
    if _is_native(features, x):
        pair: tuple[Tensor, Tensor] = set_attention.random_features(x, features.rows(torch.float32), features.norm)
        return pair
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if features.kind == "trigonometric":
        return _waves(x, features), features.norm * x.square().sum(dim=-1)
    u = _exponents(x, features)
    top = u.detach().amax(dim=-1)
    return (u - top[..., None]).exp(), top


def _causal_piece(q: Tensor, k: Tensor, v: Tensor, features: Features, state: Summary) -> tuple[Tensor, Summary]:
    """One piece: linear attention whose state decays wherever the running maximum rises."""
    f_q, _ = _mapped(q, features)
    f_k, top = _mapped(k, features)
    top = top.to(state.m.dtype)
    before = state.m[:, None, :, 0].detach()
    running = torch.cat([before, top.detach()], dim=1).cummax(dim=1).values
    m = running[:, 1:]
    # before the first token the maximum is -inf and the state zero: no decay is needed
    decay = torch.where(running[:, :-1].isneginf(), 0, running[:, :-1] - m)
    # the key's own maximum goes with its value and with the one that counts it
    columns = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1) * (top - m).exp()[..., None].to(v.dtype)
    sums = torch.cat([state.kv, state.z[..., None]], dim=-1)
    y, sums = gated_linear_attention(f_q, f_k, columns, log_decay=decay, state=sums)
    normaliser = y[..., -1:]
    if features.kind != "trigonometric":
        normaliser = normaliser.clamp_min(_TINY)
    return (y[..., :-1] / normaliser).to(v.dtype), Summary(sums[..., :-1], sums[..., -1], running[:, -1, :, None])


@floats
def causal_favor_attention(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    features: Features,
    *,
    state: Summary | None = None,
) -> tuple[Float[Tensor, "batch length heads value"], Summary]:
    """Estimated softmax attention of every token to those up to itself.

    Args:
        q: queries.
        k: keys.
        v: values.
        features: the random features.
        state: sums of what came before, in float32 (float64 for float64 inputs); None for nothing.

    Returns:
        The outputs, in the dtype of ``v``, and the sums up to the last token.

    Raises:
        ValueError: if the shapes do not fit together, or for an unknown kind of features.

    Example:
        >>> features = Features(feature_maps.draw_projection(8, 2).float())
        >>> zeros, v = torch.zeros(1, 3, 1, 2), torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
        >>> y, _ = causal_favor_attention(zeros, zeros, v, features)
        >>> [round(y, 4) for y in y.flatten().tolist()]
        [0.0, 0.5, 2.0]
    """
    set_attention.check_tokens("causal_favor_attention", k, v)
    set_attention.check_tokens("causal_favor_attention", q, v)
    _check(features, q)
    if state is None:
        state = first_state(v, features)
    if q.shape[1] <= _PIECE or (torch.is_grad_enabled() and any(_needs_grad(q, k, v, *state))):
        return _causal_piece(q, k, v, features, state)
    outputs = []
    for first in range(0, q.shape[1], _PIECE):
        piece = slice(first, first + _PIECE)
        y, state = _causal_piece(q[:, piece], k[:, piece], v[:, piece], features, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _needs_grad(*tensors: Tensor) -> Any:
    return (x.requires_grad for x in tensors)
