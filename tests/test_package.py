"""The package as a whole: what it exports, what importing it costs, and which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import linocut

SOURCE = Path(linocut.__file__).parent
HEAVY = ("torch", "numpy", "cv2", "PIL", "tifffile", "typer", "rich", "matplotlib")

# Imports only ever point down. A room that is not listed here has not been thought about.
MAY_IMPORT = {
    "native": set(),
    "ops": {"native"},
    "mixers": {"ops"},
    "metrics": {"native"},
    "data": {"native"},
    "agents": {"data"},
    "vision": {"ops", "mixers", "metrics", "data", "native"},
    "engine": {"ops", "mixers", "metrics", "data", "native", "vision"},
    "cli": {"ops", "mixers", "metrics", "data", "native", "vision", "engine", "demo"},
    "demo": {"metrics", "data", "vision", "engine"},
    "__main__": {"cli"},
    "weights": set(),
    "samples": set(),
}


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def imported_rooms(path: Path) -> set[str]:
    """Rooms of linocut that a source file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "linocut":
            found |= {f"linocut.{alias.name}" for alias in node.names if alias.name not in linocut.__all__}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name.split(".")[1] for name in found if name.startswith("linocut.")}


def test_version_is_the_installed_one() -> None:
    assert linocut.__version__ == metadata.version("linocut")


def test_types_are_announced() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import linocut").intersection(HEAVY)


@pytest.mark.parametrize("room", ["linocut.data.rle", "linocut.data.polygons", "linocut.metrics"])
def test_rooms_of_arrays_load_no_torch(room: str) -> None:
    assert "torch" not in modules_after(f"import {room}")


@pytest.mark.parametrize("name", sorted(set(linocut.__all__) - {"__version__"}))
def test_export_loads_and_is_the_one_of_its_home(name: str) -> None:
    exported = getattr(linocut, name)
    # a table of functions does not know its home
    home = exported.__module__ if callable(exported) else linocut._HOMES[name]
    assert exported is getattr(import_module(home), name)


@pytest.mark.parametrize("room", linocut._ROOMS)
def test_a_room_is_an_attribute_that_loads_when_asked_for(room: str) -> None:
    code = f"import linocut; assert 'linocut.{room}' not in __import__('sys').modules; print(linocut.{room}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"linocut.{room}\n"


def test_an_op_is_found_through_its_room() -> None:
    code = "import linocut; print(linocut.ops.affine.__name__, hasattr(linocut.ops, 'afine'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "linocut.ops.affine False\n"


def test_dir_lists_what_would_load() -> None:
    assert {*linocut.__all__, *linocut._ROOMS} <= set(dir(linocut))


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; it exports .*load"):
        linocut.lode  # noqa: B018  # the attempt is the test


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    beyond = imported_rooms(path) - MAY_IMPORT[room] - {room}
    assert not beyond, f"{room} must not import {sorted(beyond)}"
