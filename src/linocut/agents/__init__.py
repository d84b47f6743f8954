"""Reinforcement learning: decision processes as tables, planning, Monte Carlo, temporal difference, approximation.

Every algorithm is a loop a student can read; the loops are compiled with Numba where it is installed and give the same
numbers, to the last bit, where it is not. What is named here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "cards": ("blackjack",),
    "control": ("expected_sarsa", "q_learning", "sarsa"),
    "double": ("double_q_learning",),
    "environment": ("TabularEnv",),
    "estimation": (
        "Estimate",
        "StepSizes",
        "incremental_mean",
        "robbins_monro",
        "sample_mean",
        "stochastic_gradient_descent",
    ),
    "grids": ("grid_world",),
    "importance": ("mc_prediction", "off_policy_mc"),
    "lambda_returns": ("offline_lambda_return", "td_lambda", "true_online_td"),
    "mdp": ("TabularMDP",),
    "monte_carlo": ("mc_basic", "mc_epsilon_greedy", "mc_exploring_starts"),
    "n_step": ("n_step_sarsa",),
    "planning": (
        "Plan",
        "evaluate",
        "iterate",
        "policy_iteration",
        "stationary_distribution",
        "truncated_policy_iteration",
        "value_iteration",
    ),
    "prediction": ("Prediction",),
    "result": ("Result",),
    "td": ("n_step_td", "td_zero"),
    "traces": ("sarsa_lambda",),
    "schedules": ("PerVisit", "exponential", "harmonic", "linear"),
    "worlds": ("estimate_mdp", "random_walk", "windy_grid"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
