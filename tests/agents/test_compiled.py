"""Loops are written once: compiled or run by Python, the same seed gives the same tables."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from linocut.agents import compiled, random

# Every control method with its further arguments; a new one is added here.
METHODS = {
    "double_q_learning": "",
    "expected_sarsa": "",
    "mc_epsilon_greedy": "",
    "n_step_sarsa": ", n_step=3",
    "q_learning": "",
    "sarsa": "",
    "sarsa_lambda": ", lambda_=0.8",
}
CONSTANT_ALPHA = {"sarsa_lambda"}

SCRIPT = """
import sys
import numpy as np
from linocut import agents
from linocut.agents.compiled import is_on
mdp = agents.TabularMDP.from_gymnasium("FrozenLake-v1")
result = agents.{name}(mdp, alpha={alpha}, gamma=0.97, epsilon=agents.linear(1.0, 0.05, 60), episodes=120, seed=3{more})
arrays = [result.q, result.returns, result.lengths, result.rng, *result.tables.values()]
print(is_on(), *(np.ascontiguousarray(array).tobytes().hex() for array in arrays))
"""


def outputs(script: str, *, numba: str) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LINOCUT_NUMBA": numba},
    )
    is_on, *arrays = done.stdout.split()
    return is_on, arrays


@pytest.mark.parametrize("alpha", ["0.2", "agents.PerVisit(0.8)"])
@pytest.mark.parametrize("name", METHODS)
def test_python_gives_the_same_table_for_the_same_seed(name: str, alpha: str) -> None:
    if name in CONSTANT_ALPHA and alpha != "0.2":
        alpha = "agents.exponential(0.5, 0.99, 0.1)"
    script = SCRIPT.format(name=name, alpha=alpha, more=METHODS[name])
    (fast, one), (slow, other) = (outputs(script, numba=setting) for setting in "10")
    assert (fast, slow) == ("True", "False")
    assert one == other


def test_words_are_splitmix64s() -> None:
    """The first numbers from the state 1234567, as the authors' program prints them."""
    state = np.array([1234567], np.uint64)
    assert [int(compiled.run(random.next_word, state)) for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_whole_numbers_are_even_and_in_range() -> None:
    rng = random.generator(0)
    drawn = np.array([compiled.run(random.below, rng, 5) for _ in range(20_000)])
    counts = np.bincount(drawn, minlength=5)
    assert counts.size == 5
    # five standard deviations of a binomial with n = 20000, p = 1/5
    assert np.abs(counts - 4000).max() < 5 * np.sqrt(20_000 * 0.16)


def test_a_setting_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_NUMBA", "yes")
    with pytest.raises(ValueError, match=r"LINOCUT_NUMBA must be 0 \(Python\) or 1 .* got 'yes'"):
        compiled.is_on()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must be in .*, got {seed}"):
        random.generator(seed)
