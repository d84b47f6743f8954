r"""Linear attention whose state decays: retention, gated linear attention, RWKV-6.

.. math::
    S_t = \mathrm{diag}(e^{a_t}) S_{t-1} + k_t v_t^T, \qquad y_t = S_t^T q_t

The decay is none (Katharopoulos et al., 2020, without their normaliser), a constant of the head (RetNet: Sun et al.,
*Retentive Network*, 2023, https://arxiv.org/abs/2307.08621, equation 6), a number for every head and token (Mamba-2:
Dao and Gu, 2024, https://arxiv.org/abs/2405.21060) or one for every channel of the key (Yang et al., *Gated Linear
Attention Transformers*, 2024, https://arxiv.org/abs/2312.06635, equation 3), with RWKV-6's bonus u for the token itself
(Peng et al., *Eagle and Finch*, 2024, https://arxiv.org/abs/2404.05892):
:math:`y_t = (S_{t-1} + \mathrm{diag}(u) k_t v_t^T)^T q_t`.

============= ==================================== =============================
symbol        meaning                              shape
============= ==================================== =============================
``q``, ``k``  queries and keys                     (batch, length, groups, dim)
``v``         values                               (batch, length, heads, value)
``a``         logarithm of the decay, at most 0    see ``log_decay``
``S``         state                                (batch, heads, dim, value)
============= ==================================== =============================

Cost: O(length · heads · dim · value) time. In a chunk of C tokens the same function is attention with a triangle of
decays, C · (dim + value) / 2 products a token; from chunk to chunk goes the state. A piece of the sequence is the map
S ↦ (∏ e^a) S + S_piece. With `dim` channels in a group, heads of that group share its queries and keys.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import chunk_kernel, quarantine
from linocut.ops.arguments import floats
from linocut.ops.channel_decay import channel_decay_attention


def recurrent_reference(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads channels"],
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """The definition as a loop: the oracle of the tests. `channels` is dim, or 1 for a decay of the whole head."""
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], dim=2) for x in (q, k))
    outputs = []
    for t in range(v.shape[1]):
        state = log_decay[:, t, :, :, None].exp() * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return (torch.stack(outputs, dim=1) if outputs else v), state


def decays_between(
    log_decay: Float[Tensor, "batch length heads"],
) -> tuple[Float[Tensor, "batch heads length length"], Float[Tensor, "batch heads length"]]:
    """The decay from token s to token t, 0 where s > t, and from the state before the first token to token t.

    Every sum is taken by itself: a difference of two cumulative sums would lose small decays next to large ones.
    """
    a = log_decay.transpose(1, 2)
    length = a.shape[-1]
    lower = torch.ones(length, length, dtype=torch.bool, device=a.device).tril()
    steps = a[..., :, None].expand(*a.shape, length).masked_fill(~lower.tril(-1), 0).cumsum(dim=-2)
    return steps.exp().masked_fill(~lower, 0), a.cumsum(dim=-1).exp()


def chunked(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads"] | None,
    state: Float[Tensor, "batch heads dim value"],
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """The same function chunk by chunk, as attention inside and through the state from one to the next."""
    if v.shape[1] == 0:
        return v, state
    groups, shape = q.shape[2], state.shape
    (k,), met = quarantine.isolate((k,))
    (v,), met_v = quarantine.isolate((v,))
    met = met.repeat_interleave(v.shape[2] // groups, dim=2) | met_v
    state = _by_group(state, 1, groups)
    outputs = []
    pieces: list[tuple[Tensor, ...]] = [torch.split(x, chunk_size, dim=1) for x in (q, k, _by_group(v, 2, groups))]
    if log_decay is not None:
        pieces.append(torch.split(log_decay, chunk_size, dim=1))
    for q_c, k_c, v_c, *a_c in zip(*pieces, strict=True):
        weights = torch.einsum("btgd,bsgd->bgts", q_c, k_c)[:, :, None]
        y = torch.einsum("btgd,bgrde->btgre", q_c, state)
        if a_c:
            between, before = (_by_group(x, 1, groups) for x in decays_between(a_c[0]))
            weights, y = weights * between, y * before.permute(0, 3, 1, 2)[..., None]
            state, kept = state * before[..., -1, None, None], between[..., -1, :].permute(0, 3, 1, 2)[..., None] * v_c
        else:
            weights, kept = weights.tril().expand(-1, -1, v_c.shape[3], -1, -1), v_c
        outputs.append((y + torch.einsum("bgrts,bsgre->btgre", weights, v_c)).flatten(2, 3))
        state = state + torch.einsum("bsgd,bsgre->bgrde", k_c, kept)
    return quarantine.release(torch.cat(outputs, dim=1), state.reshape(shape), met)


def _by_group(x: Tensor, dim: int, groups: int) -> Tensor:
    """Split the dimension of the heads into groups and the heads of each."""
    return x.reshape(*x.shape[:dim], groups, x.shape[dim] // groups, *x.shape[dim + 1 :])


@floats
def gated_linear_attention(
    q: Float[Tensor, "batch length groups dim"],
    k: Float[Tensor, "batch length groups dim"],
    v: Float[Tensor, "batch length heads value"],
    *,
    log_decay: Float[Tensor, "..."] | None = None,
    bonus: Float[Tensor, "heads dim"] | None = None,
    state: Float[Tensor, "batch heads dim value"] | None = None,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Run S_t = e^{a_t} S_{t-1} + k_t v_tᵀ, y_t = S_tᵀ q_t over a sequence.

    Args:
        q: queries.
        k: keys.
        v: values; each group of q and k serves heads / groups neighbouring heads.
        log_decay: a, at most 0: (heads,) for a constant of the head, (batch, length, heads) for one of the token,
            (batch, length, heads, dim) for one of every channel; None for no decay.
        bonus: RWKV-6's u, by which the token's own key is weighted while its decay is left out; with a decay of every
            channel only.
        state: S before the first token, float32 (float64 for float64 inputs); None for zeros.
        chunk_size: tokens a chunk of the PyTorch form; the kernel chooses its own.

    Returns:
        The outputs, in the dtype of ``v``, and the last state in float32 or wider.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> y, state = gated_linear_attention(ones, ones, ones, log_decay=torch.tensor([0.5]).log())
        >>> y.flatten().tolist(), state.item()
        ([1.0, 1.5, 1.75], 1.75)
    """
    check_shapes("gated_linear_attention", q, k, v, state)
    if chunk_size < 1:
        raise ValueError(f"gated_linear_attention: chunk_size must be >= 1, got {chunk_size}")
    batch, length, heads = v.shape[:3]
    if log_decay is not None and log_decay.dim() == 4:
        return channel_decay_attention(q, k, v, log_decay, bonus=bonus, state=state)
    if bonus is not None:
        raise ValueError(
            "gated_linear_attention: bonus needs a log_decay of every channel, (batch, length, heads, dim)"
        )
    if log_decay is not None and log_decay.shape not in ((heads,), (batch, length, heads)):
        raise ValueError(
            f"gated_linear_attention: log_decay must be {(heads,)}, {(batch, length, heads)} or "
            f"{(batch, length, heads, q.shape[3])}, got {tuple(log_decay.shape)}"
        )
    if log_decay is not None:
        log_decay = log_decay.expand(batch, length, heads)
    if chunk_kernel.usable(q, k, v, log_decay, state):
        y, last, _ = chunk_kernel.chunked_attention(q, k, v, log_decay=log_decay, state=state)
        return y, last
    wide = widest(q, k, v, log_decay, state)
    if state is None:
        state = v.new_zeros(batch, heads, q.shape[3], v.shape[3])
    decay = None if log_decay is None else log_decay.to(wide)
    y, last = chunked(q.to(wide), k.to(wide), v.to(wide), decay, state.to(wide), chunk_size)
    return y.to(v.dtype), last


def check_shapes(name: str, q: Tensor, k: Tensor, v: Tensor, state: Tensor | None) -> None:
    """Refuse queries, keys, values and a state that do not fit together.

    Raises:
        ValueError: with the function's name and the shapes.
    """
    if q.dim() != 4 or q.shape != k.shape:
        shapes = f"{tuple(q.shape)} and {tuple(k.shape)}"
        raise ValueError(f"{name}: q and k must both be (batch, length, groups, dim), got {shapes}")
    if v.dim() != 4 or v.shape[:2] != q.shape[:2] or q.shape[2] < 1 or v.shape[2] % q.shape[2]:
        raise ValueError(
            f"{name}: v must be (batch, length, heads, value) with the tokens of q and heads a multiple of groups, "
            f"got {tuple(v.shape)} for q {tuple(q.shape)}"
        )
    expected = (v.shape[0], v.shape[2], q.shape[3], v.shape[3])
    if state is not None and state.shape != expected:
        raise ValueError(f"{name}: state must be {expected}, got {tuple(state.shape)}")


def widest(*tensors: Tensor | None) -> torch.dtype:
    """The dtype in which PyTorch forms compute: float32, or float64 where an argument is."""
    wide = torch.float32
    for tensor in tensors:
        if tensor is not None:
            wide = torch.promote_types(wide, tensor.dtype)
    return wide
