"""Notices: messages during a command. The command line decides where to show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Notice = Callable[[str], None]
CHECK, WARNING, ERROR = "check: ", "warning: ", "error: "
"""How notices begin that report an internal check, and those that the user should act on."""
_SHOWN = 5


def some_of(listed: Sequence[str]) -> str:
    """The first few items of a list, and the number of others.

    >>> some_of(["a", "b"]), some_of(list("abcdefg"))
    ('a; b', 'a; b; c; d; e; and 2 more')
    """
    more = len(listed) - _SHOWN
    return "; ".join(listed[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
