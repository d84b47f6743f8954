"""Linear attention with elu + 1 (Katharopoulos et al., ICML 2020, https://arxiv.org/abs/2006.16236), and its rivals.

    y_t = φ(q_t)ᵀ Σ_{s≤t} φ(k_s) v_sᵀ / φ(q_t)ᵀ Σ_{s≤t} φ(k_s),   φ(x) = elu(x) + 1

Every row but softmax's computes this, features and denominator included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peers.mixers import native

CHUNK = 64
FLA_CHUNK = 64
EPSILON = 1e-6


def elu_feature(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1, positive."""
    return functional.elu(x) + 1


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(batch, length, …) → (batch, length / chunk, chunk, …)."""
    return x.reshape(len(x), -1, chunk, *x.shape[2:])


def causal_chunks(q: Tensor, k: Tensor, v: Tensor, *, chunk: int) -> Tensor:
    """Σ_{s≤t} (q_tᵀ k_s) v_s in chunks: masked products inside, the sum of earlier chunks' k vᵀ across.

    Args:
        q: (batch, length, heads, dim), features already.
        k: the same shape.
        v: (batch, length, heads, value).
        chunk: tokens a chunk; a length it does not divide is padded with zeros.

    Returns:
        (batch, length, heads, value).
    """
    length = q.shape[1]
    q, k, v = (functional.pad(t, (0, 0, 0, 0, 0, -length % chunk)) for t in (q, k, v))
    q, k, v = (in_chunks(t, chunk).permute(0, 3, 1, 2, 4) for t in (q, k, v))
    state = k.transpose(-1, -2) @ v
    state = functional.pad(state.cumsum(2)[:, :, :-1], (0, 0, 0, 0, 1, 0))
    y: Tensor = q @ state + (q @ k.transpose(-1, -2)).tril() @ v
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length]


def torch_chunked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The chunked form a careful user writes in PyTorch, from the formula; the denominator is a column of ones on v."""
    y = causal_chunks(elu_feature(q), elu_feature(k), functional.pad(v, (0, 1), value=1.0), chunk=CHUNK)
    return y[..., :-1] / (y[..., -1:] + EPSILON)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return torch.compile(torch_chunked, dynamic=False)


def torch_compiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`torch.compile` of `torch_chunked`; it is compiled again for every length."""
    return _compiled()(q, k, v)


def softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention by PyTorch's fused kernel: quadratic, another function."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def fla_naive_chunk(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`naive_chunk_linear_attn` of flash-linear-attention, normalised, step for step; features added before.

    Written again because the package cannot be imported without Triton. Its chunk is 64 and must divide the length.
    """
    q, k = elu_feature(q), elu_feature(k)
    qs, ks, vs = (in_chunks(t, FLA_CHUNK).permute(0, 3, 1, 2, 4).contiguous() for t in (q, k, v))
    state = (ks.transpose(-1, -2) @ vs).cumsum(2)
    state = torch.cat([torch.zeros_like(state[:, :, :1]), state[:, :, :-1]], dim=2)
    future = torch.ones(FLA_CHUNK, FLA_CHUNK, dtype=torch.bool).triu(1)
    y = qs @ state + (qs @ ks.transpose(-1, -2)).masked_fill_(future, 0) @ vs
    y = y.permute(0, 2, 3, 1, 4).flatten(1, 2)
    return y / ((q * k.cumsum(1)).sum(-1, keepdim=True) + 1e-10)


class CausalProduct(torch.autograd.Function):
    """fast-transformers' CPU kernel and its backward; (batch, heads, length, dim), float32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Σ_{s≤t} (q_tᵀ k_s) v_s."""
        ctx.save_for_backward(q, k, v)
        out = torch.zeros_like(v)
        native.fast_transformers().causal_dot_product(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and v."""
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        native.fast_transformers().causal_dot_backward(q, k, v, grad.contiguous(), dq, dk, dv)
        return dq, dk, dv


def fast_transformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """fast-transformers' `CausalLinearAttention`: its C++ CPU kernel and what its layer does around it.

    Compiled for this processor with -O3, which is more than the package's own build asks for.

    Raises:
        PeerMissingError: see `native.fast_transformers`.
    """
    q, k = elu_feature(q), elu_feature(k)
    norm = 1 / (torch.einsum("nlhi,nlhi->nlh", q, k.cumsum(1)) + EPSILON)
    product: Tensor = CausalProduct.apply(*(t.transpose(1, 2).contiguous() for t in (q, k, v)))  # type: ignore[no-untyped-call]
    return product.transpose(1, 2) * norm[..., None]


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Not causal, in PyTorch from the formula: two products and the denominator."""
    q, k = (elu_feature(t).transpose(1, 2) for t in (q, k))
    v = v.transpose(1, 2)
    norm = q @ k.sum(2)[..., None] + EPSILON
    y: Tensor = q @ (k.transpose(-1, -2) @ v) / norm
    return y.transpose(1, 2)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Efficient Attention (Shen et al., WACV 2021, https://arxiv.org/abs/1812.01243), in PyTorch from its equation 5.

    softmax over the channels of q and over the positions of k.
    """
    q, k = q.softmax(-1).transpose(1, 2), k.softmax(1).transpose(1, 2)
    return (q @ (k.transpose(-1, -2) @ v.transpose(1, 2))).transpose(1, 2)
