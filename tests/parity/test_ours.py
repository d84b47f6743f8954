"""Our ops and layers give what independent implementations give: outputs, and gradients where the peer has them.

Every op is held against its recurrence in float64 and against each library that computes the same function, at a length
of one token, one that no chunk divides, and one of several chunks. Layers take over the library's weights; where their
formulas differ from the library's on purpose, the docstring says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.peers.mixers import (
    decode,
    gated_delta_rule,
    inputs,
    linear_attention,
    linear_recurrence,
    performer,
    retention,
    s4d,
    selective_scan,
    sparse,
    ssd,
    wkv,
)
from torch import Tensor, nn

from benchmarks import our_mixers as ours
from gradients import assert_all_close, with_gradients
from linocut import mixers
from linocut.ops import favor
from parity import oracles
from parity.test_peers import run_or_skip

LENGTHS = (1, 63, 200)
Function = Callable[..., Tensor]

CAUSAL, FULL = (partial(oracles.elu_attention, causal=causal) for causal in (True, False))

# Each of our functions, its inputs, the recurrence in float64, and what libraries make of the same inputs.
ROWS: dict[str, tuple[Function, Callable[[int], inputs.Inputs], Function, list[Function]]] = {
    "linear attention, causal": (
        ours.causal_linear_attention,
        inputs.attention,
        CAUSAL,
        [linear_attention.torch_chunked, linear_attention.fast_transformers],
    ),
    "linear attention": (ours.linear_attention, inputs.attention, FULL, [linear_attention.full]),
    "efficient attention": (
        ours.efficient_attention,
        inputs.attention,
        oracles.efficient_attention,
        [linear_attention.efficient_attention],
    ),
    "selective scan": (
        ours.scan,
        inputs.selective_scan,
        oracles.selective_scan,
        [selective_scan.transformers, selective_scan.mambapy, selective_scan.minimal],
    ),
    "SSD": (ours.mamba2, inputs.ssd, oracles.ssd, [ssd.transformers]),
    "gated delta rule": (
        ours.delta_rule,
        inputs.gated_delta_rule,
        oracles.gated_delta_rule,
        [gated_delta_rule.transformers_chunk, gated_delta_rule.transformers_recurrent],
    ),
    "S4D": (ours.s4d, inputs.s4d, oracles.s4d, [s4d.published]),
    "RWKV-4": (ours.rwkv4, inputs.wkv, oracles.wkv, [wkv.transformers]),
    "RG-LRU": (
        ours.rg_lru,
        inputs.linear_recurrence,
        oracles.linear_recurrence,
        [linear_recurrence.transformers],
    ),
    "retention": (ours.retention, inputs.attention, oracles.retention, [retention.naive, retention.torch_chunked]),
    "local attention": (ours.local_attention, inputs.attention, oracles.window_attention, [sparse.local_attention]),
}
AGAINST_LIBRARIES = [
    pytest.param(row[0], row[1], peer, id=f"{name}-{peer.__module__.rpartition('.')[2]}.{peer.__name__}")
    for name, row in ROWS.items()
    for peer in row[3]
]
# Their kernels have no backward.
FORWARD_ONLY = {"C loop": (ours.scan, inputs.selective_scan, selective_scan.c_loop)} | {
    "vllm SSD": (ours.mamba2, inputs.ssd, ssd.vllm)
}
# With rounding of the inputs to bfloat16 on both sides.
BFLOAT16 = {
    "SSD": (ours.mamba2_bfloat16, inputs.ssd, ssd.vllm_bfloat16, oracles.ssd),
    "gated delta rule": (
        ours.delta_rule_bfloat16,
        inputs.gated_delta_rule,
        gated_delta_rule.vllm,
        oracles.gated_delta_rule,
    ),
}


def outcome(function: Function, made: inputs.Inputs) -> list[Tensor]:
    """Output and the gradients of all inputs."""
    return with_gradients(lambda *tensors: (function(**dict(zip(made, tensors, strict=True))),), list(made.values()))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ROWS)
def test_op_equals_its_recurrence(name: str, length: int) -> None:
    ours_, make, oracle, _ = ROWS[name]
    made = make(length)
    assert_all_close(outcome(ours_, made), outcome(oracle, oracles.double(made)), 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("ours_", "make", "peer"), AGAINST_LIBRARIES)
def test_op_equals_the_library(
    ours_: Function, make: Callable[[int], inputs.Inputs], peer: Function, length: int
) -> None:
    made = make(length)
    run_or_skip(peer, made)
    assert_all_close(outcome(ours_, made), outcome(peer, made), 2e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", FORWARD_ONLY)
def test_op_equals_the_compiled_kernel(name: str, length: int) -> None:
    ours_, make, peer = FORWARD_ONLY[name]
    made = make(length)
    assert_all_close([ours_(**made)], [run_or_skip(peer, made)], 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", BFLOAT16)
def test_op_in_bfloat16_is_no_worse_than_the_compiled_kernel(name: str, length: int) -> None:
    ours_, make, peer, oracle = BFLOAT16[name]
    made = make(length)
    exact = oracle(**oracles.double(made))
    ours_error, peer_error = ((y.double() - exact).norm() for y in (ours_(**made), run_or_skip(peer, made)))
    assert ours_error < 1.1 * peer_error
    assert ours_error < 1e-2 * exact.norm()


def with_weights(layer: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    """Output and gradients of a layer: of its input, and of its weights by name."""
    leaf = x.clone().requires_grad_()
    layer.zero_grad()
    y = run(leaf)
    (y.double() + 0.3).square().mul(0.5).sum().backward()
    found = {"output": y.detach(), "input": leaf.grad}
    found |= {name: p.grad for name, p in layer.named_parameters()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    assert_all_close(list(actual.values()), [expected[name] for name in actual], tolerance)


def hidden(length: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, length, inputs.WIDTH, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", LENGTHS)
def test_mamba_equals_mambapy(length: int) -> None:
    theirs = decode.mambapy_layer().requires_grad_()
    mamba = mixers.Mamba(inputs.WIDTH, d_state=inputs.STATE)
    mamba.load_state_dict(theirs.state_dict())
    x = hidden(length)
    assert_same(with_weights(mamba, mamba, x), with_weights(theirs, theirs, x), 2e-5)


def test_mambas_step_equals_mambapys() -> None:
    theirs = decode.mambapy_layer()
    mamba = mixers.Mamba(inputs.WIDTH, d_state=inputs.STATE).requires_grad_(requires_grad=False)
    mamba.load_state_dict(theirs.state_dict())
    x = hidden(12)
    state, cache = mamba.init_state(2), (None, torch.zeros(2, inputs.INNER, decode.KERNEL - 1))
    for token in x.unbind(1):
        y, state = mamba.step(token, state)
        expected, cache = theirs.step(token, cache)
        assert_all_close([y], [expected], 1e-5)


def softmax_features(x: Tensor, projection: Tensor, *, is_query: bool) -> Tensor:
    """performer-pytorch's features without the 1e-4 it adds to each: the paper's, up to a factor that cancels."""
    from performer_pytorch.performer_pytorch import softmax_kernel

    mapped: Tensor = softmax_kernel(x.transpose(1, 2), projection_matrix=projection, is_query=is_query, eps=0.0)
    return mapped.transpose(1, 2)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("causal", [False, True])
def test_performer_equals_attention_with_the_packages_features(causal: bool, length: int) -> None:
    projection: Any = performer.attention(causal=causal).projection_matrix
    features = favor.Features(projection)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = softmax_features(q, projection.double(), is_query=True)
        k = softmax_features(k, projection.double(), is_query=False)
        return oracles.kernel_attention(q, k, v, causal=causal)

    def favored(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if causal:
            return favor.causal_favor_attention(q, k, v, features)[0]
        return favor.favor_attention(q, k, v, features)

    made = inputs.attention(length)
    assert_all_close(outcome(favored, made), outcome(theirs, oracles.double(made)), 5e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_performer_is_near_the_package_on_small_inputs(length: int) -> None:
    """The package adds 1e-4 to every feature: little beside those of small inputs, near 1."""
    projection: Any = performer.attention(causal=False).projection_matrix
    made = inputs.attention(length)
    made = {name: t if name == "v" else 0.3 * t for name, t in made.items()}
    theirs = performer.full(**made)
    y = favor.favor_attention(**made, features=favor.Features(projection))
    assert float((y - theirs).norm() / theirs.norm()) < 1e-3


@pytest.mark.parametrize("length", LENGTHS)
def test_linformer_equals_the_package(length: int) -> None:
    """Ours has a bias on the queries, which theirs has not, and projects along the length before the channels."""
    from linformer import LinformerSelfAttention

    longest, rank = 200, 32
    torch.manual_seed(0)
    theirs = LinformerSelfAttention(dim=inputs.WIDTH, seq_len=longest, k=rank, heads=inputs.HEADS)
    mixer = mixers.build(
        "linformer", inputs.WIDTH, causal=False, heads=inputs.HEADS, max_length=longest, rank=rank, share="headwise"
    )
    with torch.no_grad():
        mixer.query.weight.copy_(theirs.to_q.weight)
        mixer.query.bias.zero_()
        mixer.key_value.weight.copy_(torch.cat([theirs.to_k.weight, theirs.to_v.weight]))
        mixer.projection.copy_(torch.stack([theirs.proj_k.T, theirs.proj_v.T])[:, None])
        mixer.out.load_state_dict(theirs.to_out.state_dict())
    x = hidden(length)
    mine, other = with_weights(mixer, mixer, x), with_weights(theirs, theirs, x)
    expected = {
        "output": other["output"],
        "input": other["input"],
        "query.weight": other["to_q.weight"],
        "query.bias": mine["query.bias"],
        "key_value.weight": torch.cat([other["to_k.weight"], other["to_v.weight"]]),
        "out.weight": other["to_out.weight"],
        "out.bias": other["to_out.bias"],
        "projection": torch.stack([other["proj_k"].T, other["proj_v"].T])[:, None],
    }
    assert_same(mine, expected, 2e-5)


@pytest.mark.parametrize("length", [40, 200])
def test_nystromformer_equals_the_package(length: int) -> None:
    """With one sequence and one head, at lengths that the landmarks divide and exceed.

    The package starts the pseudo-inverse from the largest norm of all heads and sequences, ours from each matrix's own.
    Where the landmarks do not divide the length, it pads with zeros at the front and lets the padding take part.
    """
    from nystrom_attention import NystromAttention

    torch.manual_seed(0)
    theirs = NystromAttention(dim=inputs.WIDTH, dim_head=inputs.WIDTH, heads=1, num_landmarks=20).double()
    mixer = mixers.build("nystromformer", inputs.WIDTH, causal=False, heads=1, landmarks=20).double()
    with torch.no_grad():
        theirs.to_qkv.weight[: inputs.WIDTH].mul_(5)  # weights far from equal
        query, key, value = theirs.to_qkv.weight.chunk(3)
        mixer.query.weight.copy_(query)
        mixer.key_value.weight.copy_(torch.cat([key, value]))
        mixer.query.bias.zero_()
        mixer.key_value.bias.zero_()
        mixer.out.load_state_dict(theirs.to_out[0].state_dict())
        mixer.residual.copy_(theirs.res_conv.weight.flatten(1))
    made = {"x": hidden(length, batch=1).double()}
    assert_all_close(outcome(mixer, made), outcome(theirs, made), 1e-8)


@pytest.mark.parametrize("length", [512, 1024])
def test_longformer_equals_transformers(length: int) -> None:
    theirs: Any = sparse._longformer()
    mixer = mixers.build("longformer", inputs.WIDTH, causal=False, heads=inputs.HEADS, window=inputs.WINDOW)
    pairs = [("query", ["query"]), ("key_value", ["key", "value"])]
    pairs += [(f"{mine}_global", [f"{each}_global" for each in other]) for mine, other in pairs]
    with torch.no_grad():
        for mine, other in pairs:
            for kind in ("weight", "bias"):
                taken = torch.cat([getattr(getattr(theirs, each), kind) for each in other])
                getattr(getattr(mixer, mine), kind).copy_(taken)
    mixer.out = nn.Identity()
    made = {"x": hidden(length, batch=1)}
    assert_all_close(outcome(mixer, made), outcome(sparse.longformer, made), 2e-5)


def test_bigbird_equals_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the graph that theirs draws, which it does in training; otherwise all its random blocks are the first."""
    length = 960  # 15 blocks of 64: 1024 has a plan of its own
    theirs: Any = sparse._big_bird(length)
    monkeypatch.setattr(theirs, "training", True)
    drawn: list[Tensor] = []
    draw = theirs._bigbird_block_rand_mask_with_head

    def drawing(**arguments: Any) -> Any:
        graph = draw(**arguments)
        drawn.append(torch.as_tensor(np.stack(graph)))
        return graph

    monkeypatch.setattr(theirs, "_bigbird_block_rand_mask_with_head", drawing)
    made = {"x": hidden(length, batch=1)}
    expected = outcome(sparse.big_bird, made)
    mixer = mixers.build("bigbird", inputs.WIDTH, causal=False, heads=inputs.HEADS, block=sparse.BLOCK, random=3)
    monkeypatch.setattr("linocut.mixers.bigbird.random_blocks", lambda *_: drawn[0])
    with torch.no_grad():
        mixer.query.load_state_dict(theirs.query.state_dict())
        for kind in ("weight", "bias"):
            taken = torch.cat([getattr(each, kind) for each in (theirs.key, theirs.value)])
            getattr(mixer.key_value, kind).copy_(taken)
    mixer.out = nn.Identity()
    assert_all_close(outcome(mixer, made), expected, 2e-5)
