"""Griffin's recurrent block against the paper's equations one token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from linocut import mixers
from mixers.oracle import build, tokens


def loop(mixer: Any, x: Tensor) -> Tensor:
    """Equations 1 to 4 of section 2.4, with the gates' matrices as whole ones."""
    width, block = mixer.width, mixer.width // mixer.heads
    whole_r, whole_i = (torch.block_diag(*part) for part in mixer.gates.split(block, dim=-1))
    bias_r, bias_i = (part.reshape(width) for part in mixer.gates_bias.split(block, dim=-1))
    inputs = torch.cat([x.new_zeros(x.shape[0], mixer.taps - 1, width), mixer.input(x)], dim=1)
    h, rows = x.new_zeros(x.shape[0], width), []
    for t in range(x.shape[1]):
        u = (inputs[:, t : t + mixer.taps] * mixer.convolution.T).sum(dim=1) + mixer.convolution_bias
        r, i = torch.sigmoid(u @ whole_r + bias_r), torch.sigmoid(u @ whole_i + bias_i)
        a = torch.sigmoid(-mixer.decay) ** (8 * r)
        h = a * h + (1 - a**2).sqrt() * (i * u)
        gate = mixer.gate(x[:, t])
        rows.append(mixer.out(gate * 0.5 * (1 + torch.erf(gate / 2**0.5)) * h))
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("taps", [1, 2, 4, 6])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_the_block_is_the_papers(length: int, taps: int) -> None:
    mixer = build("griffin", heads=2, width=12, taps=taps)
    x, found = tokens(length), []
    for form in (mixer, lambda x: loop(mixer, x)):
        leaf = x.clone().requires_grad_()
        y = form(leaf)
        found.append([y, *torch.autograd.grad(y.square().sum(), [leaf, *mixer.parameters()])])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


def test_long_sequences_run_in_pieces_that_change_nothing() -> None:
    mixer, x = build("griffin", heads=2), tokens(5000)
    with_gradient = mixer(x)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), with_gradient, rtol=0, atol=1e-9)


def test_the_first_decays_are_the_papers() -> None:
    """Section 2.4: a to the power c starts between 0.9 and 0.999."""
    mixer = mixers.build("griffin", 256)
    start = torch.sigmoid(-mixer.decay.double()) ** 8
    assert start.min() > 0.9 - 1e-6
    assert start.max() < 0.999 + 1e-6


def test_a_gate_that_is_closed_for_good_has_a_gradient() -> None:
    """With r = 0 the state is kept as it is, and the square root of 1 - a² is at its cusp."""
    mixer = build("griffin", heads=2).float()
    mixer.gates_bias.data.fill_(-1000.0)
    x = tokens(9).float().requires_grad_()
    mixer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "heads": 4}, "heads must be >= 1 and divide the width, got width=10 and heads=4"),
        ({"heads": 0}, "heads must be >= 1 and divide the width, got width=12 and heads=0"),
        ({"taps": 0}, "taps must be >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixers.build("griffin", 12, **options)
