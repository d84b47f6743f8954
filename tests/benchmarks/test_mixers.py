from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.mixers_report import BACKWARD, COMPUTE_BOUND, FLOOR_CLAIMS, FORWARD, LENGTHS, LINOCUT, QUOTED
from benchmarks.our_mixers import FLOORS, OURS, OURS_BFLOAT16, Work
from benchmarks.peers.mixers.native import PeerMissingError
from benchmarks.peers.mixers.rows import ROWS, Peer, Row
from torch import Tensor

from benchmarks import mixers, mixers_report

ROW = "selective scan"
# What section 5 of the anchors was measured at; the floors in ms at 16k tokens follow from the work alone.
RATES = {"flops": 150e9, "bytes": 12.3e9, "exps": 5.9e9}


def timing(value: float, system: float = 0.0) -> dict[str, float]:
    return {"cpu_median": value, "cpu_min": value, "cpu_max": value, "user_median": value - system}


@pytest.fixture
def found() -> dict[str, Any]:
    """A run of one row: ours is 10 times as fast as the C loop, 50 times as mambapy with backward."""
    rows = {str(n): {FORWARD: {}, BACKWARD: {}, "failed": {}} for n in LENGTHS}
    for n in LENGTHS:
        rows[str(n)][FORWARD] = {
            LINOCUT: timing(2e-6 * n),
            "C loop": timing(2e-5 * n),
            "mamba-minimal": timing(1e-4 * n),
        }
        rows[str(n)][BACKWARD] = {LINOCUT: timing(4e-6 * n), "mambapy": timing(2e-4 * n)}
    rows["1024"]["failed"] = {"transformers": "OSError: no | such\nfile"}
    return {
        "rates": RATES,
        "decode": {LINOCUT: [5e-5, 5.5e-5, 7e-5], "mambapy": [4e-4, 5e-4, 6e-4]},
        "rows": {ROW: rows},
        "memory": {ROW: {LINOCUT: 2e8, "mambapy": 4e9}},
        "threads": {ROW: {"1": [2.0, 2.1, 1.9], "2": [1.0, 1.0, 1.0]}},
    }


@pytest.mark.parametrize(
    ("row", "milliseconds"),
    [
        ("linear attention, causal", 7.2),
        ("linear attention", 7.2),
        ("Performer", 57),
        ("Performer, causal", 66),
        ("selective scan", 22.8),
        ("SSD", 33),
        ("gated delta rule", 10.7),
        ("S4D", 9),
        ("RWKV-4", 4.1),
        ("retention", 7.2),
        ("local attention", 43),
        ("FLASH layer", 158),
        ("Linformer layer", 115),
    ],
)
def test_floors_are_those_the_goals_were_set_from(row: str, milliseconds: float) -> None:
    assert 1e3 * FLOORS[row].floor(QUOTED, RATES) == pytest.approx(milliseconds, rel=0.012)


def test_a_floor_is_the_slowest_of_operations_bytes_and_exponentials() -> None:
    rates = {"flops": 10.0, "bytes": 10.0, "exps": 10.0}
    assert Work(flops=1, bytes=2, exps=3).floor(10, rates) == 3
    assert Work(flops=1, bytes=4, exps=3).floor(10, rates) == 4
    assert Work(flops=1, flops_once=100).floor(10, rates) == 11


def test_goals_compare_with_the_named_peer(found: dict[str, Any]) -> None:
    goals = {goal.what: goal for goal in mixers_report.goals(found)}
    at = f"n = {QUOTED}"
    measured = {
        f"{ROW}, forward, {at}: times as fast as C loop": 10,
        f"{ROW}, forward, {at}: times as fast as mamba-minimal": 50,
        f"{ROW}, forward and backward, {at}: times as fast as mambapy": 50,
        f"{ROW}, {at}: memory of a training step over mambapy's": 0.05,
        "Mamba, decoding: µs a token": 55,
        "Mamba, decoding: a token's time over mambapy's": 0.11,
        f"{ROW}, forward: exponent of the time from 4k to 64k": 1,
        f"{ROW}, forward, {at}: two threads over one, wall time": 2,
    }
    assert {what: goal.measured for what, goal in goals.items()} == pytest.approx(measured)
    assert all(goal.met for goal in goals.values())


def test_what_was_not_measured_is_no_failure(found: dict[str, Any]) -> None:
    found["rows"][ROW] = {str(n): {"failed": {"all": "killed"}} for n in LENGTHS}
    found |= {"rates": {"failed": {}}, "memory": {}, "decode": {"failed": {"all": "killed"}}, "threads": {ROW: {}}}
    assert all(goal.met is None for goal in mixers_report.goals(found))
    assert "killed" in "\n".join(mixers_report.sections(found))


@pytest.mark.parametrize("power", [1, 2])
def test_slope_is_the_exponent_without_the_kernels_share(found: dict[str, Any], power: int) -> None:
    for n in LENGTHS:
        found["rows"][ROW][str(n)][FORWARD][LINOCUT] = timing(1.0 + float(n) ** power, system=1.0)
    assert mixers_report.slope(found, ROW) == pytest.approx(power)


def test_tables_hold_ours_the_best_peer_and_the_floor(found: dict[str, Any]) -> None:
    text = "\n".join(mixers_report.sections(found))
    # 16384 tokens: 32.8 ms, a tenth of the C loop's, over a floor of 22.75 ms
    assert f"| {ROW} | 16384 | 32.8 | 32.8 – 32.8 | C loop, 328 | 10.0 | 1.4 | mamba-minimal 1,638 |" in text
    assert f"| {ROW} | 200 | mambapy 4000 |" in text
    assert "| Linocut | 55 | 50 – 70 |" in text
    assert f"| {ROW} | transformers | OSError: no / such file |" in text


def test_another_precision_is_a_line_of_its_own(found: dict[str, Any]) -> None:
    found["rows"][ROW]["16384"][FORWARD][f"{LINOCUT}, bfloat16"] = timing(0.01)
    found["memory"][ROW][f"{LINOCUT}, bfloat16"] = 1e8
    text = "\n".join(mixers_report.sections(found))
    assert f"| {ROW}, bfloat16 | 16384 | 10 | 10 – 10 | C loop, 328 | 32.8 | – |" in text
    assert f"| {ROW} | 200, bfloat16 100 | mambapy 4000 |" in text


def test_plot_is_written(found: dict[str, Any], tmp_path: Path) -> None:
    mixers_report.plot(found, tmp_path / "mixers.png")
    assert (tmp_path / "mixers.png").read_bytes().startswith(b"\x89PNG")


def test_contenders_are_those_that_can_be_asked() -> None:
    assert list(mixers.contenders(ROW, 1024, FORWARD))[:2] == [LINOCUT, "C loop"]
    assert list(mixers.contenders(ROW, 65536, FORWARD)) == [LINOCUT, "C loop"]
    assert list(mixers.contenders(ROW, 16384, BACKWARD)) == [LINOCUT, "mambapy"]
    assert LINOCUT not in mixers.contenders(ROW, 1024, FORWARD, peers_only=True)
    assert f"{LINOCUT}, bfloat16" in mixers.contenders("SSD", 1024, FORWARD)


def test_bfloat16_rows_are_given_bfloat16() -> None:
    name = f"{LINOCUT}, bfloat16"
    inputs = ROWS["retention"].inputs(8)

    def dtypes(row: str, name: str) -> set[torch.dtype]:
        return {x.dtype for x in mixers.given(inputs, row, name).values()}

    assert dtypes("retention", name) == {torch.bfloat16}
    assert dtypes("retention", LINOCUT) == dtypes("SSD", name) == {torch.float32}
    run = mixers.contenders("retention", 8, FORWARD)[name]
    assert run(**mixers.given(inputs, "retention", name)).dtype == torch.bfloat16


def test_a_peer_is_left_out_when_its_growth_says_so() -> None:
    def row(*values: float) -> dict[str, Any]:
        return {str(n): {FORWARD: {"p": timing(v)}} for n, v in zip(LENGTHS, values, strict=False)}

    longest = mixers.LONGEST_S
    assert not mixers.left_out({}, "p", 1024, FORWARD)
    assert not mixers.left_out(row(longest / 5), "p", 4096, FORWARD)
    assert mixers.left_out(row(longest / 3), "p", 4096, FORWARD)
    assert mixers.left_out(row(longest / 100, longest / 9), "p", 16384, FORWARD)
    assert not mixers.left_out(row(longest / 100, longest / 9), "p", 16384, BACKWARD)
    assert mixers.left_out(row(longest / 30, longest / 5), "p", 65536, FORWARD)


def test_claims_and_floors_name_rows_and_peers_that_exist() -> None:
    for claim in mixers_report.CLAIMS:
        assert claim.peer in {peer.name for peer in ROWS[claim.row].peers}
        assert claim.peer in mixers.contenders(claim.row, QUOTED, claim.direction)
    for names in (COMPUTE_BOUND, FLOOR_CLAIMS, FLOORS, OURS, OURS_BFLOAT16):
        assert set(names) <= set(ROWS)


def broken(x: Tensor) -> Tensor:
    raise PeerMissingError("not installed")


def test_one_failure_leaves_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(lambda n: {"x": torch.ones(n)}, (Peer("works", lambda x: 2 * x), Peer("broken", broken)))
    monkeypatch.setitem(ROWS, "row", row)
    result = mixers.measure("row", 8, 2, {FORWARD: [], BACKWARD: []})
    assert result["failed"] == {"broken": "PeerMissingError: not installed"}
    assert [list(result[direction]) for direction in (FORWARD, BACKWARD)] == [["works"], ["works"]]
    assert len(result[FORWARD]["works"]["cpu"]) == 2
    json.dumps(result, allow_nan=False)
    skipped = mixers.measure("row", 8, 1, {FORWARD: ["works", "broken"], BACKWARD: []})
    assert skipped[FORWARD] == {}


def test_the_run_with_backward_works_out_every_inputs_gradient() -> None:
    inputs = {"a": torch.tensor([2.0]), "b": torch.tensor([3.0])}
    grads: Any = mixers.runner(lambda a, b: a * b, inputs, BACKWARD)()
    assert [g.item() for g in grads] == [3, 2]
    assert not inputs["a"].requires_grad
    assert mixers.runner(lambda a, b: a * b, inputs, FORWARD)() == torch.tensor([6.0])
