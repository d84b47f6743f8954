"""Linear attention against the attention matrix written out, and against itself cut into pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import linear_attention as ops

BATCH, HEADS, DIM, VALUE = 2, 3, 8, 5
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def inputs(length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Mapped queries and keys, and values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(dim: int) -> Tensor:
        return torch.randn(BATCH, length, HEADS, dim, generator=generator, dtype=torch.float64).to(dtype)

    return ops.elu_plus_one(draw(DIM)), ops.elu_plus_one(draw(DIM)), draw(VALUE)


@dtypes
@pytest.mark.parametrize("length", [1, 2, 63, 500])
def test_agrees_with_the_attention_matrix(length: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(length, dtype)
    torch.testing.assert_close(
        ops.linear_attention(q, k, v), ops.quadratic_reference(q, k, v), rtol=0, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("length", [1, 63])
def test_all_gradients_agree_with_the_attention_matrix(length: int) -> None:
    target = torch.randn(BATCH, length, HEADS, VALUE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for function in (ops.linear_attention, ops.quadratic_reference):
        leaves = [x.clone().requires_grad_() for x in inputs(length)]
        (function(*leaves) * target).sum().backward()
        gradients.append([x.grad for x in leaves])
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)


def test_gradients_agree_with_finite_differences() -> None:
    leaves = [x[:1, :, :2, :4].clone().requires_grad_() for x in inputs(5)]
    assert torch.autograd.gradcheck(ops.linear_attention, leaves)


@dtypes
@pytest.mark.parametrize("cuts", [(1,), (62,), (20, 40), (1, 2, 3, 30)])
def test_pieces_merged_are_the_whole(cuts: tuple[int, ...], dtype: torch.dtype) -> None:
    q, k, v = inputs(63, dtype)
    pieces = zip(*(x.tensor_split(cuts, dim=1) for x in (k, v)), strict=True)
    summary = None
    for piece in pieces:
        part = ops.summarize(*piece)
        summary = part if summary is None else ops.merge(summary, part)
    assert summary is not None
    outputs = torch.cat([ops.read(piece, summary) for piece in q.tensor_split(cuts, dim=1)], dim=1)
    torch.testing.assert_close(outputs, ops.linear_attention(q, k, v), rtol=0, atol=TOLERANCE[dtype])


def test_gradients_flow_through_pieces_as_through_the_whole() -> None:
    gradients = []
    for cut in (None, 20):
        q, k, v = (x.clone().requires_grad_() for x in inputs(63))
        if cut is None:
            out = ops.linear_attention(q, k, v)
        else:
            summary = ops.merge(ops.summarize(k[:, :cut], v[:, :cut]), ops.summarize(k[:, cut:], v[:, cut:]))
            out = ops.read(q, summary)
        out.square().sum().backward()
        gradients.append((q.grad, k.grad, v.grad))
    for whole, pieces in zip(*gradients, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-9)


def test_merging_commutes_and_associates() -> None:
    a, b, c = (ops.summarize(*inputs(7, seed=seed)[1:]) for seed in range(3))
    for left, right in zip(ops.merge(a, b), ops.merge(b, a), strict=True):
        assert torch.equal(left, right)
    for left, right in zip(ops.merge(ops.merge(a, b), c), ops.merge(a, ops.merge(b, c)), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_a_summary_does_not_grow_with_the_sequence() -> None:
    shapes = {tuple(part.shape for part in ops.summarize(*inputs(length)[1:])) for length in (1, 10, 200)}
    assert shapes == {((BATCH, HEADS, DIM, VALUE), (BATCH, HEADS, DIM))}


def test_the_order_of_the_tokens_means_nothing() -> None:
    q, k, v = inputs(30)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        ops.linear_attention(q, k[:, order], v[:, order]), ops.linear_attention(q, k, v), rtol=0, atol=1e-12
    )


def test_a_single_token_sees_only_its_value() -> None:
    q, k, v = inputs(1)
    torch.testing.assert_close(ops.linear_attention(q, k, v), v, rtol=0, atol=1e-12)


def test_outputs_are_weighted_means_of_the_values() -> None:
    q, k, v = inputs(40)
    out = ops.linear_attention(q, k, v)
    assert (out <= v.amax(dim=1, keepdim=True)).all()
    assert (out >= v.amin(dim=1, keepdim=True)).all()


def test_half_precision_sums_in_float32() -> None:
    # bfloat16 has 8 bits: 1001 would be stored as 1000, and a running sum of ones would stand still at 256
    k = torch.ones(1, 1001, 1, 1, dtype=torch.bfloat16)
    summary = ops.summarize(k, k)
    assert summary.kv.dtype == summary.z.dtype == torch.float32
    assert summary.z.item() == summary.kv.item() == 1001


def test_half_precision_is_as_good_on_many_tokens_as_on_few() -> None:
    q, k, v = (x.to(torch.bfloat16) for x in inputs(4000))
    out = ops.linear_attention(q, k, v)
    assert out.dtype == torch.bfloat16
    exact = ops.linear_attention(*(x.double() for x in (q, k, v)))
    # bfloat16 keeps 8 bits; the sums over DIM products of the reading are all that is rounded
    torch.testing.assert_close(out.double(), exact, rtol=0.02, atol=0.02)


def test_float64_stays_float64() -> None:
    q, k, v = inputs(3)
    assert ops.summarize(k, v).kv.dtype == torch.float64
    assert ops.linear_attention(q, k, v).dtype == torch.float64


def test_the_feature_map_is_positive_and_the_paper_s() -> None:
    x = torch.tensor([-30.0, -1.0, 0.0, 2.0])
    torch.testing.assert_close(ops.elu_plus_one(x), torch.tensor([0.0, 0.36787944, 1.0, 3.0]), rtol=1e-6, atol=1e-12)
    assert (ops.elu_plus_one(torch.linspace(-10, 10, 101)) > 0).all()


def test_keys_that_are_all_zero_give_zero_and_not_nan() -> None:
    q, k, v = inputs(4)
    assert torch.equal(ops.linear_attention(q, torch.zeros_like(k), v), torch.zeros_like(v))


@pytest.mark.parametrize("shape", [(2, 6, 3, 8), (1, 7, 3, 8), (2, 7, 2, 8)])
def test_keys_and_values_of_different_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must share \(batch, length, heads\), got \(2, 7, 3, 8\)"):
        ops.summarize(torch.ones(2, 7, 3, 8), torch.ones(shape))


# causal


def causal_inputs(length: int, seed: int = 0) -> list[Tensor]:
    """Queries and keys before the feature map, values, and the two parts of a state."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64).float()

    shape = (length, HEADS)
    return [
        draw(*shape, DIM), draw(*shape, DIM), draw(*shape, VALUE), draw(HEADS, DIM, VALUE), draw(HEADS, DIM).exp() + 3
    ]  # fmt: skip


def run_causal(phi: str, normalize: bool = True) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def run(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = ops.Summary(kv, z)
        y, summary = ops.causal_linear_attention(q, k, v, feature_map=phi, normalize=normalize, state=state)
        return y, *summary

    return run


def causal_loop(phi: str, normalize: bool = True) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def loop(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (ops.mapping(phi)(x) for x in (q, k))
        y, kv, last = ops.causal_reference(q, k, v, kv, z)
        if not normalize:
            before = z[:, None] + k.cumsum(dim=1)
            y = y * torch.einsum("bnhd,bnhd->bnh", q, before).clamp_min(1e-6)[..., None]
        return y, kv, last

    return loop


maps = pytest.mark.parametrize("phi", ["identity", "elu", "relu", "exp"])


@maps
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 500])
def test_the_causal_kernel_is_the_loop(isa: str, length: int, phi: str, normalize: bool) -> None:
    inputs = causal_inputs(length)
    if phi == "identity":
        inputs[:2] = [x.abs() for x in inputs[:2]]
    expected = with_gradients(causal_loop(phi, normalize), [x.double() for x in inputs])
    assert_all_close(with_gradients(run_causal(phi, normalize), inputs), expected, 3e-5)


@maps
@pytest.mark.parametrize("length", [0, 1, 65])
def test_causal_chunks_are_the_loop(length: int, phi: str) -> None:
    inputs = [x.double() for x in causal_inputs(length)]
    if phi == "identity":
        inputs[:2] = [x.abs() for x in inputs[:2]]
    expected = with_gradients(causal_loop(phi), inputs)
    assert_all_close(with_gradients(run_causal(phi), inputs), expected, 1e-9)


@maps
def test_causal_bfloat16_in_and_out(isa: str, phi: str) -> None:
    inputs = causal_inputs(100)
    inputs[:2] = [x.abs() for x in inputs[:2]]
    inputs[:3] = [x.bfloat16() for x in inputs[:3]]
    y, kv, z = run_causal(phi)(*inputs)
    assert (y.dtype, kv.dtype, z.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    expected = with_gradients(causal_loop(phi), [x.double() for x in inputs])
    assert_all_close(with_gradients(run_causal(phi), inputs), expected, 3e-2)


def test_the_last_token_of_the_causal_form_sees_what_the_set_sees(form: str) -> None:
    q, k, v, _, _ = causal_inputs(100)
    y, summary = ops.causal_linear_attention(q, k, v, feature_map="elu")
    mapped = ops.elu_plus_one(q), ops.elu_plus_one(k)
    expected = ops.linear_attention(*mapped, v)[:, -1]
    assert_all_close([y[:, -1], *summary], [expected, *ops.summarize(mapped[1], v)], 1e-5)


def test_causal_keys_that_are_all_zero_give_zero_and_not_nan(form: str) -> None:
    q, k, v, kv, z = causal_inputs(40)
    k, kv, z = -k.abs(), torch.zeros_like(kv), torch.zeros_like(z)
    run = run_causal("relu")
    y, *grads = with_gradients(lambda q, k, v: run(q, k, v, kv, z)[:1], [q, k, v])
    assert torch.equal(y, torch.zeros_like(v))
    assert all(grad.isfinite().all() for grad in grads)


def test_what_the_causal_form_does_not_take_is_named() -> None:
    q, k, v, kv, z = causal_inputs(3)
    with pytest.raises(ValueError, match="feature_map must be one of identity, elu, relu, exp, got 'tanh'"):
        ops.causal_linear_attention(q, k, v, feature_map="tanh")
    with pytest.raises(ValueError, match="must share heads, got 1 and 3"):
        ops.causal_linear_attention(q[:, :, :1], k[:, :, :1], v)
    with pytest.raises(ValueError, match=r"z of state must be \(2, 3, 8\), got \(2, 3, 7\)"):
        ops.causal_linear_attention(q, k, v, state=ops.Summary(kv, z[..., :7]))
