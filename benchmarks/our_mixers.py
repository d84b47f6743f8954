"""Our side of the table of mixers: every row with Linocut's ops or layers, a step of decoding, and the rows' work.

The functions take and return what the peers of the row do. Layers have random weights of the peers' shapes; which
numbers they are changes no time. `FLOORS` says what a row's arithmetic costs a token, from the recurrence as its paper
writes it; what must be done more is said where it is added. A product of an a × b and a b × c matrix is 2abc
operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.mixers.inputs import (
    DIM,
    FEATURES,
    HEADS,
    INNER,
    RETENTION_DECAYS,
    S4D_STATE,
    SSD_DIM,
    SSD_HEADS,
    SSD_STATE,
    STATE,
    WIDTH,
    WINDOW,
)
from benchmarks.peers.mixers.layers import LANDMARKS
from benchmarks.peers.mixers.sparse import BLOCK
from linocut import mixers
from linocut.ops import efficient_attention as efficient
from linocut.ops import favor, s4
from linocut.ops import linear_attention as linear
from linocut.ops import local_attention as local
from linocut.ops.diagonal_recurrence import diagonal_ssm
from linocut.ops.feature_maps import draw_projection
from linocut.ops.gated_delta_rule import gated_delta_rule
from linocut.ops.gated_linear_attention import gated_linear_attention
from linocut.ops.linear_recurrence import linear_recurrence
from linocut.ops.selective_scan import selective_scan
from linocut.ops.ssd import ssd
from linocut.ops.wkv import wkv

FLASH_INNER, FLASH_SHARED, FLASH_CHUNK = 2 * WIDTH, 128, 256

# ruff: noqa: N803  # A, B, C and D are the papers' letters


def causal_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Elu + 1, normalised."""
    return linear.causal_linear_attention(q, k, v, feature_map="elu")[0]


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Elu + 1, normalised, not causal."""
    return linear.linear_attention(q, k, v, feature_map="elu")


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax over the channels of q and the positions of k."""
    return efficient.efficient_attention(q, k, v)


@cache
def random_features() -> favor.Features:
    """256 positive features a head, orthogonal, always the same."""
    return favor.Features(draw_projection(FEATURES, DIM, generator=torch.Generator().manual_seed(0)).float())


def performer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FAVOR+, not causal."""
    return favor.favor_attention(q, k, v, random_features())


def causal_performer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FAVOR+, causal."""
    return favor.causal_favor_attention(q, k, v, random_features())[0]


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Mamba's recurrence, without the gate."""
    return selective_scan(x, delta, A, B, C, D=D)[0]


def mamba2(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mamba-2's recurrence."""
    return ssd(x, dt, A, B, C)[0]


def mamba2_bfloat16(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same with x, B and C rounded first, as the peer in bfloat16 does."""
    return ssd(x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16())[0]


def delta_rule(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """With q divided by √dim, as the peers do."""
    return gated_delta_rule(q * DIM**-0.5, k, v, log_decay, beta)[0]


def delta_rule_bfloat16(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """The same with q, k and v rounded first, as the peer in bfloat16 does."""
    return gated_delta_rule((q * DIM**-0.5).bfloat16(), k.bfloat16(), v.bfloat16(), log_decay, beta)[0]


def s4d(u: Tensor, log_dt: Tensor, A: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Zero-order hold, then the diagonal recurrence."""
    decay = torch.exp(torch.exp(log_dt)[:, None] * A)
    return diagonal_ssm(u, decay, C * (decay - 1) / A, D=D)[0]


def convolution(u: Tensor, taps: Tensor) -> Tensor:
    """S4's other form: the causal convolution with a kernel, by FFT."""
    return s4.convolve(u, taps)


def rwkv4(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """RWKV-4's average."""
    return wkv(k, v, w, u)[0]


def rg_lru(a: Tensor, b: Tensor) -> Tensor:
    """The real recurrence with a gate a token and channel."""
    return linear_recurrence(a, b)[0]


def retention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Gated linear attention whose decay is one number a head."""
    return gated_linear_attention(q, k, v, log_decay=torch.tensor(RETENTION_DECAYS).log())[0]


def local_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax over a token and the 256 before it."""
    return local.local_attention(q, k, v, window=WINDOW + 1)


@cache
def layer(name: str, *, bare: bool = False, **options: Any) -> nn.Module:
    """A mixer by name, d_model 256 and not causal but where its options say so, without gradients to its weights.

    Args:
        name: as registered.
        bare: without the projection after the heads, which some peers leave to the user.
        **options: the mixer's.
    """
    torch.manual_seed(0)
    made: nn.Module = mixers.build(name, WIDTH, **{"causal": False, **options})
    if bare:
        made.out = nn.Identity()
    return made.requires_grad_(requires_grad=False)


def longformer(x: Tensor) -> Tensor:
    """256 tokens either side, the first token global; no projection of the output, as the peer's."""
    y: Tensor = layer("longformer", bare=True, heads=HEADS, window=WINDOW)(x)
    return y


def big_bird(x: Tensor) -> Tensor:
    """Blocks of 64, three in the window, two global, three random; no projection of the output, as the peer's."""
    y: Tensor = layer("bigbird", bare=True, heads=HEADS, block=BLOCK, random=3)(x)
    return y


def flash(x: Tensor) -> Tensor:
    """FLASH, causal, chunks of 256, between the norm and the sum with its input, as the peer's."""
    mix = layer("flash", causal=True, expansion=2, size=FLASH_SHARED, chunk=FLASH_CHUNK)
    y: Tensor = x + mix(functional.layer_norm(x, (WIDTH,)))
    return y


def linformer(x: Tensor) -> Tensor:
    """256 projected keys, one projection for keys and one for values."""
    y: Tensor = layer("linformer", heads=HEADS, max_length=x.shape[1], rank=LANDMARKS)(x)
    return y


def nystromformer(x: Tensor) -> Tensor:
    """256 landmarks, and a convolution of the values with 33 taps."""
    y: Tensor = layer("nystromformer", heads=HEADS, landmarks=LANDMARKS)(x)
    return y


OURS: dict[str, Callable[..., Tensor]] = {
    "linear attention, causal": causal_linear_attention,
    "linear attention": linear_attention,
    "efficient attention": efficient_attention,
    "Performer": performer,
    "Performer, causal": causal_performer,
    "selective scan": scan,
    "SSD": mamba2,
    "gated delta rule": delta_rule,
    "S4D": s4d,
    "S4D, convolution alone": convolution,
    "RWKV-4": rwkv4,
    "RG-LRU recurrence": rg_lru,
    "retention": retention,
    "local attention": local_attention,
    "Longformer": longformer,
    "BigBird": big_bird,
    "FLASH layer": flash,
    "Linformer layer": linformer,
    "Nyström layer": nystromformer,
}
# Rows whose time is products, also measured with all inputs in bfloat16, which some processors multiply faster.
GIVEN_BFLOAT16 = (
    "linear attention, causal",
    "linear attention",
    "efficient attention",
    "Performer",
    "Performer, causal",
    "retention",
    "local attention",
)
# Ours in bfloat16; the last two round inside, as those peers do that have no other precision.
OURS_BFLOAT16: dict[str, Callable[..., Tensor]] = {
    **{row: OURS[row] for row in GIVEN_BFLOAT16},
    "SSD": mamba2_bfloat16,
    "gated delta rule": delta_rule_bfloat16,
}


def decode() -> Callable[[Tensor], Tensor]:
    """One token through a Mamba layer, d_model 256, d_state 16, from an empty state on: x (1, 256) → (1, 256)."""
    torch.manual_seed(0)
    mamba: Any = mixers.Mamba(WIDTH, d_state=STATE).requires_grad_(requires_grad=False)
    state = mamba.init_state(1)

    @torch.no_grad()
    def step(x: Tensor) -> Tensor:
        nonlocal state
        y: Tensor
        y, state = mamba.step(x, state)
        return y

    return step


@dataclass(frozen=True)
class Work:
    """What a row has to do.

    Attributes:
        flops: multiplications and additions a token.
        bytes: what is read and written a token, float32, each number once.
        exps: exponentials a token.
        flops_once: multiplications and additions a sequence.
    """

    flops: float = 0
    bytes: float = 0
    exps: float = 0
    flops_once: float = 0

    def floor(self, length: int, rates: dict[str, float]) -> float:
        """Seconds that the slowest of the three takes by itself.

        Args:
            length: tokens.
            rates: "flops", "bytes" and "exps" a second.
        """
        flops = self.flops * length + self.flops_once
        return max(flops / rates["flops"], self.bytes * length / rates["bytes"], self.exps * length / rates["exps"])


def linears(count: int) -> int:
    """Operations a token of projections from 256 to 256 channels."""
    return count * 2 * WIDTH * WIDTH


def states(heads: int, dim: int, value: int, products: int = 2) -> int:
    """Operations a token of products between a state and a vector: adding k vᵀ is one, reading by q another."""
    return heads * products * 2 * dim * value


def inside(heads: int, dim: int, value: int, chunk: int = 64, groups: int | None = None) -> int:
    """Operations a token of the products inside a chunk, of which the causal mask keeps half.

    A state of many kilobytes does not stay in the nearest cache for every token, so it is read once a chunk, and the
    tokens of a chunk see each other directly. Heads of a group share q and k, and with them the products of these.
    """
    return chunk * (dim * (heads if groups is None else groups) + heads * value)


def softmax(keys: int) -> dict[str, float]:
    """Softmax attention of a token to so many keys: weights, their exponentials, and the mean."""
    return {"flops": HEADS * 2 * 2 * DIM * keys, "exps": HEADS * keys}


def with_projections(count: int, attention: dict[str, float]) -> Work:
    """A layer: attention between projections."""
    return Work(flops=linears(count) + attention["flops"], bytes=4 * 2 * WIDTH, exps=attention["exps"])


# A block of queries shares the keys that any of them sees: a window and a block's length of them.
QUERY_BLOCK = 128
FAVOR = HEADS * 2 * 2 * DIM * FEATURES  # features of q and of k
PSEUDO_INVERSE = HEADS * 6 * 4 * 2 * LANDMARKS**3  # six iterations of four products

FLOORS: dict[str, Work] = {
    "linear attention, causal": Work(states(HEADS, DIM, DIM), 4 * 4 * WIDTH, 2 * WIDTH),
    "linear attention": Work(states(HEADS, DIM, DIM), 4 * 4 * WIDTH, 2 * WIDTH),
    "efficient attention": Work(states(HEADS, DIM, DIM), 4 * 4 * WIDTH, 2 * WIDTH),
    "Performer": Work(FAVOR + states(HEADS, FEATURES, DIM), 4 * 4 * WIDTH, 2 * HEADS * FEATURES),
    "Performer, causal": Work(
        FAVOR + states(HEADS, FEATURES, DIM) + inside(HEADS, FEATURES, DIM), 4 * 4 * WIDTH, 2 * HEADS * FEATURES
    ),
    # Six operations a state: Δ A, the decay, the input, both added, C h and its sum; and one exponential.
    "selective scan": Work(INNER * STATE * 6, 4 * (3 * INNER + 2 * STATE), INNER * STATE),
    "SSD": Work(
        states(SSD_HEADS, SSD_STATE, SSD_DIM) + inside(SSD_HEADS, SSD_STATE, SSD_DIM, groups=1),
        4 * (2 * SSD_HEADS * SSD_DIM + SSD_HEADS + 2 * SSD_STATE),
        SSD_HEADS,
    ),
    # One product more: what the state holds under k has to be read before it is replaced.
    "gated delta rule": Work(states(HEADS, DIM, DIM, products=3), 4 * (4 * WIDTH + 2 * HEADS), HEADS),
    # For one state of each conjugate pair: six operations turn it, four add its real part to the output.
    "S4D": Work(WIDTH * (S4D_STATE // 2) * 10, 4 * 2 * WIDTH),
    # Two exponentials, of k and of u + k; what they weigh is added to two sums, faded, read and divided.
    "RWKV-4": Work(WIDTH * 9, 4 * 3 * WIDTH, 2 * WIDTH),
    "RG-LRU recurrence": Work(2 * WIDTH, 4 * 3 * WIDTH),
    "retention": Work(states(HEADS, DIM, DIM), 4 * 4 * WIDTH),
    "local attention": Work(bytes=4 * 4 * WIDTH, **softmax(WINDOW + QUERY_BLOCK)),
    "Longformer": with_projections(3, softmax(2 * WINDOW + QUERY_BLOCK + 1)),
    "BigBird": with_projections(3, softmax(8 * BLOCK)),
    # Projections to u, v and the shared base and back; inside a chunk all pairs, masked or not; the state across.
    "FLASH layer": Work(
        2 * WIDTH * (2 * FLASH_INNER + FLASH_SHARED)
        + 2 * FLASH_INNER * WIDTH
        + 2 * FLASH_CHUNK * (FLASH_SHARED + FLASH_INNER)
        + states(1, FLASH_SHARED, FLASH_INNER),
        4 * 2 * WIDTH,
        2 * FLASH_INNER + FLASH_SHARED,
    ),
    # Keys and values are projected along the channels and along the length, then there are 256 keys.
    "Linformer layer": Work(
        linears(4) + 2 * 2 * LANDMARKS * WIDTH + softmax(LANDMARKS)["flops"], 4 * 2 * WIDTH, HEADS * LANDMARKS
    ),
    # Tokens look at landmarks and landmarks at tokens.
    "Nyström layer": Work(
        linears(4) + 2 * softmax(LANDMARKS)["flops"], 4 * 2 * WIDTH, 2 * HEADS * LANDMARKS, PSEUDO_INVERSE
    ),
}
