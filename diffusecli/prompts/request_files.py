"""Requests from a file: one a line, or a JSON list.

Knows nothing of distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusecli.files.documents import Document, read_document
from diffusecli.files.paths import look_again
from diffusecli.files.reading import MOST_BYTES, read_text
from diffusecli.files.text import canonical
from diffusecli.system.errors import InputError, sentence, why_unreadable


def read_requests(paths: Sequence[Path]) -> tuple[str, ...]:
    """The requests of files. In a text file blank lines and lines that begin with # are skipped.

    Raises `InputError` for a file that cannot be read or holds none, and for a request that is there twice.
    """
    placed = [found for path in paths for found in _placed(path)]
    first: dict[str, str] = {}
    for place, request in placed:
        if (other := first.setdefault(canonical(request), place)) != place:
            raise InputError(f"{place}: the request {request!r} is also at {other}. Remove one of the two")
    return tuple(request for _, request in placed)


def _placed(path: Path) -> list[tuple[str, str]]:
    """Each request of a file after its place."""
    placed = _of_json(path) if path.suffix == ".json" else _of_lines(path)
    if not placed:
        how = 'Write ["Roll a die.", "Throw a die."]' if path.suffix == ".json" else "Write one per line"
        raise InputError(f"{path}: contains no request. {how}")
    return placed


def _of_lines(path: Path) -> list[tuple[str, str]]:
    """Each request after its place."""
    try:
        text = read_text(path, MOST_BYTES)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {why_unreadable(error)}. Save the file as UTF-8") from error
    except (OSError, ValueError) as error:
        remedy = sentence(look_again(path, "check the path and its permissions"))
        raise InputError(f"{path}: {why_unreadable(error)}. {remedy}") from error
    if "\0" in text:
        raise InputError(f"{path}: is a binary file. Save it as text, with one request per line")
    texts = [(f"{path}:{number}", line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(place, line) for place, line in texts if line and not line.startswith("#")]


def _of_json(path: Path) -> list[tuple[str, str]]:
    """Each request after its place."""
    document, problems = read_document(path)
    if document is None:
        raise InputError.of(problems)
    if not isinstance(document.data, list):
        raise InputError(f'{path}: is not a list of requests. Write ["Roll a die.", "Throw a die."]')
    for index, text in enumerate(document.data):
        if not isinstance(text, str) or not text.strip():
            raise InputError.of([document.problem((index,), f"the request {text!r} is not a text", "write what to ask, in quotes")])
    return [(_place(document, index), text) for index, text in enumerate(document.data)]


def _place(document: Document, index: int) -> str:
    return document.problem((index,), "").place
