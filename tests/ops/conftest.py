"""What the tests of the kernels share: all instruction sets of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from linocut import native

HAS_KERNELS = find_spec("linocut._kernels") is not None
ISAS = native.kernels().isas() if HAS_KERNELS else []


@pytest.fixture(params=ISAS or ["absent"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with each build of the kernels that this machine runs; without a core, with the reference."""
    kernels = native.kernels()
    if kernels is None:
        yield "absent"
        return
    before = kernels.isa()
    kernels.use_isa(request.param)
    yield str(request.param)
    kernels.use_isa(before)


@pytest.fixture
def randn() -> Callable[..., Tensor]:
    """Standard normal tensors, the same at every run; in double precision, then cast."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw
