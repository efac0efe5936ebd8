"""User-fixable errors: message, fix, exit code.

Nothing here prints; `cli/boundary.py` is the only place that turns an error into text and an exit.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from diffusecli.system.exits import EXIT_ENVIRONMENT, EXIT_FOUND_PROBLEMS, EXIT_INPUT, EXIT_INTERRUPTED

_MOST_GATES = 6
_MOST_LINES = 200

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True)
class Problem:
    """One problem in one place of a file, and how to fix it."""

    path: str
    message: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None
    severity: Severity = "error"

    @property
    def place(self) -> str:
        """`file`, `file:line` or `file:line:column`, as far as known."""
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        """`file:line:column: what is wrong. How to fix it`."""
        return f"{self.place}: {self.message}" + (f". {sentence(self.remedy)}" if self.remedy else "")


class DiffuseError(Exception):
    """An expected error. `exit_code` is what the command returns."""

    exit_code = EXIT_INPUT
    lines: tuple[str, ...] = ()  # of several problems, each a message of its own
    shared = False  # whether all training processes raise it, so that only the first prints it

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """One error that lists `problems`, one per line, up to a maximum."""
        found = sorted(problems, key=lambda p: (p.path, p.line or 0, p.column or 0))
        lines = [str(problem) for problem in found]
        more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
        error = cls("\n".join(lines[:_MOST_LINES] + more))
        error.lines = tuple(lines[:_MOST_LINES] + more)
        return error


class InputError(DiffuseError):
    """A file or an argument is wrong (exit code 2)."""


class MachineError(DiffuseError):
    """A failure of the machine, the disk or the network (exit code 3)."""

    exit_code = EXIT_ENVIRONMENT


def cannot_write(path: Path, error: Exception) -> MachineError:
    """The error for a full disk or a folder that is not writable. Also recognises the error class of safetensors."""
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(s in str(error) for s in ("No space", "too large", "quota"))
    remedy = "Free some space" if full else "Choose another folder or fix its permissions"
    return MachineError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}. {remedy}")


class FailedGates(DiffuseError):  # noqa: N818 (the program itself did not fail)
    """An evaluation misses its limits (exit code 1)."""

    exit_code = EXIT_FOUND_PROBLEMS

    def __init__(self, missed: Sequence[str]) -> None:
        """One line: the first missed limits and the number of others."""
        more = len(missed) - _MOST_GATES
        super().__init__("failed: " + "; ".join(missed[:_MOST_GATES]) + (f"; and {more} more" if more > 0 else ""))


class InterruptedRun(DiffuseError):  # noqa: N818 (not an error: the user requested it)
    """The user stopped the command. Finished work is kept (exit code 130)."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, kept: str = "") -> None:
        """`kept` describes the finished work, for callers that add to the message."""
        super().__init__(message)
        self.kept = kept


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class name if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """Escape control characters, so that no file or model can control the terminal. Keeps line breaks."""
    if all(map(str.isprintable, text.split("\n"))):  # fast path for reports of several megabytes
        return text
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, width: int) -> str:
    """Cut a text to `width` characters, with an ellipsis.

    >>> shortened("abcd", 4), shortened("abcde", 4)
    ('abcd', 'abc…')
    """
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def why_unreadable(error: OSError | ValueError) -> str:
    """Why a file cannot be read, to be written after its path.

    >>> why_unreadable(FileNotFoundError(2, "No such file or directory")), why_unreadable(PermissionError(13, "Permission denied"))
    ('does not exist', 'cannot be read: permission denied')
    """
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    reason = getattr(error, "strerror", None) or str(error)
    return f"cannot be read: {reason[:1].lower()}{reason[1:]}"


def sentence(text: str) -> str:
    """The text with a capital first letter.

    >>> sentence("add it"), sentence("did you mean 'gamma'?"), sentence("")
    ('Add it', "Did you mean 'gamma'?", '')
    """
    return text[:1].upper() + text[1:]


def joined(parts: Sequence[str]) -> str:
    """A list in a sentence.

    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def many(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun. Give the plural if it does not end in s.

    >>> many(1, "prompt"), many(0, "prompt"), many(2, "try", "tries")
    ('1 prompt', '0 prompts', '2 tries')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def nearest(word: str, known: Sequence[str], similarity: float = 0.6) -> str | None:
    """The most similar known word. None if none is as similar, from 0 to 1.

    >>> nearest("gama", ["gamma", "n_iters"])
    'gamma'
    """
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=similarity)), None)


def must_be_one_of(word: str, known: Sequence[str], meant: Mapping[str, str] | None = None) -> str:
    """The message for a word that is none of a fixed set, with the one that is `meant` by it, or the most similar one.

    >>> must_be_one_of("Wieght", ["weight", "target"]), must_be_one_of("x", ["weight", "target"])
    ("must be one of weight, target. Did you mean 'weight'?", 'must be one of weight, target')
    >>> must_be_one_of("tuned", ["untuned", "lora"], {"tuned": "lora"})
    "must be one of untuned, lora. Did you mean 'lora'?"
    """
    near = (meant or {}).get(word.lower()) or nearest(word.lower(), known)
    return f"must be one of {', '.join(known)}" + (f". Did you mean '{near}'?" if near is not None else "")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The most similar known word as a question, else the list of known words.

    >>> did_you_mean("gama", ["gamma", "n_iters"])
    "did you mean 'gamma'?"
    >>> did_you_mean("zzz", ["gamma", "n_iters"])
    'available: gamma, n_iters'
    """
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near is not None else f"available: {', '.join(known)}" if known else "remove it"
