"""The Sparse Transformer's patterns (Child et al., *Generating Long Sequences with Sparse Transformers*, 2019).

The paper replaces the causal row of n keys by two factors of about √n keys, so that any token reaches any earlier one
in two hops (section 4.3, with the stride l and c summary positions):

- ``strided``: the l tokens behind and oneself; and every l-th token behind.
- ``fixed``: one's own block of l tokens; and the last c tokens of every block.

Its section 4.4 names three ways to use them: ``split`` gives half of the heads each factor, ``merged`` gives every head
the union, and a network that interleaves takes ``first`` in one layer and ``second`` in the next. With l = √n the cost
is n √n; for one stride it grows as n², a stride-th of dense attention. The paper's form is causal, and so is this one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, register
from linocut.ops.joint_attention import Blocks, Classes, Piece, Span, joint_attention, window

_PATTERNS = ("strided", "fixed")
_COMBINATIONS = ("split", "merged", "first", "second")


def every_stride(k: Tensor, v: Tensor, *, stride: int, nearest: int) -> Piece:
    """The piece in which token i sees i - nearest · stride, i - (nearest + 1) · stride and so on."""
    order = Classes(stride)
    k, v = order.fold(k), order.fold(v)
    rows = k.shape[2]
    visible = torch.ones(rows, rows, dtype=torch.bool, device=k.device).tril(-nearest)
    return Piece(order, k, v, (Span(0, min(stride, k.shape[0]), rows, visible),))


def own_block(k: Tensor, v: Tensor, *, stride: int, keep: int) -> Piece:
    """The piece in which token i sees the last `keep` tokens of its block of `stride`, up to itself."""
    order = Blocks(stride)
    k, v = (order.fold(x)[:, :, stride - keep :] for x in (k, v))
    visible = torch.ones(stride, stride, dtype=torch.bool, device=k.device).tril()[:, stride - keep :]
    return Piece(order, k, v, (Span(0, k.shape[0], keep, visible),))


def summaries(k: Tensor, v: Tensor, *, stride: int, keep: int) -> Piece:
    """The piece in which token i sees the last `keep` tokens of all blocks of `stride` before its own."""
    order = Blocks(stride)
    groups = -(-k.shape[0] // stride)
    k, v = (order.fold(x)[:, :, stride - keep :].transpose(0, 1).flatten(1, 2)[None] for x in (k, v))
    return Piece(order, k, v, tuple(Span(group, group + 1, group * keep) for group in range(1, groups)))


@register(
    Info(
        name="sparse_transformer",
        paper="Child et al., Generating Long Sequences with Sparse Transformers, 2019",
        url="https://arxiv.org/abs/1904.10509",
        causal=True,
        cost="n (stride + n / stride) d",
        state="none",
    )
)
class SparseTransformer(Attention):
    """Causal attention through two sparse factors.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        pattern: "strided" for data with a period, such as the rows of an image, or "fixed".
        stride: l, the window or block, >= 1; about the root of the length, or the period.
        summary: c, tokens of each block that all later ones see ("fixed" only), 1 to `stride`.
        combine: "split" heads over the factors, the first factor for the first half rounded down; "merged"; or the
            "first" or the "second" factor alone.

    A token before the first summary sees nothing through the second factor of "fixed"; those heads answer zero.

    Raises:
        ValueError: for an argument out of its range, or for one head to split.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        pattern: str = "strided",
        stride: int = 128,
        summary: int = 8,
        combine: str = "split",
    ) -> None:
        super().__init__(d_model, heads=heads)
        if pattern not in _PATTERNS:
            raise ValueError(f"pattern must be one of {', '.join(_PATTERNS)}, got {pattern!r}")
        if combine not in _COMBINATIONS:
            raise ValueError(f"combine must be one of {', '.join(_COMBINATIONS)}, got {combine!r}")
        if stride < 1:
            raise ValueError(f"stride must be >= 1, got {stride}")
        if pattern == "fixed" and not 1 <= summary <= stride:
            raise ValueError(f"summary must be from 1 to the stride of {stride}, got {summary}")
        if combine == "split" and heads < 2:
            raise ValueError(f"combine='split' needs at least 2 heads, got {heads}; 'merged' works with one")
        self.pattern, self.stride, self.summary, self.combine = pattern, stride, summary, combine

    def _pieces(self, k: Tensor, v: Tensor, factor: str) -> list[Piece]:
        """The keys of a factor for one sequence, (length, heads, dim)."""
        stride, keep = self.stride, self.summary
        if self.pattern == "strided":
            near = window(k, v, behind=stride, ahead=0)
            if factor == "merged":
                return [near, every_stride(k, v, stride=stride, nearest=2)]
            return [near] if factor == "first" else [every_stride(k, v, stride=stride, nearest=0)]
        if factor == "first":
            return [own_block(k, v, stride=stride, keep=stride)]
        near = own_block(k, v, stride=stride, keep=stride if factor == "merged" else keep)
        return [near, summaries(k, v, stride=stride, keep=keep)]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query; all are (batch, length, heads, dim)."""
        half = self.heads // 2
        parts = {"first": slice(half), "second": slice(half, None)}
        if self.combine != "split":
            parts = {self.combine: slice(None)}
        answers = []
        for q_, k_, v_ in zip(q, k, v, strict=True):
            found = [
                joint_attention(q_[:, part], self._pieces(k_[:, part], v_[:, part], factor))
                for factor, part in parts.items()
            ]
            answers.append(torch.cat(found, dim=1))
        return torch.stack(answers)
