"""Prediction against solved values, forward views worked out by definition, and the curves of Sutton and Barto."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from linocut.agents import (
    PerVisit,
    Prediction,
    TabularMDP,
    evaluate,
    mc_prediction,
    n_step_td,
    off_policy_mc,
    offline_lambda_return,
    random_walk,
    td_lambda,
    td_zero,
    true_online_td,
)

FIVE, NINETEEN = random_walk(), random_walk(19, r_left=-1)
METHODS: dict[str, Callable[..., Prediction]] = {
    "mc_prediction": lambda *given, **more: mc_prediction(*given, **{"alpha": 0.1} | more),
    "n_step_td": lambda *given, **more: n_step_td(*given, **{"alpha": 0.1, "n_step": 3} | more),
    "off_policy_mc": lambda mdp, policy, **more: off_policy_mc(mdp, policy, behaviour=policy, **more),
    "offline_lambda_return": lambda *given, **more: offline_lambda_return(
        *given, **{"alpha": 0.1, "lambda_": 0.7} | more
    ),
    "td_lambda": lambda *given, **more: td_lambda(*given, **{"alpha": 0.1, "lambda_": 0.7} | more),
    "td_zero": lambda *given, **more: td_zero(*given, **{"alpha": 0.1} | more),
    "true_online_td": lambda *given, **more: true_online_td(*given, **{"alpha": 0.1, "lambda_": 0.7} | more),
}


def uniform(mdp: TabularMDP) -> np.ndarray:
    return np.full((mdp.n_states, mdp.n_actions), 1 / mdp.n_actions)


def circle(horizon: int) -> TabularMDP:
    """Three states, walked round and round with rewards 1, -2, 4, until the horizon cuts the episode off."""
    return TabularMDP(
        np.ones((3, 1, 1)),
        np.array([1, 2, 0]).reshape(3, 1, 1),
        np.array([1.0, -2.0, 4.0]).reshape(3, 1, 1),
        np.zeros((3, 1, 1), bool),
        start=np.array([1.0, 0, 0]),
        horizon=horizon,
    )


def chain() -> TabularMDP:
    """0 → 1 → 2 → end, with rewards 1, -2, 4."""
    return TabularMDP.from_dict(
        {
            0: {"go": [(1.0, 1, 1.0, False)]},
            1: {"go": [(1.0, 2, -2.0, False)]},
            2: {"go": [(1.0, 0, 4.0, True)]},
        },
        start={0: 1.0},
    )


STAY = np.zeros(3, np.int64)
V0 = np.array([0.5, -1.0, 2.0])
GAMMA = 0.9


def test_one_episode_of_td_zero_by_hand() -> None:
    learnt = td_zero(chain(), STAY, alpha=0.5, gamma=GAMMA, episodes=1, v0=V0)
    assert learnt.values == pytest.approx(
        [0.5 + 0.5 * (1 - 0.9 - 0.5), -1 + 0.5 * (-2 + 1.8 + 1), 2 + 0.5 * (4 - 2)]  # the end has no value after it
    )
    assert (learnt.returns.tolist(), learnt.lengths.tolist(), learnt.visits.tolist()) == ([3.0], [3], [1, 1, 1])


def test_a_horizon_does_not_cut_the_bootstrap() -> None:
    learnt = td_zero(circle(1), STAY, alpha=0.5, gamma=GAMMA, episodes=1, v0=V0)
    assert learnt.values == pytest.approx([0.5 + 0.5 * (1 - 0.9 - 0.5), -1, 2])


def n_step_return(seen: list[int | None], rewards: list[float], values: np.ndarray, step: int, n: int) -> float:
    """Sutton & Barto, equation 7.1; ``seen`` holds the state after the last reward too, None where there is none."""
    last = min(step + n, len(rewards))
    total = sum(GAMMA ** (k - step) * rewards[k] for k in range(step, last))
    return total + (GAMMA ** (last - step) * values[seen[last]] if seen[last] is not None else 0.0)


def lambda_return(
    seen: list[int | None], rewards: list[float], values: np.ndarray, step: int, horizon: int, lambda_: float
) -> float:
    """Equation 12.9, the λ-return up to a horizon."""
    most = horizon - step
    mixed = sum(
        (1 - lambda_) * lambda_ ** (n - 1) * n_step_return(seen, rewards, values, step, n) for n in range(1, most)
    )
    return mixed + lambda_ ** (most - 1) * n_step_return(seen, rewards, values, step, most)


# An episode as (process, states with the one after the last, rewards).
EPISODES = {
    "terminated": (chain(), [0, 1, 2, None], [1.0, -2.0, 4.0]),
    "truncated": (circle(7), [0, 1, 2, 0, 1, 2, 0, 1], [1.0, -2.0, 4.0, 1.0, -2.0, 4.0, 1.0]),
}


@pytest.mark.parametrize("n_step", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("episode", EPISODES)
def test_n_step_td_is_equation_7_2(episode: str, n_step: int) -> None:
    mdp, seen, rewards = EPISODES[episode]
    values = V0.copy()
    for step in range(len(rewards)):
        values[seen[step]] += 0.3 * (n_step_return(seen, rewards, values, step, n_step) - values[seen[step]])
    learnt = n_step_td(mdp, STAY, alpha=0.3, gamma=GAMMA, episodes=1, n_step=n_step, v0=V0)
    np.testing.assert_allclose(learnt.values, values, atol=1e-14)


@pytest.mark.parametrize("lambda_", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("episode", EPISODES)
def test_the_forward_view_is_the_mean_of_n_step_returns(episode: str, lambda_: float) -> None:
    mdp, seen, rewards = EPISODES[episode]
    targets = [lambda_return(seen, rewards, V0, t, len(rewards), lambda_) for t in range(len(rewards))]
    values = V0.copy()
    for state, target in zip(seen, targets, strict=False):
        values[state] += 0.3 * (target - values[state])
    learnt = offline_lambda_return(mdp, STAY, alpha=0.3, gamma=GAMMA, episodes=1, lambda_=lambda_, v0=V0)
    np.testing.assert_allclose(learnt.values, values, atol=1e-14)


@pytest.mark.parametrize("lambda_", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("episode", EPISODES)
def test_true_online_td_is_the_online_forward_view(episode: str, lambda_: float) -> None:
    """Section 12.4: at every step, all updates so far are done again from the beginning, with the longer horizon."""
    mdp, seen, rewards = EPISODES[episode]
    # the n-step return from t reads the values as they were at t + n - 1
    tables = [V0.copy()]
    for horizon in range(1, len(rewards) + 1):
        values = V0.copy()
        for step in range(horizon):
            most = horizon - step
            returns = [n_step_return(seen, rewards, tables[step + n - 1], step, n) for n in range(1, most + 1)]
            mixed = sum((1 - lambda_) * lambda_**n * one for n, one in enumerate(returns[:-1]))
            target = mixed + lambda_ ** (most - 1) * returns[-1]
            values[seen[step]] += 0.3 * (target - values[seen[step]])
        tables.append(values)
    learnt = true_online_td(mdp, STAY, alpha=0.3, gamma=GAMMA, episodes=1, lambda_=lambda_, v0=V0)
    np.testing.assert_allclose(learnt.values, tables[-1], atol=1e-14)


@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("lambda_", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("episode", EPISODES)
def test_traces_give_every_state_its_share(episode: str, lambda_: float, replacing: bool) -> None:
    mdp, seen, rewards = EPISODES[episode]
    values = V0.copy()
    for step, reward in enumerate(rewards):
        after = 0.0 if seen[step + 1] is None else values[seen[step + 1]]
        delta = reward + GAMMA * after - values[seen[step]]
        fades = [[(GAMMA * lambda_) ** (step - k) for k in range(step + 1) if seen[k] == s] for s in range(3)]
        traces = np.array([(fade[-1] if replacing else sum(fade)) if fade else 0.0 for fade in fades])
        values = values + 0.3 * delta * traces
    learnt = td_lambda(
        mdp, STAY, alpha=0.3, gamma=GAMMA, episodes=1, lambda_=lambda_, v0=V0, replacing=replacing
    )  # fmt: skip
    np.testing.assert_allclose(learnt.values, values, atol=1e-14)


@pytest.mark.parametrize("method", [td_lambda, true_online_td])
def test_lambda_0_is_td_zero(method: Callable[..., Prediction]) -> None:
    given = {"alpha": 0.2, "gamma": 0.95, "episodes": 50, "seed": 4, "v0": 0.5}
    learnt = method(FIVE, uniform(FIVE), lambda_=0.0, **given)
    np.testing.assert_allclose(learnt.values, td_zero(FIVE, uniform(FIVE), **given).values, atol=1e-14)


def test_n_steps_are_td_zero_and_monte_carlo_at_the_ends() -> None:
    given = {"alpha": 0.1, "gamma": 1.0, "episodes": 50, "seed": 4}
    policy = uniform(NINETEEN)
    one = n_step_td(NINETEEN, policy, n_step=1, **given)
    assert np.array_equal(one.values, td_zero(NINETEEN, policy, **given).values)
    # all returns of an episode of a walk are equal, so the order of updates makes no difference
    whole = n_step_td(NINETEEN, policy, n_step=100_000, **given)
    many = mc_prediction(NINETEEN, policy, every_visit=True, **given)
    forward = offline_lambda_return(NINETEEN, policy, lambda_=1.0, **given)
    np.testing.assert_allclose(whole.values, many.values, atol=1e-12)
    np.testing.assert_allclose(forward.values, many.values, atol=1e-12)


def test_first_and_every_visit_by_hand() -> None:
    """Round the circle for four steps, 1 - 2 + 4 + 1, undiscounted: returns 4, 3, 5, 1 from states 0, 1, 2, 0."""
    first = mc_prediction(circle(4), STAY, gamma=1.0, episodes=3)
    every = mc_prediction(circle(4), STAY, gamma=1.0, episodes=3, every_visit=True)
    np.testing.assert_allclose(first.values, [4, 3, 5], atol=1e-14)
    np.testing.assert_allclose(every.values, [2.5, 3, 5], atol=1e-14)
    assert (first.visits.tolist(), every.visits.tolist()) == ([3, 3, 3], [6, 3, 3])


@pytest.mark.parametrize("name", METHODS)
def test_values_come_near_the_solved_ones(name: str) -> None:
    """Frozen lake under a policy of chance; the mean of many runs, within four standard errors and its own bias."""
    mdp = TabularMDP.from_gymnasium("FrozenLake-v1")
    truth = evaluate(mdp, uniform(mdp), gamma=0.95)
    more = {} if name == "off_policy_mc" else {"alpha": lambda episode: 1 / (1 + 0.01 * episode) * 0.3}
    runs = np.array(
        [METHODS[name](mdp, uniform(mdp), gamma=0.95, episodes=10_000, seed=seed, **more).values for seed in range(20)]
    )
    error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert truth.max() > 0.2
    assert (np.abs(runs.mean(axis=0) - truth) <= 4 * error + 0.002).all()


def spread(policy: float, behaviour: float) -> tuple[TabularMDP, np.ndarray, np.ndarray]:
    """Two steps of left (reward 1) or right (reward 0), and how probable left is."""
    mdp = TabularMDP.from_dict(
        {
            "a": {"left": [(1.0, "b", 1.0, False)], "right": [(1.0, "b", 0.0, False)]},
            "b": {"left": [(1.0, "b", 1.0, True)], "right": [(1.0, "b", 0.0, True)]},
        },
        start={"a": 1.0},
    )
    return mdp, *(np.tile([p, 1 - p], (2, 1)) for p in (policy, behaviour))


@pytest.mark.parametrize("every_visit", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_another_policys_episodes_tell_the_policys_values(weighted: bool, every_visit: bool) -> None:
    mdp, policy, behaviour = spread(0.8, 0.3)
    runs = np.array(
        [
            off_policy_mc(
                mdp, policy, behaviour=behaviour, gamma=1.0, episodes=4_000, seed=seed, weighted=weighted,
                every_visit=every_visit,
            ).values
            for seed in range(200)
        ]
    )  # fmt: skip
    error = runs.std(axis=0, ddof=1) / np.sqrt(len(runs))
    assert (error < 0.005).all()
    assert (np.abs(runs.mean(axis=0) - [1.6, 0.8]) <= 4 * error).all()


def test_the_ordinary_estimate_is_a_mean_of_products_and_the_weighted_one_of_weights() -> None:
    """From b, the returns 1 and 0 have ratios 8/3 and 2/7; their numbers say both estimates exactly."""
    mdp, policy, behaviour = spread(0.8, 0.3)
    given = {"behaviour": behaviour, "gamma": 1.0, "episodes": 500, "seed": 7}
    lefts = off_policy_mc(mdp, behaviour, **given).values[1] * 500
    assert lefts == pytest.approx(round(lefts))
    ordinary = off_policy_mc(mdp, policy, weighted=False, **given).values[1]
    weighted = off_policy_mc(mdp, policy, **given).values[1]
    assert ordinary == pytest.approx(lefts * (8 / 3) / 500)
    assert weighted == pytest.approx(lefts * (8 / 3) / (lefts * (8 / 3) + (500 - lefts) * (2 / 7)))


def test_infinite_variance_of_the_ordinary_estimate() -> None:
    """Example 5.5: the weighted estimate is 1 from the first episode that went left to its end; the ordinary is not."""
    mdp = TabularMDP.from_dict({"s": {"left": [(0.9, "s", 0.0, False), (0.1, "s", 1.0, True)],
                                      "right": [(1.0, "s", 0.0, True)]}})  # fmt: skip
    given = {"behaviour": np.array([[0.5, 0.5]]), "gamma": 1.0, "episodes": 2_000, "history": True}
    for seed in range(5):
        weighted = off_policy_mc(mdp, np.array([0]), weighted=True, seed=seed, **given)
        assert weighted.history is not None
        first = int(np.argmax(weighted.history[:, 0] > 0))
        assert (weighted.history[:first, 0] == 0).all()
        np.testing.assert_allclose(weighted.history[first:, 0], 1, atol=1e-12)
    ends = np.array([off_policy_mc(mdp, np.array([0]), weighted=False, seed=seed, **given).values for seed in range(5)])
    assert (np.abs(ends - 1) > 0.01).any()


def rms(method: Callable[..., Prediction], mdp: TabularMDP, runs: int, **given: object) -> np.ndarray:
    """(runs, episodes + 1) errors."""
    policy = uniform(mdp)
    truth = evaluate(mdp, policy, gamma=1.0)
    return np.array(
        [method(mdp, policy, gamma=1.0, seed=seed, history=True, **given).rms_errors(truth) for seed in range(runs)]
    )


def assert_mean(samples: np.ndarray, expected: float | list[float], known_to: float) -> None:
    """Within four standard errors of what is expected, itself known to its last digit or standard error."""
    error = np.hypot(samples.std(axis=0, ddof=1) / np.sqrt(len(samples)), known_to)
    assert (np.abs(samples.mean(axis=0) - expected) <= 4 * error).all(), (samples.mean(axis=0), expected, error)


def test_figure_6_2_td_and_monte_carlo_on_the_walk_of_five() -> None:
    """RMS errors after 10, 50 and 100 episodes."""
    at = [10, 50, 100]
    td = rms(td_zero, FIVE, 4_000, alpha=0.1, episodes=100, v0=0.5)
    assert_mean(td[:, at], [0.1284, 0.0505, 0.0554], 0.0004)
    many = rms(mc_prediction, FIVE, 4_000, alpha=0.02, episodes=100, v0=0.5, every_visit=True)
    assert_mean(many[:, at], [0.1969, 0.1112, 0.0820], 0.0004)


@pytest.mark.parametrize(
    ("n_step", "alpha", "expected"), [(1, 0.8, 0.3448), (2, 0.6, 0.2761), (4, 0.4, 0.2630), (8, 0.25, 0.2759)]
)
def test_figure_7_2_minima(n_step: int, alpha: float, expected: float) -> None:
    """The mean over the first ten episodes; 0.0005 for what is left of the anchors' own chance."""
    errors = rms(n_step_td, NINETEEN, 4_000, alpha=alpha, episodes=10, n_step=n_step)
    assert_mean(errors[:, 1:].mean(axis=1), expected, 0.0005)


def test_figures_12_6_and_12_8_td_lambda_and_true_online() -> None:
    errors = rms(td_lambda, NINETEEN, 4_000, alpha=0.3, episodes=10, lambda_=0.8)
    assert_mean(errors[:, 1:].mean(axis=1), 0.2608, 0.0005)
    errors = rms(true_online_td, NINETEEN, 4_000, alpha=0.4, episodes=10, lambda_=0.8)
    assert_mean(errors[:, 1:].mean(axis=1), 0.2527, 0.0005)


@pytest.mark.parametrize("name", METHODS)
def test_the_history_begins_with_the_first_values_and_ends_with_the_last(name: str) -> None:
    given = {"gamma": 1.0, "episodes": 7, "seed": 2, "v0": 0.5}
    learnt = METHODS[name](FIVE, uniform(FIVE), history=True, **given)
    assert learnt.history is not None
    assert learnt.history.shape == (8, 5)
    assert (learnt.history[0] == 0.5).all()
    assert np.array_equal(learnt.history[-1], learnt.values)
    shorter = METHODS[name](FIVE, uniform(FIVE), **given | {"episodes": 4})
    assert shorter.history is None
    assert np.array_equal(shorter.values, learnt.history[4])
    assert learnt.visits.sum() >= learnt.lengths.size
    with pytest.raises(ValueError, match="need the history: predict with history=True"):
        shorter.rms_errors(np.zeros(5))
    with pytest.raises(ValueError, match=r"truth must be \(5,\), got \(4,\)"):
        learnt.rms_errors(np.zeros(4))


@pytest.mark.parametrize("name", METHODS)
def test_a_watched_run_is_the_same_run(name: str) -> None:
    told: list[tuple[int, int]] = []
    given = {"gamma": 1.0, "episodes": 450, "seed": 2, "history": True}
    watched = METHODS[name](
        FIVE, uniform(FIVE), progress=lambda done, episodes: told.append((done, episodes)), **given
    )  # fmt: skip
    alone = METHODS[name](FIVE, uniform(FIVE), **given)
    assert told[0] == (2, 450)
    assert told[-1] == (450, 450)
    assert len(told) == 225
    assert np.array_equal(watched.history, alone.history)
    assert np.array_equal(watched.returns, alone.returns)


def test_a_step_size_of_one_over_the_visits_is_a_mean() -> None:
    learnt = mc_prediction(FIVE, uniform(FIVE), alpha=PerVisit(), gamma=1.0, episodes=300, v0=9.0)
    ended_right = learnt.returns.mean()
    assert learnt.values[2] == pytest.approx(ended_right)


def test_a_process_that_starts_elsewhere() -> None:
    moved = replace(FIVE, start=np.eye(5)[4])
    assert td_zero(moved, np.ones(5, np.int64), alpha=1.0, gamma=1.0, episodes=1).values.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.1}, "gamma must be in 0 … 1, got 1.1"),
        ({"episodes": 0}, "episodes must be >= 1, got 0"),
        ({"v0": np.zeros(4)}, r"v0 must be a number or \(5,\), got \(4,\)"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_bad_numbers_are_refused(name: str, change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"gamma": 1.0, "episodes": 3}
    with pytest.raises(ValueError, match=message):
        METHODS[name](FIVE, uniform(FIVE), **given | change)


def test_what_single_methods_refuse() -> None:
    given = {"gamma": 1.0, "episodes": 3}
    with pytest.raises(ValueError, match="n_step must be >= 1, got 0"):
        n_step_td(FIVE, uniform(FIVE), alpha=0.1, n_step=0, **given)
    for method in (td_lambda, true_online_td, offline_lambda_return):
        with pytest.raises(ValueError, match=r"lambda_ must be in 0 … 1, got 1\.2"):
            method(FIVE, uniform(FIVE), alpha=0.1, lambda_=1.2, **given)
    for method in (td_lambda, true_online_td):
        with pytest.raises(ValueError, match="where one step updates all"):
            method(FIVE, uniform(FIVE), alpha=PerVisit(), lambda_=0.5, **given)
    with pytest.raises(ValueError, match="max_steps must be >= 1, got 0"):
        mc_prediction(FIVE, uniform(FIVE), max_steps=0, **given)
    with pytest.raises(ValueError, match=r"alpha must be in 0 … 1, got 2\.0 in episode 0"):
        td_zero(FIVE, uniform(FIVE), alpha=2.0, **given)
    with pytest.raises(ValueError, match="in state 0 it never takes 'right'"):
        off_policy_mc(FIVE, uniform(FIVE), behaviour=np.zeros(5, np.int64), **given)
