"""Timing that every benchmark shares: contenders in alternating rounds, CPU and wall time, peak memory.

Process CPU time (over all threads) is the figure that counts: it changes little when something else runs on the
machine, while wall time doubles. Contenders take turns within a round, and every second round goes through them
backwards, so a slow minute of the machine falls on all of them and none always follows the same neighbour.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Contender:
    """One thing to time.

    Attributes:
        name: its row in the table.
        run: the call that is timed; what it returns is dropped.
        setup: called before every run, not timed.
        limit: at most so many timed runs, in the middle rounds; None for one each round.
        warmup: whether it runs once untimed before the rounds.
    """

    name: str
    run: Callable[[], object]
    setup: Callable[[], object] | None = None
    limit: int | None = None
    warmup: bool = True


class Clocks(NamedTuple):
    """Seconds of process CPU time over all threads, of that in the kernel, and on the wall."""

    cpu: float
    system: float
    wall: float

    @classmethod
    def read(cls) -> Clocks:
        """Now."""
        return cls(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime, time.perf_counter())

    def __sub__(self, start: Clocks) -> Clocks:
        return Clocks(self.cpu - start.cpu, self.system - start.system, self.wall - start.wall)


@dataclass(frozen=True)
class Timing:
    """The runs of one contender, in seconds.

    Attributes:
        name: the contender's.
        cpu: process CPU time of each run, over all threads.
        system: the kernel's share of it, mostly for handing out pages of memory; large on virtual machines, and
            mostly avoidable by an allocator that keeps its pages.
        wall: wall time of each run.
    """

    name: str
    cpu: tuple[float, ...]
    system: tuple[float, ...]
    wall: tuple[float, ...]

    @classmethod
    def of(cls, name: str, spent: Sequence[Clocks]) -> Timing:
        """From what each run spent."""
        return cls(name, tuple(c.cpu for c in spent), tuple(c.system for c in spent), tuple(c.wall for c in spent))

    @property
    def cpu_median(self) -> float:
        """Median CPU seconds."""
        return statistics.median(self.cpu)

    @property
    def system_median(self) -> float:
        """Median CPU seconds in the kernel."""
        return statistics.median(self.system)

    @property
    def user_median(self) -> float:
        """Median CPU seconds outside the kernel."""
        return statistics.median(c - s for c, s in zip(self.cpu, self.system, strict=True))

    @property
    def wall_median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall)

    def to_json(self) -> dict[str, Any]:
        """Medians, extremes and every run."""
        return {
            "cpu_median": self.cpu_median,
            "cpu_min": min(self.cpu),
            "cpu_max": max(self.cpu),
            "system_median": self.system_median,
            "user_median": self.user_median,
            "wall_median": self.wall_median,
            "cpu": list(self.cpu),
            "system": list(self.system),
            "wall": list(self.wall),
        }


def alternate(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    clock: Callable[[], Clocks] = Clocks.read,
) -> dict[str, Timing]:
    """Time contenders in turns.

    Args:
        contenders: what to time; names differ.
        rounds: number of rounds, ≥ 1.
        clock: reads the clocks.

    Returns:
        The timing of each contender by name, in the order given.

    Raises:
        ValueError: if rounds is below 1, or two contenders share a name.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    names = [c.name for c in contenders]
    if len(set(names)) < len(names):
        raise ValueError(f"contenders must have different names, got {names}")
    for contender in contenders:
        if contender.warmup:
            _prepare(contender)
            contender.run()
    runs: dict[str, list[Clocks]] = {name: [] for name in names}
    for turn in range(rounds):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            if not _takes_part(contender, turn, rounds):
                continue
            _prepare(contender)
            start = clock()
            contender.run()
            runs[contender.name].append(clock() - start)
    return {name: Timing.of(name, spent) for name, spent in runs.items()}


def _prepare(contender: Contender) -> None:
    """Set up a run; garbage of the run before is collected here, not on this one's clock."""
    gc.collect()
    if contender.setup is not None:
        contender.setup()


def _takes_part(contender: Contender, turn: int, rounds: int) -> bool:
    """Whether it runs in this round: a limited contender takes the middle ones, others' runs around it."""
    if contender.limit is None or contender.limit >= rounds:
        return True
    first = (rounds - contender.limit) // 2
    return first <= turn < first + contender.limit


def ratio(timings: dict[str, Timing], ours: str, peer: str, *, kernel: bool = True) -> float | None:
    """Median CPU time of one row over another's, without the kernel's share if asked; None if a row is missing."""
    if ours not in timings or peer not in timings:
        return None
    a, b = timings[ours], timings[peer]
    return a.cpu_median / b.cpu_median if kernel else a.user_median / b.user_median


def photo(side: int) -> NDArray[np.uint8]:
    """A public-domain photograph (NASA's portrait of Eileen Collins, from scikit-image), square.

    Args:
        side: height and width in pixels, ≥ 1.

    Returns:
        (side, side, 3) uint8 RGB, bicubic.
    """
    from PIL import Image
    from skimage import data

    samples: Any = data  # untyped
    resized = Image.fromarray(samples.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    return np.array(resized, dtype=np.uint8)


def peak_rss() -> int:
    """Peak resident memory of this process in bytes.

    Linux's `ru_maxrss` survives exec and so may tell the parent's peak; `VmHWM` belongs to this program alone.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, where there is no /proc


def in_fresh_process(module: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m module arguments` and read the JSON of its last line.

    Raises:
        RuntimeError: if it fails; the message holds the end of its error output.
    """
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"python -m {module} {' '.join(arguments)} failed: {run.stderr.strip()[-1000:]}")
    result: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return result


def command(module: str, typed: Sequence[str]) -> str:
    """What was typed, for the record; of a path only its last part, since folders differ between machines.

    Args:
        module: as in `python -m module`.
        typed: the arguments after it.
    """
    words = [Path(word).name if "/" in word else word for word in typed]
    return " ".join(["python -m", module, *words])


def arguments(description: str, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options the scripts share; those about rounds and peers only where there are rounds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="alternating rounds (default %(default)s)")
        parser.add_argument("--only-peers", action="store_true", help="time the peers alone")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contender (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    return parser
