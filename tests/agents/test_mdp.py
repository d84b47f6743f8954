"""Processes as tables: what is built, what is drawn from them, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from linocut import agents
from linocut.agents import TabularMDP, random
from linocut.agents.compiled import run
from linocut.agents.steps import any_action, draw, greedy

COIN = {"s": {"toss": [(0.3, "s", 1.0, False), (0.7, "t", 0.0, True)]}, "t": {"toss": [(1.0, "t", 0.0, True)]}}


def test_a_dictionary_becomes_tables() -> None:
    mdp = TabularMDP.from_dict(COIN, start={"s": 1.0})
    assert (mdp.n_states, mdp.n_actions, mdp.state_names, mdp.action_names) == (2, 1, ("s", "t"), ("toss",))
    assert mdp.expected_reward.tolist() == [[0.3], [0.0]]
    assert mdp.transition.tolist() == [[[0.3, 0.0]], [[0.0, 0.0]]]
    assert mdp.start is not None
    assert mdp.start.tolist() == [1.0, 0.0]


def test_outcomes_are_drawn_as_often_as_their_probabilities_say() -> None:
    mdp = TabularMDP.from_dict(COIN)
    rng, n = random.generator(1), 20_000
    drawn = np.bincount([run(draw, mdp.tables.threshold, 0, 2, rng) for _ in range(n)], minlength=2)
    # five standard deviations of a binomial
    assert abs(drawn[0] - 0.3 * n) < 5 * np.sqrt(n * 0.3 * 0.7)


def test_what_is_impossible_is_never_drawn() -> None:
    probability = np.array([[[0.0, 1.0, 0.0]]])
    mdp = TabularMDP(probability, np.zeros((1, 1, 3), int), np.zeros((1, 1, 3)), np.ones((1, 1, 3), bool))
    rng = random.generator(0)
    assert {int(run(draw, mdp.tables.threshold, 0, 3, rng)) for _ in range(500)} == {1}
    highest = np.array([2**64 - 1], np.uint64)
    # thresholds of the last possible outcome and of all after it are the highest word, which nothing exceeds
    assert mdp.tables.threshold[1:].tolist() == [int(highest[0])] * 2


def test_ties_are_broken_at_random_and_evenly() -> None:
    q, legal, rng = np.array([[1.0, 2.0, 2.0, 2.0]]), np.array([[True, True, False, True]]), random.generator(3)
    counts = np.bincount([run(greedy, q, legal, 0, rng) for _ in range(4000)], minlength=4)
    assert counts[0] == counts[2] == 0
    assert abs(counts[1] - 2000) < 5 * np.sqrt(1000)
    counts = np.bincount([run(any_action, legal, 0, rng) for _ in range(6000)], minlength=4)
    assert counts[2] == 0
    assert np.abs(counts[[0, 1, 3]] - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)


def test_gymnasiums_frozen_lake_with_its_limit_and_its_grid() -> None:
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1")
    assert (mdp.n_states, mdp.n_actions, mdp.horizon, mdp.shape) == (16, 4, 100, (4, 4))
    listed = gymnasium.make("FrozenLake-v1").unwrapped.P  # type: ignore[attr-defined]
    for state in range(16):
        for action in range(4):
            expected = sum(p * r for p, _, r, _ in listed[state][action])
            assert mdp.expected_reward[state, action] == pytest.approx(expected)


def test_environments_without_a_finite_table_are_refused() -> None:
    with pytest.raises(TypeError, match=r"a table needs finitely many states and actions; .*observation_space is Box"):
        TabularMDP.from_gymnasium("CartPole-v1")
    with pytest.raises(TypeError, match="observation_space is Tuple"):
        TabularMDP.from_gymnasium("Blackjack-v1")


def arrays(**changes: Any) -> dict[str, Any]:
    given = {
        "probability": np.array([[[0.5, 0.5]], [[1.0, 0.0]]]),
        "next_state": np.zeros((2, 1, 2), int),
        "reward": np.zeros((2, 1, 2)),
        "terminated": np.ones((2, 1, 2), bool),
    }
    return {**given, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": np.array([[[0.5, 0.5]], [[0.9, 0.0]]])}, "state 1, action '0' must sum to 1, got 0.9"),
        ({"probability": np.array([[[1.5, -0.5]], [[1.0, 0.0]]])}, "probabilities must be >= 0"),
        ({"next_state": np.full((2, 1, 2), 2)}, "next states must be 0 … 1, got 2 … 2"),
        ({"reward": np.zeros((2, 1, 3))}, r"reward must have the shape of probability, \(2, 1, 2\), got \(2, 1, 3\)"),
        ({"reward": np.full((2, 1, 2), np.nan)}, "must be finite"),
        ({"start": np.array([0.5, 0.4])}, "those of start sum to 1, got a sum of 0.9"),
        ({"start": np.ones(3) / 3}, r"start must be \(2,\)"),
        ({"legal": np.array([[True], [False]])}, "state 1 has no action"),
        ({"horizon": 0}, "horizon must be >= 1, or None for none, got 0"),
        ({"action_names": ("a", "b")}, "2 states and 1 actions need as many names"),
    ],
)
def test_processes_that_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularMDP(**arrays(**changes))


@pytest.mark.parametrize(
    ("outcomes", "start", "message"),
    [
        ({}, None, "must have states and actions, got 0 and 0"),
        ({"a": {}}, None, "must have states and actions, got 1 and 0"),
        ({"a": {"x": [(1.0, "b", 0.0, True)]}}, None, "state 'a', action 'x' leads to 'b', which is no state"),
        ({"a": {"x": [(1.0, "a", 0.0, True)]}, "b": {}}, None, "state 'b' has no action"),
        ({"a": {"x": [(0.5, "a", 0.0, True)]}}, None, "state 'a', action 'x' must sum to 1, got 0.5"),
        ({"a": {"x": [(1.0, "a", 0.0, True)]}}, {"c": 1.0}, "start names 'c', which is no state"),
    ],
)
def test_dictionaries_that_are_refused(outcomes: Any, start: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TabularMDP.from_dict(outcomes, start=start)


def test_a_process_is_shown_by_its_size() -> None:
    assert repr(TabularMDP.from_dict(COIN)) == "TabularMDP(2 states, 1 actions)"
    lake = repr(TabularMDP.from_gymnasium("FrozenLake-v1"))
    assert lake == "TabularMDP(16 states, 4 actions, a grid of 4 × 4, horizon 100)"


def test_without_gymnasium_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install .linocut\[agents\]"):
        TabularMDP.from_gymnasium("FrozenLake-v1")


def test_public_names_can_be_listed_and_found() -> None:
    assert set(agents.__all__) <= set(dir(agents))
    for name in agents.__all__:
        assert getattr(agents, name).__module__.startswith("linocut.agents")
