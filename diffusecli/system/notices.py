"""What the user reads while a command works; the command line decides where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Notice = Callable[[str], None]
_SHOWN = 5


def some_of(listed: Sequence[str]) -> str:
    """The first few of a list, and how many more there are.

    >>> some_of(["a", "b"]), some_of(list("abcdefg"))
    ('a; b', 'a; b; c; d; e; and 2 more')
    """
    more = len(listed) - _SHOWN
    return "; ".join(listed[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
