"""Receptive fields in pictures and numbers: what docs/receptive-fields.md shows.

Run: python -m benchmarks.receptive_fields [-o docs/images]
"""

from __future__ import annotations

import argparse
from functools import reduce
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import linocut
from linocut.vision import effective_receptive_field, receptive_field
from linocut.vision.dilation import DilatedConv2d
from linocut.vision.efficientnet import EfficientNetLite0
from linocut.vision.fields.algebra import IDENTITY, AxisField, window
from linocut.vision.fields.plots import draw_effective, draw_growth, draw_taps

SIDE = 256
SAMPLES = 8


def stack(rates: tuple[int, ...]) -> nn.Module:
    """3 × 3 convolutions, one a rate."""
    return nn.Sequential(*(DilatedConv2d(1, 1, 3, dilation=rate) for rate in rates))


def grid(path: Path) -> None:
    """The rates 2, 2, 2 leave three pixels of four out, the rates 1, 2, 5 none."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, rates in zip(figure.subplots(1, 3), [(2, 2, 2), (1, 2, 5), (1, 2, 9)], strict=True):
        draw_taps(axes, receptive_field(stack(rates)), f"rates {', '.join(map(str, rates))}")
        axes.axis("off")
    figure.savefig(path, dpi=110)


def growth(path: Path) -> None:
    """Two taps a layer: dilations that double, and none."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, rates in zip(figure.subplots(1, 2, sharey=True), [(1, 1, 1, 1), (1, 2, 4, 8)], strict=True):
        layers: list[AxisField] = [window(2, dilation=rate, padding=rate) for rate in rates]
        draw_growth(axes, layers)
        size = reduce(AxisField.then, layers, IDENTITY).size
        axes.set_xlim(-15.5, 0.5)
        axes.set_title(f"dilations {', '.join(map(str, rates))}: {size} samples", fontsize=9)
        axes.set_xlabel("sample, 0 is now")
    figure.savefig(path, dpi=110)


def trunk(path: Path) -> None:
    """The trunk of the bundled model: in theory and in effect."""
    bundled = linocut.load(dtype="float32").net.encoder.trunk
    torch.manual_seed(0)
    fresh = EfficientNetLite0()
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    print("| stride | size in theory | size in effect, trained | random weights | gradient within half the size |")
    print("| --- | --- | --- | --- | --- |")
    rows = figure.subplots(2, 3)
    for column, stride in enumerate((4, 8, 16)):
        field = receptive_field(bundled, (3, SIDE, SIDE), output=stride)
        found = []
        for axes, (name, net) in zip(rows[:, column], [("trained", bundled), ("random", fresh)], strict=True):
            effective = effective_receptive_field(net, (3, SIDE, SIDE), output=stride, samples=SAMPLES)
            draw_effective(axes, effective, field)
            axes.set_title(f"stride {stride}, {name}: {axes.get_title()}", fontsize=8)
            axes.axis("off")
            found.append(effective)
        inside = found[0].within(field.size[0] / 4)
        sizes = " | ".join(f"{effective.size():.0f}" for effective in found)
        print(f"| {stride} | {field.size[0]} | {sizes} | {inside:.0%} |")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw the pictures, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    grid(folder / "gridding.png")
    growth(folder / "field-growth.png")
    trunk(folder / "field-trunk.png")


if __name__ == "__main__":
    main()
