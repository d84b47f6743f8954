"""Longformer's attention (Beltagy, Peters, Cohan, *Longformer: The Long-Document Transformer*, 2020).

The paper replaces the row of n keys by a sliding window, dilated in some heads so that they reach further (section
3.1), and lets a few chosen tokens see all and be seen by all. Those have projections of their own for what they see
(section 3.1, *Linear Projections for Global Attention*). The causal form, for language models, has no global tokens
(section 4.1), and so a finite reach.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, LocalMixer, register
from linocut.ops.joint_attention import Piece, Span, joint_attention, window
from linocut.ops.local_attention import local_attention

_BLOCK = 64


def _info(*, causal: bool) -> Info:
    return Info(
        name="longformer",
        paper="Beltagy et al., Longformer: The Long-Document Transformer, 2020",
        url="https://arxiv.org/abs/2004.05150",
        causal=causal,
        cost="n window d" if causal else "n (2 window + globals) d",
        state="window · dilation tokens" if causal else "none",
    )


class _Windows(Attention):
    """Sliding windows, dilated head by head."""

    def __init__(self, d_model: int, *, heads: int = 4, window: int = 256, dilation: int | Sequence[int] = 1) -> None:
        super().__init__(d_model, heads=heads)
        if window < 1:
            raise ValueError(f"window must be >= 1, got {window}")
        each = (dilation,) * heads if isinstance(dilation, int) else tuple(dilation)
        if len(each) != heads or min(each) < 1:
            raise ValueError(f"dilation must be one number >= 1, or one for each of {heads} heads, got {dilation}")
        self.window, self.dilation = window, each

    def dilated(self, q: Tensor, k: Tensor, v: Tensor, dilation: int) -> Tensor:
        """The answers of heads of one dilation; all are (batch, length, heads, dim)."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query, that of global tokens still local; all are (batch, length, heads, dim)."""
        groups = {step: [head for head, d in enumerate(self.dilation) if d == step] for step in self.dilation}
        if len(groups) == 1:
            return self.dilated(q, k, v, self.dilation[0])
        parts = [self.dilated(q[:, :, at], k[:, :, at], v[:, :, at], step) for step, at in groups.items()]
        back = torch.tensor([head for heads in groups.values() for head in heads], device=q.device).argsort()
        return torch.cat(parts, dim=2).index_select(2, back)


@register(_info(causal=True))
class CausalLongformer(_Windows, LocalMixer):
    """Every token sees itself and the `window` before it, `dilation` apart.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        window: tokens seen behind, >= 1.
        dilation: their distance, >= 1; one for all heads or one for each.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(self, d_model: int, *, heads: int = 4, window: int = 256, dilation: int | Sequence[int] = 1) -> None:
        super().__init__(d_model, heads=heads, window=window, dilation=dilation)
        self.reach = (self.window * max(self.dilation), 0)

    def dilated(self, q: Tensor, k: Tensor, v: Tensor, dilation: int) -> Tensor:
        """The answers of heads of one dilation; all are (batch, length, heads, dim)."""
        return local_attention(q, k, v, window=self.window + 1, causal=True, dilation=dilation)


@register(_info(causal=False))
class Longformer(_Windows):
    """Windows to either side, and a few tokens that see all and are seen by all.

    Others see a global token through the ordinary keys and values; it sees them through projections of its own.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        window: tokens seen on either side, >= 1 (half of what the paper calls w).
        dilation: their distance, >= 1; one for all heads or one for each.
        global_positions: where the global tokens are; those beyond a sequence's end are left out.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        window: int = 256,
        dilation: int | Sequence[int] = 1,
        global_positions: Sequence[int] = (0,),
    ) -> None:
        super().__init__(d_model, heads=heads, window=window, dilation=dilation)
        if any(at < 0 for at in global_positions):
            raise ValueError(f"global_positions must be >= 0, got {tuple(global_positions)}")
        self.global_positions = tuple(sorted(set(global_positions)))
        self.query_global = nn.Linear(d_model, d_model)
        self.key_value_global = nn.Linear(d_model, 2 * d_model)

    def dilated(self, q: Tensor, k: Tensor, v: Tensor, dilation: int) -> Tensor:
        """The answers of heads of one dilation; all are (batch, length, heads, dim)."""
        return torch.stack([self._sequence(*each, dilation) for each in zip(q, k, v, strict=True)])

    def _sequence(self, q: Tensor, k: Tensor, v: Tensor, dilation: int) -> Tensor:
        """One sequence: tokens of one residue are a sequence with a plain window."""
        positions = [at for at in self.global_positions if at < q.shape[0]]
        seen_k, seen_v = (x[positions].transpose(0, 1)[None] for x in (k, v))
        found = []
        for start in range(min(dilation, q.shape[0])):
            rows = slice(start, None, dilation)
            hidden = [at // dilation for at in positions if at % dilation == start]
            near = window(k[rows], v[rows], behind=self.window, ahead=self.window, hidden=hidden, size=_BLOCK)
            spans = (Span(0, near.k.shape[0], len(positions)),)
            found.append(joint_attention(q[rows], [near, Piece(near.order, seen_k, seen_v, spans)]))
        if len(found) == 1:
            return found[0]
        order = torch.cat([torch.arange(start, q.shape[0], dilation, device=q.device) for start in range(len(found))])
        return torch.cat(found).index_select(0, order.argsort())

    def _globals(self, x: Tensor, positions: list[int]) -> Tensor:
        """What the global tokens see, (batch, globals, heads, dim).

        q · (W x + b) is (Wᵀ q) · x but for a constant, and Σ a (W x + b) is W Σ a x + b: with few global tokens the
        projections go to them and not to the whole sequence.
        """
        q = self.query_global(x[:, positions]).unflatten(-1, (self.heads, -1))
        to_key, to_value = self.key_value_global.weight.view(2, self.heads, -1, self.d_model)
        keys = x[:, None].expand(-1, self.heads, -1, -1)
        moved = torch.einsum("bghe,hed->bhgd", q, to_key)
        mean = functional.scaled_dot_product_attention(moved, keys, keys, scale=q.shape[-1] ** -0.5)
        answer: Tensor = torch.einsum("bhgd,hed->bghe", mean, to_value)
        return answer + self.key_value_global.bias[self.d_model :].view(self.heads, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the whole sequence at once."""
        self.check(x)
        positions = [at for at in self.global_positions if at < x.shape[1]]
        q = self.query(x).unflatten(-1, (self.heads, -1))
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        answers = self.answer(q, k, v)
        if positions:
            rows = torch.tensor(positions, device=x.device)
            answers = answers.index_copy(1, rows, self._globals(x, positions).to(answers.dtype))
        y: Tensor = self.out(answers.flatten(2))
        return y
