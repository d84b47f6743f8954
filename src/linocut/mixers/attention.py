"""What mixers by softmax attention share: heads, and the projections to queries, keys and values and back."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from linocut.mixers.base import Mixer
from linocut.ops.joint_attention import keep_nan_apart


class Attention(Mixer):
    """Projections around :meth:`attend`, which a subclass gives.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.

    Raises:
        ValueError: if ``heads`` does not divide ``d_model``.
    """

    def __init__(self, d_model: int, *, heads: int = 4) -> None:
        if heads < 1 or d_model < 1 or d_model % heads:
            raise ValueError(f"heads must be >= 1 and divide d_model, got d_model={d_model} and heads={heads}")
        super().__init__(d_model)
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key_value = nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def attend(
        self,
        q: Float[Tensor, "batch length heads dim"],
        k: Float[Tensor, "batch length heads dim"],
        v: Float[Tensor, "batch length heads dim"],
    ) -> Float[Tensor, "batch length heads dim"]:
        """The answer of every query; there is at least one."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it attends")

    def forward(self, x: Float[Tensor, "batch length d_model"]) -> Float[Tensor, "batch length d_model"]:
        """Mix the whole sequence at once."""
        self.check(x)
        q = self.query(x).unflatten(-1, (self.heads, -1))
        k, v = self.key_value(x).unflatten(-1, (2, self.heads, -1)).unbind(2)
        y: Tensor = self.out(self.answer(q, k, v).flatten(2))
        return y

    def answer(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """:meth:`attend` where there is something to attend to, and no way for a NaN into the past."""
        if q.numel() == 0:
            return q
        return keep_nan_apart(self.attend, q, k, v) if self.info.causal else self.attend(q, k, v)
