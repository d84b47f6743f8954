"""What a newcomer waits for: `make demo` in a fresh clone, and the share of it that is ours.

    python -m benchmarks.demo

The clone is of the commit that is checked out; `make demo` makes its virtual environment, installs and runs. Packages
come from pip's cache if they are there, which the first run sees to. The demo is then run once more alone: that is our
share, the rest is Python's, pip's and the compiler's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import arguments, command
from benchmarks.report import Goal, Report, machine, table, write

ROOT = Path(__file__).parent.parent


def seconds(words: Sequence[str], folder: Path) -> float:
    """Wall seconds a command takes.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    start = time.perf_counter()
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure() -> tuple[float, float]:
    """Wall seconds of `make demo` in a fresh clone, and of the demo alone."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "linocut"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        whole = seconds(["make", "demo"], clone)
        return whole, seconds([".venv/bin/linocut", "demo"], clone)


def main() -> None:
    """Measure, then write demo.json and demo.md."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="fresh clones (default %(default)s)")
    options = parser.parse_args()
    description = machine(options.threads)
    runs = [measure() for _ in range(options.rounds)]
    whole, ours = sorted(w for w, _ in runs)[len(runs) // 2], sorted(o for _, o in runs)[len(runs) // 2]
    rows = [[str(i), f"{w:.1f}", f"{o:.1f}"] for i, (w, o) in enumerate(runs, 1)]
    report = Report(
        name="demo",
        title="`make demo` in a fresh clone",
        command=command("benchmarks.demo", sys.argv[1:]),
        timings=(),
        goals=[
            Goal("make demo, packages in pip's cache, wall seconds, median", 180, whole),
            Goal("of which the demo itself", 20, ours),
        ],
        sections=[table(["run", "make demo, wall s", "the demo alone, wall s"], rows)],
        extra={"make_demo": [w for w, _ in runs], "demo": [o for _, o in runs]},
    )
    write(report, options.out, description)


if __name__ == "__main__":
    main()
