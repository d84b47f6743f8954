"""Kernels with bfloat16 inputs, which some instruction sets multiply as they are: layouts, NaN, and what is lost.

What an operator may lose is measured by what bfloat16 takes anyway: the float64 result from rounded inputs, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from linocut.ops import efficient_attention, favor
from linocut.ops import gated_linear_attention as gla
from linocut.ops import linear_attention as linear
from linocut.ops import local_attention as local
from linocut.ops.feature_maps import draw_projection
from linocut.ops.ssd import ssd

Randn = Callable[..., Tensor]
Function = Callable[..., Sequence[Tensor]]

LENGTHS = (0, 1, 2, 15, 33, 64, 65, 130)
SIZES = ((1, 1), (3, 5), (16, 17), (17, 16), (31, 33), (64, 64), (70, 100))


def gradients(run: Function, inputs: Sequence[Tensor], along: Tensor) -> list[Tensor]:
    """The outputs, then the gradients of the first output's product with `along`."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = run(*leaves)
    # the loop over no tokens uses none
    along = along.to(outputs[0].dtype)
    grads = torch.autograd.grad(outputs[0], leaves, along, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in (*outputs, *grads)]


def signs(randn: Randn, *shape: int) -> Tensor:
    """-1, 0 and 1: sums of up to 256 of their products are exact in bfloat16 and in any order."""
    return randn(*shape).round().clamp(-1, 1)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_whole_numbers_are_exact_in_the_causal_form(
    isa: str, randn: Randn, length: int, sizes: tuple[int, int]
) -> None:
    dim, value = sizes
    inputs = [
        signs(randn, 2, length, 2, dim),
        signs(randn, 2, length, 2, dim),
        signs(randn, 2, length, 4, value),
    ]
    along, state = signs(randn, 2, length, 4, value), signs(randn, 2, 4, dim, value)
    expected = gradients(
        lambda q, k, v: gla.recurrent_reference(q, k, v, torch.zeros(2, length, 4, 1), state.double()),
        [x.double() for x in inputs],
        along,
    )
    found = gradients(
        lambda q, k, v: gla.gated_linear_attention(q, k, v, state=state), [x.bfloat16() for x in inputs], along
    )
    for a, e in zip(found, expected, strict=True):
        assert torch.equal(a, e.to(a.dtype))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_whole_numbers_are_exact_in_the_set_form(isa: str, randn: Randn, length: int, sizes: tuple[int, int]) -> None:
    dim, value = sizes
    q, k, v = (signs(randn, 2, length, 3, size) for size in (dim, dim, value))
    along = signs(randn, 2, length, 3, value)

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        summary = linear.summarize(k, v)
        return linear.read(q, summary, normalize=False), summary.kv

    expected = gradients(run, [x.double() for x in (q, k, v)], along)
    found = gradients(run, [x.bfloat16() for x in (q, k, v)], along)
    for a, e in zip(found, expected, strict=True):
        assert torch.equal(a, e.to(a.dtype))


def causal(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    y, summary = linear.causal_linear_attention(q, k, v, feature_map="elu")
    return y, *summary


def decaying(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, ...]:
    return gla.gated_linear_attention(q, k, v, log_decay=log_decay.to(torch.promote_types(q.dtype, torch.float32)))


def mamba2(x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return ssd(x, dt, rate, b, c)


def whole(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    summary = linear.summarize(k, v, feature_map="elu")
    return linear.read(q, summary, feature_map="elu"), *summary


def efficient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return (efficient_attention.efficient_attention(q, k, v),)


def features(dtype: torch.dtype) -> favor.Features:
    drawn = draw_projection(128, 64, generator=torch.Generator().manual_seed(0))
    return favor.Features(drawn.to(torch.promote_types(dtype, torch.float32)))


def performer(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return (favor.favor_attention(q, k, v, features(q.dtype)),)


def causal_performer(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return (favor.causal_favor_attention(q, k, v, features(q.dtype))[0],)


def window(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    return (local.local_attention(q, k, v, window=70),)


def attention_inputs(randn: Randn) -> list[Tensor]:
    return [randn(1, 500, 2, 64, dtype=torch.float64) for _ in range(3)]


def decaying_inputs(randn: Randn) -> list[Tensor]:
    return [*attention_inputs(randn), -0.1 * randn(1, 500, 2, dtype=torch.float64).abs()]


def mamba2_inputs(randn: Randn) -> list[Tensor]:
    x, dt = randn(1, 500, 4, 64, dtype=torch.float64), 0.1 * randn(1, 500, 4, dtype=torch.float64).abs()
    rate = torch.tensor([-1.0, -2.0, -3.0, -4.0], dtype=torch.float64)
    return [x, dt, rate, *(randn(1, 500, 1, 64, dtype=torch.float64) for _ in range(2))]


CASES: dict[str, tuple[Function, Callable[[Randn], list[Tensor]], tuple[int, ...]]] = {
    "causal": (causal, attention_inputs, (0, 1, 2)),
    "decaying": (decaying, decaying_inputs, (0, 1, 2)),
    "mamba2": (mamba2, mamba2_inputs, (0, 3, 4)),
    "whole": (whole, attention_inputs, (0, 1, 2)),
    "efficient": (efficient, attention_inputs, (0, 1, 2)),
    "performer": (performer, attention_inputs, (0, 1, 2)),
    "causal performer": (causal_performer, attention_inputs, (0, 1, 2)),
    "window": (window, attention_inputs, (0, 1, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_is_that_of_rounded_inputs_and_outputs(isa: str, randn: Randn, case: str) -> None:
    run, draw, rounded = CASES[case]
    exact = draw(randn)
    along = randn(*run(*exact)[0].shape).bfloat16()
    half = [x.bfloat16() if i in rounded else x.float() for i, x in enumerate(exact)]
    expected = gradients(run, exact, along)
    best = gradients(run, [x.double() for x in half], along)
    for rank, (a, b, e) in enumerate(zip(gradients(run, half, along), best, expected, strict=True)):
        error, least = ((x.double() - e).norm().item() for x in (a, b.to(a.dtype)))
        assert error <= 3.0 * least + 1e-6 * e.norm().item(), f"[{rank}] {error / least} times"


@pytest.mark.parametrize("token", [0, 6, 7, 31, 32, 64, 99])
@pytest.mark.parametrize("which", [0, 1, 2], ids="qkv")
@pytest.mark.parametrize("run", [causal, window], ids=["causal", "window"])
def test_nan_does_not_reach_what_is_before_it(isa: str, randn: Randn, run: Function, which: int, token: int) -> None:
    inputs = [randn(1, 100, 2, 20).bfloat16() for _ in range(3)]
    spoilt = [x.clone() for x in inputs]
    spoilt[which][:, token] = torch.nan
    y, after = run(*inputs)[0], run(*spoilt)[0]
    # what lies next to a NaN may be multiplied in float32
    torch.testing.assert_close(after[:, :token], y[:, :token], rtol=1e-2, atol=1e-2)
    assert after[:, token].isnan().all()
    if which == 0:
        assert torch.equal(after[:, token + 1 :], y[:, token + 1 :])
