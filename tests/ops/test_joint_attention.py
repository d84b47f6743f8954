"""One softmax over several sets of keys: fused and materialised, against the whole mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import joint_attention as ops

HIDDEN, BEHIND, AHEAD, SIZE = [0, 70], 9, 5, 16
FORMS = [ops.joint_attention, ops._materialised]


def pieces(k: Tensor, v: Tensor) -> list[ops.Piece]:
    """A window without two tokens; those two for all but the first group; and every 30th token from 60 back."""
    shared = [x[HIDDEN].transpose(0, 1)[None] for x in (k, v)]
    groups = -(-k.shape[0] // SIZE)
    order = ops.Classes(30)
    k_, v_ = order.fold(k), order.fold(v)
    rows = k_.shape[2]
    visible = torch.ones(rows, rows, dtype=torch.bool).tril(-2)
    visible[:, 0] = visible[:, 1] = False  # 0 to 59: they are, or hide, the shared tokens
    return [
        ops.window(k, v, behind=BEHIND, ahead=AHEAD, hidden=HIDDEN, size=SIZE),
        ops.Piece(ops.Blocks(SIZE), shared[0], shared[1], (ops.Span(1, groups, 2),)),
        ops.Piece(order, k_, v_, (ops.Span(0, 10, rows, visible), ops.Span(11, 30, rows, visible))),
    ]


def seen(length: int) -> Tensor:
    i = torch.arange(length)
    lag = i - i[:, None]
    mask = (lag >= -BEHIND) & (lag <= AHEAD)
    mask[:, HIDDEN] = False
    mask[SIZE:, HIDDEN] = True
    far = (lag % 30 == 0) & (lag <= -60) & (i >= 60) & (i % 30 != 10)
    return mask | far


def inputs(randn: Callable[..., Tensor], length: int, dtype: torch.dtype) -> list[Tensor]:
    return [randn(length, 2, 8, dtype=dtype) for _ in range(3)]


def expected(length: int) -> Callable[..., Sequence[Tensor]]:
    return lambda q, k, v: [ops.dense_reference(q[None], k[None], v[None], seen(length))[0]]


@pytest.mark.parametrize("form", FORMS, ids=["fused", "materialised"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("length", [71, 80, 144, 201])
def test_the_union_is_one_softmax(
    randn: Callable[..., Tensor], form: Callable[..., Tensor], length: int, dtype: torch.dtype, tolerance: float
) -> None:
    tensors = inputs(randn, length, dtype)
    found = with_gradients(lambda q, k, v: [form(q, pieces(k, v))], tensors)
    assert_all_close(found, with_gradients(expected(length), [x.double() for x in tensors]), tolerance)


def test_bfloat16(randn: Callable[..., Tensor]) -> None:
    tensors = inputs(randn, 144, torch.bfloat16)
    found = with_gradients(lambda q, k, v: [ops.joint_attention(q, pieces(k, v))], tensors)
    assert found[0].dtype == torch.bfloat16
    assert_all_close(found, with_gradients(expected(144), [x.double() for x in tensors]), 3e-2)


@pytest.mark.parametrize("form", FORMS, ids=["fused", "materialised"])
def test_large_scores_do_not_overflow(randn: Callable[..., Tensor], form: Callable[..., Tensor]) -> None:
    q, k, v = inputs(randn, 144, torch.float32)
    out = form(100 * q, pieces(100 * k, v))
    reference = ops.dense_reference(100 * q.double()[None], 100 * k.double()[None], v.double()[None], seen(144))[0]
    torch.testing.assert_close(out.double(), reference, rtol=0, atol=1e-2)


@pytest.mark.parametrize("form", FORMS, ids=["fused", "materialised"])
def test_a_query_that_sees_nothing_gets_zero(randn: Callable[..., Tensor], form: Callable[..., Tensor]) -> None:
    tensors = inputs(randn, 6, torch.float64)
    visible = torch.ones(3, 3, dtype=torch.bool).tril(-1)

    def run(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        order = ops.Blocks(3)
        return [form(q, [ops.Piece(order, order.fold(k), order.fold(v), (ops.Span(0, 1, 3, visible),))])]

    out, *grads = with_gradients(run, tensors)
    assert out[0].eq(0).all()
    assert out[3:].eq(0).all()
    assert out[1:3].ne(0).all()
    assert all(grad.isfinite().all() for grad in grads)


def test_no_piece_at_all(randn: Callable[..., Tensor]) -> None:
    q, k, v = inputs(randn, 5, torch.float64)
    empty = ops.Piece(ops.Blocks(5), k.transpose(0, 1)[None], v.transpose(0, 1)[None], ())
    assert ops.joint_attention(q, [empty]).eq(0).all()


def test_the_gradient_is_the_limit_of_differences(randn: Callable[..., Tensor]) -> None:
    q, k, v = (randn(11, 1, 3, dtype=torch.float64).requires_grad_() for _ in range(3))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        near = ops.window(k, v, behind=2, ahead=1, hidden=[4], size=4)
        shared = [x[4:5].transpose(0, 1)[None] for x in (k, v)]
        return ops.joint_attention(q, [near, ops.Piece(ops.Blocks(4), shared[0], shared[1], (ops.Span(0, 3, 1),))])

    assert torch.autograd.gradcheck(run, (q, k, v))
