"""Files read as text, none larger than such files are.

Knows sizes and encodings, not what the text means.
"""

from __future__ import annotations

import stat
from pathlib import Path

MOST_BYTES = 100_000_000
"""Of a prompt, a config or a manifest. 20 000 targets take one of these hundred megabytes."""


class TooLargeError(ValueError):
    """A file is larger than such files are."""


def read_text(path: Path, most_bytes: int) -> str:
    """A UTF-8 file as text. Raises `OSError`, `ValueError`, and `TooLargeError` without reading it all; devices have no size of their own."""
    require_size(path, most_bytes)
    if stat.S_ISREG(path.stat().st_mode):
        return path.read_text(encoding="utf-8-sig")
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")
    return text


def require_size(path: Path, most_bytes: int) -> None:
    """Raises `TooLargeError`, `OSError` for a file that is not there, and `ValueError` for a pipe, which might wait for ever.

    What a shell hands over as `<(command)` is a pipe as well, and has its writer.
    """
    found = path.stat()
    if stat.S_ISFIFO(found.st_mode) and path.parts[:2] not in {("/", "dev"), ("/", "proc")}:
        raise ValueError("it is a pipe and no file")
    if found.st_size > most_bytes:
        raise TooLargeError(f"is larger than {most_bytes / 1e6:g} MB")
