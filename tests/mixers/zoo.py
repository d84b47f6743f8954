"""Every mixer once in each form, small: the list on which the property suite runs. A new mixer is added here."""

from __future__ import annotations

from typing import Any

# (name, causal) -> options for d_model = 12
ZOO: dict[tuple[str, bool], dict[str, Any]] = {
    ("linear_attention", False): {"heads": 2},
    ("lru", True): {"d_state": 10},
    ("s4d", True): {"d_state": 8},
    ("efficient_attention", False): {"heads": 2},
}

# Those whose work grows faster than the length, as their papers say.
LINEAR_EXCEPTIONS: set[tuple[str, bool]] = set()
