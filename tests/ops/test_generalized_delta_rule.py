"""The generalised delta rule: chunks against the loop, and the rules it contains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradients import assert_all_close, with_gradients
from linocut.ops import generalized_delta_rule as ops
from linocut.ops.channel_decay import recurrent_reference as channel_decay


def arguments(randn: Callable[..., Tensor], length: int) -> list[Tensor]:
    """q, k, v, log decays, a, b and a state, of a rule that forgets what it reads."""
    shape = (2, length, 2, 5)
    q, k, away, share = (randn(*shape, dtype=torch.float64) for _ in range(4))
    away = torch.nn.functional.normalize(away, dim=-1)
    v, decay = randn(2, length, 2, 7, dtype=torch.float64), -0.5 * randn(*shape, dtype=torch.float64).exp()
    return [q, k, v, decay, -away, share.sigmoid() * away, randn(2, 2, 5, 7, dtype=torch.float64)]


def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return ops.generalized_delta_rule(*inputs[:-1], state=inputs[-1])


@pytest.mark.parametrize("length", [0, 1, 2, 15, 16, 17, 100])
def test_chunks_are_the_loop(randn: Callable[..., Tensor], length: int) -> None:
    inputs = arguments(randn, length)
    assert_all_close(with_gradients(run, inputs), with_gradients(ops.recurrent_reference, inputs), 1e-11)


@pytest.mark.parametrize("strength", [0.0, 20.0, 1000.0])
def test_decays_of_any_strength(randn: Callable[..., Tensor], strength: float) -> None:
    inputs = arguments(randn, 70)
    inputs[3] = inputs[3] * strength
    assert_all_close(run(*(x.float() for x in inputs)), ops.recurrent_reference(*inputs), 1e-5)


def test_without_a_change_it_is_the_decay_a_channel(randn: Callable[..., Tensor]) -> None:
    q, k, v, g, a, b, state = arguments(randn, 40)
    assert_all_close(run(q, k, v, g, a, 0 * b, state), channel_decay(q, k, v, g, None, state), 1e-12)


def test_the_state_of_a_rule_that_forgets_is_what_was_written_last(randn: Callable[..., Tensor]) -> None:
    _, k, v, g, *_ = arguments(randn, 3)
    k = torch.nn.functional.normalize(k[:, :1], dim=-1).expand_as(k)
    y, _ = ops.generalized_delta_rule(k, k, v, 0 * g, -k, k)
    torch.testing.assert_close(y, v)


def test_a_piece_is_a_map_of_the_state(randn: Callable[..., Tensor]) -> None:
    *tokens, state = arguments(randn, 20)
    q, k, _, g, a, b = tokens
    _, shift = ops.generalized_delta_rule(*tokens)
    eye = torch.eye(5, dtype=torch.float64).expand(2, 2, 5, 5)
    _, transition = ops.generalized_delta_rule(q, k, torch.zeros_like(k), g, a, b, state=eye)
    torch.testing.assert_close(transition @ state + shift, run(*tokens, state)[1])


@pytest.mark.parametrize("which", range(1, 6))
def test_nan_reaches_what_follows_and_nothing_before(randn: Callable[..., Tensor], which: int) -> None:
    inputs = arguments(randn, 20)
    inputs[which][0, 7, 1, 3] = torch.nan
    y, last = run(*inputs)
    assert y[0, 7:, 1].isnan().any(-1).all()
    assert last[0, 1].isnan().any()
    assert y[0, :7].isfinite().all()
    assert y[:, :, 0].isfinite().all()
    assert y[1].isfinite().all()


def test_shapes_that_do_not_fit_are_named() -> None:
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"must all be \(batch, length, heads, dim\), got .*\(1, 2, 3, 5\)"):
        ops.generalized_delta_rule(x, x, x, x, x, torch.zeros(1, 2, 3, 5))
    with pytest.raises(ValueError, match=r"v must be \(1, 2, 3, 'value'\), got \(1, 1, 3, 4\)"):
        ops.generalized_delta_rule(x, x, x[:, :1], x, x, x)
    with pytest.raises(ValueError, match=r"state must be \(1, 3, 4, 4\), got \(1, 3, 4, 5\)"):
        ops.generalized_delta_rule(x, x, x, x, x, x, state=torch.zeros(1, 3, 4, 5))
