"""Softmax attention, dense and strided, against one query at a time."""

from __future__ import annotations

import math

import pytest
import torch

from linocut import mixers
from linocut.ops.strided_attention import strided_attention
from mixers.oracle import attention, build, check, tokens


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 2, 33])
def test_every_token_sees_every_other(length: int, causal: bool) -> None:
    mixer = build("softmax_attention", heads=2, causal=causal)
    check(mixer, tokens(length), lambda _, i: range(i + 1 if causal else length))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("stride", [1, 3, 8, 50])
@pytest.mark.parametrize("length", [1, 2, 24, 25, 31])
def test_a_stride_skips_keys(length: int, stride: int, causal: bool) -> None:
    mixer = build("strided_attention", heads=2, stride=stride, causal=causal)
    check(mixer, tokens(length), lambda _, i: range(i % stride, i + 1 if causal else length, stride))


def test_both_forms_have_the_same_parameters() -> None:
    for name in ("softmax_attention", "strided_attention"):
        causal, whole = build(name, causal=True), build(name, causal=False)
        assert causal.state_dict().keys() == whole.state_dict().keys()


@pytest.mark.parametrize("name", ["softmax_attention", "strided_attention"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_bad_token_reaches_only_those_who_see_it(name: str, bad: float) -> None:
    mixer, x = build(name, heads=2), tokens(30)
    good = mixer(x)
    x[0, 17, 3] = bad
    stride = mixer.stride if name == "strided_attention" else 1
    sees = torch.tensor([i >= 17 and (i - 17) % stride == 0 for i in range(30)])
    out = mixer(x)
    assert out[0].isnan().any(dim=-1).tolist() == sees.tolist()
    torch.testing.assert_close(out[0, ~sees], good[0, ~sees])
    torch.testing.assert_close(out[1], good[1])


def test_the_oracle_is_attention() -> None:
    """Two keys by hand: scores 0 and ln 3 give the weights 1/4 and 3/4."""
    mixer = mixers.build("softmax_attention", 1, heads=1, causal=False).double()
    for parameter in mixer.parameters():
        torch.nn.init.zeros_(parameter)
    mixer.query.bias.data.fill_(1.0)
    mixer.key_value.weight.data.copy_(torch.tensor([[math.log(3.0)], [4.0]]))
    mixer.out.weight.data.fill_(1.0)
    x = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    expected = torch.full((1, 2, 1), 3.0, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(attention(mixer, x, lambda _head, _i: range(2)), expected, rtol=0, atol=1e-6)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="heads must be >= 1 and divide d_model, got d_model=12 and heads=5"):
        mixers.build("softmax_attention", 12, heads=5)
    with pytest.raises(ValueError, match="stride must be >= 1, got 0"):
        mixers.build("strided_attention", 12, stride=0)
    x = torch.zeros(1, 2, 1, 3)
    with pytest.raises(ValueError, match="stride must be >= 1, got -1"):
        strided_attention(x, x, x, stride=-1, causal=True)
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2, 1, 3\), \(1, 2, 1, 3\), \(1, 1, 1, 3\)"):
        strided_attention(x, x, x[:, :1], stride=1, causal=True)
