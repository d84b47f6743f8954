"""The two forms of linear attention."""

from __future__ import annotations

import pytest
import torch

from linocut import mixers

maps = pytest.mark.parametrize("feature_map", ["elu", "relu", "exp"])


@maps
def test_the_causal_form_ends_where_the_set_begins(feature_map: str) -> None:
    options = {"heads": 2, "feature_map": feature_map}
    whole = mixers.build("linear_attention", 12, causal=False, **options)
    causal = mixers.build("linear_attention", 12, causal=True, **options)
    causal.load_state_dict(whole.state_dict())
    x = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(causal(x)[:, -1], whole(x)[:, -1], rtol=0, atol=1e-5)


@maps
def test_the_feature_map_makes_a_difference(feature_map: str) -> None:
    layers = [mixers.CausalLinearAttention(12, heads=2, feature_map=phi) for phi in (feature_map, "identity")]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(layers[0](x), layers[1](x), atol=1e-3)


@pytest.mark.parametrize("causal", [True, False])
def test_an_unknown_feature_map_is_refused(causal: bool) -> None:
    with pytest.raises(ValueError, match="feature_map must be one of identity, elu, relu, exp, got 'tanh'"):
        mixers.build("linear_attention", 12, causal=causal, feature_map="tanh")
