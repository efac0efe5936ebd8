"""What may reach a terminal: control characters spelled out on both streams, credentials blanked on stderr.

What the encoding of a stream lacks is spelled out too where it belongs to a text of the user; our own bars, rules and dashes have
ASCII stand-ins. The last net below every print of this program and of the libraries under it, usage errors and tracebacks included.
Rich's own colours and cursor moves pass, what it was given to show does not steer anything.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from diffusecli.system.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

_SECRET_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|SECRET_ACCESS_KEY|PASSWORD|PASSWD)$", re.IGNORECASE)
_LEAST_SECRET = 8  # characters; shorter ones ("none", "EMPTY") are stand-ins, and blanking them would tear words
_USER = re.compile(r"(?<=://)[^/\s]*@")
_PASSWORD = re.compile(r"://[^/\s:]*:([^/\s]+)@")
_CUT = "…"  # where a text was cut or a credential blanked
_STAND_INS = {
    **dict.fromkeys("─━╸╺–−", "-"), **dict.fromkeys("▏▎▍", "-"), **dict.fromkeys("▌▋▊▉", "="), "█": "#",
    **dict(zip("▁▂▃▄▅▆▇", "_.-=+*%", strict=True)), _CUT: "~",
}  # fmt: skip
"""What tables and displays are drawn with; one sign for one, so that columns stay in line."""
_IN_PROSE = {**_STAND_INS, _CUT: "...", "≤": "<=", "≥": ">=", "→": "->", "±": "+-", "é": "e", "≈": "~"}


def spelled(text: str) -> str:
    r"""A text of the user or a model for the terminal, before it is measured or cut: printable, what the encoding lacks spelled out."""
    text = printable(text)
    for encoding in _poor_encodings():
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def fits(text: str) -> bool:
    """Whether the terminal shows the text as it is."""
    return spelled(text) == text


def message(text: str) -> str:
    """A message for stderr, without credentials; its own sign for what is cut or blanked is not spelled out."""
    return _CUT.join(map(spelled, discreet(text).split(_CUT)))


def _poor_encodings() -> list[str]:
    """Of the standard streams, where they lack signs."""
    named = (getattr(stream, "encoding", None) or "utf-8" for stream in (sys.stdout, sys.stderr))
    return [encoding for encoding in dict.fromkeys(named) if not codecs.lookup(encoding).name.startswith("utf")]


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """What a stream writes for signs that its encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_IN_PROSE.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lost), error.end


codecs.register_error("diffuse", _stand_in)


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
        sys.stderr = Spelled(sys.stderr, message)


def spell_what_is_lacking() -> None:
    """Let the standard streams write something for every sign, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="diffuse")


def console(*, stderr: bool = False, narrowest: int = 80) -> Console:
    """A rich console that reads no markup and spells out what it is given; its own codes work on a terminal.

    It is at least `narrowest` columns wide: a narrower terminal wraps lines, and numbers are never cut.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Spelling(Console):
        """Every text that becomes a segment passes here."""

        @property
        def encoding(self) -> str:
            """Everything is laid out with the signs of a rich terminal; their stand-ins are as wide."""
            return "utf-8"

        def render(self, *what: Any, **how: Any) -> Iterator[Segment]:
            """As rich does it, with printable texts and without links."""
            for text, style, control in super().render(*what, **how):
                if control:
                    yield Segment(text, style, control)
                else:
                    yield Segment(narrow(printable(text)), style.update_link(None) if style and style.link else style)

    stream = sys.stderr if stderr else sys.stdout
    narrow = _drawn_for(getattr(stream, "encoding", None) or "utf-8")
    made = Spelling(file=getattr(stream, "bare", stream), highlight=False, markup=False, emoji=False)
    made.width = max(narrowest, made.width)
    return made


def _drawn_for(encoding: str) -> Callable[[str], str]:
    """What is drawn with, in signs that the encoding has."""
    lacking = {
        ord(sign): stand_in for sign, stand_in in _STAND_INS.items() if sign.encode(encoding, "replace").decode(encoding) != sign
    }
    return lambda text: text.translate(lacking) if lacking else text


def json_text(text: str) -> str:
    r"""JSON with escapes for unprintable signs and those that the terminal lacks, so that it means the same and steers nothing.

    >>> print(json_text('"\x9b31m\u202e"'))
    "\u009b31m\u202e"
    """
    ascii_only = bool(_poor_encodings())  # JSON is UTF-8 by definition: bytes of another encoding would be no JSON
    if fits(text) and (not ascii_only or text.isascii()):
        return text
    return "".join(c if c == "\n" or (fits(c) and (c.isascii() or not ascii_only)) else json.dumps(c)[1:-1] for c in text)


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
