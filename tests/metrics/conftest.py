"""Counting runs without the native core, and with it once for each instruction set that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from linocut import native

CORE = native.core()
ISAS = [] if CORE is None else CORE.isas()


@pytest.fixture(params=["reference", *ISAS])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Count in NumPy, or in the native core as built for one instruction set."""
    monkeypatch.setenv("LINOCUT_NATIVE", "0" if request.param == "reference" else "1")
    if CORE is None or request.param == "reference":
        yield request.param
        return
    before = CORE.isa()
    CORE.use_isa(request.param)
    yield request.param
    CORE.use_isa(before)
