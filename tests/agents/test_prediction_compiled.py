"""Prediction's loops, compiled or run by Python: the same seed gives the same numbers, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from linocut import agents
from linocut.agents.compiled import is_on
mdp = agents.TabularMDP.from_gymnasium("FrozenLake-v1")
policy, other = np.full((16, 4), 0.25), np.tile([0.4, 0.3, 0.2, 0.1], (16, 1))
given = dict(gamma=0.97, episodes=120, seed=3, v0=0.1, history=True)
runs = {
    f"{name} {number}": getattr(agents, name)(mdp, policy, **more, **given)
    for name, listed in {
        "td_zero": [{"alpha": 0.2}, {"alpha": agents.PerVisit(0.8)}],
        "n_step_td": [{"alpha": agents.linear(0.5, 0.1, 60), "n_step": 3}, {"alpha": agents.PerVisit(), "n_step": 1}],
        "offline_lambda_return": [{"alpha": 0.2, "lambda_": 0.6}, {"alpha": agents.PerVisit(0.6), "lambda_": 1.0}],
        "td_lambda": [{"alpha": 0.2, "lambda_": 0.6}, {"alpha": 0.2, "lambda_": 0.6, "replacing": True}],
        "true_online_td": [{"alpha": 0.2, "lambda_": 0.6}],
        "mc_prediction": [{}, {"every_visit": True}, {"alpha": 0.1}],
        "off_policy_mc": [
            {"behaviour": other, "weighted": weighted, "every_visit": every} for weighted in (0, 1) for every in (0, 1)
        ],
    }.items()
    for number, more in enumerate(listed)
}
print("compiled", is_on())
for name, run in runs.items():
    arrays = run.history, run.returns, run.lengths, run.visits
    print(name, *(np.ascontiguousarray(array).tobytes().hex() for array in arrays))
"""


@pytest.fixture(scope="module")
def outputs() -> tuple[dict[str, str], dict[str, str]]:
    """What a compiled run printed, and one by Python."""
    both = []
    for setting in "10":
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LINOCUT_NUMBA": setting},
        )
        lines = (line.partition(" ") for line in done.stdout.splitlines())
        both.append({name + rest[:2].rstrip(): rest for name, _, rest in lines})
    return both[0], both[1]


def test_python_gives_the_same_numbers_for_the_same_seed(outputs: tuple[dict[str, str], dict[str, str]]) -> None:
    fast, slow = outputs
    assert fast.pop("compiledTr") == "True"
    assert slow.pop("compiledFa") == "False"
    assert len(fast) == 16
    assert [name for name in fast if fast[name] != slow[name]] == []
