"""GAU and FLASH against their formulas written out, and FLASH's pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from linocut import mixers
from linocut.mixers.positions import rotary


def build(name: str, *, causal: bool, **options: int) -> mixers.Mixer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixer = mixers.build(name, 6, causal=causal, size=4, **options).double()
        mixer.offset.data.normal_(std=0.3)
    return mixer


def tokens(length: int) -> Tensor:
    return torch.randn(2, length, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def parts(mixer: mixers.Mixer, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    u, v, z = torch.nn.functional.silu(mixer.hidden(x)).split([12, 12, 4], dim=-1)
    at = torch.arange(x.shape[1], dtype=torch.float64)
    rows = zip(mixer.scale, mixer.offset, strict=True)
    return u, v, [rotary((z * a + b)[:, :, None], at)[:, :, 0] for a, b in rows]


@pytest.mark.parametrize("causal", [False, True])
def test_gau_is_its_formula(*, causal: bool) -> None:
    mixer, x = build("gau", causal=causal), tokens(21)
    u, v, (q, k) = parts(mixer, x)
    weights = (q @ k.mT / 2).relu() ** 2
    weights = weights.tril() / torch.arange(1, 22)[:, None] if causal else weights / 21
    torch.testing.assert_close(mixer(x), mixer.out(u * (weights @ v)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [5, 8, 21, 24])
@pytest.mark.parametrize("causal", [False, True])
def test_flash_is_its_formula(length: int, *, causal: bool) -> None:
    mixer, x = build("flash", causal=causal, chunk=8), tokens(length)
    u, v, (q, k, q_far, k_far) = parts(mixer, x)
    chunk = torch.arange(length) // 8
    near = (q @ k.mT / 2).relu() ** 2 / 8 * (chunk[:, None] == chunk)
    far = q_far @ k_far.mT
    if causal:
        near, far = near.tril(), far * (chunk[:, None] > chunk) / (8 * chunk[:, None]).clamp_min(1)
    else:
        far = far / length
    torch.testing.assert_close(mixer(x), mixer.out(u * ((near + far) @ v)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [(8,), (16,), (8, 16, 24)])
def test_pieces_of_whole_chunks_merge(cuts: tuple[int, ...]) -> None:
    mixer, x = build("flash", causal=False, chunk=8), tokens(29)
    pieces = list(zip((0, *cuts), x.tensor_split(cuts, dim=1), strict=True))
    summary = mixer.summarize(pieces[0][1])
    for start, piece in pieces[1:]:
        summary = mixer.merge(mixer.summarize(piece, start=start), summary)
    found = torch.cat([mixer.read(piece, summary, start=start) for start, piece in pieces], dim=1)
    torch.testing.assert_close(found, mixer(x), rtol=0, atol=1e-12)


def test_a_piece_within_a_chunk_is_refused() -> None:
    mixer, x = build("flash", causal=False, chunk=8), tokens(5)
    with pytest.raises(ValueError, match="multiple of 8 tokens, a chunk, got start=9"):
        mixer.summarize(x, start=9)
    with pytest.raises(ValueError, match="multiple of 8 tokens, a chunk, got start=-8"):
        mixer.read(x, mixer.summarize(x), start=-8)


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        mixers.build("flash", 12, chunk=0)
    with pytest.raises(ValueError, match="size must be a positive multiple of 2, got 3"):
        mixers.build("gau", 12, size=3)
    with pytest.raises(ValueError, match="expansion must be >= 1, got 0"):
        mixers.build("gau", 12, expansion=0)
