"""The peers compute what their papers say; otherwise a ratio against them would mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from benchmarks.peers.mixers import (
    decode,
    gated_delta_rule,
    inputs,
    layers,
    linear_attention,
    linear_recurrence,
    native,
    performer,
    retention,
    s4d,
    selective_scan,
    sparse,
    ssd,
    wkv,
)
from benchmarks.peers.mixers.rows import ROWS, Peer, Row
from torch import Tensor

from parity import oracles

# Three chunks of 64, so that a mistake across chunks shows; local attention needs more than its window.
LENGTH, LONG = 192, 768

CAUSAL, FULL = (partial(oracles.elu_attention, causal=causal) for causal in (True, False))

PEERS: list[tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[[int], inputs.Inputs]]] = [
    (linear_attention.torch_chunked, CAUSAL, inputs.attention),
    (linear_attention.fla_naive_chunk, CAUSAL, inputs.attention),
    (linear_attention.fast_transformers, CAUSAL, inputs.attention),
    (linear_attention.full, FULL, inputs.attention),
    (linear_attention.efficient_attention, oracles.efficient_attention, inputs.attention),
    (selective_scan.c_loop, oracles.selective_scan, inputs.selective_scan),
    (selective_scan.minimal, oracles.selective_scan, inputs.selective_scan),
    (selective_scan.mambapy, oracles.selective_scan, inputs.selective_scan),
    (selective_scan.transformers, oracles.selective_scan, inputs.selective_scan),
    (ssd.minimal_discrete, oracles.ssd, inputs.ssd),
    (ssd.transformers, oracles.ssd, inputs.ssd),
    (ssd.vllm, oracles.ssd, inputs.ssd),
    (gated_delta_rule.transformers_chunk, oracles.gated_delta_rule, inputs.gated_delta_rule),
    (gated_delta_rule.transformers_recurrent, oracles.gated_delta_rule, inputs.gated_delta_rule),
    (s4d.published, oracles.s4d, inputs.s4d),
    (wkv.transformers, oracles.wkv, inputs.wkv),
    (linear_recurrence.transformers, oracles.linear_recurrence, inputs.linear_recurrence),
    (retention.naive, oracles.retention, inputs.attention),
    (retention.torch_chunked, oracles.retention, inputs.attention),
]


def relative_error(measured: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((measured.double() - exact).abs().max() / exact.abs().max())


def run_or_skip(peer: Callable[..., Tensor], made: inputs.Inputs) -> Tensor:
    """Run a peer; a compiled one that is not here is skipped, with its reason."""
    try:
        return peer(**made)
    except native.PeerMissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("peer", "oracle", "make"), PEERS, ids=[f"{p.__module__}.{p.__name__}" for p, _, _ in PEERS])
def test_peer_equals_the_recurrence(
    peer: Callable[..., Tensor], oracle: Callable[..., Tensor], make: Callable[[int], inputs.Inputs]
) -> None:
    made = make(LENGTH)
    assert relative_error(run_or_skip(peer, made), oracle(**oracles.double(made))) < 5e-6


@pytest.mark.parametrize(
    ("peer", "oracle", "make"),
    [
        (ssd.vllm_bfloat16, oracles.ssd, inputs.ssd),
        (gated_delta_rule.vllm, oracles.gated_delta_rule, inputs.gated_delta_rule),
    ],
    ids=["ssd", "gated_delta_rule"],
)
def test_bfloat16_peer_is_right_to_its_rounding(
    peer: Callable[..., Tensor], oracle: Callable[..., Tensor], make: Callable[[int], inputs.Inputs]
) -> None:
    made = make(LENGTH)
    assert relative_error(run_or_skip(peer, made), oracle(**oracles.double(made))) < 2e-2


@pytest.mark.parametrize(
    ("peer", "causal", "epsilon"),
    [(performer.full, False, 0.0), (performer.torch_causal, True, 0.0), (performer.causal, True, 1e-6)],
    ids=["package", "torch causal", "package causal"],
)
def test_performers_equal_attention_with_the_same_features(
    peer: Callable[..., Tensor], causal: bool, epsilon: float
) -> None:
    made = inputs.attention(LENGTH)
    exact = oracles.double(made)
    projection: Tensor = performer.attention(causal=causal).projection_matrix.double()  # type: ignore[operator]
    q = performer.features(exact["q"], projection, is_query=True)
    k = performer.features(exact["k"], projection, is_query=False)
    expected = oracles.kernel_attention(q, k, exact["v"], causal=causal, epsilon=epsilon)
    assert relative_error(peer(**made), expected) < 2e-5


def test_local_attention_sees_a_token_and_its_window() -> None:
    made = inputs.attention(LONG)
    expected = oracles.window_attention(**oracles.double(made))
    assert relative_error(sparse.local_attention(**made), expected) < 5e-6


def test_flash_equals_its_recurrence_over_chunks() -> None:
    layer = layers.Flash().double()
    x = torch.randn(1, LONG, inputs.WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = layer(x)
        changed = x.clone()
        changed[:, 300:] += 1
        assert torch.equal(layer(changed)[:, :300], whole[:, :300])
        # The first chunk has nothing before it: attention inside alone.
        assert torch.allclose(layer(x[:, :256]), whole[:, :256])


@pytest.mark.parametrize("make", [decode.mambapy, decode.transformers], ids=["mambapy", "transformers"])
def test_decoding_equals_the_layer_over_all_tokens(make: Callable[[], decode.Step]) -> None:
    x = torch.randn(1, 12, inputs.WIDTH, generator=torch.Generator().manual_seed(0))
    step = make()
    whole: Tensor = decode.mambapy_layer()(x)
    assert relative_error(torch.stack([step(token) for token in x.unbind(1)], 1), whole.double()) < 5e-6


# torch.compile's row is torch_chunked compiled, which takes longer than the rest of this file.
EAGER = [(name, row, peer) for name, row in ROWS.items() for peer in row.peers if peer.name != "torch.compile"]


@pytest.mark.parametrize(
    ("row", "peer"), [pytest.param(row, peer, id=f"{name}-{peer.name}") for name, row, peer in EAGER]
)
def test_every_row_runs_and_gives_gradients_where_it_says_so(row: Row, peer: Peer) -> None:
    made = row.inputs(2048 if peer.run is sparse.big_bird else 512)
    if peer.longest_backward == 0:
        assert run_or_skip(peer.run, made).isfinite().all()
        return
    made = {name: t.requires_grad_() for name, t in made.items()}
    run_or_skip(peer.run, made).sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in made.values())
