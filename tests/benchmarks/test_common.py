from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from benchmarks.common import Clocks, Contender, Timing, alternate, command, in_fresh_process, peak_rss, photo, ratio


class FakeClock:
    """Clocks that move only when something runs."""

    def __init__(self) -> None:
        self.cpu = 0.0

    def spend(self, seconds: float) -> None:
        self.cpu += seconds

    def __call__(self) -> Clocks:
        return Clocks(self.cpu, self.cpu / 4, self.cpu * 2)


def test_contenders_take_turns_and_every_second_round_goes_backwards() -> None:
    order: list[str] = []
    contenders = [Contender(name, lambda name=name: order.append(name)) for name in "abc"]
    alternate(contenders, rounds=3)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc"  # the first are the warm-up


def test_times_are_those_of_the_run_alone() -> None:
    clock = FakeClock()
    contender = Contender("a", lambda: clock.spend(3.0), setup=lambda: clock.spend(100.0))
    timing = alternate([contender], rounds=2, clock=clock)["a"]
    assert timing == Timing("a", (3.0, 3.0), (0.75, 0.75), (6.0, 6.0))


@pytest.mark.parametrize(("limit", "rounds", "taken"), [(1, 3, [1]), (1, 4, [1]), (2, 5, [1, 2]), (7, 2, [0, 1])])
def test_a_limited_contender_runs_in_the_middle_rounds(limit: int, rounds: int, taken: list[int]) -> None:
    turn = -1
    turns: list[int] = []

    def count() -> None:
        nonlocal turn
        turn += 1

    # In a round that goes backwards the counter comes last, so it is asked for where the next round starts.
    limited = Contender("limited", lambda: turns.append(turn), limit=limit, warmup=False)
    timings = alternate([Contender("counter", count, warmup=False), limited], rounds=rounds)
    assert len(timings["limited"].cpu) == len(taken)
    assert len(timings["counter"].cpu) == rounds
    assert [t + (t_index % 2) for t, t_index in zip(turns, taken, strict=True)] == taken


def test_alternate_refuses_what_it_cannot_time() -> None:
    with pytest.raises(ValueError, match="rounds must be >= 1, got 0"):
        alternate([], rounds=0)
    twice = [Contender("a", lambda: None), Contender("a", lambda: None)]
    with pytest.raises(ValueError, match="different names"):
        alternate(twice, rounds=1)


def test_ratio_with_and_without_the_kernel() -> None:
    timings = {
        "ours": Timing("ours", (1.0, 2.0, 9.0), (0.0, 1.0, 0.0), (1.0, 1.0, 1.0)),
        "peer": Timing("peer", (8.0,), (4.0,), (8.0,)),
    }
    assert ratio(timings, "ours", "peer") == 2.0 / 8.0
    assert ratio(timings, "ours", "peer", kernel=False) == 1.0 / 4.0
    assert ratio(timings, "ours", "absent") is None


def test_cpu_time_counts_work_and_not_sleep() -> None:
    code = "import time; from benchmarks.common import Clocks as C; a = C.read(); time.sleep(0.5); b = C.read() - a\n"
    code += "print(b.cpu < 0.25 * b.wall, b.wall >= 0.5, b.system <= b.cpu + 0.01)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root())
    assert run.stdout.split() == ["True", "True", "True"]


def root() -> str:
    from pathlib import Path

    return str(Path(__file__).parents[2])


def test_peak_memory_sees_an_array_that_is_gone() -> None:
    before = peak_rss()
    size = before + 200_000_000
    array = np.ones(size, np.uint8)
    del array
    assert peak_rss() >= size


def test_a_failing_process_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root())
    with pytest.raises(RuntimeError, match="invalid choice: 'nobody'"):
        in_fresh_process("benchmarks.memory", "nobody", "64")


def test_photo_is_square_rgb_and_no_flat_field() -> None:
    image = photo(96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert image.std() > 30


def test_command_keeps_folders_out_of_the_record() -> None:
    words = ["--rounds", "3", "--out", "/home/someone/results", "--weights", "runs/base/w.safetensors"]
    assert command("benchmarks.click", words) == (
        "python -m benchmarks.click --rounds 3 --out results --weights w.safetensors"
    )
