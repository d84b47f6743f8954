"""Softmax attention one query at a time, by a list of the keys it sees: what sparse patterns are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from linocut import mixers


def build(name: str, d_model: int = 8, **options: Any) -> Any:
    """A mixer in double precision, the same at every run, whose biases are not zero either."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = mixers.build(name, d_model, **options).double()
        for parameter in mixer.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer


def tokens(length: int, d_model: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def answer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query (dim,) over the keys (keys, dim) it sees; zero if it sees none."""
    if not len(k):
        return torch.zeros_like(q)
    weights = torch.exp(k @ q / q.shape[0] ** 0.5)
    return weights @ v / weights.sum()


def attention(mixer: Any, x: Tensor, sees: Callable[[int, int], Iterable[int]]) -> Tensor:
    """The mixer's output, with `sees(head, i)` the positions of the keys that a head's token i sees."""
    heads, dim = mixer.heads, mixer.d_model // mixer.heads
    q, (k, v) = mixer.query(x), mixer.key_value(x).split(mixer.d_model, dim=-1)
    rows = []
    for b in range(x.shape[0]):
        for i in range(x.shape[1]):
            for head in range(heads):
                at, part = sorted(set(sees(head, i))), slice(head * dim, (head + 1) * dim)
                rows.append(answer(q[b, i, part], k[b, at][:, part], v[b, at][:, part]))
    return mixer.out(torch.cat(rows).reshape(x.shape) if rows else x)


def check(mixer: Any, x: Tensor, sees: Callable[[int, int], Iterable[int]]) -> None:
    """Output and all gradients agree with the oracle's."""
    found = []
    for form in (mixer, lambda x: attention(mixer, x, sees)):
        leaf = x.clone().requires_grad_()
        y = form(leaf)
        grads = torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()], materialize_grads=True)
        found.append([y, *grads])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)
