"""TransNormer (Qin et al., *The Devil in Linear Transformer*, EMNLP 2022).

The paper finds two faults of linear attention: its gradients are unbounded, by the division by the sum of weights, and
its weights spread over the whole sequence. `NormAttention` drops the division and normalises the output instead;
`DiagAttention`, for the early layers, is softmax attention inside blocks. A network of either variant has DiagAttention
in its first half and NormAttention in its second:

======= ============================ ==========================
variant DiagAttention                NormAttention
======= ============================ ==========================
T1      ``activation="relu"`` (ReLA) ``feature_map="elu_alone"``
T2      ``activation="softmax"``     ``feature_map="elu"``
======= ============================ ==========================
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Info, Mixer, OrderedMixer, SetMixer, register
from linocut.mixers.open_block import OpenBlock, Tail, tail_of
from linocut.ops import linear_attention as ops
from linocut.ops.block_attention import block_attention
from linocut.ops.feature_maps import mapping

_PAPER = "Qin et al., The Devil in Linear Transformer, 2022"
_URL = "https://arxiv.org/abs/2210.10340"
_EPSILON = 1e-6


class _Heads(Mixer):
    """Projections to heads and back."""

    def __init__(self, d_model: int, heads: int) -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        super().__init__(d_model)
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self.query(x).unflatten(-1, (self.heads, -1)), k, v

    def _normalised(self, y: Tensor) -> Tensor:
        """RMSNorm of all heads together, which has no weights in the paper, and the last projection."""
        out: Tensor = self.out(nn.functional.rms_norm(y.flatten(2), (self.d_model,), eps=_EPSILON))
        return out


class _NormAttention(_Heads):
    """Projections and feature map.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        feature_map: φ: elu (elu + 1, of T2), elu_alone (without the one, of T1), relu, exp or identity.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``, or for an unknown feature map.
    """

    def __init__(self, d_model: int, *, heads: int = 4, feature_map: str = "elu") -> None:
        if feature_map != "elu_alone":
            mapping(feature_map)
        super().__init__(d_model, heads)
        self.feature_map = feature_map

    def _mapped(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, str]:
        """q, k, v and the map that is still to be applied to q and k."""
        q, k, v = self._project(x)
        if self.feature_map == "elu_alone":
            return nn.functional.elu(q), nn.functional.elu(k), v, "identity"
        return q, k, v, self.feature_map


@register(Info(name="norm_attention", paper=_PAPER, url=_URL, causal=False, cost="n d²/h", state="d²/h + d"))
class NormAttention(_NormAttention, SetMixer):
    """RMSNorm(φ(Q) (φ(K)ᵀ V)) over a set of tokens; the arguments are those of both forms (`_NormAttention`)."""

    def summarize(self, x: Float[Tensor, "batch length d_model"]) -> ops.Summary:
        """Σ φ(k) vᵀ of a piece; of Σ φ(k) no use is made."""
        self.check(x)
        _, k, v, feature_map = self._mapped(x)
        return ops.summarize(k, v, feature_map=feature_map)

    def merge(self, a: ops.Summary, b: ops.Summary) -> ops.Summary:
        """Add two summaries."""
        return ops.merge(a, b)

    def read(
        self, x: Float[Tensor, "batch length d_model"], summary: ops.Summary
    ) -> Float[Tensor, "batch length d_model"]:
        """Answer this piece's queries."""
        self.check(x)
        q, _, _, feature_map = self._mapped(x)
        return self._normalised(ops.read(q, summary, feature_map=feature_map, normalize=False))


@register(Info(name="norm_attention", paper=_PAPER, url=_URL, causal=True, cost="n d²/h", state="d²/h + d"))
class CausalNormAttention(_NormAttention, OrderedMixer):
    """RMSNorm(φ(q) Σ φ(k) vᵀ) over the tokens so far; the arguments are those of both forms (`_NormAttention`)."""

    def init_state(self, batch: int) -> ops.Summary:
        """Sums over no tokens."""
        dim = self.d_model // self.heads
        return ops.Summary(self._zeros(batch, self.heads, dim, dim), self._zeros(batch, self.heads, dim))

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: ops.Summary
    ) -> tuple[Float[Tensor, "batch length d_model"], ops.Summary]:
        """The outputs of a piece and the sums after it."""
        self.check(x)
        q, k, v, feature_map = self._mapped(x)
        y, state = ops.causal_linear_attention(q, k, v, feature_map=feature_map, normalize=False, state=state)
        return self._normalised(y), state

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> ops.Summary:
        """Σ φ(k) vᵀ and Σ φ(k) of a piece."""
        self.check(x)
        _, k, v, feature_map = self._mapped(x)
        return ops.summarize(k, v, feature_map=feature_map)

    def compose(self, first: ops.Summary, second: ops.Summary) -> ops.Summary:
        """Add two summaries."""
        return ops.merge(first, second)

    def advance(self, state: ops.Summary, summary: ops.Summary) -> ops.Summary:
        """Add a piece's sums to the state."""
        return ops.merge(state, summary)


class _DiagAttention(_Heads):
    """Projections, block and activation.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        block: tokens a block, >= 1.
        activation: softmax (T2) or relu (T1: ReLA, whose output is normalised).

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``, for a block below 1 or another activation.
    """

    def __init__(self, d_model: int, *, heads: int = 4, block: int = 64, activation: str = "softmax") -> None:
        if block < 1:
            raise ValueError(f"block must be >= 1, got {block}")
        if activation not in ("softmax", "relu"):
            raise ValueError(f"activation must be softmax or relu, got {activation!r}")
        super().__init__(d_model, heads)
        self.block, self.activation = block, activation

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
        rectified = self.activation == "relu"
        y = block_attention(q, k, v, block=self.block, causal=causal, rectified=rectified)
        if rectified:
            return self._normalised(y)
        out: Tensor = self.out(y.flatten(2))
        return out


@register(Info(name="diag_attention", paper=_PAPER, url=_URL, causal=False, cost="n w d", state="none"))
class DiagAttention(_DiagAttention):
    """Attention inside blocks of tokens; the arguments are those of both forms (`_DiagAttention`).

    Blocks lie at multiples of `block`: a piece that starts and ends there needs nothing of the rest.
    """

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Attend inside every block."""
        self.check(x)
        return self._attend(*self._project(x), causal=False)


@register(Info(name="diag_attention", paper=_PAPER, url=_URL, causal=True, cost="n w d", state="2 w d + 1"))
class CausalDiagAttention(_DiagAttention, OrderedMixer):
    """Attention to the tokens so far of the same block; the arguments are those of both forms (`_DiagAttention`)."""

    def init_state(self, batch: int) -> OpenBlock:
        """No open token."""
        dtype = self.out.weight.dtype
        empty = self._zeros(batch, self.block, self.heads, self.d_model // self.heads, dtype=dtype)
        return OpenBlock((empty, empty), torch.zeros(batch, dtype=torch.int64, device=empty.device))

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: OpenBlock
    ) -> tuple[Float[Tensor, "batch length d_model"], OpenBlock]:
        """The outputs of a piece, and what is open after it."""
        self.check(x)
        q, k, v = self._project(x)
        keys, values = (torch.cat([old, new], dim=1) for old, new in zip(state.opened(), (k, v), strict=True))
        return self._attend(q, keys, values, causal=True), state.then((k, v), x.shape[1])

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once; no position is read from a state, so that it is one graph for a compiler."""
        self.check(x)
        return self._attend(*self._project(x), causal=True)

    def summarize(
        self,
        x: Float[Tensor, "batch length d_model"],
        before: Float[Tensor, "batch halo d_model"] | None = None,  # noqa: ARG002  # there is no halo
    ) -> Tail:
        """The last block's worth of keys and values, and the length."""
        self.check(x)
        return tail_of(self._project(x)[1:], self.block)

    def compose(self, first: Tail, second: Tail) -> Tail:
        """The last tokens of two pieces."""
        return first.then(second, self.block)

    def advance(self, state: OpenBlock, summary: Tail) -> OpenBlock:
        """What is open after a piece."""
        return state.then(summary.tokens, summary.length)


class _Layer(nn.Module):
    """A token mixer and a gated feed-forward network, each behind a norm and added to its input."""

    def __init__(self, mixer: Mixer, expansion: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.norms = nn.ModuleList(nn.RMSNorm(mixer.d_model, eps=_EPSILON) for _ in range(2))
        self.up = nn.Linear(mixer.d_model, 2 * expansion * mixer.d_model, bias=False)
        self.down = nn.Linear(expansion * mixer.d_model, mixer.d_model, bias=False)

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix tokens, then channels: the GLU of the paper's section 4.3, silu(x W₁) ⊙ x W₂, and W₃."""
        x = x + self.mixer(self.norms[0](x))
        gate, value = self.up(self.norms[1](x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(nn.functional.silu(gate) * value)
        return out


def transnormer_layers(
    d_model: int, depth: int, *, variant: str = "T2", causal: bool = True, heads: int = 4, block: int = 64
) -> nn.Sequential:
    """The layers of a TransNormer: the first half with DiagAttention, the second with NormAttention.

    Args:
        d_model: channels of a token.
        depth: layers, >= 1.
        variant: T1 (ReLA, elu) or T2 (softmax, elu + 1).
        causal: whether token t sees only tokens up to t.
        heads: number of heads.
        block: tokens a block of DiagAttention.

    Raises:
        ValueError: for another variant or a depth below 1.
    """
    if variant not in ("T1", "T2"):
        raise ValueError(f"variant must be T1 or T2, got {variant!r}")
    if depth < 1:
        raise ValueError(f"depth must be >= 1, got {depth}")
    diag: type[Any] = CausalDiagAttention if causal else DiagAttention
    norm: type[Any] = CausalNormAttention if causal else NormAttention
    activation, feature_map = ("relu", "elu_alone") if variant == "T1" else ("softmax", "elu")
    mixers: list[Mixer] = [
        diag(d_model, heads=heads, block=block, activation=activation)
        if layer < depth // 2
        else norm(d_model, heads=heads, feature_map=feature_map)
        for layer in range(depth)
    ]
    return nn.Sequential(*(_Layer(mixer, expansion=2) for mixer in mixers))
