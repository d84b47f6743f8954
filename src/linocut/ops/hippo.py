r"""HiPPO: online projection of a function's history onto polynomials, as a linear differential equation.

.. math::
    \dot c(t) = \tfrac{1}{t} (A c(t) + B f(t)) \quad\text{(LegS)}, \qquad
    \dot c(t) = \tfrac{1}{\theta} (A c(t) + B f(t)) \quad\text{(LegT, FouT)}

The coefficients c(t) are those of the best approximation of f under a measure: all history weighted equally (LegS,
scaled Legendre), or the last θ of it (LegT, translated Legendre; FouT, truncated Fourier).
Gu, Dao, Ermon, Rudra, Ré, *HiPPO: Recurrent Memory with Optimal Polynomial Projections*, 2020,
https://arxiv.org/abs/2008.07669 (theorems 1 and 2, appendix B.3 for discretisation); the orthonormal scaling and FouT
as in Gu et al., *How to Train Your HiPPO*, 2022, https://arxiv.org/abs/2206.12037 (section 3). LegS as normal plus low
rank: Gu, Goel, Ré, *Efficiently Modeling Long Sequences with Structured State Spaces*, 2021,
https://arxiv.org/abs/2111.00396 (theorem 1, appendix C.1).

============= ======================================================= ====================
symbol        meaning                                                 shape
============= ======================================================= ====================
``A``, ``B``  transition and input of the differential equation       (order, order), (order,)
``c``         coefficients on an orthonormal basis                    (…, length, order)
θ             `window`, in samples                                    number
============= ======================================================= ====================

Everything is in float64 unless the input says otherwise. Cost of a projection: O(length · order²).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Complex128, Float, Float64
from torch import Tensor

Measure = Literal["legs", "legt", "fout"]
Method = Literal["forward", "backward", "bilinear", "zoh"]
_ALPHAS = {"forward": 0.0, "bilinear": 0.5, "backward": 1.0}


def _check(measure: str, order: int) -> None:
    if measure not in get_args(Measure):
        raise ValueError(f"measure must be one of {', '.join(get_args(Measure))}, got {measure!r}")
    if order < 1:
        raise ValueError(f"order must be >= 1, got {order}")
    if measure == "fout" and order % 2 == 0:
        raise ValueError(f"fout takes an odd order, a constant and a cosine and a sine for each frequency, got {order}")


def _scale(order: int) -> Tensor:
    """√(2n + 1), which makes Legendre's polynomials orthonormal on an interval of length one."""
    return (2 * torch.arange(order, dtype=torch.float64) + 1).sqrt()


def _fourier_now(order: int) -> Tensor:
    """FouT's basis at the present: 1, then √2 for each cosine and 0 for each sine."""
    now = torch.zeros(order, dtype=torch.float64)
    now[1::2] = math.sqrt(2)
    now[0] = 1
    return now


def transition(measure: Measure, order: int) -> tuple[Float64[Tensor, "order order"], Float64[Tensor, " order"]]:
    """Give A and B of a measure.

    Args:
        measure: "legs", "legt" or "fout".
        order: number of coefficients, >= 1; odd for FouT.

    Raises:
        ValueError: for an unknown measure or an order that it does not have.

    Example:
        >>> A, B = transition("legs", 2)
        >>> A
        tensor([[-1.0000, -0.0000],
                [-1.7321, -2.0000]], dtype=torch.float64)
    """
    _check(measure, order)
    n = torch.arange(order, dtype=torch.float64)
    if measure == "fout":
        b = _fourier_now(order)
        turns = torch.zeros(order - 1, dtype=torch.float64)
        turns[1::2] = 2 * math.pi * torch.arange(1, order // 2 + 1)
        # the series at the jump between newest and oldest is their mean, so f(t - θ) = 2 Σ c g - f(t)
        return torch.diag(turns, -1) - torch.diag(turns, 1) - 2 * torch.outer(b, b), 2 * b
    scale = _scale(order)
    product = torch.outer(scale, scale)
    if measure == "legs":
        return -(product.tril(-1) + torch.diag(n + 1)), scale
    signs = 1 - 2 * ((n[:, None] - n).remainder(2))
    return -product * torch.where(n[:, None] >= n, 1.0, signs), scale


def discretize(
    A: Float[Tensor, "*batch order order"],  # noqa: N803  # the papers' letter
    B: Float[Tensor, "*batch order"],  # noqa: N803
    dt: float | Float[Tensor, "*#batch"],
    *,
    method: Method = "bilinear",
    alpha: float | None = None,
) -> tuple[Float[Tensor, "*batch order order"], Float[Tensor, "*batch order"]]:
    """Turn c' = A c + B f into c_k = Ā c_{k-1} + B̄ f_k.

    The generalised bilinear transform is Ā = (I - α dt A)⁻¹ (I + (1 - α) dt A), B̄ = (I - α dt A)⁻¹ dt B: forward Euler
    at α = 0, the bilinear (Tustin) method at 1/2, backward Euler at 1. Zero-order hold is exact for a constant f:
    Ā = exp(dt A), B̄ = A⁻¹ (Ā - I) B, here for a singular A too.

    Args:
        A: transition.
        B: input.
        dt: step, > 0; a number or one for each of the batch.
        method: "forward", "backward", "bilinear" or "zoh".
        alpha: α of the generalised bilinear transform, in [0, 1]; takes the place of `method`.

    Raises:
        ValueError: for an unknown method or an α outside [0, 1].

    Example:
        >>> discretize(-torch.ones(1, 1), torch.ones(1), 1.0, method="backward")
        (tensor([[0.5000]]), tensor([0.5000]))
    """
    if alpha is None and method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    step = torch.as_tensor(dt, dtype=A.dtype, device=A.device)[..., None, None]
    both = torch.cat([step * A, step * B[..., None]], dim=-1)
    if alpha is None and method == "zoh":
        square = torch.nn.functional.pad(both, (0, 0, 0, 1))
        both = torch.linalg.matrix_exp(square)[..., :-1, :]
        return both[..., :-1], both[..., -1]
    share = _ALPHAS[method] if alpha is None else alpha
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    right = torch.cat([eye + (1 - share) * both[..., :-1], both[..., -1:]], dim=-1)
    solved = torch.linalg.solve(eye - share * both[..., :-1], right)
    return solved[..., :-1], solved[..., -1]


def project(
    f: Float[Tensor, "*batch length"],
    measure: Measure,
    order: int,
    *,
    window: float | None = None,
    method: Method = "bilinear",
    alpha: float | None = None,
) -> Float[Tensor, "*batch length order"]:
    """Follow the coefficients of a sampled function, sample by sample.

    LegS divides by the time that has passed, k samples at sample k, so its coefficients do not depend on the rate at
    which f is sampled; LegT and FouT see the last `window` samples.

    Args:
        f: samples.
        measure: "legs", "legt" or "fout".
        order: number of coefficients, >= 1; odd for FouT.
        window: θ in samples, > 0; needed for LegT and FouT, refused for LegS.
        method: discretisation, as in :func:`discretize`.
        alpha: α of the generalised bilinear transform; takes the place of `method`.

    Returns:
        The coefficients after each sample.

    Raises:
        ValueError: for an unknown measure or method, or a window where there is none or none where there must be one.

    Example:
        >>> c = project(torch.ones(100, dtype=torch.float64), "legs", 2)
        >>> c[-1].round(decimals=1).abs().tolist()
        [1.0, 0.0]
    """
    A, B = (x.to(f) for x in transition(measure, order))  # noqa: N806
    if measure == "legs" and window is not None:
        raise ValueError(f"legs remembers everything and takes no window, got {window}")
    if measure != "legs" and not (window is not None and window > 0):
        raise ValueError(f"{measure} needs a window > 0, got {window}")
    c, coefficients = f.new_zeros(*f.shape[:-1], order), []
    if window is not None:
        gate, into = discretize(A, B, 1 / window, method=method, alpha=alpha)
        for sample in f.unbind(-1):
            c = c @ gate.mT + into * sample[..., None]
            coefficients.append(c)
    else:
        for k, sample in enumerate(f.unbind(-1), start=1):
            gate, into = discretize(A, B, _legs_step(k, method, alpha), method=method, alpha=alpha)
            c = c @ gate.mT + into * sample[..., None]
            coefficients.append(c)
    return torch.stack(coefficients, dim=-2) if coefficients else c[..., None, :][..., :0, :]


def _legs_step(k: int, method: Method, alpha: float | None) -> float:
    """The step of log t at sample k, which goes from t = k - 1 to k: as the paper takes it, 1/k, or exact in log t.

    Zero-order hold is exact over [log(k - 1), log k]; the first sample is held since the beginning of time.
    """
    if alpha is None and method == "zoh":
        return math.log(k / (k - 1)) if k > 1 else 64.0
    return 1 / k


def basis(measure: Measure, order: int, grid: Float[Tensor, " points"]) -> Float[Tensor, "points order"]:
    """Evaluate the orthonormal basis of a measure.

    Args:
        measure: "legs", "legt" or "fout".
        order: number of functions, >= 1; odd for FouT.
        grid: where, from 0, the oldest moment that is remembered, to 1, the present.

    Raises:
        ValueError: for an unknown measure or an order that it does not have.

    Example:
        >>> basis("legt", 2, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
        [[1.0, -1.7320508075688772], [1.0, 0.0], [1.0, 1.7320508075688772]]
    """
    _check(measure, order)
    if measure == "fout":
        angles = 2 * math.pi * (1 - grid)[:, None] * torch.arange(1, order // 2 + 1).to(grid)
        pairs = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1)
        return torch.cat([torch.ones_like(grid)[:, None], pairs], dim=1)
    x = 2 * grid - 1
    columns = [torch.ones_like(x), x]
    for n in range(1, order - 1):
        columns.append(((2 * n + 1) * x * columns[n] - n * columns[n - 1]) / (n + 1))
    return torch.stack(columns[:order], dim=1) * _scale(order).to(grid)


def reconstruct(
    coefficients: Float[Tensor, "*batch order"], measure: Measure, grid: Float[Tensor, " points"]
) -> Float[Tensor, "*batch points"]:
    """Evaluate the approximation that coefficients stand for.

    Args:
        coefficients: as :func:`project` gives them, at one moment.
        measure: "legs", "legt" or "fout".
        grid: where, from 0, the oldest moment that is remembered (the start for LegS, θ ago otherwise), to 1, now.

    Raises:
        ValueError: for an unknown measure.

    Example:
        >>> reconstruct(torch.tensor([2.0, 0.0]), "legs", torch.tensor([0.0, 0.3, 1.0])).tolist()
        [2.0, 2.0, 2.0]
    """
    return coefficients @ basis(measure, coefficients.shape[-1], grid).to(coefficients).mT


class DPLR(NamedTuple):
    """LegS in the basis in which its normal part is diagonal: V⁻¹ A V = Λ - P P*, V⁻¹ B.

    Attributes:
        lam: Λ, eigenvalues of the normal part, by rising imaginary part; all have the real part -1/2.
        p: P, low rank correction.
        b: V⁻¹ B.
        basis: V, unitary.
    """

    lam: Complex128[Tensor, " order"]
    p: Complex128[Tensor, " order"]
    b: Complex128[Tensor, " order"]
    basis: Complex128[Tensor, "order order"]

    def halved(self) -> DPLR:
        """One of each conjugate pair, the one with the positive imaginary part; for an even order."""
        half = self.lam.shape[0] // 2
        return DPLR(self.lam[half:], self.p[half:], self.b[half:], self.basis[:, half:])


def dplr_legs(order: int) -> DPLR:
    """Write LegS as diagonal plus low rank.

    A + P Pᵀ with P_n = √(n + 1/2) is -1/2 plus a skew-symmetric matrix, hence normal (S4, appendix C.1).

    Args:
        order: number of coefficients, >= 1.

    Raises:
        ValueError: if the order is below 1.

    Example:
        >>> dplr_legs(4).lam.real.tolist()
        [-0.5, -0.5, -0.5, -0.5]
    """
    A, B = transition("legs", order)  # noqa: N806
    p = (torch.arange(order, dtype=torch.float64) + 0.5).sqrt()
    normal = A + torch.outer(p, p)
    skew = (normal - normal.mT) / 2
    imaginary, vectors = torch.linalg.eigh(-1j * skew)
    lam = torch.complex(torch.full_like(imaginary, -0.5), imaginary)
    # a phase for each vector that makes P positive, so that conjugate pairs come out as such
    p = vectors.mH @ p.to(vectors.dtype)
    phase = p / p.abs()
    vectors = vectors * phase
    return DPLR(lam, p.abs().to(vectors.dtype), vectors.mH @ B.to(vectors.dtype), vectors)
