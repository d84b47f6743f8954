"""What the README tells a newcomer to type does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``photo.jpg`` and ``photos/``, in which the commands are run."""
    sample = Path(str(resources.files("linocut") / "samples" / "astronaut.jpg"))
    (tmp_path / "photos").mkdir()
    shutil.copy(sample, tmp_path / "photo.jpg")
    shutil.copy(sample, tmp_path / "photos" / "astronaut.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_lines_run(desk: Path) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert block is not None
    names: dict[str, object] = {}
    exec(block.group(1), names)  # noqa: S102 (the README's own lines)
    assert names["mask"].array.shape == (512, 512)  # type: ignore[attr-defined]
    assert len(names["everything"].masks) > 0  # type: ignore[attr-defined]


def test_the_shell_lines_run(desk: Path) -> None:
    lines = re.findall(r"^linocut (segment|everything) (.+)$", README, re.MULTILINE)
    assert {command for command, _ in lines} == {"segment", "everything"}
    for command, rest in lines:
        words = [sys.executable, "-m", "linocut", command, *rest.split()]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {"mask.png", "look.png", "cut"} <= {path.name for path in desk.iterdir()}
