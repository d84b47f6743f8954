"""What is no tensor of floating-point numbers is refused by name, by every op that a user calls."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

OPS: dict[str, tuple[str, int]] = {
    "channel_decay.channel_decay_attention": ("q", 4),
    "depthwise_conv.depthwise_conv": ("x", 2),
    "diagonal_recurrence.complex_recurrence": ("lam", 2),
    "diagonal_recurrence.diagonal_ssm": ("u", 3),
    "efficient_attention.efficient_attention": ("q", 3),
    "favor.causal_favor_attention": ("q", 4),
    "gated_delta_rule.gated_delta_rule": ("q", 5),
    "gated_linear_attention.gated_linear_attention": ("q", 3),
    "generalized_delta_rule.generalized_delta_rule": ("q", 6),
    "linear_attention.causal_linear_attention": ("q", 3),
    "linear_attention.linear_attention": ("q", 3),
    "linear_recurrence.linear_recurrence": ("a", 2),
    "local_attention.local_attention": ("q", 3),
    "selective_scan.selective_scan": ("x", 5),
    "short_convolution.short_convolution": ("x", 2),
    "ssd.ssd": ("x", 5),
    "wkv.wkv": ("k", 4),
}
every_op = pytest.mark.parametrize("name", OPS)


def found(name: str) -> Callable[..., Any]:
    file, function = name.split(".")
    op: Callable[..., Any] = getattr(import_module(f"linocut.ops.{file}"), function)
    return op


@every_op
def test_an_array_is_refused(name: str) -> None:
    first, count = OPS[name]
    with pytest.raises(TypeError, match=rf"^\w+: {first} must be a torch.Tensor, got numpy.ndarray; torch.as_tensor"):
        found(name)(*[np.zeros((1, 2, 1, 1), np.float32)] * count)


@every_op
def test_whole_numbers_are_refused(name: str) -> None:
    first, count = OPS[name]
    with pytest.raises(TypeError, match=rf"{first} must hold floating-point numbers, got torch.int64; {first}.float"):
        found(name)(*[torch.zeros(1, 2, 1, 1, dtype=torch.long)] * count)


def test_keywords_are_looked_at_and_what_is_left_out_is_not() -> None:
    scan, x = found("linear_recurrence.linear_recurrence"), torch.ones(1, 2, 1)
    assert scan(x, x, state=None)[1].item() == 2
    with pytest.raises(TypeError, match=r"linear_recurrence: state must hold .*got torch.int64"):
        scan(x, x, state=torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(TypeError, match=r"linear_recurrence: b must be a torch.Tensor, got builtins.NoneType"):
        scan(x, None)
