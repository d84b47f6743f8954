"""Positions of sequences and maps."""

from __future__ import annotations

import math

import pytest
import torch

from linocut.mixers import positions


def test_sinusoidal_is_the_papers_formula() -> None:
    found = positions.sinusoidal(torch.tensor([0.0, 3.0]), 4)
    angles = [3.0, 3.0 / 100]
    assert found[0].tolist() == [0, 0, 1, 1]
    expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])
    torch.testing.assert_close(found[1], expected)


def test_a_tile_has_the_positions_of_its_place() -> None:
    whole = positions.sinusoidal_2d(5, 7, 8).reshape(5, 7, 8)
    tile = positions.sinusoidal_2d(2, 3, 8, origin=(3, 4)).reshape(2, 3, 8)
    assert torch.equal(whole[3:, 4:], tile)


def test_rotary_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def product(i: float, j: float) -> float:
        turned = [positions.rotary(x, torch.tensor([at], dtype=torch.float64)) for x, at in ((q, i), (k, j))]
        return (turned[0] * turned[1]).sum().item()

    assert product(5, 2) == pytest.approx(product(105, 102), abs=1e-9)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)
    assert product(4, 4) == pytest.approx((q * k).sum().item(), abs=1e-12)


def test_rotary_keeps_lengths_and_the_first_token() -> None:
    x = torch.randn(2, 6, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = positions.rotary(x, torch.arange(6.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], x[:, 0])


def test_rotary_in_two_dimensions_depends_on_both_distances() -> None:
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(1, 12, 1, 8)
    turned = positions.rotary_2d(x, 3, 4).reshape(3, 4, 8)
    products = torch.einsum("ijc,klc->ijkl", turned, turned)
    torch.testing.assert_close(products[0, 0, 1, 2], products[1, 1, 2, 3])
    assert not torch.isclose(products[0, 0, 1, 2], products[0, 0, 2, 1])


def test_bad_sizes_are_named() -> None:
    x = torch.zeros(1, 6, 1, 6)
    with pytest.raises(ValueError, match="multiple of 2 channels, got 3"):
        positions.sinusoidal(torch.zeros(1), 3)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        positions.sinusoidal_2d(1, 1, 6)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        positions.rotary_2d(x, 2, 3)
    with pytest.raises(ValueError, match=r"positions must be \(6,\), one a token, got \(5,\)"):
        positions.rotary(x, torch.zeros(5))
    with pytest.raises(ValueError, match="a map of 2 x 2 has 4 tokens, got 6"):
        positions.rotary_2d(torch.zeros(1, 6, 1, 8), 2, 2)
