"""The command line as a whole: its processes, help, errors and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import linocut
from cli.standins import Model, Ran, assert_refused, run
from linocut.cli.console import progress_bar, set_progress


class TestProcess:
    """Command lines in a process of their own."""

    def test_version(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "linocut", "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"linocut {linocut.__version__}\n"

    @pytest.mark.parametrize("command", [[], ["segment"], ["everything"], ["train"], ["eval"], ["demo"]])
    def test_help_imports_nothing_heavy(self, command: list[str]) -> None:
        code = (
            "import sys\n"
            "from linocut.cli import main\n"
            "try:\n    main()\n"
            "finally:\n"
            "    heavy = {'torch', 'cv2', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)\n"
            "    print('heavy:', sorted(heavy))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "heavy: []" in done.stdout

    def test_wrong_usage(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "linocut", "segment", tmp_path / "none.png", "-p", "1,1", "-o", "m.png"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert_refused(Ran(done.returncode, done.stdout, done.stderr), 2, "none.png does not exist")

    def test_a_broken_image(self, tmp_path: Path) -> None:
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
        given = ["segment", tmp_path / "broken.jpg", "-p", "1,1", "-o", tmp_path / "m.png"]
        command = [sys.executable, "-m", "linocut", *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert_refused(Ran(done.returncode, done.stdout, done.stderr), 1, "broken.jpg")
        assert not (tmp_path / "m.png").exists()


def test_help_names_the_commands_and_shows_examples() -> None:
    ran = run("--help")
    assert ran.code == 0
    for word in (
        "segment",
        "everything",
        "train",
        "eval",
        "demo",
        "Examples",
        "-o mask.png",
        "Exit codes",
        "130 stopped",
    ):
        assert word in ran.out


def test_no_command_shows_help_and_is_wrong_usage() -> None:
    ran = run()
    assert ran.code == 2
    assert "Usage" in ran.out


def test_an_unknown_command() -> None:
    assert_refused(run("segmet"), 2, "segmet", "segment")


def test_an_unknown_option(photo: Path) -> None:
    assert_refused(run("segment", photo, "--pint", "1,2"), 2, "--pint")


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(model: Model, photo: Path, tmp_path: Path, place: str) -> None:
    model.error = RuntimeError("the model broke")
    command = ["segment", photo, "-p", "8,8", "-o", tmp_path / "m.png"]
    plain = run(*command)
    assert_refused(plain, 1, "RuntimeError: the model broke", "--debug")
    ran = run("--debug", *command) if place == "before" else run(*command, "--debug")
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert ran.err.endswith(plain.err)


def test_a_step_of_minutes_has_a_time_left() -> None:
    now = 0.0
    with progress_bar("steps") as bar:
        bar.get_time = lambda: now
        task = bar.add_task("slow", total=10, completed=4)
        for done in (5, 6, 7):
            now += 120
            set_progress(bar, task, done, 10)
        assert bar.tasks[0].speed == pytest.approx(1 / 120), "what was done before does not count"
        assert bar.tasks[0].time_remaining == 360


@pytest.mark.parametrize("command", ["segment", "everything", "eval", "train"])
def test_a_name_that_no_file_system_takes(tmp_path: Path, command: str) -> None:
    name = tmp_path / ("n" * 300)
    options = {"segment": ["-p", "1,1", "-o", "m.png"], "everything": ["-o", "out"], "eval": [], "train": []}
    given = ["--data", name, "--out", "runs/a"] if command == "train" else [name, *options[command]]
    ran = run(command, *given)
    assert_refused(ran, 2)
