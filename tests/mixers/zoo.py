"""Every mixer once in each form, small: the list on which the property suite runs. A new mixer is added here."""

from __future__ import annotations

from typing import Any

# (name, causal) -> options for d_model = 12
ZOO: dict[tuple[str, bool], dict[str, Any]] = {
    ("bigbird", False): {"heads": 2, "block": 4, "random": 2, "seed": 5},
    ("griffin", True): {"width": 16, "heads": 2},
    ("deltanet", True): {"heads": 2},
    ("gated_deltanet", True): {"heads": 4, "groups": 2, "d_key": 5, "d_value": 7},
    ("linear_attention", False): {"heads": 2},
    ("linear_attention", True): {"heads": 2},
    ("lru", True): {"d_state": 10},
    ("mamba", True): {"d_state": 5},
    ("s4", True): {"d_state": 8},
    ("mamba2", True): {"d_state": 8, "head_dim": 6, "groups": 2},
    ("retnet", True): {"heads": 2},
    ("s4d", True): {"d_state": 8},
    ("efficient_attention", False): {"heads": 2},
    ("linformer", False): {"heads": 2, "max_length": 2048, "rank": 5},
    ("local_attention", False): {"heads": 2, "window": 4, "dilation": 2},
    ("local_attention", True): {"heads": 3, "window": 5, "dilation": 3},
    ("longformer", False): {"heads": 2, "window": 4, "dilation": (1, 3), "global_positions": (0, 17)},
    ("longformer", True): {"heads": 3, "window": 4, "dilation": (1, 3, 1)},
    ("nystromformer", False): {"heads": 2, "landmarks": 8, "taps": 5},
    ("softmax_attention", False): {"heads": 2},
    ("softmax_attention", True): {"heads": 2},
    ("sparse_transformer", True): {"heads": 2, "stride": 5, "combine": "merged"},
    ("strided_attention", False): {"heads": 2, "stride": 5},
    ("strided_attention", True): {"heads": 2, "stride": 5},
    ("gla", True): {"heads": 2},
    ("rwkv4", True): {"depth": 0.5},
    ("rwkv6", True): {"heads": 2, "rank": 3, "decay_rank": 4, "depth": 0.5},
    ("rwkv7", True): {"heads": 2, "rank": 3, "depth": 0.5},
    ("diag_attention", False): {"heads": 2, "block": 24},
    ("diag_attention", True): {"heads": 2, "block": 24, "activation": "relu"},
    ("flash", False): {"size": 8, "chunk": 24},
    ("flash", True): {"size": 8, "chunk": 24},
    ("gau", False): {"size": 8},
    ("gau", True): {"size": 8},
    ("norm_attention", False): {"heads": 2},
    ("norm_attention", True): {"heads": 2, "feature_map": "elu_alone"},
    ("performer", False): {"heads": 2, "features": 9},
    ("performer", True): {"heads": 2, "features": 9},
}

# Those whose work grows faster than the length, as their papers say.
LINEAR_EXCEPTIONS: set[tuple[str, bool]] = {
    ("gau", False),
    ("gau", True),
    ("softmax_attention", False),
    ("softmax_attention", True),
    ("sparse_transformer", True),
    ("strided_attention", False),
    ("strided_attention", True),
}
