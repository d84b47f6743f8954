"""The way to the native core: there, switched off, absent, or built from other sources."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from linocut import native


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test meets the core for the first time, and leaves no trace of what it pretended."""
    monkeypatch.delenv("LINOCUT_NATIVE", raising=False)
    caches = (native._load, native._say_off)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


PROMISED = {name for name in vars(native.Core) if not name.startswith("_")} | set(native.Core.__annotations__)


def stand_in(interface: int) -> SimpleNamespace:
    """A module with all the names of the core and an interface of one's choice."""
    return SimpleNamespace(**{**dict.fromkeys(PROMISED, print), "interface": interface})


def pretend(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """Let the import of the extension give ``module``, or raise it."""

    def load(name: str) -> object:
        assert name == "linocut._native"
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(native, "import_module", load)


def test_core_is_given_exactly_where_it_was_built() -> None:
    assert (native.core() is None) == (find_spec("linocut._native") is None)


def test_core_has_what_its_protocol_promises() -> None:
    assert {"interface", "mask_to_counts"} <= PROMISED
    core = native.core()
    assert core is None or set(dir(core)) >= PROMISED


def test_switched_off_gives_none_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LINOCUT_NATIVE", "0")
    with caplog.at_level(logging.INFO, logger="linocut.native"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.core() is None
        assert native.core() is None
    assert [record.getMessage() for record in caplog.records] == [
        "LINOCUT_NATIVE=0: the native core is switched off, the reference forms are used"
    ]


def test_switch_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in(native._INTERFACES["linocut._native"])
    pretend(monkeypatch, module)
    assert native.core() is module
    monkeypatch.setenv("LINOCUT_NATIVE", "0")
    assert native.core() is None
    monkeypatch.setenv("LINOCUT_NATIVE", "1")
    assert native.core() is module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (ImportError("no such file"), r"not built, or does not load here \(no such file\)"),
        (stand_in(-1), r"built from other sources \(interface -1, expected \d+\)"),
    ],
)
def test_unusable_core_warns_once(monkeypatch: pytest.MonkeyPatch, module: object, reason: str) -> None:
    pretend(monkeypatch, module)
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        answers = [native.core() for _ in range(2)]
    assert answers == [None, None]
    assert len(caught) == 1
    assert "LINOCUT_NATIVE=0" in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning must point at the caller"


@pytest.mark.parametrize("value", ["", "no", "2"])
def test_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LINOCUT_NATIVE", value)
    with pytest.raises(ValueError, match=r"LINOCUT_NATIVE must be 0 .* or 1"):
        native.core()
