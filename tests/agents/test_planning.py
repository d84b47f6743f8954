"""Planning against the book's figures, closed forms and other solvers."""

from __future__ import annotations

import numpy as np
import pytest

from linocut.agents import (
    TabularMDP,
    evaluate,
    grid_world,
    iterate,
    mc_basic,
    policy_iteration,
    stationary_distribution,
    truncated_policy_iteration,
    value_iteration,
)

# Zhao, figures 5.4(h) and 7.4(b): optimal values, gamma 0.9, by (r_boundary, r_forbidden, r_target).
FIGURES = {
    (-1.0, -10.0, 1.0): """
        3.5 3.9 4.3 4.8 5.3
        3.1 3.5 4.8 5.3 5.9
        2.8 2.5 10  5.9 6.6
        2.5 10  10  10  7.3
        2.3 9   10  9   8.1""",
    (-1.0, -1.0, 1.0): """
        5.8 5.6 6.2 6.5 5.8
        6.5 7.2 8   7.2 6.5
        7.2 8   10  8   7.2
        8   10  10  10  8
        7.2 9   10  9   8.1""",
}
# Values of the first state, weighted by its distribution, gamma 0.99.
START_VALUES = {
    "FrozenLake-v1": 0.542026,
    "FrozenLake8x8-v1": 0.414640,
    "CliffWalking-v1": -12.247898,
    "Taxi-v4": 6.327464,
}


def table(text: str) -> np.ndarray:
    return np.array(text.split(), float).reshape(5, 5)


@pytest.fixture(params=FIGURES)
def rewards(request: pytest.FixtureRequest) -> tuple[float, float, float]:
    chosen: tuple[float, float, float] = request.param
    return chosen


def grid(rewards: tuple[float, float, float]) -> TabularMDP:
    return grid_world(r_boundary=rewards[0], r_forbidden=rewards[1], r_target=rewards[2])


def test_optimal_values_are_those_of_the_books_figures(rewards: tuple[float, float, float]) -> None:
    plan = value_iteration(grid(rewards), gamma=0.9)
    np.testing.assert_array_equal(plan.values.reshape(5, 5).round(1), table(FIGURES[rewards]))


def test_all_planners_agree(rewards: tuple[float, float, float]) -> None:
    mdp = grid(rewards)
    one = value_iteration(mdp, gamma=0.9, tolerance=1e-12)
    for plan in (
        policy_iteration(mdp, gamma=0.9),
        truncated_policy_iteration(mdp, gamma=0.9, evaluations=7, tolerance=1e-12),
    ):
        np.testing.assert_allclose(plan.values, one.values, atol=1e-9)
    np.testing.assert_allclose(evaluate(mdp, one.policy, gamma=0.9), one.values, atol=1e-9)
    np.testing.assert_allclose(iterate(mdp, one.policy, gamma=0.9, sweeps=400), one.values, atol=1e-9)


def test_errors_of_value_iteration_fall_by_gamma_at_least() -> None:
    errors = value_iteration(grid_world(), gamma=0.8).errors
    assert (errors[1:] <= 0.8 * errors[:-1] + 1e-12).all()


def test_sweeps_are_counted_and_bounded() -> None:
    plan = value_iteration(grid_world(), gamma=0.9, sweeps=3)
    assert plan.sweeps == plan.errors.size == 3
    # after three sweeps the target has seen three rewards of 1
    assert plan.values.reshape(5, 5)[3, 2] == pytest.approx(1 + 0.9 + 0.81)


@pytest.mark.parametrize(("name", "value"), START_VALUES.items())
def test_start_values_of_gymnasiums_worlds(name: str, value: float) -> None:
    mdp = TabularMDP.from_gymnasium(name)
    plan = value_iteration(mdp, gamma=0.99, tolerance=1e-12)
    assert plan.values @ mdp.start == pytest.approx(value, abs=5e-7)


def test_the_uniform_policy_has_the_values_of_figure_8_6_and_spends_its_time_evenly() -> None:
    uniform = np.full((25, 5), 0.2)
    values = evaluate(grid_world(), uniform, gamma=0.9).reshape(5, 5).round(1)
    np.testing.assert_array_equal(values[0], [-3.8, -3.8, -3.6, -3.1, -3.2])
    np.testing.assert_array_equal(values[4], [-4.5, -4.2, -3.4, -3.4, -3.5])
    np.testing.assert_allclose(stationary_distribution(grid_world(), uniform), 1 / 25, atol=1e-12)


def test_the_stationary_distribution_of_figure_8_5() -> None:
    """Zhao, example 8.1: four cells, epsilon-greedy (0.3) towards the target below right, moves off the grid stay."""
    transition = np.array([[0.3, 0.1, 0.6, 0], [0.1, 0.3, 0, 0.6], [0.1, 0, 0.3, 0.6], [0, 0.1, 0.1, 0.8]])
    chain = TabularMDP(
        transition[:, None, :], np.tile(np.arange(4), (4, 1, 1)), np.zeros((4, 1, 4)), np.zeros((4, 1, 4), bool)
    )
    distribution = stationary_distribution(chain, np.zeros(4, np.int64))
    np.testing.assert_array_equal(distribution.round(4), [0.0345, 0.1084, 0.1330, 0.7241])


@pytest.mark.parametrize(
    ("horizon", "value"), [(1, 1.0), (2, 1.9), (3, 2.7), (4, 3.4), (14, 7.7), (15, 7.9), (30, 9.6), (100, 10.0)]
)
def test_mc_basic_at_the_target_by_the_length_of_its_episodes(horizon: int, value: float) -> None:
    """Zhao, figure 5.4(a) to (h)."""
    plan = mc_basic(grid_world(r_forbidden=-10), gamma=0.9, horizon=horizon)
    assert plan.values.reshape(5, 5)[3, 2].round(1) == value


def test_mc_basic_reaches_the_optimum_with_long_episodes() -> None:
    mdp = grid_world(r_forbidden=-10)
    plan = mc_basic(mdp, gamma=0.9, horizon=400)
    np.testing.assert_allclose(plan.values, value_iteration(mdp, gamma=0.9).values, atol=1e-8)


def test_mc_basic_refuses_chance() -> None:
    with pytest.raises(ValueError, match="whose outcomes are certain"):
        mc_basic(TabularMDP.from_gymnasium("FrozenLake-v1"), gamma=0.9, horizon=3)


def test_the_down_bump_at_5_2_counts_twice_in_figures_5_6_and_5_7_and_once_in_8_6() -> None:
    """A slip of the book: leaving the grid from the forbidden cell (5, 2) pays for both in two figures."""
    down, place = 2, 4 * 5 + 1
    assert grid_world(r_forbidden=-10).expected_reward[place, down] == -1
    assert grid_world(r_forbidden=-10, boundary_adds_cell=True).expected_reward[place, down] == -11


def test_an_end_has_no_value_after_it() -> None:
    """One state that pays 2 and ends with probability 1/4: v = 2 + gamma 3/4 v."""
    mdp = TabularMDP.from_dict({"s": {"go": [(0.25, "s", 2.0, True), (0.75, "s", 2.0, False)]}})
    for gamma in (0.5, 1.0):
        expected = 2 / (1 - 0.75 * gamma)
        assert value_iteration(mdp, gamma=gamma, tolerance=1e-13).values[0] == pytest.approx(expected)
        assert policy_iteration(mdp, gamma=gamma).values[0] == pytest.approx(expected)
        assert evaluate(mdp, np.array([0]), gamma=gamma)[0] == pytest.approx(expected)
    np.testing.assert_allclose(stationary_distribution(mdp, np.array([0])), [1])


def test_an_illegal_action_is_never_chosen_nor_taken() -> None:
    mdp = TabularMDP.from_dict(
        {
            "a": {"left": [(1.0, "b", -5.0, False)]},
            "b": {"left": [(1.0, "b", 0.0, True)], "right": [(1.0, "a", 1.0, True)]},
        }
    )
    plan = value_iteration(mdp, gamma=0.9)
    assert plan.policy.tolist() == [0, 1]
    assert plan.q[0, 1] == -np.inf
    assert plan.values.tolist() == [-5 + 0.9, 1.0]
    with pytest.raises(ValueError, match="takes an action that is not legal in state 'a'"):
        evaluate(mdp, np.array([1, 0]), gamma=0.9)


@pytest.mark.parametrize("gamma", [-0.1, 1.5, float("nan")])
def test_discount_rates_out_of_range_are_refused(gamma: float) -> None:
    mdp = grid_world()
    for call in (value_iteration, policy_iteration):
        with pytest.raises(ValueError, match=f"gamma must be in 0 … 1, got {gamma}"):
            call(mdp, gamma=gamma)


def test_what_has_no_values_is_said() -> None:
    with pytest.raises(ValueError, match="some of its episodes never end"):
        evaluate(grid_world(), np.full(25, 4), gamma=1.0)
    with pytest.raises(ValueError, match="there is more than one distribution"):
        stationary_distribution(grid_world(), np.full(25, 4))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.zeros(24, np.int64), r"must be \(25,\) whole numbers or \(25, 5\) probabilities, got \(24,\) int64"),
        (np.full(25, 5), "actions must be 0 … 4, got 5 … 5"),
        (np.full((25, 5), 0.3), "sum to 1 in every state"),
    ],
)
def test_policies_that_are_refused(policy: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(grid_world(), policy, gamma=0.9)


def test_other_bad_numbers() -> None:
    mdp = grid_world()
    with pytest.raises(ValueError, match="evaluations must be >= 1, got 0"):
        truncated_policy_iteration(mdp, gamma=0.9, evaluations=0)
    with pytest.raises(ValueError, match="sweeps must be >= 0, got -1"):
        iterate(mdp, np.zeros(25, np.int64), gamma=0.9, sweeps=-1)
    with pytest.raises(ValueError, match=r"cells must lie in 1 … 5 × 1 … 5, got \(6, 1\)"):
        grid_world(target=(6, 1))
    with pytest.raises(ValueError, match=r"the target \(2, 2\) must not be forbidden"):
        grid_world(target=(2, 2))
