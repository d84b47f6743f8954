"""Semantic segmentation of CamVid: PA, MPA, MIoU, FWIoU and every class, with and without dilation.

    python -m benchmarks.semantic --data PACKS [--weights FILE] [--ablation FILE]

PACKS holds the folder camvid; the figures are of its test split, 233 images of 480 × 360, void ignored, and nothing was
chosen on it. The networks are made by

    linocut train --task semantic --data PACKS/camvid --out runs/street SETTINGS
    linocut train --task semantic --data PACKS/camvid --out runs/undilated SETTINGS --rates 1,1,1 --dilations 1,1

with the settings the table's notes say; the ablation is the second, alike in all but its dilations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.common import arguments, command
from benchmarks.report import Goal, Report, machine, write
from linocut.data.files import atomic_path
from linocut.engine.semantic_evaluate import SemanticEvaluation, evaluate_semantic
from linocut.vision.semantic import load_semantic

# As published, at this size: Paszke et al., 2016; Badrinarayanan et al., 2017, the second time
# with more data than CamVid. Percent mIoU, million parameters.
PUBLISHED = {"ENet": (51.3, 0.37), "SegNet": (55.6, 29.5), "SegNet, 3.5k images": (60.1, 29.5)}


def main() -> None:
    """Measure, then write semantic.json, semantic.md and semantic.png."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds camvid")
    parser.add_argument("--weights", type=Path, help="instead of the bundled network")
    parser.add_argument("--ablation", type=Path, help="weights trained without dilation")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    files = {"with dilation": options.weights} | ({"without": options.ablation} if options.ablation else {})
    done = {
        name: evaluate_semantic(load_semantic(path), options.data / "camvid", split="test")
        for name, path in files.items()
    }
    ours = done["with dilation"]
    report = Report(
        name="semantic",
        title="Semantic segmentation, CamVid test",
        command=command("benchmarks.semantic", sys.argv[1:]),
        timings=(),
        goals=[
            Goal("mIoU, percent", 60, 100 * ours.miou, at_least=True),
            Goal("parameters, million", 6, ours.parameters / 1e6),
        ],
        sections=[_comparison(done), ours.markdown().strip()],
        notes=["Rows of others are their papers' figures, not measured here."],
        extra={name: each.to_json() for name, each in done.items()},
    )
    write(report, options.out, machine(options.threads))
    plot(done, options.out / "semantic.png")


def _comparison(done: dict[str, SemanticEvaluation]) -> str:
    """Ours, the ablation and the published figures, one row each."""
    rows = ["| network | parameters, M | PA | MPA | MIoU | FWIoU |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, each in done.items():
        figures = " | ".join(f"{100 * x:.1f}" for x in (each.pa, each.mpa, each.miou, each.fwiou))
        rows.append(f"| Linocut, {name} | {each.parameters / 1e6:.2f} | {figures} |")
    rows += [f"| {name} | {parameters} | – | – | {miou} | – |" for name, (miou, parameters) in PUBLISHED.items()]
    return "\n".join(rows)


def plot(done: dict[str, SemanticEvaluation], path: Path) -> None:
    """IoU of every class as bars, one colour a network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, width = figure.add_subplot(), 0.8 / len(done)
    for index, (name, each) in enumerate(done.items()):
        places = [place + (index - (len(done) - 1) / 2) * width for place in range(len(each.classes))]
        axes.bar(places, [c.iou for c in each.classes], width, label=f"{name}: mIoU {each.miou:.1%}")
    classes = next(iter(done.values())).classes
    names = [f"{c.name.replace('_', ' ')}\n{c.share:.1%}" for c in classes]
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.set(ylabel="IoU", ylim=(0, 1), title="CamVid test; under each class its share of the pixels")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


if __name__ == "__main__":
    main()
