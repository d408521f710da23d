"""Files that are either whole or not there, and folders that do not outlive their use.

What is unfinished is remembered, so that a process that has to stop at once (`remove_unfinished`) leaves
nothing half-written behind.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compiler.support.errors import UsageError

_unfinished: set[Path] = set()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it otherwise.

    Raises:
        UsageError: the folder of `path` does not exist or cannot be written, or the disk is full.
    """
    if path.is_dir():
        raise UsageError(f"cannot write '{path}': it is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        # A device or a pipe: there is nothing to rename to, and renaming over it would destroy it.
        raise UsageError(f"cannot write '{path}': it is not an ordinary file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}") from error
    temporary = Path(name)
    _unfinished.add(temporary)
    try:
        yield temporary
        # mkstemp makes a private file; give it the permissions an ordinary open() would.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def check_writable(path: Path) -> None:
    """Find out now, before hours of work, whether `atomic_path` could write `path`.

    Raises:
        UsageError: its folder does not exist or cannot be written, or `path` is no ordinary file.
    """
    with suppress(_Enough), atomic_path(path):
        raise _Enough


class _Enough(Exception):  # noqa: N818  # not an error: it leaves `atomic_path` before it renames
    pass


@contextmanager
def private_folder() -> Iterator[Path]:
    """Yield a new folder that only this user can enter, and remove it with all that is in it.

    Raises:
        UsageError: there is no place for temporary files.
    """
    folder = make_private_folder()
    try:
        yield folder
    finally:
        remove_folder(folder)


@contextmanager
def folder_for_long() -> Iterator[Path]:
    """Yield a new private folder that stays after the block; if the block fails, it is removed.

    Whoever gets it from the block gives it to `remove_folder` after use.
    """
    folder = make_private_folder()
    try:
        yield folder
    except BaseException:
        remove_folder(folder)
        raise


def safe_name(text: str) -> str:
    """Return `text` with what is no part of a plain file name replaced."""
    return re.sub(r"[^\w.+-]+", "_", text)


def make_folder(path: Path) -> Path:
    """Make the folder `path`, and those above it, where they do not exist yet; return it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder '{path}': {error.strerror or error}") from error
    return path


def check_room(folder: Path, needed: int) -> None:
    """Find out whether the disk that holds `folder` has `needed` bytes left.

    LLVM ends the whole process when it cannot write an object file, so this is asked before.

    Raises:
        UsageError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"expected {needed / 1e6:.0f} MB of free disk for temporary files in '{folder.parent}', "
            f"got {free / 1e6:.0f} MB: free some, or set TMPDIR to a folder on another disk"
        )


def make_private_folder() -> Path:
    """Return a new folder that only this user can enter; give it to `remove_folder` after use.

    Raises:
        UsageError: there is no place for temporary files.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="kiln-"))
    except OSError as error:
        raise UsageError(
            f"cannot make a temporary folder: {error.strerror or error}; "
            "set TMPDIR to a folder with free space"
        ) from error
    _unfinished.add(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove `folder` and all that is in it, whether or not it still exists."""
    shutil.rmtree(folder, ignore_errors=True)
    _unfinished.discard(folder)


def remove_unfinished() -> None:
    """Remove every unfinished file and temporary folder of this process."""
    for path in list(_unfinished):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
