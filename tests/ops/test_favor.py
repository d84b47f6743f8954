"""FAVOR+ in every form against the matrix of estimated weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import favor as ops
from linocut.ops import feature_maps

KINDS = ("positive", "hyperbolic", "trigonometric")
kinds = pytest.mark.parametrize("kind", KINDS)
Run = Callable[..., tuple[Tensor, ...]]


def arguments(randn: Callable[..., Tensor], length: int) -> list[Tensor]:
    return [0.5 * randn(2, length, 3, 10), 0.5 * randn(2, length, 3, 10), randn(2, length, 3, 5)]


def drawn(kind: str, dtype: torch.dtype, rows: int = 37) -> ops.Features:
    generator = torch.Generator().manual_seed(0)
    return ops.Features(feature_maps.draw_projection(rows, 10, generator=generator).float().to(dtype), kind)


def whole(kind: str) -> Run:
    return lambda q, k, v: (ops.favor_attention(q, k, v, drawn(kind, q.dtype)),)


def causal(kind: str, cuts: tuple[int, ...] = ()) -> Run:
    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        features, state, outputs = drawn(kind, q.dtype), None, []
        for piece in zip(*(x.tensor_split(cuts, 1) for x in (q, k, v)), strict=True):
            y, state = ops.causal_favor_attention(*piece, features, state=state)
            outputs.append(y)
        return (torch.cat(outputs, dim=1),)

    return run


def reference(kind: str, *, causal: bool) -> Run:
    return lambda q, k, v: (ops.quadratic_reference(q, k, v, drawn(kind, q.dtype), causal=causal),)


@kinds
@pytest.mark.parametrize("length", [0, 1, 63, 97, 300])
def test_the_kernel_is_the_matrix(isa: str, randn: Callable[..., Tensor], kind: str, length: int) -> None:
    inputs = arguments(randn, length)
    expected = with_gradients(reference(kind, causal=False), [x.double() for x in inputs])
    assert_all_close(with_gradients(whole(kind), inputs), expected, 2e-5)
    assert_all_close(with_gradients(whole(kind), [x.double() for x in inputs]), expected, 1e-11)


@kinds
@pytest.mark.parametrize("length", [0, 1, 65, 150])
def test_the_causal_form_is_the_triangle(isa: str, randn: Callable[..., Tensor], kind: str, length: int) -> None:
    inputs = arguments(randn, length)
    expected = with_gradients(reference(kind, causal=True), [x.double() for x in inputs])
    for run in (causal(kind), causal(kind, (0, 20))):
        assert_all_close(with_gradients(run, inputs), expected, 1e-4)
        assert_all_close(with_gradients(run, [x.double() for x in inputs]), expected, 1e-11)


def test_without_gradients_a_long_sequence_goes_in_pieces(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 2100)
    with torch.no_grad():
        (short,) = causal("positive")(*inputs)
    (long,) = causal("positive")(*(x.requires_grad_() for x in inputs))
    torch.testing.assert_close(short, long, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["positive", "hyperbolic"])
def test_nothing_overflows_and_no_later_key_blinds_an_earlier_query(
    form: str, randn: Callable[..., Tensor], kind: str
) -> None:
    q, k, v = arguments(randn, 120)
    k = 20 * k
    k[:, 60] *= 1e-3  # its features are e^500 times those of the others
    for run in (whole(kind), causal(kind)):
        (y,) = run(q, k, v)
        expected = run(*(x.double() for x in (q, k, v)))
        assert_all_close([y], expected, 2e-3)
    first = causal(kind)(q[:, :60], k[:, :60], v[:, :60])
    torch.testing.assert_close(causal(kind)(q, k, v)[0][:, :60], first[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["positive", "hyperbolic"])
def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor], kind: str) -> None:
    inputs = [x.bfloat16() for x in arguments(randn, 100)]
    for run, is_causal in ((whole, False), (causal, True)):
        found = with_gradients(lambda *x, run=run: (run(kind)(*x)[0],), inputs)
        assert found[0].dtype == torch.bfloat16
        expected = with_gradients(
            lambda *x, is_causal=is_causal: (
                ops.quadratic_reference(*x, drawn(kind, torch.bfloat16), causal=is_causal),
            ),
            [x.double() for x in inputs],
        )
        assert_all_close(found, expected, 5e-2)


def test_what_does_not_fit_is_named(randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 4)
    with pytest.raises(ValueError, match=r"projection must be \(rows, 10\).* got \(3, 9\)"):
        ops.favor_attention(q, k, v, ops.Features(torch.ones(3, 9)))
    with pytest.raises(ValueError, match="positive, hyperbolic, trigonometric, got 'cosine'"):
        ops.favor_attention(q, k, v, ops.Features(torch.ones(3, 10), "cosine"))
    with pytest.raises(ValueError, match="features and dim must be >= 1, got 0 and 3"):
        feature_maps.draw_projection(0, 3)


@kinds
@pytest.mark.parametrize("part", ["z", "m"])
def test_a_summary_whose_parts_do_not_fit_is_refused(
    form: str, randn: Callable[..., Tensor], kind: str, part: str
) -> None:
    q, k, v = arguments(randn, 7)
    features = drawn(kind, torch.float32)
    summary = ops.summarize(k, v, features)
    whole = getattr(summary, part)
    for wrong in (whole[..., :20], whole[..., :1], whole[:, :1], whole[0], whole[..., None]):
        with pytest.raises(ValueError, match=rf"read: {part} of the summary must be \(2, 3, \d+\), got \("):
            ops.read(q, summary._replace(**{part: wrong}), features)


@kinds
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_summary_may_be_of_other_dtypes(
    isa: str, randn: Callable[..., Tensor], kind: str, dtype: torch.dtype
) -> None:
    q, k, v = arguments(randn, 30)
    features = drawn(kind, torch.float32)
    parts = ops.summarize(k, v, features)
    for part in parts._fields:
        summary = parts._replace(**{part: getattr(parts, part).to(dtype)})
        exact = ops.Summary(*(x.double() for x in summary))
        expected = ops.read(q.double(), exact, drawn(kind, torch.float64))
        y = ops.read(q, summary, features)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
