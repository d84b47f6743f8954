"""Control learns what planning says, by every method; runs go on as if they had not been interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linocut import agents
from linocut.agents import Result, TabularMDP

Method = Callable[..., Result]
METHODS: dict[str, dict[str, Any]] = {
    "double_q_learning": {},
    "expected_sarsa": {},
    "mc_epsilon_greedy": {},
    "n_step_sarsa": {"n_step": 3},
    "q_learning": {},
    "sarsa": {},
    "sarsa_lambda": {"lambda_": 0.7},
}
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def cliff() -> TabularMDP:
    return TabularMDP.from_gymnasium("CliffWalking-v1")


def learn(name: str, mdp: TabularMDP, **more: Any) -> Result:
    method: Method = getattr(agents, name)
    given = {"alpha": 0.2, "gamma": 0.9, "epsilon": 0.1, "episodes": 60, "seed": 5, **METHODS[name], **more}
    return method(mdp, **given)


@every_method
def test_a_run_that_is_gone_on_with_is_the_whole_run(name: str, tmp_path: Path) -> None:
    lake = TabularMDP.from_gymnasium("FrozenLake-v1")
    whole = learn(name, lake)
    learn(name, lake, episodes=25).save(tmp_path / "half.npz")
    again = learn(name, lake, resume=Result.load(tmp_path / "half.npz"))
    for array in ("q", "values", "policy", "returns", "lengths", "rng"):
        np.testing.assert_array_equal(getattr(again, array), getattr(whole, array))
    for table, held in whole.tables.items():
        np.testing.assert_array_equal(again.tables[table], held)
    assert again.settings == whole.settings


@every_method
def test_reporting_progress_changes_nothing(name: str) -> None:
    lake = TabularMDP.from_gymnasium("FrozenLake-v1")
    told: list[tuple[int, int]] = []
    np.testing.assert_array_equal(learn(name, lake, progress=lambda *a: told.append(a)).q, learn(name, lake).q)
    assert told[-1] == (60, 60)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@every_method
def test_a_bandit_of_two_arms_is_learnt(name: str) -> None:
    """One state, two actions that end: the values are the mean rewards, 0.8 and 0.2."""
    bandit = TabularMDP.from_dict(
        {"s": {a: [(p, "s", 1.0, True), (1 - p, "s", 0.0, True)] for a, p in (("good", 0.8), ("bad", 0.2))}}
    )
    # a step size for each visit is refused where one step updates all
    more: dict[str, Any] = {"alpha": agents.harmonic(20.0, 20.0) if name == "sarsa_lambda" else agents.PerVisit()}
    runs = [learn(name, bandit, episodes=4000, epsilon=1.0, seed=seed, **more).q[0] for seed in range(20)]
    mean, error = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    assert (np.abs(mean - [0.8, 0.2]) < 5 * error).all()
    assert (error < 0.01).all()


def test_q_learning_with_shrinking_steps_finds_the_optimum() -> None:
    mdp = agents.grid_world(horizon=50)
    found = agents.q_learning(mdp, alpha=agents.PerVisit(0.6), gamma=0.9, epsilon=1.0, episodes=20_000, seed=1)
    plan = agents.value_iteration(mdp, gamma=0.9)
    np.testing.assert_allclose(found.values, plan.values, atol=0.05)


@pytest.mark.parametrize(("name", "expected"), [("sarsa", -26.8), ("q_learning", -49.8), ("expected_sarsa", -20.8)])
def test_the_cliffs_rewards_in_the_last_hundred_of_500_episodes(cliff: TabularMDP, name: str, expected: float) -> None:
    """Sutton & Barto, example 6.6, alpha 0.5: what is said is the mean of many runs, to a digit."""
    runs = [
        learn(name, cliff, alpha=0.5, gamma=1.0, episodes=500, seed=seed).returns[400:].mean() for seed in range(400)
    ]
    error = np.std(runs, ddof=1) / np.sqrt(len(runs))
    assert abs(np.mean(runs) - expected) < 4 * error + 0.05


def test_a_truncated_episode_is_bootstrapped_and_a_terminated_one_is_not() -> None:
    """One action that pays 1: cut off after a step its value is 1 / (1 - gamma), ended after a step it is 1."""
    for ends, value in ((False, 2.0), (True, 1.0)):
        mdp = TabularMDP.from_dict({"s": {"go": [(1.0, "s", 1.0, ends)]}}, horizon=1)
        for name in ("q_learning", "sarsa", "expected_sarsa"):
            found = learn(name, mdp, gamma=0.5, alpha=0.5, episodes=200, epsilon=0.0)
            assert found.values[0] == pytest.approx(value)


def test_illegal_actions_are_never_taken() -> None:
    mdp = TabularMDP.from_dict(
        {
            "a": {"left": [(1.0, "b", 0.0, False)]},
            "b": {"left": [(1.0, "b", 0.0, True)], "right": [(1.0, "a", 9.0, True)]},
        }
    )
    for name in METHODS:
        found = learn(name, mdp, epsilon=1.0)
        assert found.tables["visits"][0, 1] == 0, name
        assert found.q[0, 1] == -np.inf


def test_exploring_starts_reach_every_pair() -> None:
    mdp = agents.grid_world(horizon=30)
    found = agents.mc_exploring_starts(mdp, gamma=0.9, episodes=3000, seed=0)
    assert (found.tables["visits"] > 0).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gamma": 1.1}, "gamma must be in 0 … 1, got 1.1"),
        ({"episodes": 0}, "episodes must be >= 1, got 0"),
        ({"alpha": 1.5}, "alpha must be in 0 … 1, got 1.5 in episode 0"),
        ({"epsilon": agents.linear(0.5, -0.5, 10)}, "epsilon must be in 0 … 1, got -0.0999"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_numbers_out_of_range_are_refused(cliff: TabularMDP, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learn("q_learning", cliff, **more)


def test_other_refusals(cliff: TabularMDP, tmp_path: Path) -> None:
    done = learn("q_learning", cliff, episodes=10)
    with pytest.raises(ValueError, match=r"cannot go on with sarsa .* from a run of q_learning"):
        learn("sarsa", cliff, resume=done)
    with pytest.raises(ValueError, match="cannot go on to episode 5 from a run of 10"):
        learn("q_learning", cliff, episodes=5, resume=done)
    with pytest.raises(ValueError, match="n_step must be >= 1, got 0"):
        learn("n_step_sarsa", cliff, n_step=0)
    with pytest.raises(ValueError, match="lambda_ must be in 0 … 1, got 2"):
        learn("sarsa_lambda", cliff, lambda_=2)
    with pytest.raises(ValueError, match="no meaning where one step updates all"):
        learn("sarsa_lambda", cliff, alpha=agents.PerVisit())
    (tmp_path / "no.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"no\.npz is not a saved result"):
        Result.load(tmp_path / "no.npz")
    for wrong in ({"power": 0.0}, {"power": 1.5}, {"scale": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            agents.PerVisit(**wrong)
