"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from linocut.data.files import atomic_path, check_folder, write_atomic


class InterruptedWritingError(Exception):
    """Stands for whatever stops a writer."""


def start_writing(target: Path, error: type[BaseException]) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise error


def test_success_writes_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".bin"
        assert not target.exists()
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [InterruptedWritingError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_no_leftovers(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    with pytest.raises(error):
        start_writing(target, error)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_without_an_old_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InterruptedWritingError):
        start_writing(tmp_path / "result.bin", InterruptedWritingError)
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_is_whole_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_a_writer_that_removes_the_temporary_file_fails_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), atomic_path(target) as temporary:
        temporary.unlink()
    assert target.read_bytes() == b"old"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "result.bin"
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"


def test_write_atomic_accepts_text_paths_and_names_without_ending(tmp_path: Path) -> None:
    write_atomic(str(tmp_path / "result"), b"new")
    assert (tmp_path / "result").read_bytes() == b"new"


def test_a_folder_cannot_be_a_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_atomic(tmp_path / "folder", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_new_file_gets_the_permissions_that_open_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    write_atomic(target, b"new")
    assert target.stat().st_mode & 0o7777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "result.bin"
    target.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_name_of_the_longest_legal_length(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".bin")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"


def test_the_file_is_on_the_disk_before_it_has_its_name_and_then_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    synced: list[tuple[int, bytes]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_ino, target.read_bytes())))
    write_atomic(target, b"new")
    assert synced == [(target.stat().st_ino, b"old"), (tmp_path.stat().st_ino, b"new")]


def test_a_disk_that_cannot_take_the_file_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "result.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


class TestCheckFolder:
    def test_a_missing_folder_is_made_and_left_empty(self, tmp_path: Path) -> None:
        for _ in range(2):
            check_folder(tmp_path / "a" / "b")
            assert list((tmp_path / "a" / "b").iterdir()) == []

    @pytest.mark.parametrize("name", ["file", "file/below", "file/far/below"])
    def test_a_file_is_no_folder(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_bytes(b"kept")
        with pytest.raises(NotADirectoryError, match=f"cannot write into '.*{name}': it is a file or in one"):
            check_folder(tmp_path / name)
        assert (tmp_path / "file").read_bytes() == b"kept"

    def test_a_place_that_nobody_can_write_to(self) -> None:
        with pytest.raises(OSError, match=r"cannot write into '/proc/none': .*; name another folder"):
            check_folder("/proc/none")
