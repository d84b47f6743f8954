"""ASPP: tiles equal the whole, and what each branch reaches."""

from __future__ import annotations

from functools import reduce

import pytest
import torch
from torch import nn

from linocut.vision.aspp import ASPP


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 8, 30])
def test_tiles_give_the_result_of_the_whole(pooling: bool, separable: bool, rows: int) -> None:
    head = ASPP(6, 4, rates=(2, 3), pooling=pooling, separable=separable).double()
    x = torch.randn(2, 6, 30, 11, dtype=torch.float64)
    cuts = [(top, min(top + rows, 30)) for top in range(0, 30, rows)]
    summary = reduce(head.merge, (head.summarize(x[:, :, top:end]) for top, end in cuts))
    parts = []
    for top, end in cuts:
        low = max(top - head.halo, 0)
        part = head.read(x[:, :, low : end + head.halo], summary)
        parts.append(part[:, :, top - low : top - low + end - top])
    torch.testing.assert_close(torch.cat(parts, dim=2), head(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", [False, True])
def test_only_pooling_reaches_the_whole_image(pooling: bool) -> None:
    head = ASPP(3, 5, rates=(2, 3), pooling=pooling).double()
    x = torch.randn(1, 3, 15, 15, dtype=torch.float64)
    other = x.clone()
    other[:, :, 7, 7] += 1
    changed = (head(x) != head(other)).any(dim=1)[0]
    expected = torch.zeros(15, 15, dtype=torch.bool)
    for rate in (2, 3):
        expected[7 - rate : 8 + rate : rate, 7 - rate : 8 + rate : rate] = True
    assert torch.equal(changed, torch.ones_like(expected) if pooling else expected)


def test_parameters_are_named_by_branch_and_alike_with_and_without_dilation() -> None:
    names = set(ASPP(6, 4).state_dict())
    assert names == set(ASPP(6, 4, rates=(1, 1, 1)).state_dict())
    assert {name.split(".")[0] for name in names} == {"point", "branches", "pool", "project"}
    assert {name.split(".")[1] for name in names if name.startswith("branches")} == {"0", "1", "2"}


def test_another_normalisation_may_be_asked_for() -> None:
    head = ASPP(6, 4, norm=nn.BatchNorm2d)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in head.modules()) == 6


def test_a_rate_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="rates must be >= 1, got 0"):
        ASPP(6, 4, rates=(6, 0))
