"""Names and colours of classes, from the JSON that label tools and data sets write.

All of these are read:

================================================ ===========================================
form                                             where it is met
================================================ ===========================================
``["sky", "road"]``                              lists of names; the first is class 0
``{"0": "sky", "1": "road"}``                    number to name
``{"sky": 0, "road": 1}``                        name to number
``[{"id": 0, "name": "sky", "color": [0,0,9]}]`` lists of records, as of COCO and Cityscapes
``{"classes": one of these, "void": 11}``        packs; ``"categories"`` is COCO's word
================================================ ===========================================

A record's colour is ``[r, g, b]`` or ``"#rrggbb"``, under ``color`` or ``colour``. ``void`` or ``ignore`` is the label
of pixels that do not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Colour = tuple[int, int, int]

_LARGEST = 65_534
_BACKGROUND = ("background", "bg", "_background_", "none", "null", "other")


@dataclass(frozen=True)
class Classes:
    """What the labels of a data set mean.

    Attributes:
        names: by label.
        colours: red, green, blue by label, of those that have one.
        ignore: the label of pixels that do not count, or None.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, Colour] = field(default_factory=dict)
    ignore: int | None = None

    @property
    def count(self) -> int:
        """How many classes there are: one more than the largest label."""
        return max(self.names, default=-1) + 1

    @property
    def background(self) -> int | None:
        """The label of the class that is called background, none or the like; None where there is no such class."""
        return next((label for label, name in self.names.items() if name.lower() in _BACKGROUND), None)


def read_classes(path: str | Path) -> Classes:
    """Read names and colours in any of the forms above.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON, or none of the forms; the message says what it has to be.

    Example:
        >>> _ = Path("classes.json").write_text('{"classes": {"0": "sky", "1": "road"}, "void": 255}')
        >>> read_classes("classes.json")
        Classes(names={0: 'sky', 1: 'road'}, colours={}, ignore=255)
    """
    file = Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        return _classes(content)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read as classes: {error}") from error


def _classes(content: Any) -> Classes:
    """The classes of a file's content.

    Raises:
        ValueError: if it is none of the forms.
    """
    ignore = None
    if isinstance(content, dict):
        # a data set with a class called "void" has a number there too, so these count only beside the classes
        wrapped = next((content[key] for key in ("classes", "categories") if key in content), None)
        if wrapped is not None:
            ignore = next((content[key] for key in ("void", "ignore") if content.get(key) is not None), None)
            content = wrapped
    if ignore is not None and (type(ignore) is not int or ignore < 0):
        raise ValueError(f"void must be one label, a whole number >= 0, got {ignore!r}")
    entries = _entries(content)
    names: dict[int, str] = {}
    colours: dict[int, Colour] = {}
    for label, what in entries:
        if not 0 <= label <= _LARGEST:
            raise ValueError(f"labels must be 0 … {_LARGEST}, got {label}")
        if label in names:
            raise ValueError(f"label {label} has two names, {names[label]!r} and {_name(what)!r}")
        names[label] = _name(what)
        colour = what.get("color", what.get("colour")) if isinstance(what, dict) else None
        if colour is not None:
            colours[label] = _colour(colour)
    if ignore in names:
        names.pop(ignore)
    if not names:
        raise ValueError("it names no class")
    return Classes(names, colours, ignore)


def _entries(content: Any) -> list[tuple[int, Any]]:
    """Pairs of a label and what is said of it."""
    if isinstance(content, list):
        numbered = [
            (entry["id"], entry) for entry in content if isinstance(entry, dict) and type(entry.get("id")) is int
        ]
        return numbered if len(numbered) == len(content) else list(enumerate(content))
    if isinstance(content, dict) and content:
        if all(re.fullmatch(r"\d{1,5}", key) for key in content):
            return [(int(key), what) for key, what in content.items()]
        if all(type(what) is int for what in content.values()):
            return [(label, name) for name, label in content.items()]
    raise ValueError('it must be ["sky", "road"], {"0": "sky", "1": "road"}, or {"classes": one of these, "void": 255}')


def _name(what: Any) -> str:
    """The name in an entry."""
    name = what.get("name") if isinstance(what, dict) else what
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a class must have a name, got {what!r:.60}")
    return name.strip()


def _colour(value: Any) -> Colour:
    """A colour as three numbers."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        red, green, blue = bytes.fromhex(value[1:])
        return red, green, blue
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    raise ValueError(f'a colour must be [red, green, blue], each 0 … 255, or "#rrggbb", got {value!r:.60}')
