"""Random networks of positive weights, and what their outputs depend on, measured by perturbing the input."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 2
BUMP = 1e12  # so large that it shows through every layer and wins every maximum; rounding of it stays far below 1


class Add(nn.Module):
    """Two branches added where their sizes agree, else cropped to the smaller one, as U-Nets do."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Tensor:
        return sum(self._cropped(x))  # type: ignore[return-value]

    def _cropped(self, x: Tensor) -> list[Tensor]:
        both = [self.one(x), self.other(x)]
        for dim in range(2, x.ndim):
            length = min(branch.shape[dim] for branch in both)
            both = [branch.narrow(dim, 0, length) for branch in both]
        return both


class Concatenate(Add):
    """The same, concatenated, and brought back to the number of channels by averaging pairs."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat(self._cropped(x), 1)
        return y.unflatten(1, (2, -1)).mean(1)


class Tokens(nn.Module):
    """Channels last, pixels in a row, a linear layer, and back: still pixel by pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.linear(x.flatten(2).mT))
        return y.mT.unflatten(2, x.shape[2:])


class Crop(nn.Module):
    """Every other pixel from the second one on, and not the last one."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 1:-1:2]


def convolutions(draw: Any, rank: int) -> nn.Module:
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    options: dict[str, Any] = {
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        "dilation": tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        "padding": tuple(draw(st.integers(0, 4)) for _ in range(rank)),
        "groups": draw(st.sampled_from([1, CHANNELS])),
        "padding_mode": draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    }
    return getattr(nn, f"Conv{rank}d")(CHANNELS, CHANNELS, kernel, **options)


def transposed(draw: Any, rank: int) -> nn.Module:
    stride = draw(st.integers(1, 3))
    options = {
        "stride": stride,
        "dilation": draw(st.integers(1, 2)),
        "padding": draw(st.integers(0, 2)),
        "output_padding": draw(st.integers(0, stride - 1)),
        "groups": draw(st.sampled_from([1, CHANNELS])),
    }
    return getattr(nn, f"ConvTranspose{rank}d")(CHANNELS, CHANNELS, draw(st.integers(1, 4)), **options)


def pools(draw: Any, rank: int) -> nn.Module:
    kernel, ceil = draw(st.integers(1, 3)), draw(st.booleans())
    options = {"stride": draw(st.integers(1, 3)), "padding": draw(st.integers(0, kernel // 2)), "ceil_mode": ceil}
    kind = draw(st.sampled_from(["Max", "Avg"]))
    if kind == "Max":
        options["dilation"] = draw(st.integers(1, 2))
    return getattr(nn, f"{kind}Pool{rank}d")(kernel, **options)


def resizing(draw: Any, rank: int) -> nn.Module:
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    mode = draw(st.sampled_from(["nearest", "nearest-exact", linear]))
    corners = draw(st.booleans()) if mode == linear else None
    if draw(st.booleans()):
        return nn.Upsample(scale_factor=draw(st.sampled_from([0.5, 1.5, 2, 3])), mode=mode, align_corners=corners)
    size = tuple(draw(st.integers(2, 20)) for _ in range(rank))
    return nn.Upsample(size=size, mode=mode, align_corners=corners)


def adaptive(draw: Any, rank: int) -> nn.Module:
    size = tuple(draw(st.integers(2, 9)) for _ in range(rank))
    return getattr(nn, f"Adaptive{draw(st.sampled_from(['Avg', 'Max']))}Pool{rank}d")(size)


def padding(draw: Any, rank: int) -> nn.Module:
    kind = draw(st.sampled_from(["Zero", "Reflection", "Replication", "Circular"]))
    return getattr(nn, f"{kind}Pad{rank}d")(tuple(draw(st.integers(0, 3)) for _ in range(2 * rank)))


def shuffled(draw: Any, rank: int) -> nn.Module:
    if rank != 2:
        return nn.Identity()
    wide = nn.Conv2d(CHANNELS, 4 * CHANNELS, 1)
    if draw(st.booleans()):
        return nn.Sequential(wide, nn.PixelShuffle(2))
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * CHANNELS, CHANNELS, 1))


def pointwise(draw: Any, rank: int) -> nn.Module:
    norm = getattr(nn, f"BatchNorm{rank}d")(CHANNELS).eval()
    return draw(st.sampled_from([norm, nn.ReLU(inplace=True), nn.Hardswish(), Tokens(), Crop()]))


def branches(draw: Any, rank: int) -> nn.Module:
    both = []
    for _ in range(2):
        dilation = draw(st.integers(1, 4))
        conv = getattr(nn, f"Conv{rank}d")(CHANNELS, CHANNELS, 3, dilation=dilation, padding=draw(st.integers(0, 4)))
        both.append(draw(st.sampled_from([conv, nn.Identity()])))
    return draw(st.sampled_from([Add, Concatenate]))(*both)


LAYERS = [convolutions, convolutions, transposed, pools, resizing, adaptive, padding, shuffled, pointwise, branches]


@st.composite
def networks(draw: Any, rank: int, most: int) -> nn.Module:
    """Up to so many layers, each any of the above."""
    count = draw(st.integers(1, most))
    return positive(nn.Sequential(*(draw(st.sampled_from(LAYERS))(draw, rank) for _ in range(count))))


def positive(net: nn.Module) -> nn.Module:
    """Weights of one sign, so that nothing cancels out, and of a size that keeps values as they are."""
    net = net.double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            count = parameter[0].numel() if parameter.ndim > 1 else 1
            parameter.copy_((0.5 + torch.rand_like(parameter) / 2) / count)
    return net


def measured(net: nn.Module, size: tuple[int, ...]) -> list[list[set[int]]]:
    """For every axis and every index of the output on it: the inputs whose change any of these outputs shows."""
    found = []
    with torch.no_grad():
        before = net(torch.ones(1, CHANNELS, *size, dtype=torch.float64))
        if before.numel() == 0:
            raise RuntimeError("nothing is left of the map")
        for axis, length in enumerate(size):
            x = torch.ones(length, CHANNELS, *size, dtype=torch.float64)
            for index in range(length):
                x[index].select(axis + 1, index).add_(BUMP)
            changed = ((net(x) - before).abs() > 0.5).any(1)  # (index of the input, *output)
            changed = changed.movedim(axis + 1, 1).flatten(1).unflatten(1, (changed.shape[axis + 1], -1)).any(2)
            found.append([set(column.nonzero().flatten().tolist()) for column in changed.T])
    return found
