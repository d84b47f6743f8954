"""Depthwise 3×3 convolution of 256 channels at 128², dilations 1 to 64: ours beside torch's, both memory formats.

    python -m benchmarks.dilated

Forward without gradients, and backward to input and weights, in turns in one process on one thread; then forward on two
threads by the wall. The floor is a copy of the input, which reads and writes as many bytes as a forward pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from benchmarks.common import Contender, Timing, alternate, arguments, command
from benchmarks.report import Goal, Report, machine, save, table, write
from linocut.ops.depthwise_conv import depthwise_conv

DILATIONS = (1, 2, 4, 8, 16, 32, 64)
CHANNELS, SIDE = 256, 128
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
OURS, TORCH, COPY = "Linocut", "torch", "copy of the input"
FORWARD, BACKWARD = "forward", "backward"
# A forward pass may take so many copies; the same 6 ms to 2.7 ms that the claim was made with.
OVER_FLOOR = 2.2


def ours(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The operator."""
    return depthwise_conv(x, weight, padding=dilation, dilation=dilation)


def theirs(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Torch's."""
    return functional.conv2d(x, weight, None, 1, dilation, dilation, x.shape[1])


LIBRARIES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {OURS: ours, TORCH: theirs}


def row(library: str, layout: str, dilation: int, direction: str, threads: int = 1) -> str:
    """A row's name."""
    return f"{library}, {layout}, dilation {dilation}, {direction}" + (f", {threads} threads" if threads > 1 else "")


def _forward(run: Callable[[Tensor, Tensor, int], Tensor], x: Tensor, weight: Tensor, dilation: int) -> None:
    with torch.no_grad():
        run(x, weight, dilation)


def _backward(output: Tensor, inputs: list[Tensor], grad: Tensor) -> None:
    torch.autograd.grad(output, inputs, grad, retain_graph=True)


def contenders(direction: str, threads: int, *, only_peers: bool) -> Iterator[Contender]:
    """Every library in every format at every dilation."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, CHANNELS, SIDE, SIDE, generator=generator)
    weight = torch.randn(CHANNELS, 1, 3, 3, generator=generator)
    if direction == FORWARD and threads == 1:
        yield Contender(COPY, pixels.clone)
    for layout, memory_format in FORMATS.items():
        x = pixels.contiguous(memory_format=memory_format)
        for dilation in DILATIONS:
            for library, run in LIBRARIES.items():
                if only_peers and library == OURS:
                    continue
                name = row(library, layout, dilation, direction, threads)
                if direction == FORWARD:
                    yield Contender(name, partial(_forward, run, x, weight, dilation))
                    continue
                inputs = [x.detach().requires_grad_(), weight.detach().requires_grad_()]
                output = run(*inputs, dilation)
                yield Contender(name, partial(_backward, output, inputs, torch.ones_like(output)))


def main() -> None:
    """Measure, then write dilated.json, dilated.md and dilated.png."""
    options = arguments(__doc__ or "", rounds=9).parse_args()
    description = machine(1)
    timings: dict[str, Timing] = {}
    for direction, threads in ((FORWARD, 1), (BACKWARD, 1), (FORWARD, 2)):
        torch.set_num_threads(threads)
        found = contenders(direction, threads, only_peers=options.only_peers)
        timings |= alternate(list(found), rounds=options.rounds)
    report = Report(
        name="dilated",
        title="Depthwise convolution at every dilation",
        command=command("benchmarks.dilated", sys.argv[1:]),
        timings=list(timings.values()),
        goals=_goals(timings),
        sections=[_table(timings, d) for d in (FORWARD, BACKWARD)] + [_two_threads(timings)],
        notes=[
            f"1 × {CHANNELS} × {SIDE} × {SIDE}, float32, 3 × 3, padding equal to the dilation.",
            "Backward is the gradient of input and weight together, without the forward pass.",
        ],
    )
    write(report, options.out, description)
    _plot(timings, options.out / "dilated.png")


def _medians(timings: dict[str, Timing], library: str, layout: str, direction: str) -> list[float]:
    """CPU milliseconds by dilation; empty if the library was left out."""
    names = [row(library, layout, dilation, direction) for dilation in DILATIONS]
    return [1e3 * timings[name].cpu_median for name in names if name in timings]


def _goals(timings: dict[str, Timing]) -> list[Goal]:
    """The claims: near the floor at every dilation in either format, backward by as good a ratio to torch."""
    goals = []
    floor = 1e3 * timings[COPY].cpu_median
    for layout in FORMATS:
        mine = _medians(timings, OURS, layout, FORWARD)
        worst = max(mine) if mine else None
        goals.append(Goal(f"{layout}: slowest dilation forward, ms", 6.0, worst))
        goals.append(Goal(f"{layout}: the same over a copy", OVER_FLOOR, worst / floor if worst else None))
        for direction in (FORWARD, BACKWARD):
            pairs = zip(_medians(timings, OURS, layout, direction), _medians(timings, TORCH, layout, direction))  # noqa: B905  # ours may be left out
            ratios = [their / our for our, their in pairs]
            least = min(ratios) if ratios else None
            goals.append(Goal(f"{layout}: times faster than torch {direction}, least", 1.0, least, at_least=True))
    return goals


def _cell(timings: dict[str, Timing], name: str) -> str:
    if name not in timings:
        return ""
    cpu = [1e3 * each for each in timings[name].cpu]
    return f"{1e3 * timings[name].cpu_median:.2f} ({min(cpu):.2f}–{max(cpu):.2f})"


def _table(timings: dict[str, Timing], direction: str) -> str:
    """Medians and extremes as Markdown."""
    columns = [(library, layout) for layout in FORMATS for library in (OURS, TORCH)]
    heads = [f"{direction}, CPU ms", *(f"{library}, {layout}" for library, layout in columns)]
    rows = [
        [f"dilation {d}", *(_cell(timings, row(library, layout, d, direction)) for library, layout in columns)]
        for d in DILATIONS
    ]
    return table(heads, rows)


def _two_threads(timings: dict[str, Timing]) -> str:
    """Wall time on one thread over that on two."""
    rows = []
    for d in DILATIONS:
        cells = []
        for layout in FORMATS:
            for library in (OURS, TORCH):
                one, two = (row(library, layout, d, FORWARD, threads) for threads in (1, 2))
                known = one in timings and two in timings
                cells.append(f"{timings[one].wall_median / timings[two].wall_median:.2f}" if known else "")
        rows.append([f"dilation {d}", *cells])
    heads = ["two threads, times faster by the wall"]
    heads += [f"{library}, {layout}" for layout in FORMATS for library in (OURS, TORCH)]
    return table(heads, rows)


def _plot(timings: dict[str, Timing], path: Path) -> None:
    """CPU milliseconds against dilation, forward and backward side by side."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip(panels, (FORWARD, BACKWARD), strict=True):
        for layout, style in zip(FORMATS, ("-", "--"), strict=True):
            for library, color in ((OURS, "C0"), (TORCH, "C1")):
                if medians := _medians(timings, library, layout, direction):
                    axes.plot(DILATIONS, medians, style, color=color, marker="o", label=f"{library}, {layout}")
        axes.set(xscale="log", yscale="log", xlabel="dilation", title=direction, xticks=DILATIONS)
        axes.set_xticklabels([str(d) for d in DILATIONS])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    panels[0].axhline(1e3 * timings[COPY].cpu_median, color="0.6", linewidth=0.8, label=COPY)
    panels[0].set_ylabel("CPU ms, one thread")
    panels[0].legend(fontsize="x-small")
    save(figure, path)


if __name__ == "__main__":
    main()
