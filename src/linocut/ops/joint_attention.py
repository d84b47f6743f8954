r"""Softmax attention in which every query sees the keys of several sets, none of which is all keys.

Sparse patterns (a window, every k-th token, a few tokens for all, random blocks) are unions of sets that are regular
when taken alone. Each is a :class:`Piece`: an arrangement in which groups of queries share their keys, so that it is
dense attention over small groups. The softmax runs over the union, as if the whole row had been there:

.. math::
    y_i = \sum_p e^{l_{p,i} - l_i} y_{p,i}, \qquad l_i = \log \sum_p e^{l_{p,i}}

with :math:`y_{p,i}` and :math:`l_{p,i}` the answer and the logarithm of the normaliser of piece p alone (Milakov and
Gimelshein, *Online normalizer calculation for softmax*, 2018, https://arxiv.org/abs/1805.02867). The gradient of piece
p is that of attention alone with the answer and the normaliser of the union in place of its own, since
:math:`\partial s_{ij} = a_{ij} (\partial y_i \cdot v_j - \partial y_i \cdot y_i)` knows a piece only by its weights
:math:`a_{ij} = e^{s_{ij} - l_i}` (Dao et al., *FlashAttention*, 2022, https://arxiv.org/abs/2205.14135, appendix B).

============= ============================================= ==========================
symbol        meaning                                       shape
============= ============================================= ==========================
``q``         queries of one sequence                       (length, heads, dim)
``k``, ``v``  a piece's keys and values                     (groups, heads, keys, dim)
============= ============================================= ==========================

Cost: O(Σ length · keys · dim) time over the pieces; on a CPU memory for keys and answers, elsewhere for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from linocut.ops.arguments import floats


def dense_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch keys heads dim"],
    v: Float[Tensor, "batch keys heads value"],
    visible: Bool[Tensor, "length keys"] | Bool[Tensor, "heads length keys"],
) -> Float[Tensor, "batch length heads value"]:
    """Attention with the whole mask, the oracle of the tests; a query that sees no key gets zero."""
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1).masked_fill(~visible, 0)
    return torch.einsum("bhij,bjhe->bihe", weights, v)


class Blocks(NamedTuple):
    """Neighbours form a group: token i is number i % size of group i // size."""

    size: int

    def fold(self, x: Tensor) -> Tensor:
        """(length, heads, dim) to (groups, heads, size, dim), the last group padded with zeros."""
        missing = -x.shape[0] % self.size
        x = functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
        return x.reshape(-1, self.size, *x.shape[1:]).transpose(1, 2)

    def unfold(self, x: Tensor, length: int) -> Tensor:
        """Back again, without the padding."""
        return x.transpose(1, 2).flatten(0, 1)[:length]


class Classes(NamedTuple):
    """Tokens a multiple of the stride apart form a group: token i is number i // stride of group i % stride."""

    stride: int

    def fold(self, x: Tensor) -> Tensor:
        """(length, heads, dim) to (groups, heads, tokens, dim), the last token of a group padded with zeros."""
        missing = -x.shape[0] % self.stride
        x = functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
        return x.reshape(-1, self.stride, *x.shape[1:]).permute(1, 2, 0, 3)

    def unfold(self, x: Tensor, length: int) -> Tensor:
        """Back again, without the padding."""
        return x.permute(2, 0, 1, 3).flatten(0, 1)[:length]


class Span(NamedTuple):
    """Adjoining groups whose queries see the first `keys` keys of their group, but for those the mask hides.

    Attributes:
        first: the first group.
        last: the group after the last.
        keys: how many keys they see, counted from the first.
        visible: what they see of those, broadcasting against (groups, heads, size, keys); None for all.
    """

    first: int
    last: int
    keys: int
    visible: Tensor | None = None


@dataclass(frozen=True)
class Piece:
    """A set of keys for each group of queries. Groups that no span names see nothing of the piece.

    Attributes:
        order: how queries form groups.
        k: keys, (groups, heads, keys, dim), or (1, heads, keys, dim) if all groups share them.
        v: values, in the same shape.
        spans: what the groups see, first groups first.
    """

    order: Blocks | Classes
    k: Tensor
    v: Tensor
    spans: tuple[Span, ...]


def window(
    k: Float[Tensor, "length heads dim"],
    v: Float[Tensor, "length heads dim"],
    *,
    behind: int,
    ahead: int,
    hidden: Sequence[int] = (),
    size: int = 64,
) -> Piece:
    """The piece in which token i sees the tokens from i - behind to i + ahead.

    Args:
        k: keys.
        v: values.
        behind: tokens seen before the query, >= 0.
        ahead: tokens seen after it, >= 0.
        hidden: positions of keys that the piece leaves out.
        size: queries of a group; the group works on `size + behind + ahead` keys.
    """
    length = k.shape[0]
    groups, keys = -(-length // size), behind + size + ahead
    margin = (0, 0, 0, 0, behind, groups * size - length + ahead)
    k, v = (functional.pad(x, margin).unfold(0, keys, size).transpose(-1, -2) for x in (k, v))
    column = torch.arange(keys, device=k.device)
    lag = column - torch.arange(size, device=k.device)[:, None]
    seen = (lag >= 0) & (lag <= behind + ahead)
    whole = torch.ones(length, dtype=torch.bool, device=k.device)
    if hidden:
        whole[list(hidden)] = False
    whole = functional.pad(whole, margin[-2:])
    holes = {group for at in hidden for group in range(max(0, (at - ahead) // size), (at + behind) // size + 1)}

    def is_plain(group: int) -> bool:
        return group * size >= behind and (group + 1) * size + ahead <= length and group not in holes

    spans, first = [], 0
    for last in range(1, groups + 1):
        if last < groups and is_plain(last) == is_plain(first):
            continue
        visible = seen
        if not is_plain(first):
            position = torch.arange(first, last, device=k.device)[:, None] * size + column
            visible = (seen & whole[position][:, None])[:, None]
        spans.append(Span(first, last, keys, visible))
        first = last
    return Piece(Blocks(size), k, v, tuple(spans))


def _bias(span: Span, like: Tensor) -> Tensor | None:
    """What to add to the scores of a span: minus infinity where a key is hidden."""
    if span.visible is None:
        return None
    return torch.zeros(span.visible.shape, dtype=like.dtype, device=like.device).masked_fill(~span.visible, -torch.inf)


def _of_groups(x: Tensor, span: Span) -> Tensor:
    """The keys or values of a span's groups."""
    x = x[:, :, : span.keys]
    return x.expand(span.last - span.first, -1, -1, -1) if x.shape[0] == 1 else x[span.first : span.last]


def _materialised(q: Tensor, pieces: Sequence[Piece]) -> Tensor:
    """The union's softmax with all its weights in memory, for any device and any derivative."""
    scores = []
    for piece in pieces:
        queries = piece.order.fold(q * q.shape[-1] ** -0.5)
        groups, heads, size, _ = queries.shape
        rows = queries.new_full((groups, heads, size, piece.k.shape[2]), -torch.inf)
        parts, at = [], 0
        for span in piece.spans:
            bias = _bias(span, q)
            found = queries[span.first : span.last] @ _of_groups(piece.k, span).transpose(-1, -2)
            found = functional.pad(
                found if bias is None else found + bias, (0, rows.shape[-1] - span.keys), value=-torch.inf
            )
            parts += [rows[at : span.first], found]
            at = span.last
        scores.append(piece.order.unfold(torch.cat([*parts, rows[at:]]), q.shape[0]))
    joined = torch.cat(scores, dim=-1)
    blind = (joined == -torch.inf).all(dim=-1, keepdim=True)
    weights = joined.masked_fill(blind, 0).softmax(dim=-1).masked_fill(joined == -torch.inf, 0)
    answers = []
    for piece, part in zip(pieces, torch.split(weights, [score.shape[-1] for score in scores], dim=-1), strict=True):
        answers.append(piece.order.unfold(piece.order.fold(part) @ piece.v, q.shape[0]))
    return torch.stack(answers).sum(dim=0)


class _Layout(NamedTuple):
    """A piece without its tensors, whose gradients autograd wants."""

    order: Blocks | Classes
    spans: tuple[Span, ...]
    biases: tuple[Tensor | None, ...]


def _alone(q: Tensor, k: Tensor, v: Tensor, layout: _Layout) -> tuple[Tensor, Tensor]:
    """A piece's answers, (length, heads, dim), and logarithms of normalisers, (length, heads)."""
    queries = layout.order.fold(q)
    wide = torch.promote_types(q.dtype, torch.float32)
    out, norm = torch.empty_like(queries), torch.empty(queries.shape[:-1], dtype=wide, device=q.device)
    at = 0
    for span, bias in zip(layout.spans, layout.biases, strict=True):
        inside = slice(span.first, span.last)
        answer, found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            queries[inside], _of_groups(k, span), _of_groups(v, span), attn_mask=bias
        )
        if span.visible is not None:  # torch gives 0 for a row that sees nothing
            found = found.masked_fill(~span.visible.any(dim=-1), -torch.inf)
        if answer.shape == out.shape:
            out, norm = answer, found
        else:
            out[inside], norm[inside] = answer, found
        out[at : span.first], norm[at : span.first] = 0, -torch.inf
        at = span.last
    out[at:], norm[at:] = 0, -torch.inf
    unfold, length = layout.order.unfold, q.shape[0]
    return unfold(out, length), unfold(norm[..., None], length)[..., 0]


class _Joint(torch.autograd.Function):
    """torch's fused CPU attention piece by piece."""

    @staticmethod
    def forward(ctx: Any, layouts: tuple[_Layout, ...], q: Tensor, *kv: Tensor) -> Tensor:
        found = [_alone(q, k, v, layout) for k, v, layout in zip(kv[::2], kv[1::2], layouts, strict=True)]
        norms = [norm for _, norm in found]
        norm = torch.stack(norms).logsumexp(dim=0) if len(norms) > 1 else norms[0]
        norm = norm.masked_fill(norm == -torch.inf, 0)
        out = found[0][0]
        if len(found) > 1:
            weights = [(each - norm).exp_()[..., None] for each in norms]
            total = out * weights[0]
            for (answer, _), weight in zip(found[1:], weights[1:], strict=True):
                total.addcmul_(answer.to(total.dtype), weight)
            out = total.to(q.dtype)
        ctx.layouts = layouts
        ctx.save_for_backward(q, out, norm, *kv)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, out, norm, *kv = ctx.saved_tensors
        grad_q, grads = torch.zeros_like(q, memory_format=torch.contiguous_format), []
        for k, v, layout in zip(kv[::2], kv[1::2], ctx.layouts, strict=True):
            fold = layout.order.fold
            queries, answers, outer, norms = fold(q), fold(out), fold(grad), fold(norm[..., None])[..., 0]
            grad_queries = torch.zeros_like(queries)
            grad_k, grad_v = (x.new_zeros(x.shape) for x in (k, v))
            for span, bias in zip(layout.spans, layout.biases, strict=True):
                inside = slice(span.first, span.last)
                grad_queries[inside], *inner = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    outer[inside],
                    queries[inside],
                    _of_groups(k, span),
                    _of_groups(v, span),
                    answers[inside],
                    norms[inside],
                    0.0,
                    False,  # noqa: FBT003  # the operator takes it by position
                    attn_mask=bias,
                )
                for total, part in zip((grad_k, grad_v), inner, strict=True):
                    shared = total.shape[0] == 1
                    target = total[:, :, : span.keys] if shared else total[inside, :, : span.keys]
                    target += part.sum(dim=0, keepdim=True) if shared else part
            grad_q += layout.order.unfold(grad_queries, q.shape[0])
            grads += [grad_k, grad_v]
        return None, grad_q, *grads


@floats
def joint_attention(q: Float[Tensor, "length heads dim"], pieces: Sequence[Piece]) -> Float[Tensor, "length heads dim"]:
    """One softmax over the keys of all pieces; no key may be in two of them for one query.

    Args:
        q: queries of one sequence.
        pieces: at least one; values as wide as keys.

    Returns:
        The answers; zero for a query that no piece gives a key.

    Example:
        >>> q = k = torch.zeros(4, 1, 1)
        >>> v = torch.arange(4.0).reshape(4, 1, 1)
        >>> joint_attention(q, [window(k, v, behind=1, ahead=0)]).flatten().tolist()
        [0.0, 0.5, 1.5, 2.5]
    """
    kept = []
    for piece in pieces:
        spans = tuple(span for span in piece.spans if span.keys and span.first < span.last)
        kept += [Piece(piece.order, piece.k, piece.v, spans)] if spans else []
    if not kept or q.shape[0] == 0:
        return torch.zeros_like(q) * q
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return _materialised(q, kept)
    layouts = tuple(_Layout(p.order, p.spans, tuple(_bias(span, q) for span in p.spans)) for p in kept)
    tensors = [x for piece in kept for x in (piece.k, piece.v)]
    out: Tensor = _Joint.apply(layouts, q, *tensors)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return out


def keep_nan_apart(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads dim"],
) -> Float[Tensor, "batch length heads dim"]:
    """Run causal attention so that a NaN or infinity in a token's key or value reaches only those who see the token.

    A hidden key has weight 0, and 0 times NaN is NaN: without this a block's NaN would reach its own past. While
    `torch.compile` traces, the inputs are taken to be finite.
    """
    if torch.compiler.is_compiling() or bool((k.detach().sum() + v.detach().sum()).isfinite()):
        return attend(q, k, v)
    bad = ~(k.isfinite().all(dim=-1) & v.isfinite().all(dim=-1))[..., None]
    # all scores equal: the answer is the share of bad tokens among those seen
    share = attend(torch.zeros_like(q), torch.zeros_like(k), bad.to(torch.float32).expand_as(v).to(v.dtype))
    return attend(q, k.masked_fill(bad, 0), v.masked_fill(bad, 0)).masked_fill(share > 0, torch.nan)
