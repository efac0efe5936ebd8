"""One writer at a time, and clean-up after killed writers.

Locks are kernel locks and end with their process, so a killed process blocks no other. File systems without such locks give no
exclusion; everything else works. Knows files and folders, not their contents.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from diffusecli.files.paths import exists
from diffusecli.system.errors import InputError, cannot_write

_NO_LOCKS_HERE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of network file systems without locks."""

_TRIES = 5  # for a folder that others create and remove at the same time


@contextmanager
def only_writer(place: Path, lock_file: Path) -> Iterator[None]:
    """Lock a file or folder against other processes. Raises `InputError` if one has the lock, `MachineError` on a full disk.

    Creates the folder of the lock if it is missing, and removes it again if it stays empty.

    The lock is next to the results, not in a cache, because two machines may share the disk.
    """
    with ExitStack() as folders:
        try:
            descriptor = _locked_in_its_folder(lock_file, folders)
        except OSError as error:
            raise cannot_write(place, error) from error
        if descriptor is None:
            raise InputError(f"{place}: another process is writing it. Wait until it is done or choose another path")
        try:
            yield
        finally:
            with suppress(OSError):
                lock_file.unlink()  # while held, so that other processes see that this file is gone
            os.close(descriptor)


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Create a folder for the code inside. Removes the created folders again if they are empty."""
    made = list(takewhile(lambda path: not exists(path), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _locked_in_its_folder(lock_file: Path, folders: ExitStack) -> int | None:
    """As `_locked`, but creates the folder. Retries if another process that had created it removes it."""
    for last in (*(False,) * _TRIES, True):
        try:
            folders.enter_context(made_folder(lock_file.parent))
            return _locked(lock_file)
        except FileNotFoundError:
            if last:
                raise
    return None


def is_idle(lock_file: Path) -> bool:
    """Whether no other process has the lock. Without a lock file, or without access to it, there is no writer to detect."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        return _lock(descriptor) is not False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def require_idle(folder: Path, lock_file: Path) -> None:
    """Raise `InputError` if another process is writing the folder."""
    if not is_idle(lock_file):
        raise InputError(f"{folder}: another process is writing it. Wait until it is done")


@dataclass(frozen=True)
class Turn:
    """The right to do work that only one process does at a time."""

    lock_fd: int  # a process that inherits this descriptor also keeps the turn until it ends
    alone: bool  # False on a disk without locks, where other processes may be working


@contextmanager
def turn(lock_file: Path, waiting: Callable[[], None] | None = None) -> Iterator[Turn | None]:
    """Wait for the turn. If another process has it, call `waiting` first; without `waiting`, yield None.

    The lock file stays, because other processes may wait for it.
    """
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        locked = _lock(descriptor)
        if locked is False and waiting is not None:
            waiting()
            locked = _lock(descriptor, wait=True)
        yield None if locked is False else Turn(descriptor, alone=locked is not None)
    finally:
        os.close(descriptor)


def lock_beside(place: Path) -> Path:
    """The lock of a file, or of a folder that is replaced as a whole."""
    return place.with_name(f".{place.name}.lock")


def scratch_file(path: Path) -> tuple[int, Path]:
    """A new private file next to `path`, as an open descriptor and a name. First removes files of killed writers.

    The open descriptor holds a lock, which distinguishes a scratch file in use from a dead one.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove_dead(leftover)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        if (
            _lock(descriptor) is not False and os.fstat(descriptor).st_nlink
        ):  # else another process removed it as dead before it was locked
            return descriptor, Path(name)
        os.close(descriptor)


def remove_scratch_folders(folder: Path, *prefixes: str) -> None:
    """Remove scratch folders of killed processes by prefix. Only for callers that lock out other writers. Keeps links."""
    for prefix in prefixes:
        for leftover in folder.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _locked(lock_file: Path) -> int | None:
    """The locked descriptor of the lock file. None if another process holds the lock."""
    while True:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if _lock(descriptor) is False:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:  # else its holder removed it between our two steps, and it no longer locks anything
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file. False if another process holds the lock, None on a disk without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        return None
    return True


def _remove_dead(leftover: Path) -> None:
    """Remove a scratch file, unless a running process holds it or this is unknown."""
    with suppress(OSError):
        descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
        finally:
            os.close(descriptor)
