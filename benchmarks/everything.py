"""Everything in a 1024² photograph from 32 × 32 points, post-processing and run-length encoding included.

    python -m benchmarks.everything            # SAM's whole run, once: some minutes
    python -m benchmarks.everything --quick    # SAM's encoder and 2 of its 16 batches, scaled

How long it takes depends on how many masks survive, and a model that finds nothing is fast. So Linocut runs its own
defaults, then a threshold on predicted IoU that leaves about 100 masks, and once, as the worst case, no filter at all;
the goal is judged by the slower of the first two. SAM's row is `benchmarks/peers/sam_everything.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import ours
from benchmarks.common import Contender, Timing, alternate, arguments, command, photo, ratio
from benchmarks.peers import sam
from benchmarks.peers.sam_everything import Everything, generate
from benchmarks.report import Goal, Report, machine, plot_bars, table, write
from linocut.vision.segmenter import Segmenter

PEER = "SAM ViT-B generator"
DEFAULT, MATCHED = "Linocut everything, defaults", "Linocut everything, filter that leaves about 100 masks"
UNFILTERED = "Linocut everything, no quality filter"
MATCHED_MASKS = 100
QUICK_BATCHES = 2


def count_masks(model: Segmenter, image: NDArray[np.uint8], **options: float) -> int:
    """Segment everything into COCO run lengths; how many masks there are."""
    return len(model.everything(image, output_mode="coco_rle", **options).records())


def threshold_for(count: Callable[[float], int], target: int, *, steps: int = 8) -> float:
    """Find a threshold that leaves about so many masks, by bisection.

    Args:
        count: masks left at a threshold in [0, 1]; falls as the threshold rises, give or take a few.
        target: how many are wanted.
        steps: at most so many calls.

    Returns:
        The first threshold whose count is within a quarter of the target; else the last one that left enough.
    """
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        found = count(middle)
        if abs(found - target) <= target / 4:
            return middle
        low, high = (middle, high) if found > target else (low, middle)
    return low


def linocut(model: Segmenter, image: NDArray[np.uint8], counts: dict[str, int]) -> list[Contender]:
    """With the default filters, one that leaves about 100 masks, and none; runs note how many masks came out."""
    unstable = partial(count_masks, model, image, stability_score_thresh=0.0)
    threshold = threshold_for(lambda t: unstable(pred_iou_thresh=t), MATCHED_MASKS)

    def run(name: str, **options: float) -> None:
        counts[name] = count_masks(model, image, **options)

    matched = partial(run, MATCHED, pred_iou_thresh=threshold, stability_score_thresh=0.0)
    worst = partial(run, UNFILTERED, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    return [
        Contender(DEFAULT, partial(run, DEFAULT)),
        Contender(MATCHED, matched, warmup=False),
        Contender(UNFILTERED, worst, limit=1, warmup=False),
    ]


def main() -> None:
    """Measure, then write everything.json, everything.md and everything.png."""
    parser = arguments(__doc__ or "", rounds=3)
    ours.add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="run 2 of the peer's 16 batches and scale them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = photo(1024)
    peer = sam.build_sam()
    runs: list[Everything] = []
    counts: dict[str, int] = {}

    def run_peer() -> None:
        runs.append(generate(peer, image, batches=QUICK_BATCHES if options.quick else None))

    # One batch first: the machine hands out memory slowly the first time, and that is nobody's fault.
    generate(peer, image, batches=1)
    contenders, notes = [Contender(PEER, run_peer, limit=None if options.quick else 1, warmup=False)], []
    if not options.only_peers:
        loaded = ours.build(options.weights, random=options.random_weights)
        notes.append(f"{loaded.weights}; computed in {ours.dtype_name(loaded.model)}.")
        contenders = [*linocut(loaded.model, image, counts), *contenders]
    description = machine(options.threads)
    timings = alternate(contenders, rounds=options.rounds)
    timings[PEER] = Timing.of(PEER, [run.whole() for run in runs])  # its own clock leaves out making stand-in masks
    report = Report(
        name="everything",
        title="Everything in a photograph of 1024²",
        command=command("benchmarks.everything", sys.argv[1:]),
        timings=list(timings.values()),
        goals=_goals(timings),
        sections=[_steps(runs[-1])],
        notes=[*notes, *_notes(runs[-1], counts)],
        extra={
            "masks": counts,
            "peer_masks": dict(runs[-1].counts),
            "peer_steps": {step: clocks._asdict() for step, clocks in runs[-1].steps.items()},
        },
    )
    write(report, options.out, description)
    plot_bars(list(timings.values()), "Everything, 1024²", options.out / "everything.png")


def _goals(timings: dict[str, Timing]) -> list[Goal]:
    """How many times faster, by the slower of our two rows: CPU time, and CPU time outside the kernel."""

    def faster(*names: str, kernel: bool) -> float | None:
        shares = [share for name in names if (share := ratio(timings, name, PEER, kernel=kernel)) is not None]
        return 1 / max(shares) if shares else None

    judged = (DEFAULT, MATCHED)
    return [
        Goal("times faster than SAM's generator, CPU time", 20.0, faster(*judged, kernel=True), at_least=True),
        Goal("the same without the kernel's share", 20.0, faster(*judged, kernel=False), at_least=True),
    ]


def _steps(run: Everything) -> str:
    """Where SAM's time went, scaled to the whole grid."""
    factor = run.total_batches / run.batches
    rows = []
    for step, clocks in run.steps.items():
        scale = 1.0 if step == "encode" else factor
        rows.append([step, f"{scale * clocks.cpu:.1f}", f"{scale * clocks.system:.1f}"])
    return table(["SAM ViT-B, last run", "CPU-s", "of it kernel"], rows)


def _notes(run: Everything, counts: dict[str, int]) -> list[str]:
    """What a reader must know."""
    ran = f"{run.batches} of its {run.total_batches} batches"
    scaled = (
        f"{ran} of 64 points ran and were scaled up, the encoder ran once" if run.batches < run.total_batches else ran
    )
    found = ", ".join(f"{name}: {n}" for name, n in counts.items())
    through = ", ".join(f"{n} {stage}" for stage, n in run.counts.items())
    return [
        f"SAM: {scaled}. Masks in those batches: {through}.",
        "SAM's weights are random; its masks, which would be noise, are replaced by wavy discs (their making is not "
        "timed) whose scores let about half through each filter. The network runs in full and is timed.",
        *([f"Masks of Linocut: {found}."] if found else []),
        "The kernel's share is mostly for memory pages of masks at full size; it depends on the allocator and the "
        "machine, so the ratio is given without it too.",
    ]


if __name__ == "__main__":
    main()
