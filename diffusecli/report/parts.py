"""Parts of tables: bars, percentages, short names. Texts from files and models are never read as markup."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.open_ended import Outcome
from diffusecli.system.terminal import in_lines, spelled

_MARK = "│"


def new_table(*columns: Text | tuple[str, str]) -> Table:
    """A table with a line below its header; a column given as a pair is right-aligned."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        if isinstance(column, tuple):
            table.add_column(column[0], justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=True)
    return table


def bar(share: float, style: str = "none", width: int = 14, mark: float | None = None) -> Text:
    """A bar of up to `width` characters, with a resolution of an eighth of a character, and a `│` where `mark` is.

    >>> bar(0.5, width=8).plain, bar(0.5, width=8, mark=1).plain, bar(1, width=8, mark=0.5).plain
    ('████', '████   │', '███│████')
    """
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=style)
    if mark is not None and width:
        place = max(0, min(width, round(mark * width)) - 1)
        drawn.pad_right(max(0, place + 1 - len(drawn)))
        drawn = Text.assemble(drawn[:place], (_MARK, ""), drawn[place + 1 :])
    return drawn


class Flow:
    """Short texts side by side, on as many lines as needed; no text is split unless it is longer than a line."""

    def __init__(self, parts: Sequence[str], indent: int, *, hanging: int = 0) -> None:
        """Lines after the first are indented by `hanging` more."""
        self.parts, self.indent, self.hanging = parts, indent, hanging

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines: list[str] = []
        for part in self.parts:
            if lines and len(lines[-1]) + 3 + len(part) <= options.max_width:
                lines[-1] += f"   {part}"
            else:
                lines.append(" " * (self.indent + (self.hanging if lines else 0)) + part)
        yield from map(Text, lines)


class Sentence:
    """Text in lines as wide as the terminal. A number and its percent sign stay on one line."""

    def __init__(self, text: str, *, indent: int = 0, style: str = "") -> None:
        self.text, self.indent, self.style = text, indent, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in in_lines(self.text, max(1, options.max_width - self.indent)):
            yield Text(" " * self.indent + line, style=self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(map(len, self.text.split()), default=0) + self.indent
        return Measurement(min(widest, options.max_width), min(len(self.text) + self.indent, options.max_width))


def percent(share: float) -> str:
    """One decimal; small shares as `<0.1 %`, not as zero."""
    if math.isnan(share):
        return "-"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def percent_span(low: float, high: float) -> str:
    """An interval of shares.

    >>> percent_span(0.5, 0.123)
    '50.0 to 12.3 %'
    """
    return f"{100 * low:.1f} to {percent(high)}"


def quoted(text: str, width: int) -> str:
    """A text of a model in quotes on one line, at most `width` characters; an ellipsis before the last quote if cut.

    >>> print(quoted("a text", 20), quoted("a long text", 9))
    'a text' 'a long…'
    """
    whole = spelled(repr(text))
    return whole if len(whole) <= width else f"{whole[: width - 2].rstrip()}…{whole[-1]}"


def label(text: str, width: int = 16) -> Text:
    """A text from a file or a model on one line, cut at its start if long; never read as markup."""
    line = spelled(text).replace("\n", "\\n")
    return Text(line if len(line) <= width else "…" + line[1 - width :])


def labels(texts: Sequence[str], width: int) -> list[Text]:
    """Texts from a file or a model on one line each, cut in the middle if long (see `middle`); never read as markup."""
    return [Text(line) for line in middle([spelled(text).replace("\n", "\\n") for text in texts], width)]


def middle(texts: Sequence[str], width: int) -> list[str]:
    """Shorten texts to `width` characters: in the middle, or around the first difference if they would look the same.

    >>> middle(["very dissatisfied", "dissatisfied", "a"], 12)
    ['very d…sfied', 'dissatisfied', 'a']
    >>> middle(["an answer of one kind that is long", "an answer of two kinds that is long"], 14)
    ['…wer of one k…', '…wer of two k…']
    """
    whole = len(set(texts))
    even = (width - 1) - (width - 1) // 2
    cut = _cut(texts, width, even)
    for start in sorted(range(1, width - 1), key=lambda start: abs(start - even)):
        if len(set(cut)) == whole:
            return cut
        cut = max(cut, _cut(texts, width, start), key=lambda some: len(set(some)))
    long = [text for text in texts if len(text) > width]
    first, last = min(long, default=""), max(long, default="")  # what these two begin with, all begin with
    alike = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    begin = max(0, alike - width // 2)
    around = [text if len(text) <= width else f"{'…' if begin else ''}{text[begin:]}" for text in texts]
    around = [text if len(text) <= width else f"{text[: width - 1]}…" for text in around]
    return max(cut, around, key=lambda some: len(set(some)))


def _cut(texts: Sequence[str], width: int, start: int) -> list[str]:
    """Long texts with so many characters before the ellipsis."""
    end = width - 1 - start
    return [text if len(text) <= width else f"{text[:start]}…{text[len(text) - end :]}" for text in texts]


def number(value: float) -> str:
    """About four characters: a KL may be .0012 or 12.

    >>> number(0.00123), number(1.5), number(12.345), number(float("nan")), number(float("inf"))
    ('0.0012', '1.50', '12.3', '-', 'inf')
    """
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def cut_in_words(outcome: Outcome) -> str:
    """The suffix of an answer of which some, or all, were cut at the limit.

    >>> cut_in_words(Outcome("a", 5)), cut_in_words(Outcome("a", 5, 2)), cut_in_words(Outcome("a", 5, 5))
    ('', ' (2 unfinished)', ' (unfinished)')
    """
    if not outcome.unfinished:
        return ""
    return " (unfinished)" if outcome.unfinished == outcome.count else f" ({outcome.unfinished} unfinished)"


def decimals(value: float) -> str:
    """Four significant digits, in the units of the outcome.

    >>> decimals(5.5), decimals(123456), decimals(0.0123456)
    ('5.5', '123456', '0.01235')
    """
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def thousandths(value: float) -> str:
    """A distance, or another figure with three decimals.

    >>> thousandths(0.12345), thousandths(-0.0001), thousandths(float("nan"))
    ('0.123', '0.000', '-')
    """
    return "-" if math.isnan(value) else f"{value:z.3f}"
