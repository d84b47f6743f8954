"""Performer's FAVOR+ (Choromanski et al., ICLR 2021, https://arxiv.org/abs/2009.14794), 256 features a head."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peers.mixers.inputs import DIM, FEATURES
from benchmarks.peers.mixers.linear_attention import causal_chunks

if TYPE_CHECKING:
    from performer_pytorch import FastAttention

CHUNK = 128


@cache
def attention(*, causal: bool) -> FastAttention:
    """performer-pytorch's `FastAttention`; the same projection causal or not."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # It imports distutils, and prints that it falls back to PyTorch when causal.
        warnings.simplefilter("ignore", DeprecationWarning)
        from performer_pytorch import FastAttention

        torch.manual_seed(0)
        return FastAttention(dim_heads=DIM, nb_features=FEATURES, causal=causal)


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """performer-pytorch as shipped, not causal."""
    out: Tensor = attention(causal=False)(*(t.transpose(1, 2) for t in (q, k, v)))
    return out.transpose(1, 2)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """performer-pytorch as shipped, causal: on a CPU a running sum of every token's (256, 64) product, in 128 pieces.

    It adds 1e-6 to the sum of keys, whose features may be as small as 6e-6: the first tokens' outputs come out smaller.
    """
    out: Tensor = attention(causal=True)(*(t.transpose(1, 2) for t in (q, k, v)))
    return out.transpose(1, 2)


def features(x: Tensor, projection: Tensor, *, is_query: bool) -> Tensor:
    """performer-pytorch's positive features, from lemma 1: exp(w·x − |x|²/2 − max) + ε, x scaled by dim^(−1/4).

    Args:
        x: (batch, length, heads, dim).
        projection: (features, dim).
        is_query: the maximum is each query's own, but one a head for all keys.

    Returns:
        (batch, length, heads, features).
    """
    x = x * x.shape[-1] ** -0.25
    scores = x @ projection.T
    largest = scores.amax(-1, keepdim=True) if is_query else scores.amax((1, 3), keepdim=True)
    half_norm = x.square().sum(-1, keepdim=True) / 2
    ratio: float = len(projection) ** -0.5
    return ratio * (torch.exp(scores - half_norm - largest.detach()) + 1e-4)


def torch_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal in chunks, in PyTorch: what a careful user writes in place of the package's running sum."""
    projection: Tensor = attention(causal=True).projection_matrix
    q, k = features(q, projection, is_query=True), features(k, projection, is_query=False)
    y = causal_chunks(q, k, functional.pad(v, (0, 1), value=1.0), chunk=CHUNK)
    return y[..., :-1] / y[..., -1:]  # features are positive: nothing to add
