"""The textbook's worlds against its figures, and the way to Gymnasium and back."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from linocut.agents import (
    TabularEnv,
    TabularMDP,
    blackjack,
    estimate_mdp,
    evaluate,
    grid_world,
    off_policy_mc,
    random_walk,
    value_iteration,
    windy_grid,
)
from linocut.agents.cards import Hand, add_card


def start_value(mdp: TabularMDP) -> float:
    return float(value_iteration(mdp, gamma=1.0).values @ np.asarray(mdp.start))


def test_values_of_random_walks() -> None:
    five, nineteen = random_walk(), random_walk(19, r_left=-1)
    np.testing.assert_allclose(evaluate(five, np.full((5, 2), 0.5), gamma=1), np.arange(1, 6) / 6)
    np.testing.assert_allclose(
        evaluate(nineteen, np.full((19, 2), 0.5), gamma=1), np.arange(-9, 10) / 10, atol=1e-12
    )  # fmt: skip
    assert np.asarray(nineteen.start).argmax() == 9


@pytest.mark.parametrize("n_states", [0, 4, -3])
def test_a_walk_has_a_middle(n_states: int) -> None:
    with pytest.raises(ValueError, match=f"n_states must be odd and >= 1, so that there is a middle, got {n_states}"):
        random_walk(n_states)


@pytest.mark.parametrize(
    ("more", "steps"), [({}, 15), ({"kings_moves": True}, 7), ({"kings_moves": True, "stay": True}, 7)]
)
def test_shortest_ways_through_the_wind(more: dict[str, bool], steps: int) -> None:
    grid = windy_grid(**more)
    assert grid.shape == (7, 10)
    assert start_value(grid) == pytest.approx(-steps)


def test_the_wind_blows_up_and_is_that_of_the_column_left() -> None:
    grid = windy_grid(stochastic=True)
    at, right = grid.state_names.index((5, 7)), grid.action_names.index("right")
    after = [grid.state_names[place] for place in grid.next_state[at, right]]
    assert after == [(3, 8), (4, 8), (2, 8)]
    np.testing.assert_allclose(grid.probability[at, right], 1 / 3)
    assert grid.terminated[at, right].tolist() == [False, True, False]
    assert grid.probability[grid.state_names.index((5, 1)), right].tolist() == [1, 0, 0]
    assert start_value(grid) < -15


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"start": (8, 1)}, r"cells must lie in 1 … 7 × 1 … 10, got \(8, 1\)"),
        ({"start": (4, 8)}, "start and target must differ"),
        ({"wind": (0, -1, 0, 0, 0, 0, 0, 0)}, "winds be >= 0"),
    ],
)
def test_grids_that_are_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windy_grid(**more)


def test_blackjack_played_best() -> None:
    assert start_value(blackjack()) == pytest.approx(-0.04656, abs=5e-6)


def stick_at_20(game: TabularMDP) -> np.ndarray:
    return np.array([0 if hand[0] == "natural" or hand[0] >= 20 else 1 for hand in game.state_names])


@pytest.mark.parametrize("natural_wins", [False, True])
def test_the_hand_of_example_5_4(natural_wins: bool) -> None:
    """13 with a usable ace against a 2, sticking at 20: the book's -0.27726 is an estimate from 10⁸ episodes."""
    game = blackjack(natural_wins=natural_wins)
    values = evaluate(game, stick_at_20(game), gamma=1.0)
    assert values[game.state_names.index(Hand(13, 2, usable_ace=True))] == pytest.approx(-0.27720, abs=5e-6)


def test_the_best_policy_is_that_of_figure_5_2() -> None:
    """Where it sticks first, by the dealer's card; 16 against a 10 is the one that is nearly even."""
    game = blackjack()
    policy = dict(zip(game.state_names, value_iteration(game, gamma=1.0).policy, strict=True))
    first = {
        ace: [min(total for total in range(12, 22) if policy[Hand(total, dealer, ace)] == 0) for dealer in range(1, 11)]
        for ace in (False, True)
    }
    assert first[False] == [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]
    assert first[True] == [19, 18, 18, 18, 18, 18, 18, 18, 19, 19]


def test_naturals_win() -> None:
    """Gymnasium's rule (sab): what a natural gains over 21 is a win instead of a draw when the dealer draws to 21."""
    game = blackjack(natural_wins=True)
    assert game.n_states == 210
    values = dict(zip(game.state_names, value_iteration(game, gamma=1.0).values, strict=True))
    assert values["natural", 5] == 1
    assert values["natural", 10] == pytest.approx(12 / 13)
    assert values["natural", 1] == pytest.approx(9 / 13)
    naturals = {name: p for name, p in zip(game.state_names, np.asarray(game.start), strict=True) if len(name) == 2}
    assert sum(naturals.values()) == pytest.approx(2 * 1 / 13 * 4 / 13)
    assert start_value(game) == pytest.approx(-0.043113, abs=5e-7)


def test_aces() -> None:
    assert add_card(0, usable_ace=False, card=1) == (11, True)
    assert add_card(11, usable_ace=True, card=1) == (12, True)
    assert add_card(12, usable_ace=True, card=10) == (12, False)
    assert add_card(20, usable_ace=False, card=1) == (21, False)
    assert add_card(12, usable_ace=False, card=10) == (22, False)


def test_example_5_4_by_importance_sampling() -> None:
    """Weighted estimates of one hand from a policy of chance, mean of many runs."""
    game = blackjack()
    hand = game.state_names.index(Hand(13, 2, usable_ace=True))
    only = replace(game, start=np.eye(200)[hand])
    runs = np.array(
        [
            off_policy_mc(
                only, stick_at_20(game), behaviour=np.full((200, 2), 0.5), gamma=1.0, episodes=10_000, seed=seed
            ).values[hand]
            for seed in range(100)
        ]
    )
    error = runs.std(ddof=1) / 10
    assert error < 0.005
    assert abs(runs.mean() + 0.27720) <= 4 * error


@pytest.mark.parametrize("mdp", [random_walk(), grid_world(ends=True, horizon=20), windy_grid(kings_moves=True)])
def test_gymnasiums_own_check_passes(mdp: TabularMDP) -> None:
    check_env(TabularEnv(mdp), skip_render_check=True)


def test_an_episode_through_gymnasium() -> None:
    env = TabularEnv(random_walk())
    state, info = env.reset(seed=0)
    assert (state, info["action_mask"].tolist()) == (2, [1, 1])
    assert [env.step(1)[:4] for _ in range(3)] == [
        (3, 0.0, False, False), (4, 0.0, False, False), (4, 1.0, True, False)
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env.step(1)


def test_a_time_limit_truncates_and_an_end_at_the_limit_terminates() -> None:
    mdp = TabularMDP.from_dict(
        {"a": {"on": [(1.0, "a", 1.0, False)], "off": [(1.0, "a", 2.0, True)]}}, horizon=2
    )  # fmt: skip
    env = TabularEnv(mdp)
    env.reset(seed=0)
    assert [env.step(0)[2:4], env.step(0)[2:4]] == [(False, False), (False, True)]
    env.reset()
    assert [env.step(0)[2:4], env.step(1)[2:4]] == [(False, False), (True, False)]


def test_the_same_seed_gives_the_same_episode_and_frequencies_are_probabilities() -> None:
    mdp = TabularMDP.from_dict({"s": {"go": [(0.2, "s", 1.0, True), (0.5, "s", 2.0, True), (0.3, "s", 3.0, True)]}})
    env = TabularEnv(mdp)

    def rewards(seed: int) -> list[float]:
        env.reset(seed=seed)
        drawn = []
        for _ in range(4_000):
            drawn.append(float(env.step(0)[1]))
            env.reset()
        return drawn

    one = rewards(3)
    assert one == rewards(3)
    assert one != rewards(4)
    counts = np.bincount(np.array(one, int), minlength=4)[1:]
    assert (np.abs(counts - [800, 2000, 1200]) < 4 * np.sqrt(4_000 * np.array([0.16, 0.25, 0.21]))).all()


def test_an_illegal_action_is_refused() -> None:
    mdp = TabularMDP.from_dict({"a": {"x": [(1.0, "b", 0.0, False)]}, "b": {"y": [(1.0, "b", 0.0, True)]}})
    env = TabularEnv(mdp)
    env.reset(seed=0)
    mask = env.reset(options=None)[1]["action_mask"]
    assert mask.sum() == 1
    with pytest.raises(ValueError, match=r"in state '.' actions are \[.\], got"):
        env.step(int(1 - mask.argmax()))


def test_there_and_back() -> None:
    mdp = windy_grid(stochastic=True)
    back = TabularMDP.from_gymnasium(TabularEnv(mdp))
    np.testing.assert_array_equal(back.transition, mdp.transition)
    np.testing.assert_array_equal(back.expected_reward, mdp.expected_reward)
    np.testing.assert_array_equal(np.asarray(back.start), np.asarray(mdp.start))


def test_sampling_a_certain_world_gives_its_table() -> None:
    truth = TabularMDP.from_gymnasium("CliffWalking-v1")
    found = estimate_mdp("CliffWalking-v1", samples=20_000)
    tried = [
        (s, a)
        for s, a in np.argwhere(np.asarray(found.legal))
        if not (found.terminated[s, a, 0] and found.next_state[s, a, 0] == s)
    ]
    assert len(tried) == 37 * 4  # all cells but the cliff and the goal
    for s, a in tried:
        np.testing.assert_array_equal(found.transition[s, a], truth.transition[s, a])
        assert found.expected_reward[s, a] == truth.expected_reward[s, a]
    assert start_value(found) == -13


def test_sampling_chance_comes_near() -> None:
    """Frozen lake: probabilities within five standard deviations of a frequency, time limits no ends."""
    truth = TabularMDP.from_gymnasium("FrozenLake-v1")
    found = estimate_mdp("FrozenLake-v1", samples=30_000, seed=1)
    assert (found.n_states, found.horizon) == (16, 100)
    holes = [5, 7, 11, 12, 15]
    others = [s for s in range(16) if s not in holes]
    np.testing.assert_allclose(found.transition[others], truth.transition[others], atol=5 * np.sqrt(0.25 / 200))
    assert (found.transition[holes] == 0).all()
    again = estimate_mdp("FrozenLake-v1", samples=30_000, seed=1)
    np.testing.assert_array_equal(found.transition, again.transition)


def test_observations_that_are_tuples_become_names() -> None:
    found = estimate_mdp("Blackjack-v1", samples=3_000)
    assert all(len(name) == 3 for name in found.state_names)
    assert found.state_names.index((20, 10, 0)) >= 0
    assert found.horizon is None


def test_spaces_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TypeError, match=r"a table needs finitely many states and actions; .* has Box"):
        estimate_mdp(gymnasium.make("CartPole-v1"), samples=10)
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        estimate_mdp("FrozenLake-v1", samples=0)
