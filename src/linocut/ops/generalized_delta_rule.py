r"""The generalised delta rule: a state that fades channel by channel and is changed by a matrix of rank one.

.. math::
    S_t = (\operatorname{diag}(e^{g_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad y_t = S_t^\top q_t

RWKV-7 (Peng et al., *RWKV-7 "Goose"*, 2025, https://arxiv.org/abs/2503.14456, equation 17, there transposed), with
a = -κ̂, the direction that is forgotten, and b = α ⊙ κ̂, how much of it by channel. With a = k and b = -β e^g k it is the
gated delta rule. A piece of the sequence is the map S ↦ A S + S_piece with a full matrix A.

============= ===================================== ==============================
symbol        meaning                               shape
============= ===================================== ==============================
``q``, ``k``  queries and keys                      (batch, length, heads, dim)
``v``         values                                (batch, length, heads, value)
``g``         logarithms of decays, <= 0            (batch, length, heads, dim)
``a``         what is read before a change          (batch, length, heads, dim)
``b``         where that is added                   (batch, length, heads, dim)
``S``         state                                 (batch, heads, dim, value)
============= ===================================== ==============================

Cost: O(length · heads · dim · value) time. There is no kernel: both forms are PyTorch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from linocut.ops import quarantine
from linocut.ops.arguments import floats

_CHUNK = 16


def recurrent_reference(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    a: Float[Tensor, "batch length heads dim"],
    b: Float[Tensor, "batch length heads dim"],
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """The definition as a loop: the oracle of the tests, and a decoder's step."""
    outputs = []
    tokens = (each.unbind(1) for each in (q, k, v, log_decay.exp(), a, b))
    for query, key, value, decay, read, add in zip(*tokens, strict=True):
        found = (read[..., None] * state).sum(-2, keepdim=True)
        state = decay[..., None] * state + add[..., None] * found + key[..., None] * value[..., None, :]
        outputs.append((query[..., None] * state).sum(-2))
    return (torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v)), state


def chunked(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    a: Float[Tensor, "batch length heads dim"],
    b: Float[Tensor, "batch length heads dim"],
    state: Float[Tensor, "batch heads dim value"],
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Sixteen tokens at a time.

    What tokens read, p_t = S_{t-1}ᵀ a_t, depends on what those before them read, a triangular system in a chunk: the WY
    form of Yang et al. (*Parallelizing Linear Transformers with the Delta Rule*, 2024), with a decay a channel. Its
    solution is one part from the chunk's values and one linear in the state before the chunk.
    """
    length = q.shape[1]
    if length == 0:
        return torch.zeros_like(v), state
    (q, k, v, log_decay, a, b), met = quarantine.isolate((q, k, v, log_decay, a, b))
    room, chunks = (0, 0, 0, 0, 0, -length % _CHUNK), -(-length // _CHUNK)
    q, k, v, g, a, b = (
        torch.nn.functional.pad(x, room).reshape(x.shape[0], chunks, _CHUNK, *x.shape[2:]).transpose(2, 3)
        for x in (q, k, v, log_decay, a, b)
    )  # (batch, chunks, heads, tokens, channels)
    before = torch.ones(_CHUNK, _CHUNK, dtype=torch.bool, device=q.device).tril(-1)[..., None]
    between = torch.where(before, g[..., None, :], 0).cumsum(-3)
    reach = g.cumsum(-2)
    # what a token still sees of another: after its own change when it is read, before it when it reads
    seen = between.masked_fill(before.transpose(0, 1), -torch.inf).exp()
    earlier = torch.nn.functional.pad(between, (0, 0, 0, 0, 1, -1)).masked_fill(~before, -torch.inf).exp()

    def pairs(left: Tensor, fade: Tensor, right: Tensor) -> Tensor:
        return (left[..., None, :] * fade * right[..., None, :, :]).sum(-1)

    system = torch.eye(_CHUNK, dtype=q.dtype, device=q.device) - pairs(a, earlier, b)
    known = torch.cat([pairs(a, earlier, k) @ v, a * (reach - g).exp()], dim=-1)
    solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    own, per_state = solved.split([v.shape[-1], q.shape[-1]], dim=-1)
    read_change = pairs(q, seen, b)
    y = read_change @ own + pairs(q, seen, k) @ v
    read_state = read_change @ per_state + q * reach.exp()
    end = between[..., -1, :, :].exp()
    change = (b * end).transpose(-1, -2)
    gain = change @ own + (k * end).transpose(-1, -2) @ v
    transition = change @ per_state + torch.diag_embed(reach[..., -1, :].exp())
    states = []
    for move, gained in zip(transition.unbind(1), gain.unbind(1), strict=True):
        states.append(state)
        state = move @ state + gained
    y = y + read_state @ torch.stack(states, dim=1)
    return quarantine.release(y.transpose(2, 3).flatten(1, 2)[:, :length], state, met)


@floats
def generalized_delta_rule(
    q: Float[Tensor, "batch length heads dim"],
    k: Float[Tensor, "batch length heads dim"],
    v: Float[Tensor, "batch length heads value"],
    log_decay: Float[Tensor, "batch length heads dim"],
    a: Float[Tensor, "batch length heads dim"],
    b: Float[Tensor, "batch length heads dim"],
    *,
    state: Float[Tensor, "batch heads dim value"] | None = None,
) -> tuple[Float[Tensor, "batch length heads value"], Float[Tensor, "batch heads dim value"]]:
    """Run S_t = (diag(e^g_t) + b_t a_tᵀ) S_{t-1} + k_t v_tᵀ and read y_t = S_tᵀ q_t.

    Args:
        q: queries.
        k: keys.
        v: values.
        log_decay: g, the logarithm of every key channel's decay, finite and <= 0.
        a: what every token reads of the state before it changes it.
        b: where it adds what it read.
        state: S before the first token, float32 (float64 for float64 inputs); None for zeros.

    Returns:
        The outputs, in the dtype of ``v``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.

    Example:
        >>> one, zero = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
        >>> y, _ = generalized_delta_rule(one, one, torch.tensor([2.0, 5.0]).view(1, 2, 1, 1), zero, -one, one)
        >>> y.flatten().tolist()  # the key of both tokens is the same, so the second value replaces the first
        [2.0, 5.0]
    """
    if q.dim() != 4 or any(each.shape != q.shape for each in (k, log_decay, a, b)):
        shapes = ", ".join(str(tuple(each.shape)) for each in (q, k, log_decay, a, b))
        raise ValueError(
            f"generalized_delta_rule: q, k, log_decay, a and b must all be (batch, length, heads, dim), got {shapes}"
        )
    if v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"generalized_delta_rule: v must be {(*q.shape[:3], 'value')}, got {tuple(v.shape)}")
    expected = (q.shape[0], *q.shape[2:], v.shape[-1])
    if state is None:
        state = v.new_zeros(expected, dtype=torch.promote_types(v.dtype, torch.float32))
    elif state.shape != expected:
        raise ValueError(f"generalized_delta_rule: state must be {expected}, got {tuple(state.shape)}")
    wide = state.dtype
    for each in (q, k, v, log_decay, a, b):
        wide = torch.promote_types(wide, each.dtype)
    q, k, values, log_decay, a, b = (each.to(wide) for each in (q, k, v, log_decay, a, b))
    form = recurrent_reference if q.shape[1] == 1 else chunked
    y, last = form(q, k, values, log_decay, a, b, state.to(wide))
    return y.to(v.dtype), last
