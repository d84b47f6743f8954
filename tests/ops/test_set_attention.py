"""The kernels of attention over sets: every feature map against PyTorch, and what a kernel must stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, assert_same, with_gradients
from linocut.ops import feature_maps, set_attention
from linocut.ops import linear_attention as ops

FEATURE_MAPS = ("identity", "elu", "relu", "exp")
maps = pytest.mark.parametrize("feature_map", FEATURE_MAPS)


def arguments(randn: Callable[..., Tensor], length: int, dim: int = 21) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys that are positive, so that no normaliser is near zero whatever the map."""
    return randn(2, length, 3, dim).abs() + 0.1, randn(2, length, 3, dim).abs() + 0.1, randn(2, length, 3, 5)


def attention(feature_map: str, *, normalize: bool = True) -> Callable[..., tuple[Tensor, ...]]:
    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        summary = ops.summarize(k, v, feature_map=feature_map)
        return ops.read(q, summary, feature_map=feature_map, normalize=normalize), *summary

    return run


@maps
@pytest.mark.parametrize("length", [0, 1, 63, 96, 97, 500])
def test_the_kernel_is_the_reference(isa: str, randn: Callable[..., Tensor], feature_map: str, length: int) -> None:
    inputs = arguments(randn, length)
    expected = with_gradients(attention(feature_map), [x.double() for x in inputs])
    assert_all_close(with_gradients(attention(feature_map), inputs), expected, 1e-5)


@maps
def test_signs_and_no_normaliser(isa: str, randn: Callable[..., Tensor], feature_map: str) -> None:
    inputs = randn(2, 130, 3, 64), randn(2, 130, 3, 64), randn(2, 130, 3, 32)
    run = attention(feature_map, normalize=False)
    expected = with_gradients(run, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 1e-5)


@maps
def test_bfloat16_in_and_out(isa: str, randn: Callable[..., Tensor], feature_map: str) -> None:
    inputs = [x.bfloat16() for x in arguments(randn, 100)]
    run = attention(feature_map)
    y, kv, z = run(*inputs)
    assert (y.dtype, kv.dtype, z.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    expected = with_gradients(run, [x.double() for x in inputs])
    assert_all_close(with_gradients(run, inputs), expected, 2e-2)


def test_the_identity_takes_what_is_mapped(form: str, randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 50)
    for feature_map in FEATURE_MAPS:
        mapped = [feature_maps.mapping(feature_map)(x) for x in (q, k)]
        expected = ops.linear_attention(*mapped, v)
        torch.testing.assert_close(ops.linear_attention(q, k, v, feature_map=feature_map), expected)


def test_threads_do_not_change_the_result(randn: Callable[..., Tensor]) -> None:
    inputs = randn(1, 9000, 2, 8), randn(1, 9000, 2, 8), randn(1, 9000, 2, 8)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(with_gradients(attention("elu"), inputs))
    finally:
        torch.set_num_threads(before)
    assert_same(*results)


def test_many_pieces_are_the_whole(isa: str, randn: Callable[..., Tensor]) -> None:
    # longer than the pieces that threads take
    inputs = randn(1, 5000, 1, 8), randn(1, 5000, 1, 8), randn(1, 5000, 1, 4)
    expected = with_gradients(attention("elu"), [x.double() for x in inputs])
    assert_all_close(with_gradients(attention("elu"), inputs), expected, 1e-5)


@maps
def test_inputs_need_not_be_contiguous(isa: str, randn: Callable[..., Tensor], feature_map: str) -> None:
    inputs = arguments(randn, 20)
    strided = [torch.stack([x, x], dim=2)[:, :, 0] for x in inputs]
    turned = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in inputs]
    for other in (strided, turned):
        assert not other[0].is_contiguous()
        assert_same(attention(feature_map)(*other), attention(feature_map)(*inputs))


@maps
def test_nan_reaches_what_it_touches(isa: str, randn: Callable[..., Tensor], feature_map: str) -> None:
    q, k, v = arguments(randn, 20)
    q[0, 7, 1, 3] = torch.nan
    k[1, 2, 0, 3] = torch.nan
    y = attention(feature_map)(q, k, v)[0]
    assert y[0, 7, 1].isnan().all()
    assert y[1, :, 0].isnan().all()
    assert y.isnan().sum() == 5 + 20 * 5


def test_torch_sees_a_proper_operator(kernels: Any, randn: Callable[..., Tensor]) -> None:
    q, k, v = (x.requires_grad_() for x in arguments(randn, 9))
    p = randn(6, 21)
    for feature_map, projection in ((1, None), (4, None), (5, p)):
        torch.library.opcheck(set_attention.summarize, (k, v, feature_map, projection, 0.5))
        summary = [x.detach() for x in set_attention.summarize(k, v, feature_map, projection, 0.5)]
        kv, z = (x.requires_grad_() for x in summary[:2])
        m = summary[2] if projection is not None else None
        torch.library.opcheck(set_attention.read, (q, kv, z, m, feature_map, projection, 0.5))
    torch.library.opcheck(set_attention.random_features, (q, p, 0.5))


def test_an_unknown_map_lists_the_known(randn: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="feature_map must be one of identity, elu, relu, exp, got 'tanh'"):
        attention("tanh")(*arguments(randn, 2))


def test_a_summary_of_another_shape_is_refused(randn: Callable[..., Tensor]) -> None:
    q, k, v = arguments(randn, 5)
    with pytest.raises(ValueError, match=r"21 features needs a summary"):
        ops.read(q[:1], ops.summarize(k, v))
    kv, z = ops.summarize(k, v)
    for wrong in (kv[..., 0], kv[..., None], kv.transpose(2, 3)):
        with pytest.raises(ValueError, match=r"21 features needs a summary \(batch, heads, 21, value\)"):
            ops.read(q, ops.Summary(wrong, z))


@pytest.mark.parametrize("normalize", [True, False])
def test_a_summary_whose_parts_do_not_fit_is_refused(form: str, randn: Callable[..., Tensor], normalize: bool) -> None:
    q, k, v = arguments(randn, 5)
    kv, z = ops.summarize(k, v)
    for wrong in (z[..., :20], z[:, :1], z[0], z[..., None]):
        with pytest.raises(ValueError, match=r"read: z of the summary must be \(2, 3, 21\), got \("):
            ops.read(q, ops.Summary(kv, wrong), normalize=normalize)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16), (torch.float32, torch.float64)], ids=str)
def test_a_summary_may_be_of_other_dtypes(
    isa: str, randn: Callable[..., Tensor], dtypes: tuple[torch.dtype, torch.dtype]
) -> None:
    q, k, v = arguments(randn, 50)
    parts = ops.summarize(k, v)
    for order in (dtypes, dtypes[::-1]):
        summary = ops.Summary(*(x.to(dtype) for x, dtype in zip(parts, order, strict=True)))
        expected = ops.read(q.double(), ops.Summary(*(x.double() for x in summary)))
        y = ops.read(q, summary)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
