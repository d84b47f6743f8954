"""What learning gives back: the values, the policy, how every episode went, and what is needed to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.data.files import atomic_path


@dataclass(frozen=True, eq=False)
class Result:
    """A finished or stopped run of a control method.

    Attributes:
        algorithm: its name.
        q: (S, A) action values; −∞ where an action is not legal.
        values: (S,) state values under the greedy policy, max q.
        policy: (S,) the greedy action of each state.
        returns: (episodes,) sum of the rewards, not discounted, of each episode.
        lengths: (episodes,) steps of each episode.
        settings: what it was called with, as JSON can hold it.
        rng: state of the generator after the last episode.
        tables: further tables the method keeps (visits, a second q, traces), by name.
    """

    algorithm: str
    q: NDArray[np.float64]
    values: NDArray[np.float64]
    policy: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    settings: Mapping[str, Any] = field(repr=False)
    rng: NDArray[np.uint64] = field(repr=False)
    tables: Mapping[str, NDArray[Any]] = field(repr=False)

    @property
    def episodes(self) -> int:
        """How many were run."""
        return int(self.returns.size)

    @property
    def steps(self) -> int:
        """How many there were in all episodes."""
        return int(self.lengths.sum())

    def save(self, path: str | Path) -> None:
        """Write everything into one ``.npz`` file, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        arrays = {name: getattr(self, name) for name in ("q", "values", "policy", "returns", "lengths", "rng")}
        arrays |= {f"table {name}": table for name, table in self.tables.items()}
        text = json.dumps({"algorithm": self.algorithm, "settings": dict(self.settings)})
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, about=np.array(text), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                tables = {name[6:]: file[name] for name in file.files if name.startswith("table ")}
                names = ("q", "values", "policy", "returns", "lengths", "rng")
                arrays = {name: file[name] for name in names}
        except FileNotFoundError:
            raise
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a saved result: {error}") from error
        return cls(about["algorithm"], settings=about["settings"], tables=tables, **arrays)
