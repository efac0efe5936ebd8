"""Atomic writes, and checks of an output path before the work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from diffusecli.files.locks import made_folder, scratch_file
from diffusecli.system.errors import InputError, MachineError, cannot_write


@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Write text or bytes atomically: `path` holds either the old content or all of the new.

    Raises `MachineError` if the disk is full or the folder is not writable.
    """
    try:
        with made_folder(path.parent):
            descriptor, scratch = scratch_file(path)
            try:
                with os.fdopen(descriptor, mode, encoding="utf-8" if mode == "w" else None) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                    scratch.chmod(0o666 & ~_umask())
                    os.replace(scratch, path)
            except BaseException:
                scratch.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def append_line(path: Path, line: bytes) -> None:
    """Append a whole line to a file or nothing. Raises `MachineError`."""
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            rest = memoryview(line)
            try:
                while rest:  # an almost full disk takes a part; the next write raises the error
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def require_no_link(path: Path) -> None:
    """Raise `InputError` for a link, before a file is written in place: its target may be any file."""
    if path.is_symlink():
        raise InputError(f"{path}: is a link to {path.readlink()}. Links are not written through: remove it")


def require_writable(folder: Path) -> None:
    """Check before the work that the folder can be created and written. Leaves no trace. Raises `MachineError`."""
    try:
        with made_folder(folder), tempfile.TemporaryFile(dir=folder):
            pass
    except FileNotFoundError:  # another process with the same check removed the folder, so it can be created
        pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def require_place(folder: Path) -> None:
    """Raise `MachineError` for a folder that cannot be created or written, as far as visible without creating it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise cannot_write(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise cannot_write(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def require_space(folder: Path, megabytes: int) -> None:
    """Raise `MachineError` if the disk has too little free space."""
    free = shutil.disk_usage(folder).free // 1_000_000
    if free < megabytes:
        raise MachineError(f"{folder}: {free} MB free, {megabytes} MB needed. Free some space or choose another folder")


def write_text(path: Path, text: str) -> None:
    """Write a whole file atomically."""
    with atomic_write(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically, as a stream."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def mark_newest(path: Path, others: Iterable[Path]) -> None:
    """Make `path` the newest file by its time stamp, even if the clock was set back."""
    latest = max((other.stat().st_mtime_ns for other in others if other.is_file() and other != path), default=0)
    if path.stat().st_mtime_ns <= latest:
        os.utime(path, ns=(latest + 1, latest + 1))


def move_into(folder: Path, sources: Iterable[Path]) -> None:
    """Move finished files into the folder, each by an atomic rename."""
    for source in sources:
        with source.open("rb+") as file:
            os.fsync(file.fileno())
        source.chmod(0o666 & ~_umask())
        os.replace(source, folder / source.name)
    sync_folder(folder)


def put_folder(finished: Path, place: Path) -> None:
    """Move a finished folder into place by a rename. The old one is moved next to `finished`; the caller removes it."""
    for path in finished.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o666 & ~_umask())
    finished.chmod(0o777 & ~_umask())
    if place.exists():
        os.replace(place, finished.with_name("before"))
    os.replace(finished, place)
    sync_folder(place.absolute().parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush the renames in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
