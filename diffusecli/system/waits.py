"""What a command is busy with, for the person who waits. Any part may say it; the command line decides how to show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Wait:
    """Work that takes a while."""

    what: str
    since: float  # time.monotonic() at its start
    done: int = 0  # finished parts
    of: int = 0  # all parts; 0: unknown
    unit: str = "part"  # the current one of all
    counted: str = ""  # in place of the unit, where parts do not follow each other: a plural noun

    def line(self, now: float) -> str:
        """The work, its current part, and the time so far.

        >>> Wait("loading the model", 10.0).line(25.4), Wait("measuring", 0.0, 2, 20).line(60.0)
        ('loading the model: 15 s', 'measuring: part 3 of 20, 60 s')
        >>> Wait("sampling", 0.0, 400, 1000, counted="samples").line(18.0)
        'sampling: 400 of 1000 samples, 18 s'
        """
        current = (
            f"{self.done} of {self.of} {self.counted}"
            if self.counted
            else f"{self.unit} {min(self.done + 1, self.of)} of {self.of}"
        )
        part = f"{current}, " if self.of > 1 else ""
        return f"{self.what}: {part}{max(0.0, now - self.since):.0f} s"


Listener = Callable[[Wait | None], None]
_listener: ContextVar[Listener] = ContextVar("listener", default=lambda _: None)
_now: ContextVar[list[Wait]] = ContextVar("now")  # from the outermost to the innermost


@contextmanager
def waits_shown_by(listener: Listener) -> Iterator[None]:
    """Inside, `listener` receives each wait as it begins and advances, and None at the end."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


@contextmanager
def waiting_for(what: str, unit: str = "part", counted: str = "") -> Iterator[Callable[[int, int], None]]:
    """Say what is done inside. Gives a function for the number of finished parts and of all parts."""
    show, now = _listener.get(), _now.get(None)
    if now is None:
        _now.set(now := [])
    place = len(now)
    now.append(Wait(what, time.monotonic(), unit=unit, counted=counted))
    show(now[place])

    def advance(done: int, of: int) -> None:
        now[place] = replace(now[place], done=done, of=of)
        show(now[place])

    try:
        yield advance
    finally:
        del now[place:]
        show(now[-1] if now else None)
