"""The stand-in must cost what MobileSAM's encoder costs: same parameters, same products, same shapes."""

from __future__ import annotations

import pytest
import torch
from benchmarks.peers.tiny_vit import WindowAttention, build, offset_index
from torch.utils.flop_counter import FlopCounterMode

# The checkpoint of MobileSAM also carries TinyViT's unused head: LayerNorm and 1000 classes on 320 channels.
UNUSED_HEAD = 2 * 320 + 321 * 1000


def test_parameters_are_mobilesams_without_its_unused_head() -> None:
    parameters = sum(p.numel() for p in build().parameters())
    assert parameters == 5_743_892
    assert parameters + UNUSED_HEAD == 6_065_532


def test_products_and_shape_at_1024() -> None:
    encoder = build().to("meta")  # shapes alone decide how many products there are
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        out = encoder(torch.zeros(1, 3, 1024, 1024, device="meta"))
    assert out.shape == (1, 256, 64, 64)
    assert counter.get_total_flops() / 2e9 == pytest.approx(38.8, abs=0.1)  # published: 38.8 GMACs


def test_attention_stays_in_its_window_and_pads_the_last() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, 7).eval()
    x = torch.randn(1, 10, 10, 8)
    moved = x.clone()
    moved[0, 0, 0] *= -1  # a shift of all channels alike would be taken out by the normalisation
    with torch.inference_mode():
        changed = (attention(moved) - attention(x)).abs().amax(-1)[0] > 0
    assert changed[:7, :7].all()
    assert not changed[7:].any()
    assert not changed[:, 7:].any()


def test_offset_index_counts_rows_and_columns_apart() -> None:
    assert offset_index(2).tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    index = offset_index(14)
    assert torch.equal(index, index.T)
    assert sorted(set(index.flatten().tolist())) == list(range(14 * 14))
