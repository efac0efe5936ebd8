"""Terminal output: control characters are escaped on both streams, credentials are removed on stderr.

Characters that the stream's encoding does not have are escaped in texts of the user. Our own bars, rules and dashes have ASCII
replacements. This applies to every print of this program and its libraries, including usage errors and tracebacks. Rich's own colours
and cursor moves pass; control characters in the texts it shows do not.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TextIO

from diffusecli.system.errors import printable
from diffusecli.system.notices import WARNING

if TYPE_CHECKING:
    from rich.console import Console

_SECRET_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|SECRET_ACCESS_KEY|PASSWORD|PASSWD)$", re.IGNORECASE)
_MIN_SECRET = 8  # characters; shorter ones ("none", "EMPTY") are placeholders, and removing them would damage words
_USER = re.compile(r"(?<=://)[^/\s]*@")
_PASSWORD = re.compile(r"://[^/\s:]*:([^/\s]+)@")
_JOINED = "\x00"  # in place of a space at which no line ends
_TOGETHER = re.compile(r"`[^`]*`| %|\bp <?= (?=\d)|Cramér's V(?: (?=\d))?")
_PADDING = re.compile(" +(?=\n)")
_CUT = "…"  # marks a cut text or a removed credential
_REPLACEMENTS = {
    **dict.fromkeys("─━╸╺–−", "-"), **dict.fromkeys("▏▎▍", "-"), **dict.fromkeys("▌▋▊▉", "="), "█": "#",
    "│": "|", "⋮": ":", "✓": "+", "✗": "x", "≈": "~", "○": "o", **dict(zip("▁▂▃▄▅▆▇", "_.-=+*%", strict=True)), _CUT: "~",
}  # fmt: skip
"""Characters that draw tables and displays -> one ASCII character each, so that columns stay aligned."""
_IN_PROSE = {**_REPLACEMENTS, _CUT: "...", "≤": "<=", "≥": ">=", "→": "->", "±": "+-", "é": "e"}


def spelled(text: str) -> str:
    r"""Make a text of the user or a model printable in the terminal's encoding. Call it before measuring or cutting."""
    text = printable(text)
    for encoding in _poor_encodings():
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def fits(text: str) -> bool:
    """Whether the terminal shows the text unchanged."""
    return spelled(text) == text


def message(text: str) -> str:
    """A message for stderr without credentials. The ellipsis that marks a cut is not escaped."""
    return _CUT.join(map(spelled, discreet(text).split(_CUT)))


def _poor_encodings() -> list[str]:
    """Encodings of the standard streams that do not cover Unicode."""
    named = (getattr(stream, "encoding", None) or "utf-8" for stream in (sys.stdout, sys.stderr))
    return [encoding for encoding in dict.fromkeys(named) if not codecs.lookup(encoding).name.startswith("utf")]


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the stream's encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_IN_PROSE.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lost), error.end


codecs.register_error("diffuse", _replacement)


class Spelled:
    """A text stream that writes only printable characters and line breaks. Otherwise the same as the wrapped stream."""

    def __init__(self, stream: TextIO, also: Callable[[str], str] = lambda text: text) -> None:
        """`also` is applied to each text first. `bare` is the wrapped stream, for rich."""
        self.bare, self._also = stream, also

    def write(self, text: str) -> int:
        """As a text stream. Refuses bytes."""
        if not isinstance(text, str):
            raise TypeError("a text stream takes no bytes")  # click asks
        self.bare.write(printable(self._also(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As a text stream."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Always False: colour and cursor codes of libraries would be escaped."""
        return False

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # bytes would bypass the escaping
            raise AttributeError(name)
        return getattr(self.bare, name)


class Trimmed:
    """A text stream without spaces at the ends of lines: tables pad their last column."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As a text stream."""
        self._stream.write(_PADDING.sub("", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard() -> None:
    """Wrap stdout and stderr, once."""
    if not isinstance(sys.stdout, Spelled):
        sys.stdout = Spelled(sys.stdout)
    if not isinstance(sys.stderr, Spelled):
        sys.stderr = Spelled(sys.stderr, message)


def spell_what_is_lacking() -> None:
    """Let the standard streams replace characters that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="diffuse")


_RED, _YELLOW, _DIM = "31", "33", "2"


def error_line(text: str) -> None:
    """Print an error on stderr, red on a terminal."""
    _coloured_line(text, _RED)


def notice_line(text: str) -> None:
    """Print a notice on stderr: a warning yellow, others dim on a terminal."""
    _coloured_line(text, _YELLOW if text.startswith(WARNING) else _DIM)


def _coloured_line(text: str, colour: str) -> None:
    stream = sys.stderr
    bare = stream.bare if isinstance(stream, Spelled) else stream  # or that of a live display, which prints above itself
    before, after = (f"\x1b[{colour}m", "\x1b[0m") if has_colour(getattr(stream, "bare", stream)) else ("", "")
    if getattr(stream, "bare", stream).isatty():
        text = by_words(text, shutil.get_terminal_size().columns)
    bare.write(f"{before}{printable(text)}{after}\n")
    bare.flush()


def by_words(text: str, width: int) -> str:
    """The text in lines of at most `width` characters, later lines indented. Commands in backticks stay whole, so that they can be copied.

    >>> print(by_words("next: add `--verbose` or run `diffuse sample results/dice -n 9`", 30))
    next: add `--verbose` or run
      `diffuse sample results/dice -n 9`
    >>> print(by_words("at most one line", 16))
    at most one line
    """
    return "\n".join(line for paragraph in text.split("\n") for line in _indented(paragraph, width))


def _indented(paragraph: str, width: int) -> list[str]:
    if len(lines := in_lines(paragraph, width, cut=False)) == 1:
        return lines
    first, *others = in_lines(paragraph, max(1, width - 2), cut=False)
    return [first, *(f"  {line}" for line in others)]


def in_lines(text: str, width: int, *, cut: bool = True) -> list[str]:
    """Lines of at most `width` characters. A percent sign and a p-value stay whole, and what is in backticks; longer words are `cut`.

    >>> in_lines("valid 99.3 % of all", 10), in_lines("答えは 満足 です", 9), in_lines("it fits (p <= 0.01)", 14)
    (['valid', '99.3 % of', 'all'], ['答えは', '満足 です'], ['it fits', '(p <= 0.01)'])
    >>> in_lines("Cramér's V 0.547 (0.2 % unfinished)", 19), in_lines("é (unfinished 0.2 %)", 19)
    (["Cramér's V 0.547", '(0.2 % unfinished)'], ['é (unfinished', '0.2 %)'])
    """
    joined = _TOGETHER.sub(lambda found: found[0].replace(" ", _JOINED), text)
    if joined.isascii():  # every character takes one column
        lines = wrap(joined, width, break_on_hyphens=False, break_long_words=cut)
    else:
        lines = _by_columns(joined, width, cut=cut)
    return [line.replace(_JOINED, " ") for line in lines] or [""]


def _by_columns(text: str, width: int, *, cut: bool) -> list[str]:
    """As `textwrap.wrap`, for characters of any width: Chinese and Japanese ones take two columns, combining accents none."""
    from rich.cells import cell_len, chop_cells

    def columns(joined: str) -> int:
        return cell_len(joined.replace(_JOINED, " "))

    lines: list[str] = []
    for word in text.split():
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        elif cut and columns(word) > width:
            lines += chop_cells(word.replace(_JOINED, " "), max(2, width))
        else:
            lines.append(word)
    return lines


def has_colour(stream: TextIO) -> bool:
    """Whether to write colour codes: FORCE_COLOR says yes, NO_COLOR no, otherwise terminals that know them have colour."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def console(*, stderr: bool = False, narrowest: int = 60) -> Console:
    """A rich console without markup that escapes its texts. Its own codes work on a terminal.

    It is at least `narrowest` columns wide: a narrower terminal wraps lines, and numbers are never cut.
    """
    from rich.console import Console
    from rich.segment import Segment

    class Spelling(Console):
        """Escapes every text that becomes a segment."""

        @property
        def encoding(self) -> str:
            """Lay out everything as for a UTF-8 terminal. ASCII replacements have the same width."""
            return "utf-8"

        def on_broken_pipe(self) -> None:
            """On stderr, go on in silence: results may have another reader."""
            if not stderr:
                super().on_broken_pipe()
            self.quiet = True

        def render(self, *what: Any, **how: Any) -> Iterator[Segment]:
            """As rich, with printable texts and without links."""
            for text, style, control in super().render(*what, **how):
                if control:
                    yield Segment(text, style, control)
                else:
                    yield Segment(narrow(printable(text)), style.update_link(None) if style and style.link else style)

    stream = sys.stderr if stderr else sys.stdout
    narrow = _drawn_for(getattr(stream, "encoding", None) or "utf-8")
    bare = getattr(stream, "bare", stream)
    padded = has_colour(bare) or bare.isatty()  # after colour codes, padding cannot be distinguished from text
    file: Any = bare if padded else Trimmed(bare)
    made = Spelling(file=file, highlight=False, markup=False, emoji=False)
    made.width = max(narrowest, made.width)
    return made


def _drawn_for(encoding: str) -> Callable[[str], str]:
    """A function that replaces drawing characters that the encoding does not have."""
    lacking = {
        ord(sign): plain for sign, plain in _REPLACEMENTS.items() if sign.encode(encoding, "replace").decode(encoding) != sign
    }
    return lambda text: text.translate(lacking) if lacking else text


def json_text(text: str) -> str:
    r"""JSON with escapes for characters that are unprintable or missing in the terminal's encoding. The value stays the same.

    >>> print(json_text('"\x9b31m\u202e"'))
    "\u009b31m\u202e"
    """
    ascii_only = bool(_poor_encodings())  # JSON is UTF-8 by definition: other encodings are not JSON
    if fits(text) and (not ascii_only or text.isascii()):
        return text
    return "".join(c if c == "\n" or (fits(c) and (c.isascii() or not ascii_only)) else json.dumps(c)[1:-1] for c in text)


def discreet(text: str) -> str:
    """The text without user names and passwords of URLs, and without secrets from environment variables."""
    for secret in _secrets():
        text = text.replace(secret, "…")
    return _USER.sub("…@", text) if "@" in text else text


def _secrets() -> list[str]:
    """Keys, tokens and passwords of proxies and package indexes, longest first."""
    named = [value for name, value in os.environ.items() if _SECRET_NAMES.search(name)]
    within = [password for value in os.environ.values() if "@" in value for password in _PASSWORD.findall(value)]
    return sorted({s for s in (*named, *within) if len(s) >= _MIN_SECRET}, key=len, reverse=True)
