"""One writer at a time, and nothing left of writers that were killed.

Every lock is the kernel's and ends with its process, so a killed one blocks nobody. Where a file system knows no such locks
there is no exclusion, and all else works. Knows files and folders; knows nothing of what they hold.
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
"""What some disks on a network answer."""

_TRIES = 5  # of a folder that others make and remove at the same time


@contextmanager
def only_writer(place: Path, lock_file: Path) -> Iterator[None]:
    """Keep every other process from a file or folder; raises `InputError` when one is there already, `MachineError` on a full disk.

    The folder of the lock is made if it is not there, and goes again when nothing was written into it.

    The lock lies where the results lie and not in a cache: two machines may share the disk.
    """
    with ExitStack() as folders:
        try:
            descriptor = _locked_in_its_folder(lock_file, folders)
        except OSError as error:
            raise cannot_write(lock_file, error) from error
        if descriptor is None:
            raise InputError(f"{place}: another process is writing it, wait until it is done or name another place")
        try:
            yield
        finally:
            with suppress(OSError):
                lock_file.unlink()  # while it is held: whoever opened this very file sees that it is gone
            os.close(descriptor)


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder for the work inside; folders that were not there and in which nothing is left go again."""
    made = list(takewhile(lambda path: not exists(path), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _locked_in_its_folder(lock_file: Path, folders: ExitStack) -> int | None:
    """As `_locked`, the folder made if need be: again where another process, which had made it, just took it away."""
    for last in (*(False,) * _TRIES, True):
        try:
            folders.enter_context(made_folder(lock_file.parent))
            return _locked(lock_file)
        except FileNotFoundError:
            if last:
                raise
    return None


def require_idle(folder: Path, lock_file: Path) -> None:
    """Raises `InputError` when another process is writing the folder."""
    with suppress(OSError):  # no lock, or one that may not be touched: nobody we could meet
        descriptor = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
        held = _lock(descriptor)
        os.close(descriptor)
        if held is False:
            raise InputError(f"{folder}: another process is writing it, wait until it is done")


@dataclass(frozen=True)
class Turn:
    """The right to work on something that one process works on at a time."""

    lock_fd: int  # a process that inherits this descriptor keeps the turn until it ends, too
    alone: bool  # False on a disk without locks, where others may be at work


@contextmanager
def turn(lock_file: Path, waiting: Callable[[], None] | None = None) -> Iterator[Turn | None]:
    """Wait for the turn, after a call of `waiting` if another process has it; without `waiting` yield None then.

    The lock file stays: others may wait for it.
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
    """The lock of a file, or of a folder that will be replaced as a whole."""
    return place.with_name(f".{place.name}.lock")


def scratch_file(path: Path) -> tuple[int, Path]:
    """A new private file beside `path`, as an open descriptor and a name, after removing those that killed writers left.

    The descriptor holds a lock for as long as it is open, which tells a writer's scratch file from a dead one.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove_dead(leftover)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        if (
            _lock(descriptor) is not False and os.fstat(descriptor).st_nlink
        ):  # else another process took it for a dead one before it was locked
            return descriptor, Path(name)
        os.close(descriptor)


def remove_scratch_folders(folder: Path, *prefixes: str) -> None:
    """Remove what killed processes left of folders whose names begin so; for whoever keeps other writers out. Links stay."""
    for prefix in prefixes:
        for leftover in folder.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _locked(lock_file: Path) -> int | None:
    """The descriptor of the lock file, held; None when another process holds it."""
    while True:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        if _lock(descriptor) is False:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:  # else its holder removed it between our two steps: it guards nothing any more
            return descriptor
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file: False if another process holds it, None on a disk without locks, which lets every process in."""
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
    """Remove a scratch file, unless a living process holds it or nobody can tell."""
    with suppress(OSError):
        descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
        finally:
            os.close(descriptor)
