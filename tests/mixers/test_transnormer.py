"""The paper's two findings: gradients without a bound, weights without a place; and what the layers are made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linocut import mixers
from linocut.mixers.transnormer import transnormer_layers
from linocut.ops import linear_attention as ops
from linocut.ops.block_attention import block_attention


def gradient_at(scale: float, *, divided: bool) -> float:
    """The largest gradient of the outputs to one token's logit weight, when all weights φ(q)ᵀφ(k) are about `scale`.

    Queries are one, keys `scale` times a constant, so that the weights are their keys: section 3.1's s_ij.
    """
    generator = torch.Generator().manual_seed(0)
    k = (scale * (1 + torch.rand(1, 16, 1, 1, generator=generator, dtype=torch.float64))).requires_grad_()
    v = torch.randn(1, 16, 1, 8, generator=generator, dtype=torch.float64)
    q = torch.ones_like(k)
    y = ops.read(q, ops.summarize(k, v), normalize=divided)
    if not divided:
        y = torch.nn.functional.rms_norm(y, (8,), eps=1e-6)
    return max(torch.autograd.grad(y[0, 0, 0, i], k, retain_graph=True)[0].abs().max().item() for i in range(8))


def test_gradients_are_unbounded_by_the_division_and_bounded_by_the_norm() -> None:
    scales = (1.0, 1e-2, 1e-4, 1e-6)
    divided = [gradient_at(scale, divided=True) for scale in scales]
    # proposition 3.1: the gradient is at most 1 / (4 s), and it does grow like 1 / s
    for larger, smaller in zip(divided[1:], divided, strict=False):
        assert larger > 50 * smaller
    # with a norm's epsilon it stays below a constant: proposition A.4's bound falls with √ε
    normed = [gradient_at(scale, divided=False) for scale in (*scales, 1e-8, 1e-10)]
    bound = 16 * 1e-6**-0.5
    assert max(normed) < bound
    assert normed[-1] == pytest.approx(normed[-2], rel=1e-3)


def spread(weights: Tensor, near: int) -> float:
    """The share of a token's weight that goes to tokens at least `near` away."""
    at = torch.arange(weights.shape[0])
    far = (at[:, None] - at).abs() >= near
    return float((weights * far).sum() / weights.sum())


def test_linear_attention_is_diluted_and_diag_attention_is_not() -> None:
    shares = []
    for length in (64, 1024):
        generator = torch.Generator().manual_seed(0)
        q, k = torch.randn(2, length, 8, generator=generator, dtype=torch.float64)
        linear = ops.elu_plus_one(q.clone()) @ ops.elu_plus_one(k.clone()).T
        identity = torch.eye(length, dtype=torch.float64)[None, :, None]
        diag = block_attention(q[None, :, None], k[None, :, None], identity, block=16)[0, :, 0]
        shares.append((spread(linear, 16), spread(diag, 16)))
    assert shares[0][1] == shares[1][1] == 0
    # uniform weights would leave 1 - 31 / length to the far tokens: linear attention is as good as uniform
    assert shares[0][0] > 0.5
    assert shares[1][0] > 0.95


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("variant", "activation", "feature_map"), [("T1", "relu", "elu_alone"), ("T2", "softmax", "elu")]
)
def test_a_network_goes_from_blocks_to_norms(variant: str, activation: str, feature_map: str, *, causal: bool) -> None:
    layers = transnormer_layers(12, 4, variant=variant, causal=causal, heads=2, block=8)
    kinds = [(layer.mixer.info.name, layer.mixer.info.causal) for layer in layers]
    assert kinds == [("diag_attention", causal)] * 2 + [("norm_attention", causal)] * 2
    assert layers[0].mixer.activation == activation
    assert layers[3].mixer.feature_map == feature_map
    x = torch.randn(2, 20, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = layers(x)
    assert y.shape == x.shape
    gradient = torch.autograd.grad(y[:, 10].sum(), x)[0].abs().amax(dim=(0, 2))
    assert (gradient[:11] > 0).all()
    assert (gradient[11:] > 0).all() is not causal
    assert bool((gradient[11:] > 0).any()) is not causal


def test_the_two_forms_of_norm_attention_share_their_parameters() -> None:
    whole, causal = (mixers.build("norm_attention", 12, causal=form, heads=2) for form in (False, True))
    causal.load_state_dict(whole.state_dict())
    x = torch.randn(1, 9, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(causal(x)[:, -1], whole(x)[:, -1], rtol=0, atol=1e-4)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="block must be >= 1, got 0"):
        mixers.build("diag_attention", 12, block=0)
    with pytest.raises(ValueError, match="activation must be softmax or relu, got 'tanh'"):
        mixers.build("diag_attention", 12, activation="tanh")
    with pytest.raises(ValueError, match=r"feature_map must be one of .* got 'tanh'"):
        mixers.build("norm_attention", 12, feature_map="tanh")
    with pytest.raises(ValueError, match="got d_model=12 and heads=5"):
        mixers.build("norm_attention", 12, heads=5)
    with pytest.raises(ValueError, match="variant must be T1 or T2, got 'T3'"):
        transnormer_layers(12, 2, variant="T3")
    with pytest.raises(ValueError, match="depth must be >= 1, got 0"):
        transnormer_layers(12, 0)
