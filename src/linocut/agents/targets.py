r"""What a temporal-difference method moves its estimate towards: one formula, of which all methods are cases.

.. math::
    q(s_t, a_t) \leftarrow q(s_t, a_t) + \alpha_t \, [\bar q_t - q(s_t, a_t)], \qquad
    \bar q_t = r_{t+1} + \gamma \, b_{t+1}

| method | bootstrap :math:`b_{t+1}` |
| --- | --- |
| Sarsa | :math:`q(s_{t+1}, a_{t+1})` |
| Expected Sarsa | :math:`\sum_a \pi(a \mid s_{t+1})\, q(s_{t+1}, a)` |
| Q-learning | :math:`\max_a q(s_{t+1}, a)` |
| n-step Sarsa | the target of the next step, n deep |
| Monte Carlo | the return that followed |

An episode that *terminated* has no value after it, so b = 0; one that was *truncated* by a time limit goes on in
principle, so its last state is bootstrapped like any other.

Source: Zhao, *Mathematical Foundations of Reinforcement Learning*, 2025, section 7.5, table 7.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.agents.compiled import compiled


@compiled
def td_target(reward: float, gamma: float, bootstrap: float, terminated: bool) -> float:
    """Give r + γ b, or r where the episode terminated."""
    return reward if terminated else reward + gamma * bootstrap


@compiled
def sarsa_target(q: NDArray[np.float64], state: int, action: int) -> float:
    """The value of the action that is taken next."""
    return q[state, action]


@compiled
def q_learning_target(q: NDArray[np.float64], legal: NDArray[np.bool_], state: int) -> float:
    """The value of the best legal action."""
    best = -np.inf
    for action in range(q.shape[1]):
        if legal[state, action]:
            best = max(best, q[state, action])
    return best


@compiled
def expected_sarsa_target(q: NDArray[np.float64], legal: NDArray[np.bool_], state: int, epsilon: float) -> float:
    """The mean value under the ε-greedy policy: (1 − ε) max q + ε mean q."""
    best, total, count = -np.inf, 0.0, 0
    for action in range(q.shape[1]):
        if legal[state, action]:
            best = max(best, q[state, action])
            total += q[state, action]
            count += 1
    return (1 - epsilon) * best + epsilon * total / count
