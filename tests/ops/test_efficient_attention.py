"""Efficient Attention against its attention matrix, and what its running maximum is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import efficient_attention as ops


def arguments(randn: Callable[..., Tensor], length: int) -> tuple[Tensor, Tensor, Tensor]:
    return randn(2, length, 3, 21), randn(2, length, 3, 21), randn(2, length, 3, 5)


def in_pieces(q: Tensor, k: Tensor, v: Tensor, cuts: tuple[int, ...] = (0, 20)) -> tuple[Tensor]:
    pieces = zip(k.tensor_split(cuts, 1), v.tensor_split(cuts, 1), strict=True)
    summary = None
    for piece in pieces:
        part = ops.summarize(*piece)
        summary = part if summary is None else ops.merge(summary, part)
    assert summary is not None
    return (ops.read(q, summary),)


def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (ops.efficient_attention(q, k, v),)


def reference(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (ops.quadratic_reference(q, k, v),)


@pytest.mark.parametrize("length", [0, 1, 63, 96, 97, 500])
def test_the_kernel_is_the_attention_matrix(isa: str, randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    expected = with_gradients(reference, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)
    assert_all_close(with_gradients(run, [x.double() for x in inputs]), expected, 1e-12)


def test_pieces_merged_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 50)
    assert_all_close(with_gradients(in_pieces, inputs), with_gradients(run, inputs), 1e-5)


def test_no_logit_is_too_large(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 300)
    q, k = 200 * q, 200 * k + torch.linspace(-1e4, 1e4, 300)[:, None, None]
    expected = ops.quadratic_reference(q.double(), k.double(), v.double())
    for out in (*run(q, k, v), *in_pieces(q, k, v, (1, 100))):
        assert_all_close([out], [expected], 1e-3)


def test_two_empty_pieces_are_an_empty_one(form: str, randn: Callable[..., Tensor]) -> None:
    empty = ops.summarize(*arguments(randn, 0)[1:])
    twice = ops.merge(empty, empty)
    for one, two in zip(empty, twice, strict=True):
        assert torch.equal(one, two)
    assert twice.m.eq(-torch.inf).all()


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = [x.bfloat16() for x in arguments(randn, 300)]
    assert run(*inputs)[0].dtype == torch.bfloat16
    expected = with_gradients(reference, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 2e-2)


def test_a_nan_in_one_channel_of_a_key_reaches_all_queries(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 30)
    k[0, 7, 1, 3] = torch.nan
    (y,) = run(q, k, v)
    assert y[0, :, 1].isnan().all()
    assert y.isnan().sum() == 30 * 5


def test_shapes_that_do_not_fit_are_named(randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 7)
    with pytest.raises(ValueError, match=r"must share .* got \(2, 7, 3, 21\) and \(2, 6, 3, 5\)"):
        ops.summarize(k, v[:, :6])
    with pytest.raises(ValueError, match=r"21 features needs a summary .* got \(2, 7, 3, 21\) and \(2, 3, 5, 5\)"):
        ops.read(q, ops.summarize(v, v))


@pytest.mark.parametrize("part", ["z", "m"])
def test_a_summary_whose_parts_do_not_fit_is_refused(form: str, randn: Callable[..., Tensor], part: str) -> None:
    q, k, v = arguments(randn, 7)
    summary = ops.summarize(k, v)
    whole = getattr(summary, part)
    for wrong in (whole[..., :20], whole[..., :1], whole[:, :1], whole[0], whole[..., None]):
        with pytest.raises(ValueError, match=rf"read: {part} of the summary must be \(2, 3, 21\), got \("):
            ops.read(q, summary._replace(**{part: wrong}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_summary_may_be_of_other_dtypes(isa: str, randn: Callable[..., Tensor], dtype: torch.dtype) -> None:
    q, k, v = arguments(randn, 30)
    parts = ops.summarize(k, v)
    for part in parts._fields:
        summary = parts._replace(**{part: getattr(parts, part).to(dtype)})
        expected = ops.read(q.double(), ops.Summary(*(x.double() for x in summary)))
        y = ops.read(q, summary)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
