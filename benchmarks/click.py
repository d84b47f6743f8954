"""One click after encoding, at image sizes 512² to 4096², beside SAM ViT-B's prompt encoder and mask decoder.

    python -m benchmarks.click

Linocut's row is `Session.click`, from the pixel to the `Mask`: prompt, both looks, scores. Its alternatives are worked
out when they are asked for; a row of its own asks for them. SAM's is one point through prompt encoder and mask decoder,
three masks out, at 256²: without the upsampling to the image's size.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks import ours
from benchmarks.common import Contender, Timing, alternate, arguments, command, photo, ratio
from benchmarks.peers import sam
from benchmarks.report import Goal, Report, machine, plot_bars, write
from linocut.vision.session import Session

SIDES = (512, 1024, 2048, 4096)
PEER, PEER_BF16 = "SAM ViT-B decoder, one point, float32", "SAM ViT-B decoder, one point, bfloat16"
# Where the click falls and what the box is, as shares of the side: the face of the portrait.
POINT, SECOND = (0.44, 0.24), (0.40, 0.40)
BOX = (0.32, 0.08, 0.55, 0.40)


def peers() -> list[Contender]:
    """The decoder as it ships, and cast to bfloat16."""
    model = sam.build_sam()
    half = copy.deepcopy(model)
    half.bfloat16()
    embedding = torch.randn(1, 256, 64, 64)
    point = torch.tensor([[POINT[0] * sam.SIDE, POINT[1] * sam.SIDE]])
    return [
        Contender(PEER, partial(sam.decode, model, embedding, point)),
        Contender(PEER_BF16, partial(sam.decode, half, embedding.bfloat16(), point)),
    ]


def row(kind: str, side: int) -> str:
    """A row's name."""
    return f"Linocut {kind}, image {side}²"


def linocut(session: Session, side: int) -> list[Contender]:
    """First click, second click and box on an image that is encoded; and the whole-image array of a mask."""
    (x, y), (u, v) = (tuple(share * side for share in point) for point in (POINT, SECOND))
    first = partial(session.click, x, y)

    def one_click() -> None:
        session.reset()
        first()

    return [
        Contender(row("click", side), first, setup=session.reset),
        Contender(row("second click", side), partial(session.click, u, v), setup=one_click),
        Contender(row("box", side), partial(session.box, *(share * side for share in BOX)), setup=session.reset),
        Contender(row("click and array", side), lambda: first().array, setup=session.reset),
        Contender(row("click and alternatives", side), lambda: first().candidates, setup=session.reset),
    ]


def main() -> None:
    """Measure, then write click.json, click.md and click.png."""
    parser = arguments(__doc__ or "", rounds=15)
    ours.add_arguments(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    contenders, notes = peers(), list(_NOTES)
    if not options.only_peers:
        loaded = ours.build(options.weights, random=options.random_weights)
        notes.insert(0, f"{loaded.weights}; computed in {ours.dtype_name(loaded.model)}.")
        for side in SIDES:
            contenders += linocut(Session(loaded.model, photo(side)), side)
    description = machine(options.threads)
    timings = alternate(contenders, rounds=options.rounds)
    rows = list(timings.values())
    report = Report(
        name="click",
        title="One click after encoding",
        command=command("benchmarks.click", sys.argv[1:]),
        timings=rows,
        goals=_goals(timings),
        notes=notes,
    )
    write(report, options.out, description)
    plot_bars(rows, "One prompt after encoding", options.out / "click.png")


_NOTES = (
    "SAM's weights are random, which does not change its cost; its rows hold no upsampling to the image's size.",
    "Linocut's second click is decoded with both points; \"and array\" adds the mask as an array of the image's size, "
    'which does grow with the image; "and alternatives" adds the two other candidates, which otherwise wait until '
    "they are asked for.",
)


def _goals(timings: dict[str, Timing]) -> list[Goal]:
    """The claims of this benchmark: each size on its own, and that size does not matter."""
    goals = [
        Goal(f"click at {s}², CPU time over SAM's decoder", 0.25, ratio(timings, row("click", s), PEER)) for s in SIDES
    ]
    return [*goals, Goal("slowest size over fastest, click", 1.25, _spread(timings, [row("click", s) for s in SIDES]))]


def _spread(timings: dict[str, Timing], rows: Sequence[str]) -> float | None:
    """The largest median over the smallest; None if they were not measured."""
    medians = [timings[name].cpu_median for name in rows if name in timings]
    return max(medians) / min(medians) if medians else None


if __name__ == "__main__":
    main()
