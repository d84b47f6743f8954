"""Attention inside blocks against the whole matrix with a mask."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from linocut.ops.block_attention import block_attention


def masked(q: Tensor, k: Tensor, v: Tensor, block: int, *, causal: bool, rectified: bool) -> Tensor:
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    at = torch.arange(k.shape[1])
    queries = at[k.shape[1] - q.shape[1] :]
    keep = queries[:, None] // block == at // block
    if causal:
        keep &= queries[:, None] >= at
    weights = scores.relu().where(keep, 0) if rectified else scores.masked_fill(~keep, -torch.inf).softmax(-1)
    return torch.einsum("bhij,bjhe->bihe", weights, v)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("length", "opened"), [(0, 0), (1, 0), (8, 0), (13, 0), (16, 0), (1, 5), (2, 5), (3, 5), (30, 7)]
)
def test_it_is_the_masked_matrix(
    randn: Callable[..., Tensor], length: int, opened: int, *, causal: bool, rectified: bool
) -> None:
    q = randn(2, length, 3, 4, dtype=torch.float64)
    k, v = randn(2, opened + length, 3, 4, dtype=torch.float64), randn(2, opened + length, 3, 5, dtype=torch.float64)
    found = block_attention(q, k, v, block=8, causal=causal, rectified=rectified)
    torch.testing.assert_close(found, masked(q, k, v, 8, causal=causal, rectified=rectified), rtol=0, atol=1e-12)


def test_what_does_not_fit_is_named(randn: Callable[..., Tensor]) -> None:
    q, k = randn(1, 3, 1, 2), randn(1, 7, 1, 2)
    with pytest.raises(ValueError, match="got block=4 with 4 open"):
        block_attention(q, k, k, block=4)
    with pytest.raises(ValueError, match="got block=0 with 0 open"):
        block_attention(q, q, q, block=0)
    with pytest.raises(ValueError, match=r"must share .* got \(1, 3, 1, 2\) and \(1, 7, 1, 2\)"):
        block_attention(q, q, k, block=4)
