"""What the tests of the kernels share: the compiled module, all its instruction sets, and what to ask without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from linocut import native

KERNELS = native.kernels()
ISAS = [] if KERNELS is None else KERNELS.isas()


@pytest.fixture
def kernels() -> Any:
    """The compiled module, for what is said of it alone; where there is none, the test is skipped."""
    if KERNELS is None:
        pytest.skip("the kernels are not built here")
    return KERNELS


@pytest.fixture(params=ISAS or ["absent"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with each build of the kernels that this machine runs; without a core, with the reference."""
    if KERNELS is None:
        yield "absent"
        return
    before = KERNELS.isa()
    KERNELS.use_isa(request.param)
    yield str(request.param)
    KERNELS.use_isa(before)


@pytest.fixture
def randn() -> Callable[..., Tensor]:
    """Standard normal tensors, the same at every run; in double precision, then cast."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw
