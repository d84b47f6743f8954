"""Names of classes in all the forms in which they are written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linocut.data.classes import Classes, read_classes

NAMES = {0: "sky", 1: "road"}


def read(folder: Path, content: Any) -> Classes:
    path = folder / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_classes(path)


@pytest.mark.parametrize(
    "content",
    [
        ["sky", "road"],
        {"0": "sky", "1": "road"},
        {"sky": 0, "road": 1},
        {"classes": ["sky", "road"]},
        {"categories": [{"id": 1, "name": "road"}, {"id": 0, "name": "sky"}]},
        [{"name": "sky"}, {"name": "road"}],
        '﻿["sky", "road"]',
    ],
    ids=str,
)
def test_every_form(tmp_path: Path, content: Any) -> None:
    classes = read(tmp_path, content)
    assert (classes.names, classes.count, classes.ignore) == (NAMES, 2, None)


def test_a_pack_says_what_is_void(tmp_path: Path) -> None:
    assert read(tmp_path, {"classes": {"0": "sky", "1": "road"}, "void": 11}) == Classes(NAMES, {}, 11)
    assert read(tmp_path, {"classes": ["sky", "road", "void"], "ignore": 2}) == Classes(NAMES, {}, 2)


def test_a_class_may_be_called_void(tmp_path: Path) -> None:
    assert read(tmp_path, {"sky": 0, "void": 1}) == Classes({0: "sky", 1: "void"})


def test_colours_and_background(tmp_path: Path) -> None:
    classes = read(tmp_path, [{"name": "Background", "color": "#0a0b0c"}, {"name": "cup", "colour": [1, 2, 3]}])
    assert classes.colours == {0: (10, 11, 12), 1: (1, 2, 3)}
    assert classes.background == 0
    assert Classes(NAMES).background is None


def test_gaps_count(tmp_path: Path) -> None:
    assert read(tmp_path, {"7": "road", "3": "sky"}).count == 8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as classes"),
        (3, 'it must be \\["sky"'),
        ({}, 'it must be \\["sky"'),
        ([], "it names no class"),
        ({"a": "b"}, "it must be"),
        (["sky", ""], "must have a name"),
        ({"0": "sky", "00": "road"}, "label 0 has two names, 'sky' and 'road'"),
        ({"0": "sky", "99999": "road"}, "labels must be 0 … 65534, got 99999"),
        ([{"id": -1, "name": "sky"}], "got -1"),
        ({"classes": ["sky"], "void": "x"}, "void must be one label"),
        ([{"name": "sky", "color": [1, 2]}], "a colour must be"),
    ],
)
def test_bad_input(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_classes(tmp_path / "none.json")
