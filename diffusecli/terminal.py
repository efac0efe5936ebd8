"""What may reach a terminal: control characters spelled out on both streams, credentials blanked on stderr.

The last net below every print of this program and of the libraries under it, usage errors and tracebacks included.
Rich's own colours and cursor moves pass, what it was given to show does not steer anything.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from diffusecli.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

_SECRET_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|SECRET_ACCESS_KEY|PASSWORD|PASSWD)$", re.IGNORECASE)
_LEAST_SECRET = 8  # characters; shorter ones ("none", "EMPTY") are stand-ins, and blanking them would tear words
_USER = re.compile(r"(?<=://)[^/\s]*@")
_PASSWORD = re.compile(r"://[^/\s:]*:([^/\s]+)@")


class Spelled:
    """A text stream on which nothing but lines of printable signs can be written. What else it does is the stream's own."""

    def __init__(self, stream: TextIO, also: Callable[[str], str] = lambda text: text) -> None:
        """`also` is done to each text first; `bare` is the stream itself, for rich."""
        self.bare, self._also = stream, also

    def write(self, text: str) -> int:
        """As a text stream does; takes no bytes."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes no bytes")  # click asks
        self.bare.write(printable(self._also(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As a text stream does."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Never: libraries that colour or redraw lines would find their codes spelled out."""
        return False

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # bytes would pass by
            raise AttributeError(name)
        return getattr(self.bare, name)


def guard() -> None:
    """Put the net under stdout and stderr, once."""
    if not isinstance(sys.stdout, Spelled):
        sys.stdout = Spelled(sys.stdout)
    if not isinstance(sys.stderr, Spelled):
        sys.stderr = Spelled(sys.stderr, discreet)


def console(*, stderr: bool = False) -> Console:
    """A rich console that reads no markup and spells out what it is given; its own codes work on a terminal."""
    from rich.console import Console
    from rich.segment import Segment

    class Spelling(Console):
        """Every text that becomes a segment passes here."""

        def render(self, *what: Any, **how: Any) -> Iterator[Segment]:
            """As rich does it, with printable texts and without links."""
            for text, style, control in super().render(*what, **how):
                if control:
                    yield Segment(text, style, control)
                else:
                    yield Segment(printable(text), style.update_link(None) if style and style.link else style)

    stream = sys.stderr if stderr else sys.stdout
    made = Spelling(file=getattr(stream, "bare", stream), highlight=False, markup=False, emoji=False)
    made.width = max(80, made.width)  # a narrow terminal wraps lines; numbers are never cut
    return made


def json_text(text: str) -> str:
    r"""JSON with unprintable signs as escapes, so that it means the same and steers nothing.

    >>> print(json_text('"\x9b31m\u202e"'))
    "\u009b31m\u202e"
    """
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def discreet(text: str) -> str:
    """The text without user names and passwords of URLs, and without the secrets that stand in the environment."""
    for secret in _secrets():
        text = text.replace(secret, "…")
    return _USER.sub("…@", text) if "@" in text else text


def _secrets() -> list[str]:
    """Keys, tokens and the passwords of proxies and package indexes, the longest first."""
    named = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
    within = [password for value in os.environ.values() if "@" in value for password in _PASSWORD.findall(value)]
    return sorted({s for s in (*named, *within) if len(s) >= _LEAST_SECRET}, key=len, reverse=True)
