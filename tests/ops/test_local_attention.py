"""Attention to a window: every form against all scores with a mask, and what a kernel must stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import local_attention as ops

LENGTHS = (0, 1, 63, 64, 65, 300)
# window, causal, dilation, keys before and behind the queries
SETTINGS = [(7, True, 1, 0, 0), (70, True, 1, 0, 0), (70, False, 1, 0, 0), (9, False, 3, 0, 0), (5, True, 4, 13, 6),
            (30, False, 2, 7, 70), (1000, True, 1, 3, 0)]  # fmt: skip


def arguments(
    randn: Callable[..., Tensor], length: int, before: int = 0, after: int = 0, dim: int = 20
) -> tuple[Tensor, Tensor, Tensor]:
    keys = before + length + after
    return randn(2, length, 3, dim), randn(2, keys, 3, dim), randn(2, keys, 3, dim)


def forms(setting: tuple[Any, ...]) -> tuple[Callable[..., tuple[Tensor]], Callable[..., tuple[Tensor]]]:
    window, causal, dilation, before, _ = setting
    options = {"causal": causal, "dilation": dilation, "before": before}

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        return (ops.local_attention(q, k, v, window=window, scale=0.7, **options),)

    def reference(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        return (ops.quadratic_reference(q, k, v, ops.visible(q.shape[1], k.shape[1], window, **options), 0.7),)

    return run, reference


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_kernel_sees_what_the_mask_says(
    isa: str, randn: Callable[..., Tensor], length: int, setting: tuple[Any, ...]
) -> None:
    inputs = arguments(randn, length, *setting[3:])
    run, reference = forms(setting)
    # q's gradient at length 1 is zero, as the difference of two sums near 40
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, [x.double() for x in inputs]), 5e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_blocks_see_what_the_mask_says(randn: Callable[..., Tensor], length: int, setting: tuple[Any, ...]) -> None:
    inputs = [x.double() for x in arguments(randn, length, *setting[3:])]
    run, reference = forms(setting)
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, inputs), 1e-12)


def test_gradients_are_those_of_finite_differences(randn: Callable[..., Tensor]) -> None:
    inputs = [x.double().requires_grad_() for x in arguments(randn, 5, 1, 0, dim=2)]
    assert torch.autograd.gradcheck(forms((2, False, 2, 1, 0))[0], inputs)


def test_a_window_of_one_is_the_value_itself(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 70)
    assert_all_close([ops.local_attention(q, k, v, window=1)], [v], 1e-6)


def test_pieces_with_halos_are_the_whole(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 200)
    whole = ops.local_attention(q, k, v, window=11, causal=False, dilation=3)
    pieces = []
    for start, end in ((0, 7), (7, 100), (100, 200)):
        first = max(0, start - 30)
        near = slice(first, end + 30)
        piece = ops.local_attention(
            q[:, start:end], k[:, near], v[:, near], window=11, causal=False, dilation=3, before=start - first
        )
        pieces.append(piece)
    assert_all_close([torch.cat(pieces, 1)], [whole], 1e-6)


def test_large_scores_do_not_overflow(form: str, randn: Callable[..., Tensor]) -> None:
    inputs = [100 * arguments(randn, 90)[0], *arguments(randn, 90)[1:]]
    run, reference = forms((40, True, 1, 0, 0))
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, [x.double() for x in inputs]), 1e-4)


def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = [x.bfloat16() for x in arguments(randn, 150)]
    run, reference = forms((20, False, 2, 0, 0))
    assert run(*inputs)[0].dtype == torch.bfloat16
    assert_all_close(with_gradients(run, inputs), with_gradients(reference, [x.double() for x in inputs]), 2e-2)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 200)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(with_gradients(forms((50, False, 2, 0, 0))[0], inputs))
    finally:
        torch.set_num_threads(before)
    assert_same(*results)


def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor]) -> None:
    inputs = arguments(randn, 40)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    run, _ = forms((9, True, 1, 0, 0))
    assert_same(with_gradients(run, turned), with_gradients(run, inputs))


@pytest.mark.parametrize("rank", [1, 2], ids=["k", "v"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_reaches_those_who_see_it_and_no_one_else(
    form: str, randn: Callable[..., Tensor], rank: int, dtype: torch.dtype, value: float
) -> None:
    inputs = [x.to(dtype) for x in arguments(randn, 90)]
    inputs[rank][0, 47] = value
    y = ops.local_attention(*inputs, window=8, causal=False)
    seen = torch.zeros(90, dtype=torch.bool)
    seen[40:55] = True
    assert y[0, ~seen].isfinite().all()
    assert y[1].isfinite().all()
    if rank == 2 or value != value:
        assert not y[0, seen].isfinite().any()


@pytest.mark.parametrize("setting", [(8, False, 1, 0, 0), (30, True, 1, 0, 0), (5, True, 3, 0, 0)], ids=str)
@pytest.mark.parametrize("rank", [0, 1, 2], ids=["q", "k", "v"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nan_reaches_the_gradients_of_those_it_touches_and_no_others(
    isa: str, randn: Callable[..., Tensor], setting: tuple[Any, ...], rank: int, value: float, dtype: torch.dtype
) -> None:
    inputs = [x.to(dtype) for x in arguments(randn, 200)]
    inputs[rank][0, 100] = value
    seen = ops.visible(200, 200, setting[0], causal=setting[1], dilation=setting[2])
    queries = seen[:, 100] if rank else torch.arange(200) == 100
    keys = seen[queries].any(0)
    y, *grads = with_gradients(forms(setting)[0], inputs)
    for found, spoilt in zip((y, *grads), (queries, queries, keys, keys), strict=True):
        assert found[1].isfinite().all()
        assert found[0, ~spoilt].isfinite().all()
        assert value == value or found[0, spoilt].isnan().all()


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    inputs = [x.requires_grad_() for x in arguments(randn, 9)]
    torch.library.opcheck(ops._native, (*inputs, 3, 1, True, 0.5, 0, True))


def test_what_does_not_fit_is_named() -> None:
    q, k = torch.zeros(1, 4, 2, 3), torch.zeros(1, 5, 2, 3)
    with pytest.raises(ValueError, match=r"q must be .*got \(1, 4, 2, 3\), \(1, 4, 2, 2\) and \(1, 4, 2, 2\)"):
        ops.local_attention(q, q[..., :2], q[..., :2], window=2)
    with pytest.raises(ValueError, match="window must be >= 1, got 0"):
        ops.local_attention(q, q, q, window=0)
    with pytest.raises(ValueError, match="dilation must be >= 1, got 0"):
        ops.local_attention(q, q, q, window=2, dilation=0)
    with pytest.raises(ValueError, match=r"keys must be at least before \+ length, 2 \+ 4, got 5"):
        ops.local_attention(q, k, k, window=2, before=2)
