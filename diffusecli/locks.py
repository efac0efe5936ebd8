"""One writer at a time, and nothing left of writers that were killed.

Every lock is the kernel's and ends with its process, so a killed one blocks nobody. Knows files and folders;
knows nothing of what they hold.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusecli.errors import InputError, cannot_write


@contextmanager
def only_writer(place: Path, lock_file: Path) -> Iterator[None]:
    """Keep every other process from a file or folder; raises `InputError` when one is there already, `MachineError` on a full disk.

    The lock lies where the results lie and not in a cache: two machines may share the disk.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _busy(place) from error
    except OSError as error:
        raise cannot_write(lock_file, error) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for this very file sees that it is gone
        lock.release()


def require_idle(folder: Path, lock_file: Path) -> None:
    """Raises `InputError` when another process is writing the folder."""
    with suppress(OSError):  # no lock, or one that may not be touched: nobody we could meet
        descriptor = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(folder) from error
        finally:
            os.close(descriptor)


def scratch_file(path: Path) -> tuple[int, Path]:
    """A new private file beside `path`, as an open descriptor and a name, after removing those that killed writers left.

    The descriptor holds a lock for as long as it is open, which tells a writer's scratch file from a dead one.
    """
    prefix, suffix = f".{path.name}.", ".tmp"
    for leftover in path.parent.glob(f".{_literally(path.name)}.????????.tmp"):
        _remove_dead(leftover)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else another process took it for a dead one before it was locked
            return descriptor, Path(name)
        os.close(descriptor)


def _remove_dead(leftover: Path) -> None:
    """Remove a scratch file, unless a living process holds it."""
    with suppress(OSError):
        descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()
        finally:
            os.close(descriptor)


def _literally(name: str) -> str:
    """A file name as a pattern that matches only itself."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def lock_beside(place: Path) -> Path:
    """The lock of a file, or of a folder that will be replaced as a whole."""
    return place.with_name(f".{place.name}.lock")


def _busy(place: Path) -> InputError:
    return InputError(f"{place}: another process is writing it, wait until it is done or name another place")
