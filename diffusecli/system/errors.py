"""Mistakes a user can mend: each error owns its sentence, its remedy and its exit code.

Nothing here prints; `cli/boundary.py` is the only place that turns an error into text and an exit.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusecli.system.exits import EXIT_ENVIRONMENT, EXIT_FOUND_PROBLEMS, EXIT_INPUT, EXIT_INTERRUPTED

_MOST_GATES = 6
_MOST_LINES = 200

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one place of one file, and what to do about it."""

    path: str
    message: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None
    severity: Severity = "error"

    @property
    def place(self) -> str:
        """`file`, `file:line` or `file:line:column`, whatever is known."""
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        """`file:line:column: what is wrong, what to do`."""
        return f"{self.place}: {self.message}" + (f", {self.remedy}" if self.remedy else "")


class DiffuseError(Exception):
    """Anything `diffuse` stops for on purpose. `exit_code` is what the command returns."""

    exit_code = EXIT_INPUT
    shared = False  # whether every process that trains together stops for it, so that the first says it for all


class InputError(DiffuseError):
    """A file or an argument is wrong (exit code 2)."""

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> InputError:
        """One error that tells `problems`, a line each; of very many the first."""
        told = [str(problem) for problem in problems]
        more = [f"and {len(told) - _MOST_LINES} more"] if len(told) > _MOST_LINES else []
        return cls("\n".join(told[:_MOST_LINES] + more))


class MachineError(DiffuseError):
    """The machine, the disk or the network is in the way (exit code 3)."""

    exit_code = EXIT_ENVIRONMENT


def cannot_write(path: Path, error: Exception) -> MachineError:
    """The sentence for a disk that is full or a folder that is not writable; safetensors has an error of its own."""
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(s in str(error) for s in ("No space", "too large", "quota"))
    remedy = "free some space" if full else "choose another folder or mend its permissions"
    return MachineError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}, {remedy}")


class FailedGates(DiffuseError):  # noqa: N818 (what failed is not the program)
    """An evaluation misses limits that were set (exit code 1)."""

    exit_code = EXIT_FOUND_PROBLEMS

    def __init__(self, missed: Sequence[str]) -> None:
        """One line that tells the first of them and how many more."""
        more = len(missed) - _MOST_GATES
        super().__init__("failed: " + "; ".join(missed[:_MOST_GATES]) + (f"; and {more} more" if more > 0 else ""))


class InterruptedRun(DiffuseError):  # noqa: N818 (it is no error: the user asked for it)
    """The user stopped the work; what was done is kept (exit code 130)."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, kept: str = "") -> None:
        """`kept` says how much of it is there, for whoever says more."""
        super().__init__(message)
        self.kept = kept


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """The text with control characters spelled out, so that no file or model can steer the terminal; lines are kept."""
    if all(map(str.isprintable, text.split("\n"))):  # a report of megabytes in no time
        return text
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, width: int) -> str:
    """A text with an ellipsis in place of an end that is too long.

    >>> shortened("abcd", 4), shortened("abcde", 4)
    ('abcd', 'abc…')
    """
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def many(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun; the plural is given where an s does not make it.

    >>> many(1, "prompt"), many(0, "prompt"), many(2, "try", "tries")
    ('1 prompt', '0 prompts', '2 tries')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most like this one; None when none is alike.

    >>> nearest("gama", ["gamma", "n_iters"])
    'gamma'
    """
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest known word as a question, or the list of what is known.

    >>> did_you_mean("gama", ["gamma", "n_iters"])
    "did you mean 'gamma'?"
    >>> did_you_mean("zzz", ["gamma", "n_iters"])
    'known are: gamma, n_iters'
    """
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near is not None else f"known are: {', '.join(known)}" if known else "remove it"
