"""What has been sampled so far, on disk, so that an interrupted sampling goes on where it stopped.

A line of JSON for everything that arrives. A line that was cut off by a kill is dropped; a journal of
other settings is not continued.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from diffusecli.prompt import Prompt
from diffusecli.runs import cannot_write


class Journal:
    """Answers by prompt. With `path` None nothing is kept."""

    def __init__(self, path: Path | None, key: dict[str, Any]) -> None:
        """Read what is there, if it was drawn under the same `key`; else begin anew. Raises `MachineError`."""
        self._path = path
        self._found: dict[tuple[str, str], Counter[str]] = {}
        self.tokens: Counter[str] = Counter()  # by prompt, fed for what is there
        if path is None:
            return
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
            whole = [line for line in lines if line.endswith(b"\n")]
            entries = _entries(whole)
            head = json.loads(json.dumps(key))
            self.discarded = bool(entries) and entries[0] != head
            if not entries or self.discarded:
                path.write_bytes(json.dumps(head).encode() + b"\n")
                return
            if len(whole) < len(lines):
                path.write_bytes(b"".join(whole))
        except OSError as error:
            raise cannot_write(path, error) from error
        for entry in entries[1:]:
            self._add(entry["prompt"], entry["digest"], Counter(entry["counts"]), entry["tokens"])

    discarded = False  # whether a journal of other settings was there

    def of(self, prompt: Prompt) -> Counter[str]:
        """What is there of a prompt as it reads now."""
        counts: Counter[str] = self._found.get((prompt.alias, prompt.digest), Counter())
        return counts.copy()

    def add(self, prompt: Prompt, counts: Counter[str], tokens: int) -> None:
        """Keep what arrived. Raises `MachineError` when the disk does not take it."""
        self._add(prompt.alias, prompt.digest, counts, tokens)
        if self._path is None:
            return
        line = {"prompt": prompt.alias, "digest": prompt.digest, "counts": counts, "tokens": tokens}
        try:
            with self._path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def remove(self) -> None:
        """All is in its place: the journal goes."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _add(self, alias: str, digest: str, counts: Counter[str], tokens: int) -> None:
        self._found.setdefault((alias, digest), Counter()).update(counts)
        self.tokens[alias] += tokens


def _entries(lines: list[bytes]) -> list[dict[str, Any]]:
    """The lines as far as they can be read."""
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
