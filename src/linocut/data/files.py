"""Writing files whole or not at all.

A writer that is interrupted, by an error, a full disk or Ctrl-C, must not leave half a file behind, and must not take
the old file with it. So everything is written to a temporary file beside the target, which is then renamed over it;
and it is on the disk before it is renamed, so that a power cut does not leave the new name with nothing in it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` if the block ends well.

    The temporary file is in the folder of ``path``, because a rename is atomic only within one file system, and has
    its ending, because many libraries choose the format by it. Missing folders are made. If ``path`` is a symbolic
    link, the file that it points to is replaced. A file that is replaced keeps its permissions.

    Args:
        path: the file to write.

    Yields:
        The temporary path, an empty file.

    Raises:
        IsADirectoryError: if ``path`` is a folder.
        OSError: if the folder cannot be made or written to.

    Example:
        >>> with atomic_path("notes.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> Path("notes.txt").read_text()
        'all of it'
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write a file at {os.fspath(path)!r}: it is a folder; name a file in it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # The stem is cut short so that a long but legal name stays legal with the random part added.
    temporary = target.with_name(f".{target.stem[:32]}-{secrets.token_hex(8)}.tmp{target.suffix}")
    # Not tempfile.mkstemp: its files are private, and others could not read the result.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
        with suppress(OSError):  # some systems cannot open a folder, and the file is there already
            _sync(target.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_folder(folder: str | os.PathLike[str]) -> None:
    """See that files can be written into a folder; it is made if it is missing.

    Whether they can is found by writing one, for permissions alone do not tell it of every file system.

    Raises:
        NotADirectoryError: if it is a file, or lies in one.
        OSError: if it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"cannot write into {os.fspath(folder)!r}: it is a file or in one; name a folder"
        ) from error
    except OSError as error:
        raise OSError(f"cannot write into {os.fspath(folder)!r}: {error.strerror}; name another folder") from error


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        data: what it shall hold.

    Raises:
        IsADirectoryError: if ``path`` is a folder.
        OSError: if the folder cannot be made or written to.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
