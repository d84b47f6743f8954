r"""State space duality: Mamba-2's recurrence, a linear attention with a decay for every head and token.

Dao and Gu, *Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality*,
ICML 2024 (https://arxiv.org/abs/2405.21060), section 6 and listing 1:

.. math::
    S_t = e^{\Delta_t A} S_{t-1} + \Delta_t B_t x_t^T, \qquad y_t = S_t^T C_t + D x_t

============= ===================================== ==============================
symbol        meaning                               shape
============= ===================================== ==============================
``x``         inputs                                (batch, length, heads, dim)
``Δ``         step sizes, positive                  (batch, length, heads)
``A``         rates, negative                       (heads)
``B``, ``C``  input and output maps                 (batch, length, groups, state)
``D``         skip                                  (heads)
``S``         state                                 (batch, heads, state, dim)
============= ===================================== ==============================

It is :func:`linocut.ops.gated_linear_attention.gated_linear_attention` with q = C, k = B, v = Δ x and a = Δ A; heads of
a group share their scores C Bᵀ. Cost: O(length · heads · state · dim) time.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from linocut.ops import chunk_kernel
from linocut.ops import gated_linear_attention as gla
from linocut.ops.arguments import floats


def recurrent_reference(
    x: Float[Tensor, "batch length heads dim"],
    dt: Float[Tensor, "batch length heads"],
    A: Float[Tensor, " heads"],  # noqa: N803  # the paper's letter
    B: Float[Tensor, "batch length groups state"],  # noqa: N803
    C: Float[Tensor, "batch length groups state"],  # noqa: N803
    D: Float[Tensor, " heads"],  # noqa: N803
    state: Float[Tensor, "batch heads state dim"],
) -> tuple[Float[Tensor, "batch length heads dim"], Float[Tensor, "batch heads state dim"]]:
    """The definition as a loop: the oracle of the tests."""
    y, state = gla.recurrent_reference(C, B, dt[..., None] * x, (dt * A)[..., None], state)
    return y + D[:, None] * x, state


@floats
def ssd(
    x: Float[Tensor, "batch length heads dim"],
    dt: Float[Tensor, "batch length heads"],
    A: Float[Tensor, " heads"],  # noqa: N803  # the paper's letter
    B: Float[Tensor, "batch length groups state"],  # noqa: N803
    C: Float[Tensor, "batch length groups state"],  # noqa: N803
    *,
    D: Float[Tensor, " heads"] | None = None,  # noqa: N803
    state: Float[Tensor, "batch heads state dim"] | None = None,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length heads dim"], Float[Tensor, "batch heads state dim"]]:
    """Run S_t = e^{Δ_t A} S_{t-1} + Δ_t B_t x_tᵀ, y_t = S_tᵀ C_t + D x_t over a sequence.

    Args:
        x: inputs.
        dt: step sizes Δ, positive (after softplus).
        A: rates, negative.
        B: input maps; each group serves heads / groups neighbouring heads.
        C: output maps.
        D: skip; None for none.
        state: S before the first token, float32 (float64 for float64 inputs); None for zeros.
        chunk_size: tokens a chunk of the PyTorch form; the kernel chooses its own.

    Returns:
        The outputs, in the dtype of ``x``, and the last state in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> import torch
        >>> x, dt, rate = torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1), torch.tensor([0.5]).log()
        >>> y, state = ssd(x, dt, rate, x, x)
        >>> y.flatten().tolist(), state.item()
        ([1.0, 1.5, 1.75], 1.75)
    """
    gla.check_shapes("ssd (q = C, k = B, v = x)", C, B, x, state)
    heads = x.shape[2]
    if dt.shape != x.shape[:3] or A.shape != (heads,) or (D is not None and D.shape != (heads,)):
        shapes = f"{tuple(dt.shape)}, {tuple(A.shape)} and {None if D is None else tuple(D.shape)}"
        raise ValueError(f"ssd: dt, A and D must be {tuple(x.shape[:3])}, {(heads,)} and {(heads,)}, got {shapes}")
    wide = gla.widest(x, dt, A, B, C, D, state)
    dt = dt.to(wide)
    log_decay, skip = dt * A.to(wide), None if D is None else D.to(wide)
    if chunk_kernel.usable(C, B, x, dt, A, D, state):
        y, last, _ = chunk_kernel.chunked_attention(C, B, x, log_decay=log_decay, weight=dt, skip=skip, state=state)
        return y, last
    y, last = gla.gated_linear_attention(
        C.to(wide), B.to(wide), dt[..., None] * x.to(wide), log_decay=log_decay, state=state, chunk_size=chunk_size
    )
    return (y if skip is None else y + skip[:, None] * x).to(x.dtype), last
