"""Work counted in calls of functions, which no busy machine changes: what must not grow is held against a number, not against a clock."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class TooMuchWork(BaseException):
    """Not an `Exception`, so that no `except Exception` catches it."""


@dataclass
class Calls:
    """How many functions were called, Python's own and those in C."""

    made: int = 0


@contextmanager
def calls(most: int | None = None) -> Iterator[Calls]:
    """Counts what is called inside, in this thread; raises `TooMuchWork` at once when it is more than `most`."""
    seen = Calls()

    def count(_frame: object, event: str, _what: object) -> None:
        if event in ("call", "c_call"):
            seen.made += 1
            if most is not None and seen.made > most:
                sys.setprofile(before)
                raise TooMuchWork(f"more than {most} calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def spoiled(found):
    """What a pass found, no number of it."""
    from diffusecli.training.loss import Found

    nan = float("nan")
    return Found(tuple(part * nan for part in found.parts), tuple(answer * nan for answer in found.answers))
