"""The effective field of linear networks is known in closed form; any lies inside the theoretical one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from linocut.vision import effective_receptive_field, receptive_field


def averaging(layers: int) -> nn.Module:
    """3-tap means: the gradient is that of a sum of uniform variables, whose variance is layers · 2/3."""
    conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 1 / 3)
    return nn.Sequential(*[conv] * layers)


def test_one_mean() -> None:
    field = effective_receptive_field(nn.AvgPool2d(3, 1), (2, 9, 9))
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[3:6, 3:6] = 1 / 9
    torch.testing.assert_close(field.map, expected, atol=1e-7, rtol=1e-6)
    assert (field.output, field.count()) == ((3, 3), 9)
    assert field.centre == pytest.approx((4, 4))
    assert field.radius() == pytest.approx((9 / torch.pi) ** 0.5)


@pytest.mark.parametrize("layers", [2, 10, 40])
def test_it_grows_with_the_root_of_the_depth(layers: int) -> None:
    """Luo et al., section 2.2: the sum of n uniform variables on {-1, 0, 1} has the variance 2n/3, the field 2n + 1."""
    field = effective_receptive_field(averaging(layers), (1, 101), samples=1)
    at = torch.arange(101) - 50
    assert float((field.map * at**2).sum()) == pytest.approx(2 * layers / 3, rel=1e-5)
    assert int((field.map > 0).sum()) == receptive_field(averaging(layers)).size[0] == 2 * layers + 1


def test_it_lies_inside_the_theoretical_field() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, dilation=2), nn.ReLU())
    at = (3, 7)
    field = effective_receptive_field(net, (2, 41, 37), at=at, samples=4)
    rows, columns = receptive_field(net, (2, 41, 37)).input_range(at)
    touched = field.map.nonzero()
    assert touched.amin(0).tolist() == [rows[0], columns[0]]
    assert touched.amax(0).tolist() == [rows[1], columns[1]]
    assert field.map.sum() == pytest.approx(1)
    assert field.within(100) == pytest.approx(1)


def test_the_same_seed_gives_the_same_and_the_module_stays_as_it_was() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    one, two = (effective_receptive_field(net, (1, 9, 9), samples=2, seed=3) for _ in range(2))
    assert torch.equal(one.map, two.map)
    assert not torch.equal(one.map, effective_receptive_field(net, (1, 9, 9), samples=2, seed=4).map)
    assert net[1].num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in net.parameters())


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def test_bad_input() -> None:
    conv = nn.Conv1d(1, 1, 3)
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        effective_receptive_field(conv, (1, 9), samples=0)
    with pytest.raises(ValueError, match=r"index of an output of size \(7,\), got \(7,\)"):
        effective_receptive_field(conv, (1, 9), at=(7,))
    with pytest.raises(ValueError, match=r"gradient of output \(4,\) is zero"):
        effective_receptive_field(Constant(), (1, 9))
