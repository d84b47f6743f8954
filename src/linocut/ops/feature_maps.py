r"""Feature maps φ that stand in for the softmax: attention weights become φ(q)ᵀφ(k), and sums over keys can be shared.

================ ========================== =====================================================================
map              φ(x)                       source
================ ========================== =====================================================================
``identity``     x                          Schmidhuber, *Learning to Control Fast-Weight Memories*, 1992
``elu``          elu(x) + 1                 Katharopoulos et al., *Transformers are RNNs*, 2020, equation 7
``relu``         max(x, 0)                  Choromanski et al., *Rethinking Attention with Performers*, 2021, 3.1
``exp``          exp(x)                     Choromanski et al., 2021, appendix D
================ ========================== =====================================================================

FAVOR+ (Choromanski et al., ICLR 2021, https://arxiv.org/abs/2009.14794) draws vectors ω_i ~ N(0, I) so that
E[φ(q)ᵀφ(k)] = exp(qᵀk), the kernel of the softmax:

.. math::
    \phi^{+}(x) &= \tfrac{1}{\sqrt m} e^{-|x|^2/2} \left(e^{\omega_1^T x}, \dots, e^{\omega_m^T x}\right)
    \quad \text{(Lemma 1, positive)} \\
    \phi^{hyp+}(x) &= \tfrac{1}{\sqrt{2m}} e^{-|x|^2/2} \left(e^{\omega_i^T x}, e^{-\omega_i^T x}\right)_i
    \quad \text{(Lemma 1, hyperbolic)} \\
    \phi^{trig}(x) &= \tfrac{1}{\sqrt m} e^{|x|^2/2} \left(\sin \omega_i^T x, \cos \omega_i^T x\right)_i
    \quad \text{(equation 5, trigonometric)}

Orthogonal ω of the same marginal law keep the estimate unbiased and lower its variance (Theorem 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def elu_plus_one(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, positive everywhere."""
    if torch.compiler.is_compiling():
        # of elu's gradient torch 2.13 expects other strides than it gets, which fails where they are not dense
        return x.clamp(max=0).exp() + torch.relu(x)
    return torch.nn.functional.elu(x).add_(1)


_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "elu": elu_plus_one,
    "relu": torch.relu,
    "exp": torch.exp,
}
_RANDOM = ("positive", "hyperbolic", "trigonometric")


def mapping(name: str) -> Callable[[Tensor], Tensor]:
    """φ by its name: identity, elu (that is elu + 1), relu or exp.

    Raises:
        ValueError: for another name.

    Example:
        >>> mapping("relu")(torch.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    if name not in _MAPS:
        raise ValueError(f"feature_map must be one of {', '.join(_MAPS)}, got {name!r}")
    return _MAPS[name]


def draw_projection(
    features: int, dim: int, *, orthogonal: bool = True, generator: torch.Generator | None = None
) -> Float[Tensor, "features dim"]:
    """Rows ω_i ~ N(0, I) of `dim` numbers, as float64: independent, or orthogonal in blocks of `dim` rows.

    A block of orthogonal directions is the Q of a Gaussian matrix with the signs that make it uniform (Mezzadri,
    *How to Generate Random Matrices from the Classical Compact Groups*, 2007); each row gets the length of an
    independent Gaussian vector, so that a single row is exactly N(0, I).

    Args:
        features: rows, >= 1.
        dim: columns, >= 1.
        orthogonal: whether the rows of a block are orthogonal.
        generator: the source of randomness; the global one if None.

    Raises:
        ValueError: if a size is below 1.

    Example:
        >>> rows = draw_projection(2, 2, generator=torch.Generator().manual_seed(0))
        >>> abs(float(rows[0] @ rows[1])) < 1e-12
        True
    """
    if features < 1 or dim < 1:
        raise ValueError(f"features and dim must be >= 1, got {features} and {dim}")

    def normal(rows: int) -> Tensor:
        return torch.randn(rows, dim, dtype=torch.float64, generator=generator)

    if not orthogonal:
        return normal(features)
    blocks = math.ceil(features / dim)
    q, r = torch.linalg.qr(normal(blocks * dim).reshape(blocks, dim, dim))
    directions = (q * r.diagonal(dim1=1, dim2=2).sign()[:, None]).mT.reshape(-1, dim)
    lengths = normal(features).norm(dim=1, keepdim=True)
    rows: Tensor = directions[:features] * lengths
    return rows


def random_features(
    kind: str, x: Float[Tensor, "*batch dim"], projection: Float[Tensor, "rows dim"]
) -> Float[Tensor, "*batch features"]:
    """FAVOR+'s φ(x), word by word and without a stabiliser: for small vectors, and the oracle of the tests.

    Args:
        kind: positive (one feature a row), hyperbolic or trigonometric (two a row).
        x: queries or keys; for attention with a scale, multiplied by its square root.
        projection: the ω, from :func:`draw_projection`.

    Raises:
        ValueError: for an unknown kind.

    Example:
        >>> random_features("hyperbolic", torch.zeros(1, 3), torch.ones(1, 3)).tolist()
        [[0.7071067690849304, 0.7071067690849304]]
    """
    check_random(kind)
    rows = projection.shape[0]
    half_square = x.square().sum(dim=-1, keepdim=True) / 2
    u = x @ projection.to(x.dtype).T
    if kind == "positive":
        return (u - half_square).exp() / math.sqrt(rows)
    if kind == "hyperbolic":
        return torch.cat([(u - half_square).exp(), (-u - half_square).exp()], dim=-1) / math.sqrt(2 * rows)
    return torch.cat([u.sin(), u.cos()], dim=-1) * half_square.exp() / math.sqrt(rows)


def check_random(kind: str) -> None:
    """Refuse a kind of random features that is not positive, hyperbolic or trigonometric.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in _RANDOM:
        raise ValueError(f"random features must be one of {', '.join(_RANDOM)}, got {kind!r}")
