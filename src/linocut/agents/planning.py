r"""Dynamic programming: values and policies worked out from the model, the ground truth that learning is held against.

Symbols: P_π, r_π transition matrix and expected reward under a policy π; γ discount rate; v_π its state values, the one
solution of v = r_π + γ P_π v. Ends of episodes are in P: what terminates does not go on, so rows may sum to less.

Sources: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, chapters 2 to 4; Sutton & Barto, 2nd ed.,
2018, chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from linocut.agents.learning import check_gamma
from linocut.agents.mdp import TabularMDP

Policy = NDArray[np.int64] | NDArray[np.float64]
"""(S,) actions, or (S, A) probabilities of actions."""

_MOST = 1_000_000


@dataclass(frozen=True, eq=False)
class Plan:
    """Optimal or evaluated values, and how they were come by.

    Attributes:
        values: (S,) state values.
        q: (S, A) action values, −∞ where an action is not legal.
        policy: (S,) the greedy policy of ``q``.
        sweeps: how many there were over all states.
        errors: (sweeps,) the largest change of a value in each.
    """

    values: Float[NDArray[np.float64], " states"]
    q: Float[NDArray[np.float64], "states actions"]
    policy: Int[NDArray[np.int64], " states"]
    sweeps: int
    errors: NDArray[np.float64] = field(repr=False)


def action_values(
    mdp: TabularMDP, values: Float[NDArray[np.float64], " states"], *, gamma: float
) -> Float[NDArray[np.float64], "states actions"]:
    """q(s, a) = r(s, a) + γ Σ p(s′ | s, a) v(s′), −∞ where an action is not legal."""
    check_gamma(gamma)
    return np.where(np.asarray(mdp.legal), mdp.expected_reward + gamma * mdp.transition @ values, -np.inf)


def value_iteration(
    mdp: TabularMDP,
    *,
    gamma: float,
    tolerance: float = 1e-10,
    sweeps: int | None = None,
    v0: Float[NDArray[np.float64], " states"] | None = None,
) -> Plan:
    """Value iteration: v ← max_a [r(s, a) + γ Σ p(s′ | s, a) v(s′)] until it stands still.

    The error left is at most γ / (1 − γ) times the last change.

    Args:
        mdp: the process.
        gamma: discount rate in 0 … 1; with 1 every policy's episodes must end.
        tolerance: stop when no value changes by more.
        sweeps: stop after so many in any case; None goes on until the tolerance is met.
        v0: values to begin with, zeros by default.

    Raises:
        ValueError: if a number is out of range, or the values have not settled after a million sweeps.

    Example:
        >>> from linocut.agents import grid_world
        >>> value_iteration(grid_world(), gamma=0.9).values.reshape(5, 5)[0].round(1).tolist()
        [5.8, 5.6, 6.2, 6.5, 5.8]

    Source: Zhao, algorithm 4.1.
    """
    return _sweep(mdp, gamma, tolerance, sweeps, v0, evaluations=1)


def truncated_policy_iteration(
    mdp: TabularMDP,
    *,
    gamma: float,
    evaluations: int,
    tolerance: float = 1e-10,
    sweeps: int | None = None,
    v0: Float[NDArray[np.float64], " states"] | None = None,
) -> Plan:
    """Truncated policy iteration: improve the policy, then so many sweeps that evaluate it; 1 is value iteration.

    Arguments and errors are those of :func:`value_iteration`; ``evaluations`` >= 1. Source: Zhao, algorithm 4.3.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations must be >= 1, got {evaluations}")
    return _sweep(mdp, gamma, tolerance, sweeps, v0, evaluations=evaluations)


def _sweep(
    mdp: TabularMDP,
    gamma: float,
    tolerance: float,
    sweeps: int | None,
    v0: NDArray[np.float64] | None,
    *,
    evaluations: int,
) -> Plan:
    """Improve and evaluate in turn until an improvement changes no value by more than the tolerance."""
    check_gamma(gamma)
    values = np.zeros(mdp.n_states) if v0 is None else np.array(v0, np.float64)
    errors: list[float] = []
    most = _MOST if sweeps is None else sweeps
    while len(errors) < most:
        q = action_values(mdp, values, gamma=gamma)
        policy = mdp.policy_of(q)
        better = q.max(axis=1)
        errors.append(float(np.abs(better - values).max()))
        values = better
        if errors[-1] <= tolerance:
            break
        if evaluations > 1:
            transition, reward = _under(mdp, policy)
            for _ in range(min(evaluations - 1, most - len(errors))):
                after = reward + gamma * transition @ values
                errors.append(float(np.abs(after - values).max()))
                values = after
    else:
        if sweeps is None:
            raise ValueError(
                f"values had not settled after {_MOST} sweeps (last change {errors[-1]:.3g}); with gamma {gamma} every "
                "policy's episodes must end"
            )
    q = action_values(mdp, values, gamma=gamma)
    return Plan(values, q, mdp.policy_of(q), len(errors), np.array(errors))


def policy_iteration(mdp: TabularMDP, *, gamma: float, policy: NDArray[np.int64] | None = None) -> Plan:
    """Policy iteration: evaluate exactly, improve, until the policy stands still; it does after finitely many rounds.

    Args:
        mdp: the process.
        gamma: discount rate in 0 … 1; with 1 the policies' episodes must end.
        policy: (S,) actions to begin with; the first legal ones by default.

    Raises:
        ValueError: if a number is out of range, an action is not legal, or a policy's values do not exist.

    Source: Zhao, algorithm 4.2.
    """
    check_gamma(gamma)
    chosen = np.asarray(mdp.legal).argmax(axis=1) if policy is None else np.array(policy, np.int64)
    errors: list[float] = []
    values = np.zeros(mdp.n_states)
    while True:
        before, values = values, evaluate(mdp, chosen, gamma=gamma)
        errors.append(float(np.abs(values - before).max()))
        q = action_values(mdp, values, gamma=gamma)
        # keep an action that is as good as any, to rounding: else two policies of one value take turns for ever
        kept = q[np.arange(mdp.n_states), chosen] >= q.max(axis=1) - 1e-9 * np.maximum(1.0, np.abs(q.max(axis=1)))
        better = np.where(kept, chosen, mdp.policy_of(q))
        if np.array_equal(better, chosen):
            return Plan(values, q, mdp.policy_of(q), len(errors), np.array(errors))
        chosen = better


def evaluate(mdp: TabularMDP, policy: Policy, *, gamma: float) -> Float[NDArray[np.float64], " states"]:
    """The values of a policy, solved for: v = (I − γ P_π)⁻¹ r_π.

    Args:
        mdp: the process.
        policy: (S,) actions or (S, A) probabilities.
        gamma: discount rate in 0 … 1.

    Raises:
        ValueError: if the policy does not fit, takes an action that is not legal, or its values do not exist (γ = 1 and
            episodes that do not end).

    Source: Zhao, section 2.7.1.
    """
    check_gamma(gamma)
    transition, reward = _under(mdp, policy)
    try:
        solved = np.linalg.solve(np.eye(mdp.n_states) - gamma * transition, reward)
    except np.linalg.LinAlgError as error:
        raise ValueError(f"with gamma {gamma} this policy has no values: some of its episodes never end") from error
    return np.asarray(solved, np.float64)


def iterate(
    mdp: TabularMDP,
    policy: Policy,
    *,
    gamma: float,
    sweeps: int,
    v0: Float[NDArray[np.float64], " states"] | None = None,
) -> Float[NDArray[np.float64], " states"]:
    """The values of a policy after so many sweeps of v ← r_π + γ P_π v; takes and raises what :func:`evaluate` does.

    Source: Zhao, section 2.7.2.
    """
    check_gamma(gamma)
    if sweeps < 0:
        raise ValueError(f"sweeps must be >= 0, got {sweeps}")
    transition, reward = _under(mdp, policy)
    values = np.zeros(mdp.n_states) if v0 is None else np.array(v0, np.float64)
    for _ in range(sweeps):
        values = reward + gamma * transition @ values
    return values


def stationary_distribution(mdp: TabularMDP, policy: Policy) -> Float[NDArray[np.float64], " states"]:
    """How much of a long time is spent in each state under a policy: the d with dᵀ P_π = dᵀ, Σ d = 1.

    An episode that ends begins again with a first state.

    Raises:
        ValueError: if the policy does not fit, or there is more than one such distribution.

    Source: Zhao, box 8.1.
    """
    transition, _ = _under(mdp, policy)
    ending = 1 - transition.sum(axis=1)
    chain = transition + np.outer(ending, np.asarray(mdp.start))
    system = np.vstack([chain.T - np.eye(mdp.n_states), np.ones(mdp.n_states)])
    if np.linalg.matrix_rank(system) < mdp.n_states:
        raise ValueError("under this policy some states never reach others, so there is more than one distribution")
    right = np.append(np.zeros(mdp.n_states), 1.0)
    return np.asarray(np.linalg.lstsq(system, right, rcond=None)[0].clip(0), np.float64)


def probabilities(mdp: TabularMDP, policy: Policy) -> Float[NDArray[np.float64], "states actions"]:
    """A policy as probabilities.

    Raises:
        ValueError: if its shape does not fit, it is no distribution, or it takes an action that is not legal.
    """
    given, size = np.asarray(policy), (mdp.n_states, mdp.n_actions)
    if given.shape == size[:1] and np.issubdtype(given.dtype, np.integer):
        if given.size and not (given.min() >= 0 and given.max() < mdp.n_actions):
            raise ValueError(f"actions must be 0 … {mdp.n_actions - 1}, got {given.min()} … {given.max()}")
        table = np.eye(mdp.n_actions)[given]
    elif given.shape == size and np.issubdtype(given.dtype, np.floating):
        table = given.astype(np.float64)
    else:
        raise ValueError(
            f"a policy must be {size[:1]} whole numbers or {size} probabilities, got {given.shape} {given.dtype}"
        )
    if (table < 0).any() or not np.allclose(table.sum(axis=1), 1, atol=1e-8):
        raise ValueError("probabilities of a policy must be >= 0 and sum to 1 in every state")
    if (table[~np.asarray(mdp.legal)] > 0).any():
        state = mdp.state_names[int(((table > 0) & ~np.asarray(mdp.legal)).any(axis=1).argmax())]
        raise ValueError(f"the policy takes an action that is not legal in state {state!r}")
    return table


def _under(mdp: TabularMDP, policy: Policy) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P_π and r_π."""
    table = probabilities(mdp, policy)
    transition = np.einsum("sa,sat->st", table, mdp.transition)
    return transition, (table * np.where(table > 0, mdp.expected_reward, 0.0)).sum(axis=1)
