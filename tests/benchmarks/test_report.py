from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from benchmarks.common import Timing
from benchmarks.report import Goal, Report, machine, plot_bars, render, table, write

TIMING = Timing("ours", (1.0, 3.0, 2.0), (0.5, 0.5, 0.5), (4.0, 4.0, 4.0))
HOST: dict[str, Any] = {
    "cpu": "CPU X",
    "cores": 2,
    "flags": ["avx2"],
    "memory_gb": 8.0,
    "system": "Linux",
    "python": "3.11",
    "versions": {"torch": "2"},
    "threads": 1,
    "environment": {},
    "load_average": 0.1,
    "date": "2026-01-01",
}


def report(*goals: Goal) -> Report:
    return Report(name="r", title="T", command="c", timings=[TIMING], goals=goals, notes=["N."], extra={"more": 1})


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("w", 2.0, 2.0), True),
        (Goal("w", 2.0, 2.1), False),
        (Goal("w", 2.0, 2.0, at_least=True), True),
        (Goal("w", 2.0, 1.9, at_least=True), False),
        (Goal("w", 2.0, None), None),
    ],
)
def test_a_goal_is_met_at_its_limit(goal: Goal, met: bool | None) -> None:
    assert goal.met is met


def test_rendered_report_holds_median_spread_goal_and_machine() -> None:
    text = render(report(Goal("ratio", 0.4, 0.5), Goal("times", 20, None, at_least=True)), HOST)
    assert "| ours | 2 | 1 – 3 | 0.5 | 4 | 3 |" in text
    assert "| ratio | ≤ 0.4 | 0.5 | no |" in text
    assert "| times | ≥ 20 | – | not measured |" in text
    assert "CPU X, 2 cores (avx2)" in text
    assert "nothing set" in text


def test_table_is_markdown_with_numbers_to_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_write_leaves_json_that_agrees_with_the_table(tmp_path: Path) -> None:
    write(report(Goal("ratio", 0.4, 0.3)), tmp_path / "new", HOST)
    content = json.loads((tmp_path / "new" / "r.json").read_text())
    assert content["timings"]["ours"]["cpu_median"] == 2.0
    assert content["timings"]["ours"]["cpu"] == [1.0, 3.0, 2.0]
    assert content["goals"][0]["met"] is True
    assert content["more"] == 1
    assert (tmp_path / "new" / "r.md").read_text() == render(report(Goal("ratio", 0.4, 0.3)), HOST)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["r.json", "r.md"]


def test_machine_names_the_software_and_not_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("HOME", "/home/someone")
    facts = machine(1)
    assert facts["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "torch" in facts["versions"]
    assert facts["threads"] == 1
    text = json.dumps(facts)
    assert "/home" not in text
    assert platform.node() not in text


def test_plot_is_a_picture(tmp_path: Path) -> None:
    plot_bars([TIMING], "t", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
