"""Accuracy on the test splits: clicks to reach an IoU, IoU after the first click, IoU of one box.

    python -m benchmarks.accuracy --data PACKS [--max-objects N]

PACKS holds the folders coco200, bsds500, dsb2018 and horses. The protocol is that of `linocut eval`, and so are the
figures; this sets the goals beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import ours
from benchmarks.common import arguments, command
from benchmarks.report import Goal, Report, machine, write
from linocut.engine.evaluate import evaluate
from linocut.engine.evaluation import Evaluation, markdown_table, plot_iou_by_click

# Per pack: at most so many clicks to 0.85 and to 0.90, and at least this IoU after the first.
GOALS = {"coco200": (5, 8, 0.50), "bsds500": (6, 9, 0.45), "dsb2018": (3, 5, 0.65), "horses": (3, 5, 0.65)}
BOX = 0.70


def goals(e: Evaluation) -> list[Goal]:
    """The claims about one pack."""
    noc85, noc90, first = GOALS[e.pack]
    return [
        Goal(f"{e.pack}: clicks to IoU 0.85", noc85, e.noc85),
        Goal(f"{e.pack}: clicks to IoU 0.90", noc90, e.noc90),
        Goal(f"{e.pack}: IoU after one click", first, e.iou1, at_least=True),
        Goal(f"{e.pack}: IoU of one box", BOX, e.iou_box, at_least=True),
    ]


def main() -> None:
    """Measure, then write accuracy.json, accuracy.md and accuracy.png, anew after each pack."""
    parser = arguments(__doc__ or "")
    ours.add_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the packs")
    parser.add_argument("--max-objects", type=int, metavar="N", help="a sample of N objects a pack")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    description = machine(options.threads)
    loaded = ours.build(options.weights, random=options.random_weights)
    done: list[Evaluation] = []
    for name in GOALS:
        done.append(evaluate(loaded.model, options.data / name, split="test", max_objects=options.max_objects))
        write(_report(done, loaded.weights), options.out, description)
        plot_iou_by_click(done, options.out / "accuracy.png")


def _report(done: Sequence[Evaluation], weights: str) -> Report:
    """All packs measured so far."""
    return Report(
        name="accuracy",
        title="Accuracy by clicks and boxes, test splits",
        command=command("benchmarks.accuracy", sys.argv[1:]),
        timings=(),
        goals=[goal for e in done for goal in goals(e)],
        sections=[markdown_table(done).strip()],
        notes=[f"{weights}."],
        extra={"packs": [e.to_json() for e in done]},
    )


if __name__ == "__main__":
    main()
