"""Read files as text, with a size limit.

Knows sizes and encodings, not what the text means.
"""

from __future__ import annotations

import stat
from pathlib import Path

MOST_BYTES = 100_000_000
"""Limit for a prompt, a config or a manifest. 20 000 targets take 1 MB."""


class TooLargeError(ValueError):
    """A file is larger than its limit."""


def read_text(path: Path, most_bytes: int) -> str:
    """Read a UTF-8 file. Raises `OSError`, `ValueError`, and `TooLargeError` without reading it all, also for devices (no size)."""
    require_size(path, most_bytes)
    if stat.S_ISREG(path.stat().st_mode):
        return path.read_text(encoding="utf-8-sig")
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")
    return text


def require_size(path: Path, most_bytes: int) -> None:
    """Raise `TooLargeError`, `OSError` for a missing file, and `ValueError` for a pipe, which could block for ever.

    A shell's `<(command)` is also a pipe, but has a writer.
    """
    found = path.stat()
    if stat.S_ISFIFO(found.st_mode) and path.parts[:2] not in {("/", "dev"), ("/", "proc")}:
        raise ValueError("it is a pipe, not a file")
    if found.st_size > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")
