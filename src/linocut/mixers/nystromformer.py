r"""Nyströmformer (Xiong et al., *A Nyström-Based Algorithm for Approximating Self-Attention*, AAAI 2021).

The paper approximates the attention matrix from its rows and columns at m landmarks, the means of m segments of queries
and of keys (equations 13 to 15):

.. math::
    \hat S V = \operatorname{softmax}(Q \tilde K^T) \; \operatorname{softmax}(\tilde Q \tilde K^T)^+ \;
    \operatorname{softmax}(\tilde Q K^T) \, V

It takes the pseudo-inverse by an iteration of third order (section 3.2) and adds a depthwise convolution of the values
(its figure 2). Taken from the right, no product is larger than n × m. The landmarks see the whole sequence, and so
there is no causal form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.mixers.attention import Attention
from linocut.mixers.base import Info, register

_BLOCK = 32


def pseudo_inverse(a: Tensor, iterations: int = 6) -> Tensor:
    """The Moore-Penrose inverse of square matrices whose rows sum to one, by the iteration of section 3.2.

    Each matrix starts from its own norms, ‖A‖₁ ‖A‖∞; the paper's code takes the largest of the batch.
    """
    z = a.mT / (a.abs().sum(dim=-2).amax(dim=-1) * a.abs().sum(dim=-1).amax(dim=-1))[..., None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z


def segment_means(x: Tensor, count: int) -> Tensor:
    """Means of segments along dimension 1, each of ⌈length / count⌉ tokens but for the last, which has the rest.

    There are `count` of them, or fewer where fewer are enough to cover the length.
    """
    size = -(-x.shape[1] // count)
    whole = x.shape[1] // size
    means = x[:, : whole * size].reshape(x.shape[0], whole, size, *x.shape[2:]).mean(dim=2)
    rest = x[:, whole * size :]
    return torch.cat([means, rest.mean(dim=1, keepdim=True)], dim=1) if rest.shape[1] else means


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve each head along the length with its own taps, an odd number, zeros beyond the ends.

    Args:
        x: (batch, length, heads, dim).
        weight: (heads, taps).

    A band matrix times a block of tokens, since products are what a CPU is best at.
    """
    length, taps = x.shape[1], weight.shape[1]
    lag = torch.arange(_BLOCK + taps - 1, device=x.device) - torch.arange(_BLOCK, device=x.device)[:, None]
    band = torch.where((lag >= 0) & (lag < taps), weight[:, lag.clamp(0, taps - 1)], 0)
    padded = functional.pad(x, (0, 0, 0, 0, taps // 2, taps // 2 + -length % _BLOCK))
    blocks = padded.transpose(1, 2).unfold(2, _BLOCK + taps - 1, _BLOCK).mT
    return (band[:, None] @ blocks).flatten(2, 3)[:, :, :length].transpose(1, 2)


@register(
    Info(
        name="nystromformer",
        paper="Xiong et al., Nyströmformer, 2021",
        url="https://arxiv.org/abs/2102.03902",
        causal=False,
        cost="n landmarks d + landmarks³ h",
        state="none",
    )
)
class Nystromformer(Attention):
    """Attention approximated through landmarks.

    A sequence of no more tokens than landmarks is attended to exactly, as in the paper's code. Where the paper's code
    pads a length that the landmarks do not divide and masks the padding, the last segment here is shorter: the same.

    Args:
        d_model: channels of a token.
        heads: number of heads; must divide ``d_model``.
        landmarks: the paper's m, >= 1.
        iterations: of the pseudo-inverse, >= 1; the paper's 6.
        taps: of the convolution of the values, odd, or 0 for none; the paper's 33.

    Raises:
        ValueError: for an argument out of its range.
    """

    def __init__(
        self, d_model: int, *, heads: int = 4, landmarks: int = 64, iterations: int = 6, taps: int = 33
    ) -> None:
        super().__init__(d_model, heads=heads)
        if landmarks < 1 or iterations < 1:
            message = f"landmarks={landmarks} and iterations={iterations}"
            raise ValueError(f"landmarks and iterations must be >= 1, got {message}")
        if taps < 0 or (taps and taps % 2 == 0):
            raise ValueError(f"taps must be odd, or 0 for no convolution, got {taps}")
        self.landmarks, self.iterations = landmarks, iterations
        self.residual = nn.Parameter(torch.empty(heads, taps).uniform_(-1, 1) * taps**-0.5) if taps else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The answer of every query; all are (batch, length, heads, dim)."""
        queries, keys, values = (x.transpose(1, 2) for x in (q, k, v))
        attention = functional.scaled_dot_product_attention
        if q.shape[1] <= self.landmarks:
            out = attention(queries, keys, values).transpose(1, 2)
        else:
            wide = torch.promote_types(q.dtype, torch.float32)
            few_q, few_k = (segment_means(x, self.landmarks).transpose(1, 2) for x in (q, k))
            square = (few_q @ few_k.mT * q.shape[-1] ** -0.5).to(wide).softmax(dim=-1)
            answers = pseudo_inverse(square, self.iterations) @ attention(few_q, keys, values).to(wide)
            out = attention(queries, few_k, answers.to(q.dtype)).transpose(1, 2)
        return out if self.residual is None else out + convolve(v, self.residual)
