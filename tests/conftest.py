"""What every test shares: shapes and types are checked at run time, and examples are the same at every run."""

from __future__ import annotations

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before the first import of linocut. Not the command line, whose annotations are Typer's, nor linocut.native, which
# warns at its caller's line and so counts frames.
ROOMS = ("ops", "mixers", "metrics", "data", "vision", "engine")
install_import_hook([f"linocut.{room}" for room in ROOMS], "typecheck.check")

# A machine under load is not a fault, so no deadline; the same examples everywhere, so that a failure can be repeated.
settings.register_profile("linocut", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("linocut")


@pytest.fixture(params=["native", "reference"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the native core and without; where the core is not built both runs take the reference."""
    monkeypatch.setenv("LINOCUT_NATIVE", "1" if request.param == "native" else "0")
    return str(request.param)
