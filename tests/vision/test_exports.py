"""What `linocut.vision` offers by name loads when it is asked for."""

from __future__ import annotations

from importlib import import_module

import pytest

from linocut import vision


@pytest.mark.parametrize("name", vision.__all__)
def test_export_is_the_one_of_its_home(name: str) -> None:
    exported = getattr(vision, name)
    assert exported is getattr(import_module(vision._HOMES[name]), name)
    assert name in dir(vision)


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'receptive_feeld'; it exports .*receptive_field"):
        vision.receptive_feeld  # noqa: B018  # the attempt is the test
