"""The layers: local, per token, or global by a mergeable summary."""

from __future__ import annotations

import pytest
import torch

from linocut.vision.layers import GlobalBlock, LocalBlock, TokenNorm, upsample


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_token_norm_normalises_each_pixel_alone() -> None:
    x = torch.randn(2, 6, 3, 4) * 5 + 2
    y = TokenNorm(6)(x)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(2, 3, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(dim=1, unbiased=False), torch.ones(2, 3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(TokenNorm(6)(x[..., 2:, 1:]), y[..., 2:, 1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_local_block_reaches_half_its_kernel_and_no_farther(kernel: int) -> None:
    block, x = LocalBlock(4, kernel=kernel), torch.randn(1, 4, 15, 15)
    other = x.clone()
    other[..., 7, 7] += 1
    changed = (block(other) != block(x)).any(dim=1)[0]
    reach = kernel // 2
    inside = torch.zeros(15, 15, dtype=torch.bool)
    inside[7 - reach : 8 + reach, 7 - reach : 8 + reach] = True
    assert torch.equal(changed, inside)


def test_a_local_block_that_adds_nothing_is_the_identity() -> None:
    block, x = LocalBlock(4, kernel=3), torch.randn(1, 4, 5, 6)
    torch.nn.init.zeros_(block.narrow.weight)
    torch.nn.init.zeros_(block.narrow.bias)
    assert torch.equal(block(x), x)


def test_a_global_block_reaches_everything() -> None:
    block, x = GlobalBlock(8, mixer="linear_attention", kernel=3).double(), torch.randn(1, 8, 12, 9).double()
    other = x.clone()
    other[:, 0, 0, 0] += 1
    assert (block(other) != block(x)).any(dim=1).all()


def test_a_global_block_without_gain_is_its_local_block() -> None:
    block, x = GlobalBlock(8, mixer="linear_attention", kernel=3), torch.randn(1, 8, 12, 9)
    torch.nn.init.zeros_(block.gain)
    assert torch.equal(block(x), block.local(x))


def test_the_gain_of_the_global_branch_starts_small() -> None:
    gain = GlobalBlock(8, mixer="linear_attention", kernel=3).gain
    torch.testing.assert_close(gain.detach(), torch.full((8,), 0.1))


def test_an_unknown_mixer_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown mixer 'softmax'"):
        GlobalBlock(8, mixer="softmax", kernel=3)


def test_upsampling_keeps_pixel_centres() -> None:
    x = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2).expand(1, 1, 2, 2)
    assert upsample(x)[0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert upsample(x, 4).shape == (1, 1, 8, 8)
