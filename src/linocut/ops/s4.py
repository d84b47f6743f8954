r"""S4: a state space whose transition is diagonal plus low rank (DPLR), as a convolution and as a recurrence.

.. math::
    \dot x = (\Lambda - P P^*) x + B u, \quad y = C x \qquad\Longrightarrow\qquad
    x_t = \bar A x_{t-1} + \bar B u_t, \quad y_t = C x_t, \quad K_l = C \bar A^l \bar B

with the bilinear discretisation at step Δ. Gu, Goel, Ré, *Efficiently Modeling Long Sequences with Structured State
Spaces*, 2021, https://arxiv.org/abs/2111.00396: the kernel K by its truncated generating function at the roots of
unity, which the Woodbury identity makes four Cauchy products (section 3.2, algorithm 1, appendix C.3); the recurrence
in O(N) by the same identity (appendix C.2). P = Q, which is stable (Goel et al., *It's Raw!*, 2022, section 3.2).

============= ========================================== ===========================
symbol        meaning                                    shape
============= ========================================== ===========================
``lam``       Λ, one of each conjugate pair              (channels, pairs)
``p``         P                                          (channels, pairs)
``b``         B                                          (channels, pairs)
``c``         C, not conjugated: y = 2 Re Σ c x          (channels, pairs)
``dt``        Δ                                          (channels,)
``x``         state as real numbers, all Re x, all Im x  (batch, channels, 2 pairs)
============= ========================================== ===========================

Cost: the kernel O(length · channels · N), the convolution O(length log length · channels); :func:`scan` in chunks of T
tokens O(length · channels · (T + N + N²/T)). All that depends on parameters alone is worked out in float64: near a
root of unity that hits an eigenvalue, float32 leaves no more than three digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Float64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from linocut.ops import quarantine
from linocut.ops.arguments import floats

_BLOCK = 2**22  # frequencies times channels times pairs that a Cauchy product holds at a time


class DPLR(NamedTuple):
    """A state space for each channel; shapes and symbols are in the module's table.

    Attributes:
        lam: Λ.
        p: P.
        b: B.
        c: C.
        dt: Δ.
    """

    lam: Complex[Tensor, "channels pairs"]
    p: Complex[Tensor, "channels pairs"]
    b: Complex[Tensor, "channels pairs"]
    c: Complex[Tensor, "channels pairs"]
    dt: Float[Tensor, " channels"]

    def wide(self) -> DPLR:
        """The same in double precision."""
        lam, p, b, c = (x.to(torch.complex128) for x in self[:4])
        return DPLR(lam, p, b, c, self.dt.double())


class Discrete(NamedTuple):
    """The recurrence x_t = Ā x_{t-1} + B̄ u_t, y_t = C x_t in real numbers.

    Attributes:
        gate: Ā, (channels, order, order).
        into: B̄, (channels, order).
        read: C, (channels, order).
    """

    gate: Float64[Tensor, "channels order order"]
    into: Float64[Tensor, "channels order"]
    read: Float64[Tensor, "channels order"]


def _halves(x: Tensor) -> Tensor:
    """Complex pairs as real numbers: all real parts, then all imaginary ones."""
    return torch.cat([x.real, x.imag], dim=-1)


def discrete(system: DPLR) -> Discrete:
    """The bilinear discretisation as dense real matrices, in float64: the definition, and what chunks are made of."""
    lam, p, b, c, dt = system.wide()
    re, im = torch.diag_embed(lam.real), torch.diag_embed(lam.imag)
    low = _halves(p)
    # P P* acts on the conjugates too, which adds up to twice the real part
    A = torch.cat([torch.cat([re, -im], -1), torch.cat([im, re], -1)], -2)  # noqa: N806
    A = A - 2 * low[..., None] * low[..., None, :]  # noqa: N806
    half = dt[:, None, None] / 2 * A
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat([eye + half, (dt[:, None] * _halves(b))[..., None]], dim=-1)
    solved = torch.linalg.solve(eye - half, right)
    return Discrete(solved[..., :-1], solved[..., -1], 2 * _halves(c.conj()))


def kernel_by_powers(system: DPLR, length: int) -> Float64[Tensor, "channels length"]:
    """K_l = C Āˡ B̄ as it stands, O(length · channels · N²): the oracle of the tests."""
    gate, x, read = discrete(system)
    lags = []
    for _ in range(length):
        lags.append((read * x).sum(-1))
        x = (gate @ x[..., None])[..., 0]
    return torch.stack(lags, dim=-1) if lags else x[:, :0]


def _generating_function(
    lam: Tensor, p: Tensor, b: Tensor, c: Tensor, dt: Tensor, below: Tensor, above: Tensor
) -> Tensor:
    """C (I - z Ā)⁻¹ B̄ at roots of unity, given 1 - z and 1 + z: 2 C (R + (1 + z) P P*)⁻¹ B with a diagonal R."""
    left = torch.stack([c, p.conj()])[:, None]
    products = left * torch.stack([b, p])
    shift = (2 / dt)[:, None] * below
    found = torch.zeros((), dtype=lam.dtype, device=lam.device)
    # the sum over a pair: one term from each of the two
    for weights, poles in ((products, lam), (products.conj(), lam.conj())):
        inverse = 1 / (shift[:, None] - above * poles[..., None])
        found = found + torch.einsum("ijdn,dnf->ijdf", weights, inverse)
    (cb, cp), (pb, pp) = found
    values: Tensor = 2 * (cb - above * cp * pb / (1 + above * pp))
    return values


def kernel(system: DPLR, length: int) -> Float64[Tensor, "channels length"]:
    """K by Cauchy products at the roots of unity and an inverse FFT.

    Σ_{l < length} K_l zˡ = C (I - Ā^length) (I - z Ā)⁻¹ B̄ where z^length = 1. With R = 2/Δ (1 - z) - (1 + z) Λ, written
    so that z = -1 is nothing special, the Woodbury identity leaves c R⁻¹ b, c R⁻¹ p, p* R⁻¹ b and p* R⁻¹ p.

    Args:
        system: the state space.
        length: number of lags, >= 0.
    """
    wide = system.wide()
    if length == 0:
        return wide.dt.new_zeros(wide.dt.shape[0], 0)
    gate, _, read = discrete(system)
    cut = read - (read[:, None] @ torch.linalg.matrix_power(gate, length))[:, 0]
    c = torch.complex(*(cut / 2).chunk(2, dim=-1)).conj()
    angles = torch.arange(length // 2 + 1, dtype=torch.float64, device=c.device) * (2 * math.pi / length)
    z = torch.polar(torch.ones_like(angles), -angles)
    # 1 - z = 2 sin²(a/2) + i sin(a), without the cancellation near z = 1
    below = torch.complex(2 * (angles / 2).sin() ** 2, angles.sin())
    size = max(1, _BLOCK // max(1, c.numel()))
    spectrum = [
        checkpoint(_generating_function, *wide[:3], c, wide.dt, *block, use_reentrant=False)
        for block in zip(torch.split(below, size), torch.split(1 + z, size), strict=True)
    ]
    lags: Tensor = torch.fft.irfft(torch.cat(spectrum, dim=-1), n=length)
    return lags


@floats
def convolve(
    u: Float[Tensor, "batch length channels"], kernel: Float[Tensor, "channels length"]
) -> Float[Tensor, "batch length channels"]:
    """The causal convolution y_t = Σ_l K_l u_{t-l} by FFT.

    What is not finite makes NaN of everything after it in its channel, as in a recurrence, and of nothing before, which
    a plain FFT would not keep to.

    Args:
        u: inputs.
        kernel: K, at least as long.

    Example:
        >>> u, K = torch.tensor([[[1.0], [0.0], [2.0]]]), torch.tensor([[1.0, 0.5, 0.25]])
        >>> [round(y, 6) for y in convolve(u, K).flatten().tolist()]
        [1.0, 0.5, 2.25]
    """
    length = u.shape[1]
    if length == 0:
        return u * 1
    spoilt = (~u.isfinite()).cummax(dim=1).values
    wide = torch.promote_types(u.dtype, torch.float32)
    x, response = torch.where(spoilt, 0, u).mT.to(wide), kernel[:, :length].to(wide)
    spectrum = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(response, n=2 * length)
    return torch.where(spoilt, torch.nan, torch.fft.irfft(spectrum, n=2 * length)[..., :length].mT).to(u.dtype)


def _krylov(gate: Tensor, x: Tensor, count: int) -> Tensor:
    """x, Ā x, … Āᶜᵒᵘⁿᵗ⁻¹ x as columns, by doubling."""
    columns = x[..., None]
    while columns.shape[-1] < count:
        columns = torch.cat([columns, gate @ columns], dim=-1)
        gate = gate @ gate
    return columns[..., :count]


def _chunks(u: Tensor, system: Discrete, state: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Chunks of `size` tokens, which divides the length; channels first inside."""
    gate, into, read = system
    reached = _krylov(gate, into, size)
    response = (read[:, None] @ reached)[:, 0]
    seen = _krylov(gate.mT, (gate.mT @ read[..., None])[..., 0], size)
    whole = torch.linalg.matrix_power(gate, size)
    reached, response, seen, whole = (x.to(state.dtype) for x in (reached, response, seen, whole))
    lags = torch.arange(size, device=u.device)
    lag = lags - lags[:, None]
    toeplitz = torch.where(lag >= 0, response[:, lag.clamp(min=0)], 0)
    batch, length, channels = u.shape
    count = length // size
    pieces = u.reshape(batch, count, size, channels).permute(3, 0, 1, 2).flatten(1, 2)
    shifts = (pieces @ reached.flip(-1).mT).reshape(channels, batch, count, reached.shape[1])
    x, before = state.transpose(0, 1), []
    for shift in shifts.unbind(2):
        before.append(x)
        x = x @ whole.mT + shift
    y = pieces @ toeplitz + torch.stack(before, dim=2).flatten(1, 2) @ seen
    return y.reshape(channels, batch, length).permute(1, 2, 0), x.transpose(0, 1)


@floats
def scan(
    u: Float[Tensor, "batch length channels"],
    system: DPLR,
    *,
    state: Float[Tensor, "batch channels order"] | None = None,
    chunk_size: int = 64,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels order"]]:
    """The recurrence in chunks: a convolution inside a chunk, Ā^T between chunks.

    Args:
        u: inputs.
        system: the state space.
        state: x before the first token as real numbers, float32 or float64; None for zeros.
        chunk_size: T, >= 1.

    Returns:
        Outputs, in the dtype of ``u``, and the last state in that of the state.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    shape = (u.shape[0], system.lam.shape[0], 2 * system.lam.shape[1])
    if u.dim() != 3 or u.shape[2] != system.lam.shape[0]:
        raise ValueError(f"s4.scan: u must be (batch, length, {system.lam.shape[0]}), got {tuple(u.shape)}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be >= 1, got {chunk_size}")
    if state is None:
        state = u.new_zeros(shape, dtype=torch.promote_types(u.dtype, torch.float32))
    elif state.shape != shape:
        raise ValueError(f"s4.scan: state must be {shape}, got {tuple(state.shape)}")
    if u.shape[1] == 0:
        return u, state
    (u,), met = quarantine.isolate((u,))
    outputs, whole, matrices = [], u.shape[1] // chunk_size * chunk_size, discrete(system)
    for piece in (u[:, :whole], u[:, whole:]):
        if piece.shape[1]:
            y, state = _chunks(piece.to(state.dtype), matrices, state, min(chunk_size, piece.shape[1]))
            outputs.append(y.to(u.dtype))
    return quarantine.release(torch.cat(outputs, dim=1), state, met)


def step(
    u: Float[Tensor, "batch channels"], system: DPLR, state: Float[Tensor, "batch channels order"]
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch channels order"]]:
    """One token in O(N) a channel: Ā = (2/Δ - Λ + P P*)⁻¹ (2/Δ + Λ - P P*), the inverse by Woodbury.

    Args:
        u: one token.
        system: the state space.
        state: x before it, as real numbers.

    Returns:
        Output and state after the token, in the dtypes of ``u`` and of the state.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    channels, pairs = system.lam.shape
    if u.dim() != 2 or u.shape[1] != channels:
        raise ValueError(f"s4.step: u must be (batch, {channels}), got {tuple(u.shape)}")
    if state.shape != (shape := (u.shape[0], channels, 2 * pairs)):
        raise ValueError(f"s4.step: state must be {shape}, got {tuple(state.shape)}")
    lam, p, b, c, dt = (x.to(torch.promote_types(x.dtype, state.dtype)) for x in system)
    x, rate = torch.complex(*state.chunk(2, dim=-1)), (2 / dt)[:, None]
    forward = (
        (rate + lam) * x - 2 * p * (p.conj() * x).real.sum(-1, keepdim=True) + 2 * b * u.to(state.dtype)[..., None]
    )
    inverse = 1 / (rate - lam)
    solved, low = inverse * forward, inverse * p
    share = (p.conj() * solved).real.sum(-1, keepdim=True) / (0.5 + (p.conj() * low).real.sum(-1, keepdim=True))
    x = solved - low * share
    return (2 * (c * x).real.sum(-1)).to(u.dtype), _halves(x)
