"""Every example in a docstring runs, and prints what it says."""

from __future__ import annotations

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

import linocut

SOURCE = Path(linocut.__file__).parent


def examples() -> dict[str, tuple[str, str]]:
    """Docstrings with examples: by module and name, the module and the docstring.

    They are read from the source, because doctest passes over functions that are wrapped, as all are in these tests.
    """
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(("linocut", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                if ">>>" in text:
                    found[f"{module}.{getattr(node, 'name', '')}".rstrip(".")] = (module, text)
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, text = EXAMPLES[name]
    test = doctest.DocTestParser().get_doctest(text, dict(vars(import_module(module))), name, None, None)
    assert all(not example.options for example in test.examples), "an example that is left out shows nothing"
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)


def test_what_a_newcomer_meets_first_has_an_example() -> None:
    # a version has none, and a table of functions has theirs
    homes = {name: getattr(linocut, name).__module__ for name in linocut.__all__ if callable(getattr(linocut, name))}
    assert {f"{home}.{name}" for name, home in homes.items()} <= set(EXAMPLES)
