"""The journal of an unfinished sampling, on disk, so that an interrupted sampling can resume.

It has one JSON line per batch of answers. An incomplete last line is dropped. A journal with other settings is
renamed, not continued.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusecli.files.text import holds_half_characters
from diffusecli.files.writing import append_line, require_no_link
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.samples import is_count
from diffusecli.system.errors import cannot_write


class Journal:
    """Answers by prompt. With `path` None nothing is written."""

    def __init__(self, path: Path | None, key: dict[str, Any]) -> None:
        """Read the file if it has the same `key`; otherwise rename it and start a new one. Raises `MachineError`."""
        self._path = path
        self._found: dict[tuple[str, str], Answers] = {}
        self.tokens: Counter[tuple[str, str]] = Counter()  # tokens fed, by `Prompt.key`
        self.refused: dict[str, str] = {}  # fields that the server refused during this sampling -> its message
        self.aside: Path | None = None  # new name of a journal with other settings
        if path is None:
            return
        head = json.loads(json.dumps(key))
        require_no_link(path)
        try:
            content = path.read_bytes() if path.is_file() else b""
            entries, readable = _entries(content)
            if path.exists() and (not entries or entries[0] != head):
                if len(entries) != 1 or readable != content:  # a journal without answers can be deleted
                    self.aside = _free_name(path)
                    path.rename(self.aside)
                path.unlink(missing_ok=True)
                entries = []
            if not entries:
                path.touch(mode=0o600)
                append_line(path, json.dumps(head).encode() + b"\n")
            elif content != readable:
                os.truncate(path, len(readable))  # in place: rewriting the file could lose it if the process is killed
        except OSError as error:
            raise cannot_write(path, error) from error
        for entry in entries[1:]:
            counts = Answers(entry["counts"], entry.get("unfinished"))
            self._add(entry["prompt"], entry["digest"], counts, entry["tokens"], entry.get("refused", {}))

    @property
    def kept(self) -> bool:
        """Whether answers are written to disk."""
        return self._path is not None

    @property
    def empty(self) -> bool:
        """Whether no answer has arrived."""
        return not any(counts.total() for counts in self._found.values())

    def of(self, prompt: Prompt) -> Answers:
        """The answers to a prompt with its current content."""
        return Answers(self._found.get(prompt.key, ()))

    def add(self, prompt: Prompt, counts: Counter[str], tokens: int, refused: Mapping[str, str] = MappingProxyType({})) -> None:
        """Add answers; those in a plain counter are finished. Raises `MachineError` when they cannot be written."""
        self._add(prompt.alias, prompt.digest, counts, tokens, refused)
        if self._path is None:
            return
        cut = {"unfinished": counts.unfinished} if isinstance(counts, Answers) and counts.unfinished else {}
        line = {
            "prompt": prompt.alias,
            "digest": prompt.digest,
            "counts": counts,
            **cut,
            "tokens": tokens,
            **({"refused": dict(refused)} if refused else {}),
        }
        append_line(self._path, json.dumps(line).encode() + b"\n")

    def remove(self) -> None:
        """Delete the journal after the samples are written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _add(self, alias: str, digest: str, counts: Counter[str], tokens: int, refused: Mapping[str, str]) -> None:
        self.refused |= refused
        self._found.setdefault((alias, digest), Answers()).update(counts)
        self.tokens[alias, digest] += tokens


def _entries(content: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """The complete lines and their bytes. New lines must follow a readable line."""
    found: list[dict[str, Any]] = []
    size = 0
    for line in content.splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(entry, dict) and (not found or _is_answers(entry)) and line.endswith(b"\n")):
            break
        found.append(entry)
        size += len(line)
    return found, content[:size]


def _is_answers(entry: dict[str, Any]) -> bool:
    """Whether a line has the format of `Journal.add`."""
    return (
        entry.keys() - {"unfinished", "refused"} == {"prompt", "digest", "counts", "tokens"}
        and isinstance(entry["prompt"], str)
        and isinstance(entry["digest"], str)
        and isinstance(entry["counts"], dict)
        and all(map(is_count, [entry["tokens"], *entry["counts"].values()]))
        and _are_among(entry.get("unfinished", {}), entry["counts"])
        and _are_words(entry.get("refused", {}))
        and not holds_half_characters(entry)
    )


def _are_words(refused: Any) -> bool:
    return isinstance(refused, dict) and all(isinstance(words, str) for words in refused.values())


def _are_among(unfinished: Any, counts: dict[str, int]) -> bool:
    return isinstance(unfinished, dict) and all(is_count(cut) and cut <= counts.get(text, 0) for text, cut in unfinished.items())


def _free_name(path: Path) -> Path:
    """`gen.partial.jsonl` -> `gen.partial.1.jsonl`, or the next free number."""
    return next(name for n in count(1) if not (name := path.with_suffix(f".{n}{path.suffix}")).exists())
