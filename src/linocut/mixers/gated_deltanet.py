r"""DeltaNet and gated DeltaNet (Yang et al., 2024): memories that correct what they hold instead of adding to it.

Linear attention writes a value beside all that are there; after more tokens than key channels they blur. The delta rule
first reads what the memory holds under the key, and writes the difference. *Gated Delta Networks* adds Mamba-2's decay,
so that a memory can also be cleared at once:

.. math::
    S_t = a_t (I - \beta_t k_t k_t^\top) S_{t-1} + \beta_t k_t v_t^\top, \qquad y_t = S_t^\top q_t / \sqrt{d}

with q, k and v from a projection, a short convolution and silu, q and k of length 1, :math:`\beta = \sigma(W_\beta x)`
and :math:`\log a = -e^{A} \, \mathrm{softplus}(W_a x + b)`. Grouped queries and keys are those of Qwen3-Next.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from linocut.mixers.base import Info, OrderedMixer, register
from linocut.ops.affine import Matrix
from linocut.ops.gated_delta_rule import gated_delta_rule
from linocut.ops.short_convolution import short_convolution


class DeltaState(NamedTuple):
    """What is behind a token.

    Attributes:
        tail: the last ``d_conv - 1`` inputs of the convolution, (batch, d_conv - 1, channels).
        memory: S, (batch, heads, d_key, d_value).
    """

    tail: Tensor
    memory: Tensor


class DeltaSummary(NamedTuple):
    """What a piece of the sequence does to the state.

    Attributes:
        tail: the one after it.
        map: of the memory.
    """

    tail: Tensor
    map: Matrix


@register(
    Info(
        name="deltanet",
        paper="Yang et al., Parallelizing Linear Transformers with the Delta Rule over Sequence Length, 2024",
        url="https://arxiv.org/abs/2406.06484",
        causal=True,
        cost="n d (d + k + v)",
        state="h k v + (2k + v) h (w - 1)",
    )
)
class DeltaNet(OrderedMixer):
    """out(norm(Sᵀ q)) with the delta rule, without decay.

    Args:
        d_model: channels of a token.
        heads: number of memories, >= 1.
        groups: number of heads of queries and keys, which neighbouring memories share; None for one each.
        d_key: k, channels of a query or key; None for ``d_model // heads``.
        d_value: v, channels of a value; None for as many as ``d_key``.
        d_conv: w, width of the convolution.

    Raises:
        ValueError: if a size is below 1, or ``groups`` does not divide ``heads``.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        groups: int | None = None,
        d_key: int | None = None,
        d_value: int | None = None,
        d_conv: int = 4,
    ) -> None:
        super().__init__(d_model)
        groups = heads if groups is None else groups
        if heads < 1 or groups < 1 or heads % groups:
            raise ValueError(f"groups must be >= 1 and divide heads, got heads={heads} and groups={groups}")
        d_key = d_model // heads if d_key is None else d_key
        d_value = d_key if d_value is None else d_value
        for name, size in {"d_key": d_key, "d_value": d_value, "d_conv": d_conv}.items():
            if size < 1:
                raise ValueError(f"{name} must be >= 1, got {size}")
        self.heads, self.groups, self.d_key, self.d_value, self.halo = heads, groups, d_key, d_value, d_conv - 1
        self.channels = 2 * groups * d_key + heads * d_value
        self.query_key_value = nn.Linear(d_model, self.channels, bias=False)
        self.conv1d = nn.Conv1d(self.channels, self.channels, d_conv, groups=self.channels, bias=False)
        self.beta = nn.Linear(d_model, heads, bias=False)
        self.norm = nn.RMSNorm(d_value, eps=1e-5)
        self.out = nn.Linear(heads * d_value, d_model, bias=False)

    def _log_decay(self, x: Tensor) -> Float[Tensor, "batch length heads"] | None:  # noqa: ARG002  # for the subclass
        """Log a of every token; None for no decay."""
        return None

    def _finish(self, x: Tensor, y: Float[Tensor, "batch length heads d_value"]) -> Tensor:  # noqa: ARG002
        """From what was read to the output."""
        out: Tensor = self.out(self.norm(y).flatten(2))
        return out

    def _convolve(self, inner: Tensor, tail: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k and v by heads, and the next tail."""
        inner, tail = short_convolution(inner, self.conv1d.weight[:, 0], state=tail, activation="silu")
        keys, values = self.groups * self.d_key, self.heads * self.d_value
        q, k, v = torch.split(inner, [keys, keys, values], dim=-1)
        q, k = (_unit(x.reshape(*x.shape[:2], self.groups, self.d_key)) for x in (q, k))
        return q * self.d_key**-0.5, k, v.reshape(*v.shape[:2], self.heads, self.d_value), tail

    def init_state(self, batch: int) -> DeltaState:
        """Zeros: nothing was there before the first token."""
        return DeltaState(
            self._zeros(batch, self.halo, self.channels), self._zeros(batch, self.heads, self.d_key, self.d_value)
        )

    def scan(
        self, x: Float[Tensor, "batch length d_model"], state: DeltaState
    ) -> tuple[Float[Tensor, "batch length d_model"], DeltaState]:
        """The outputs of a piece and the state after it."""
        self.check(x)
        q, k, v, tail = self._convolve(self.query_key_value(x), state.tail)
        y, memory = gated_delta_rule(q, k, v, self._log_decay(x), self.beta(x).sigmoid(), state=state.memory)
        return self._finish(x, y), DeltaState(tail, memory)

    def summarize(
        self, x: Float[Tensor, "batch length d_model"], before: Float[Tensor, "batch halo d_model"] | None = None
    ) -> DeltaSummary:
        """The map of the memory that a piece is: one run on the identity beside zeros, with 0 beside the values."""
        self.check(x)
        known = 0 if before is None else before.shape[1]
        inner = self.query_key_value(x if before is None else torch.cat([before, x], dim=1))
        blank = self.init_state(x.shape[0])
        tail = torch.cat([blank.tail[:, known:], inner[:, :known].to(blank.tail.dtype)], dim=1)
        _, k, v, tail = self._convolve(inner[:, known:], tail)
        identity = torch.eye(self.d_key, dtype=blank.memory.dtype, device=x.device).expand(
            *blank.memory.shape[:2], -1, -1
        )
        _, run = gated_delta_rule(
            k,
            k,
            F.pad(v, (self.d_key, 0)),
            self._log_decay(x),
            self.beta(x).sigmoid(),
            state=torch.cat([identity, blank.memory], dim=-1),
        )
        return DeltaSummary(tail, Matrix(run[..., : self.d_key], run[..., self.d_key :]))

    def compose(self, first: DeltaSummary, second: DeltaSummary) -> DeltaSummary:
        """The map of two adjoining pieces."""
        return DeltaSummary(second.tail, first.map.then(second.map))

    def advance(self, state: DeltaState, summary: DeltaSummary) -> DeltaState:
        """The state after a piece."""
        return DeltaState(summary.tail, summary.map.apply(state.memory))


@register(
    Info(
        name="gated_deltanet",
        paper="Yang, Kautz and Hatamizadeh, Gated Delta Networks, 2024",
        url="https://arxiv.org/abs/2412.06464",
        causal=True,
        cost="n d (d + k + v)",
        state="h k v + (2k + v) h (w - 1)",
    )
)
class GatedDeltaNet(DeltaNet):
    """out(norm(Sᵀ q) ⊙ silu(W_g x)) with the gated delta rule.

    Args:
        d_model: channels of a token.
        heads: number of memories, >= 1.
        groups: number of heads of queries and keys, which neighbouring memories share; None for one each.
        d_key: k, channels of a query or key; None for ``d_model // heads``.
        d_value: v, channels of a value; None for as many as ``d_key``.
        d_conv: w, width of the convolution.

    Raises:
        ValueError: if a size is below 1, or ``groups`` does not divide ``heads``.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        groups: int | None = None,
        d_key: int | None = None,
        d_value: int | None = None,
        d_conv: int = 4,
    ) -> None:
        super().__init__(d_model, heads=heads, groups=groups, d_key=d_key, d_value=d_value, d_conv=d_conv)
        self.decay = nn.Linear(d_model, heads, bias=False)
        self.gate = nn.Linear(d_model, heads * self.d_value, bias=False)
        # Mamba-2's start: rates up to 16, step sizes spread over two decades; softplus of the bias is the step size
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(0.01, 16).log())
        step = torch.exp(torch.empty(heads).uniform_(math.log(0.001), math.log(0.1)))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))

    def _log_decay(self, x: Tensor) -> Float[Tensor, "batch length heads"]:
        """-exp(A) softplus(W x + b), in float32 at least: a rounded decay is another decay."""
        wide = torch.promote_types(x.dtype, torch.float32)
        log_decay: Tensor = -self.A_log.to(wide).exp() * F.softplus(self.decay(x).to(wide) + self.dt_bias.to(wide))
        return log_decay

    def _finish(self, x: Tensor, y: Float[Tensor, "batch length heads d_value"]) -> Tensor:
        """Normalise every head, gate and project."""
        out: Tensor = self.out(self.norm(y).flatten(2) * F.silu(self.gate(x)))
        return out


def _unit(x: Tensor) -> Tensor:
    """X divided by its length, or a little more where that is near zero."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
