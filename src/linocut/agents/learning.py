"""The frame around every tabular control method: checks, schedules, chunks of episodes, going on, and the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.agents import random
from linocut.agents.compiled import run
from linocut.agents.mdp import TabularMDP
from linocut.agents.result import Result
from linocut.agents.schedules import PerVisit, Schedule, values

ReportProgress = Callable[[int, int], None]

_CHUNKS = 200
"""So many reports a long run gives."""


@dataclass(frozen=True)
class Learning:
    """What every control method is told; see there.

    Raises:
        ValueError: if gamma is not in 0 … 1, or there is no episode.
    """

    algorithm: str
    gamma: float
    alpha: Schedule | PerVisit
    epsilon: Schedule
    episodes: int
    seed: int
    q0: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        if self.episodes < 1:
            raise ValueError(f"episodes must be >= 1, got {self.episodes}")

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON can hold it: schedules by their names."""
        plain: dict[str, Any] = {"gamma": self.gamma, "seed": self.seed, "q0": self.q0, **self.extra}
        for name in ("alpha", "epsilon"):
            value = getattr(self, name)
            plain[name] = value if isinstance(value, (int, float)) else repr(value)
        return plain


def check_gamma(gamma: float) -> None:
    """Refuse a discount rate outside 0 … 1.

    Raises:
        ValueError: with its value.
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in 0 … 1, got {gamma}")


def learn(
    loop: Callable[..., None],
    mdp: TabularMDP,
    learning: Learning,
    *,
    tables: dict[str, NDArray[Any]] | None = None,
    arguments: tuple[Any, ...] = (),
    progress: ReportProgress | None = None,
    resume: Result | None = None,
) -> Result:
    """Run a loop over episodes.

    Args:
        loop: called as ``loop(tables, q, visits, *further tables, alpha, power, epsilon, gamma, rng, returns, lengths,
            *arguments)``; ``alpha``, ``epsilon``, ``returns`` and ``lengths`` hold one entry for each episode to run.
        mdp: the process.
        learning: how.
        tables: what the loop keeps besides q and visits, as it is before the first episode.
        arguments: what else the loop takes.
        progress: called with episodes done and all of them.
        resume: an earlier run to go on from, up to ``learning.episodes`` in all; as if it had not been interrupted.

    Raises:
        ValueError: if the earlier run is of another method or another process, or a schedule leaves 0 … 1.
    """
    kept, done = _begin(mdp, learning, tables or {}, resume)
    returns = np.concatenate([kept.pop("returns"), np.zeros(learning.episodes - done)])
    lengths = np.concatenate([kept.pop("lengths"), np.zeros(learning.episodes - done, np.int64)])
    rng = kept.pop("rng")
    power, schedule = _step_size(learning.alpha)
    chunk = learning.episodes if progress is None else max(1, learning.episodes // _CHUNKS)
    while done < learning.episodes:
        count = min(chunk, learning.episodes - done)
        part = slice(done, done + count)
        alpha = values(schedule, done, count, name="alpha")
        epsilon = values(learning.epsilon, done, count, name="epsilon")
        run(
            loop, mdp.tables, *kept.values(), alpha, power, epsilon, float(learning.gamma), rng, returns[part],
            lengths[part], *arguments,
        )  # fmt: skip
        done += count
        if progress:
            progress(done, learning.episodes)
    return _finish(mdp, learning, kept, returns, lengths, rng)


def _begin(
    mdp: TabularMDP, learning: Learning, tables: dict[str, NDArray[Any]], resume: Result | None
) -> tuple[dict[str, NDArray[Any]], int]:
    """The tables a run starts with, copies, and how many episodes lie behind it."""
    size = mdp.n_states, mdp.n_actions
    if resume is None:
        q = np.full(size, learning.q0, np.float64)
        fresh = {"q": q, "visits": np.zeros(size, np.int64), **{name: table.copy() for name, table in tables.items()}}
        history = {"returns": np.zeros(0), "lengths": np.zeros(0, np.int64), "rng": random.generator(learning.seed)}
        return {**fresh, **history}, 0
    if resume.algorithm != learning.algorithm or resume.q.shape != size:
        raise ValueError(
            f"cannot go on with {learning.algorithm} on {size} states and actions from a run of {resume.algorithm} on "
            f"{resume.q.shape}"
        )
    if resume.episodes > learning.episodes:
        raise ValueError(f"cannot go on to episode {learning.episodes} from a run of {resume.episodes}")
    names = ("q", "visits", *tables)
    going = {name: (resume.q if name == "q" else resume.tables[name]).copy() for name in names}
    history = {name: getattr(resume, name).copy() for name in ("returns", "lengths", "rng")}
    return {**going, **history}, resume.episodes


def _step_size(alpha: Schedule | PerVisit) -> tuple[float, Schedule]:
    """The power of 1 / N, 0 for none, and what multiplies it."""
    return (alpha.power, alpha.scale) if isinstance(alpha, PerVisit) else (0.0, alpha)


def _finish(
    mdp: TabularMDP,
    learning: Learning,
    kept: dict[str, NDArray[Any]],
    returns: NDArray[np.float64],
    lengths: NDArray[np.int64],
    rng: NDArray[np.uint64],
) -> Result:
    tables = {name: table for name, table in kept.items() if name != "q"}
    q = np.where(np.asarray(mdp.legal), kept["q"], -np.inf)
    return Result(
        learning.algorithm, q, q.max(axis=1), mdp.policy_of(q), returns, lengths, learning.settings, rng, tables
    )
