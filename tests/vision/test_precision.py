"""Which dtype is computed in."""

from __future__ import annotations

import pytest
import torch

from linocut.vision import precision
from linocut.vision.precision import fast_bfloat16, resolve


def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_DTYPE", "float32")
    assert resolve("bfloat16") == torch.bfloat16
    assert resolve("float32") == torch.float32
    assert resolve("auto") == torch.float32


@pytest.mark.parametrize("supported", ["_is_amx_tile_supported", "_is_avx512_bf16_supported", ""])
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, supported: str) -> None:
    monkeypatch.delenv("LINOCUT_DTYPE", raising=False)
    for probe in precision._PROBES:
        monkeypatch.setattr(torch.cpu, probe, lambda probe=probe: probe == supported, raising=False)
    assert fast_bfloat16() is bool(supported)
    assert resolve("auto") == (torch.bfloat16 if supported else torch.float32)


def test_a_torch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in precision._PROBES:
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert not fast_bfloat16()


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="dtype must be auto, float32 or bfloat16, got 'half'"):
        resolve("half")
    monkeypatch.setenv("LINOCUT_DTYPE", "half")
    with pytest.raises(ValueError, match="LINOCUT_DTYPE must be float32 or bfloat16, got 'half'"):
        resolve("auto")
