"""Maps of a state, h ↦ A h + b, which is what a piece of a sequence is to a linear recurrence; and their composition.

Two adjoining pieces compose to A₂ A₁ and A₂ b₁ + b₂. That is associative, so pieces may be summarised side by side and
composed in any bracketing: the parallel scan of Blelloch (*Prefix Sums and Their Applications*, 1990).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Diagonal(NamedTuple):
    """A map that scales every entry of the state on its own.

    Attributes:
        decay: A's diagonal; broadcasts against the state.
        shift: b, in the state's shape.
    """

    decay: Tensor
    shift: Tensor

    def apply(self, state: Tensor) -> Tensor:
        """The state after the piece."""
        return self.decay * state + self.shift

    def then(self, second: Diagonal) -> Diagonal:
        """This piece, then another."""
        return Diagonal(second.decay * self.decay, second.decay * self.shift + second.shift)


class Matrix(NamedTuple):
    """A map that multiplies the state, (…, rows, columns), by a matrix from the left.

    Attributes:
        transition: A, (…, rows, rows).
        shift: b, in the state's shape.
    """

    transition: Tensor
    shift: Tensor

    def apply(self, state: Tensor) -> Tensor:
        """The state after the piece."""
        return self.transition @ state + self.shift

    def then(self, second: Matrix) -> Matrix:
        """This piece, then another."""
        return Matrix(second.transition @ self.transition, second.transition @ self.shift + second.shift)
