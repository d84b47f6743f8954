"""What a benchmark leaves behind: JSON with every run, a Markdown table, a plot; goals and the machine beside them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import Timing
from linocut.data.files import atomic_path, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PACKAGES = (
    "linocut",
    "torch",
    "numpy",
    "opencv-python-headless",
    "transformers",
    "scikit-image",
    "scikit-learn",
    "torchmetrics",
)
# Variables that change how threads wait and how memory is kept, and so the figures.
ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
# Instruction sets that decide how fast matrix products are on an x86 or Arm CPU.
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")


@dataclass(frozen=True)
class Goal:
    """A claim, and what was measured.

    Attributes:
        what: the claim in words.
        limit: the number to reach.
        measured: the number measured, or None if this run did not measure it.
        at_least: True if more is better.
    """

    what: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(frozen=True)
class Report:
    """One benchmark's outcome.

    Attributes:
        name: stem of the files written.
        title: heading.
        command: what to type to measure it again.
        timings: the rows.
        goals: claims and measurements.
        notes: what a reader must know to judge the figures, one sentence each.
        extra: further figures for the JSON.
        sections: further Markdown, each already rendered.
    """

    name: str
    title: str
    command: str
    timings: Sequence[Timing]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    sections: Sequence[str] = ()


def machine(threads: int) -> dict[str, Any]:
    """Describe what the figures depend on; nothing that identifies the machine."""
    versions = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    model, flags = _cpu()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "flags": flags,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "load_average": round(os.getloadavg()[0], 2),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _cpu() -> tuple[str, list[str]]:
    """The CPU's model and those of its instruction sets that matter here."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), []
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    held = set(facts.get("flags", facts.get("Features", "")).split())
    return facts.get("model name", platform.machine()), [flag for flag in CPU_FLAGS if flag in held]


def render(report: Report, machine: dict[str, Any]) -> str:
    """The report as Markdown."""
    environment = ", ".join(f"{name}={value}" for name, value in machine["environment"].items()) or "nothing set"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [f"# {report.title}", f"Measured with `{report.command}`."]
    if report.goals:
        rows = [[g.what, _sign(g) + _number(g.limit), _number(g.measured), _verdict(g)] for g in report.goals]
        parts.append(table(["what", "goal", "measured", "reached"], rows))
    if report.timings:
        rows = [
            [
                t.name,
                _number(t.cpu_median),
                f"{_number(min(t.cpu))} – {_number(max(t.cpu))}",
                _number(t.system_median),
                _number(t.wall_median),
                str(len(t.cpu)),
            ]
            for t in report.timings
        ]
        parts.append(table(["", "CPU-s, median", "lowest – highest", "of it kernel", "wall s, median", "runs"], rows))
    parts += report.sections
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    parts.append(
        f"Machine: {machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}), "
        f"{machine['memory_gb']} GB, {machine['system']}; Python {machine['python']}, {versions}; "
        f"threads {machine['threads']}; environment: {environment}; "
        f"load average at the start {machine['load_average']}; {machine['date']}."
    )
    return "\n\n".join(parts) + "\n"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column left, the others right."""
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headings, ruler, *rows))


def write(report: Report, folder: Path, machine: dict[str, Any]) -> None:
    """Write `<name>.json` and `<name>.md` into the folder."""
    goals = [{**asdict(goal), "met": goal.met} for goal in report.goals]
    content = {
        "name": report.name,
        "command": report.command,
        "machine": machine,
        "goals": goals,
        "timings": {t.name: t.to_json() for t in report.timings},
        "notes": list(report.notes),
        **report.extra,
    }
    text = json.dumps(content, indent=2, allow_nan=False)
    write_atomic(folder / f"{report.name}.json", f"{text}\n".encode())
    write_atomic(folder / f"{report.name}.md", render(report, machine).encode())


def plot_bars(timings: Sequence[Timing], title: str, path: Path) -> None:
    """Draw the median CPU time of each row, with its lowest and highest run, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.9 + 0.42 * len(timings)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    medians = [t.cpu_median for t in timings]
    reach = [[m - min(t.cpu), max(t.cpu) - m] for m, t in zip(medians, timings, strict=True)]
    places = list(range(len(timings)))
    axes.barh(places, medians, xerr=list(zip(*reach, strict=True)), color="#4c78a8", ecolor="0.2", capsize=3)
    axes.set_yticks(places, [t.name for t in timings])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set(xlabel="CPU seconds, median; whiskers from lowest to highest run", title=title)
    axes.grid(axis="x", alpha=0.25)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a Matplotlib figure; the suffix says the format."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."), dpi=150)


def _number(value: float | None) -> str:
    """Three significant digits, no exponent for what a table holds."""
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _sign(goal: Goal) -> str:
    return "≥ " if goal.at_least else "≤ "


def _verdict(goal: Goal) -> str:
    return {True: "yes", False: "no", None: "not measured"}[goal.met]
