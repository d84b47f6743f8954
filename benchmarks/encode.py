"""Encode 1024² beside MobileSAM's and SAM ViT-B's encoders; then 512² to 4096², and the peak memory of 4096².

    python -m benchmarks.encode

Whatever an encoder does to the image is timed with it: normalisation, and for Linocut the check of its type. Peers
take 1024² only: they shrink any image to it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from benchmarks import ours
from benchmarks.common import Contender, Timing, alternate, arguments, command, in_fresh_process, photo, ratio
from benchmarks.peers import sam, tiny_vit
from benchmarks.report import Goal, Report, machine, plot_bars, save, table, write

SIDES = (512, 1024, 1536, 2048, 3072, 4096)
MOBILE, MOBILE_BF16 = "MobileSAM encoder 1024², float32", "MobileSAM encoder 1024², bfloat16"
SAM, SAM_BF16 = "SAM ViT-B encoder 1024², float32", "SAM ViT-B encoder 1024², bfloat16"
MEGABYTE = 1e6


def peers() -> list[Contender]:
    """The two encoders as they ship, and in bfloat16, which they do not ship in but could be run in."""
    image = photo(sam.SIDE)
    mobile, vit = tiny_vit.build(), sam.build_sam().vision_encoder
    rows: list[tuple[str, nn.Module]] = [(MOBILE, mobile), (SAM, vit)]
    rows += [(MOBILE_BF16, _half(mobile)), (SAM_BF16, _half(vit))]
    return [Contender(name, partial(sam.encode, encoder, image)) for name, encoder in rows]


def _half(encoder: nn.Module) -> nn.Module:
    """The encoder in bfloat16, its input cast on the way in."""
    half = copy.deepcopy(encoder).to(torch.bfloat16)
    half.register_forward_pre_hook(lambda _, args: (args[0].to(torch.bfloat16), *args[1:]))
    return half


def row(dtype: str, side: int) -> str:
    """A row's name."""
    return f"Linocut encode {side}², {dtype}"


def linocut(model: ours.Ours, sides: Sequence[int]) -> list[Contender]:
    """One contender a size."""
    dtype = ours.dtype_name(model.model)
    images = {side: photo(side) for side in sides}
    return [Contender(row(dtype, s), partial(model.model.encode, images[s])) for s in sides]


def main() -> None:
    """Measure, then write encode.json, encode.md and encode.png."""
    parser = arguments(__doc__ or "", rounds=5)
    ours.add_arguments(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    extra = ["--threads", str(options.threads)]
    extra += ["--weights", str(options.weights)] if options.weights else []
    extra += ["--random-weights"] if options.random_weights else []
    # First, while this process is small: a child that is forked off a large one can be charged its memory.
    memory = {} if options.only_peers else _memory([("linocut", 1024), ("linocut", 4096)], extra)
    memory |= _memory([("mobilesam", 1024), ("sam", 1024)], ["--threads", str(options.threads)])

    contenders, notes, dtype = peers(), [], ""
    if not options.only_peers:
        auto = ours.build(options.weights, random=options.random_weights)
        dtype = ours.dtype_name(auto.model)
        exact = ours.build(options.weights, random=options.random_weights, dtype="float32")
        contenders += linocut(auto, SIDES)
        contenders += linocut(exact, (sam.SIDE,)) if dtype != "float32" else []
        notes.append(f"{auto.weights}; its dtype {dtype} is what it chooses itself on this machine.")
    description = machine(options.threads)
    timings = alternate(contenders, rounds=options.rounds)
    report = Report(
        name="encode",
        title="Encoding an image",
        command=command("benchmarks.encode", sys.argv[1:]),
        timings=list(timings.values()),
        goals=_goals(timings, memory, dtype),
        sections=[_memory_table(memory)],
        notes=[*notes, *_NOTES],
        extra={"memory": memory},
    )
    write(report, options.out, description)
    plot_bars([t for t in timings.values() if "1024²" in t.name], "Encoding 1024²", options.out / "encode.png")
    if dtype:
        _plot_curve(timings, dtype, options.out / "encode_curve.png")


_NOTES = (
    "Weights of the peers are random, which does not change their cost.",
    "MobileSAM's and SAM's encoders in float32 are as they ship; the bfloat16 rows are the same networks cast.",
    "Peak memory is that of a fresh process with the interpreter, libraries, weights and the image in it.",
)


def _memory(runs: Sequence[tuple[str, int]], extra: Sequence[str]) -> dict[str, dict[str, int]]:
    """Peak memory of each run in its own process."""
    return {f"{n} {s}": in_fresh_process("benchmarks.memory", n, str(s), *extra) for n, s in runs}


def _memory_table(memory: dict[str, dict[str, int]]) -> str:
    """Peaks as Markdown."""
    rows = [[n, f"{m['peak'] / MEGABYTE:,.0f}", f"{m['before'] / MEGABYTE:,.0f}"] for n, m in memory.items()]
    return table(["fresh process", "peak MB", "before encoding MB"], rows)


def _goals(timings: dict[str, Timing], memory: dict[str, dict[str, int]], dtype: str) -> list[Goal]:
    """The claims of this benchmark."""
    small, large = row(dtype, sam.SIDE), row(dtype, 4096)
    peak = memory.get("linocut 4096")
    claims = (
        ("1024², CPU time over MobileSAM's encoder", 0.4, small, MOBILE),
        ("1024², CPU time over SAM ViT-B's encoder", 1 / 20, small, SAM),
        ("4096² in one piece, CPU time over our 1024²", 17.0, large, small),
    )
    goals = []
    for what, limit, ours_row, other in claims:
        goals.append(Goal(what, limit, ratio(timings, ours_row, other)))
        # Fresh pages of memory cost more or less as the machine pleases: a claim should hold without them too.
        without = ratio(timings, ours_row, other, kernel=False)
        goals.append(Goal(f"{what}, without the kernel's share", limit, without))
    return [
        *goals,
        Goal("4096² in one piece, peak memory, GB", 5.0, peak["peak"] / 1e9 if peak else None),
    ]


def _plot_curve(timings: dict[str, Timing], dtype: str, path: Path) -> None:
    """CPU seconds against megapixels, with a line of slope one to judge by."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ours_ = [timings[row(dtype, s)] for s in SIDES]
    pixels = [s * s / 1e6 for s in SIDES]
    medians = [t.cpu_median for t in ours_]
    spread = [[m - min(t.cpu) for m, t in zip(medians, ours_, strict=True)]]
    spread += [[max(t.cpu) - m for m, t in zip(medians, ours_, strict=True)]]
    axes.errorbar(pixels, medians, yerr=spread, marker="o", capsize=3, label=f"Linocut, {dtype}")
    through = medians[SIDES.index(sam.SIDE)] / (sam.SIDE**2 / 1e6)
    axes.plot(pixels, [through * p for p in pixels], "--", color="0.6", label="in proportion to pixels")
    for name, mark in ((MOBILE, "s"), (SAM, "^")):
        axes.plot(sam.SIDE**2 / 1e6, timings[name].cpu_median, mark, label=name)
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="CPU seconds", title="Encoding, whole image")
    axes.grid(alpha=0.25, which="both")
    axes.legend(fontsize="small")
    save(figure, path)


if __name__ == "__main__":
    main()
