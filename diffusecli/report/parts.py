"""Parts of tables: bars, figures, short names. Texts from files and models are never read as markup.

All figures of one kind have one format: shares `percent`, KL `nats` (four decimals), all other figures `thousandths` (three decimals), expected
numbers `tenths`, p-values two digits. A figure and the value to compare it with have the same number of decimals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.open_ended import Outcome
from diffusecli.report.numbers import ROUNDING
from diffusecli.report.widths import distinguishable, end_of, start_of
from diffusecli.system.terminal import in_lines, spelled

_MARK = "│"
_NARROWEST_TEXT = 8  # columns of a text beside figures
_NARROWEST_WRAPPED = 16  # columns of a text that wraps, before texts that do not are cut


class Fitted(Table):
    """A table that shortens its texts if it is too wide, never its figures.

    If that is not enough, each row becomes its texts and below them its figures with their names, on as many lines as needed.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = [max(_width(cell, console, options) for cell in (column.header, *column.cells)) for column in self.columns]
        widths = self._narrowed(whole, options.max_width - 2 * (len(whole) - 1))
        if widths is None:
            yield from self._in_lines()
            return
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _narrowed(self, whole: Sequence[int], room: int) -> list[int] | None:
        """Widths of the columns in so many characters; None if different texts would look the same."""
        widths, texts = list(whole), [place for place, column in enumerate(self.columns) if column.justify != "right"]
        while sum(widths) > room:
            wrapped = [place for place in texts if not self.columns[place].no_wrap and widths[place] > _NARROWEST_WRAPPED]
            widest = max(wrapped or texts, key=lambda place: widths[place], default=None)
            if widest is None or widths[widest] <= _NARROWEST_TEXT:
                return None
            widths[widest] -= 1
        for place in texts:
            if self.columns[place].no_wrap and widths[place] < whole[place]:
                different = {str(cell) for cell in self.columns[place].cells}
                if len({start_of(text, widths[place]) for text in different}) < len(different):
                    return None
        return widths

    def _in_lines(self) -> Iterator[RenderableType]:
        heads = [" ".join(str(column.header).split()) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            sides = [(column.justify == "right", head, cell) for column, head, cell in zip(self.columns, heads, row, strict=True)]
            texts = [(place, cell) for place, (is_figure, _, cell) in enumerate(sides) if not is_figure and str(cell).strip()]
            yield from (Padding(cell, (0, 0, 0, 2 if place else 0)) for place, cell in texts)
            yield Flow(
                [f"{head} {str(cell).strip()}" for is_figure, head, cell in sides if is_figure and str(cell).strip()], indent=4
            )


def _width(cell: RenderableType, console: Console, options: ConsoleOptions) -> int:
    return Measurement.get(console, options, cell).maximum


def new_table(*columns: Text | tuple[str, str]) -> Table:
    """A table with a line below its header; a column given as a pair is right-aligned. It keeps its figures at every width."""
    table = Fitted(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        if isinstance(column, tuple):
            table.add_column(column[0], justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=True)
    return table


def bar(share: float, style: str = "none", width: int = 14, mark: float | None = None) -> Text:
    """A bar of up to `width` characters, with a resolution of an eighth of a character, and a `│` where `mark` is.

    The bar passes the mark only if the share is larger, and then it does so visibly. It stays visibly below the mark if the share is smaller and
    the mark is not in the first column.

    >>> bar(0.5, width=8).plain, bar(0.5, width=8, mark=1).plain, bar(1, width=8, mark=0.5).plain
    ('████', '████   │', '███│████')
    >>> bar(0.14, width=8, mark=0.17).plain, bar(0.3, width=8, mark=0.29).plain, bar(1, width=8, mark=0.999).plain
    ('│', '█│▍', '██████│█')
    >>> bar(0.499, width=8, mark=0.5).plain, bar(0.5, width=8, mark=0.5).plain
    ('██▉│', '███│')
    """
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    place = 0
    if mark is not None and width:
        above = share > mark + ROUNDING
        place = max(0, min(width - above, round(mark * width)) - 1)
        most_below = 8 * place - (place > 0 and share < mark - ROUNDING)
        eighths = min(8 * width, max(eighths, 8 * place + 9)) if above else min(eighths, most_below)
    full, rest = divmod(eighths, 8)
    drawn = Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=style)
    if mark is not None and width:
        drawn.pad_right(max(0, place + 1 - len(drawn)))
        drawn = Text.assemble(drawn[:place], (_MARK, ""), drawn[place + 1 :])
    return drawn


class Flow:
    """Short texts side by side, on as many lines as needed. A text longer than a line is split between words, with the same indent."""

    def __init__(self, parts: Sequence[str], indent: int, *, hanging: int = 0) -> None:
        """Lines after the first are indented by `hanging` more."""
        self.parts, self.indent, self.hanging = parts, indent, hanging

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines: list[str] = []
        for part in self.parts:
            if lines and cell_len(lines[-1]) + 3 + cell_len(part) <= options.max_width:
                lines[-1] += f"   {part}"
            else:
                indent = self.indent + (self.hanging if lines else 0)
                lines += [" " * indent + line for line in in_lines(part, max(1, options.max_width - indent))]
        yield from map(Text, lines)


class Sentence:
    """Text in lines as wide as the terminal. A number and its percent sign stay on one line."""

    def __init__(self, text: str, *, indent: int = 0, style: str = "") -> None:
        self.text, self.indent, self.style = text, indent, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in in_lines(self.text, max(1, options.max_width - self.indent)):
            yield Text(" " * self.indent + line, style=self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(map(cell_len, self.text.split()), default=0) + self.indent
        return Measurement(min(widest, options.max_width), min(cell_len(self.text) + self.indent, options.max_width))


class CountedText:
    """A text of a model and how often it came: cut to the width of the terminal, or `whole`, on as many lines as needed."""

    def __init__(self, count: int, text: str, after: str = "", *, whole: bool = False) -> None:
        self.count, self.text, self.after, self.whole = f"{count:>8} x ", text, after, whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(_NARROWEST_TEXT, options.max_width - len(self.count) - (0 if self.whole else len(self.after)))
        lines = in_lines(spelled(repr(self.text)) + self.after, room) if self.whole else [quoted(self.text, room) + self.after]
        for place, line in enumerate(lines):
            yield Text((" " * len(self.count) if place else self.count) + line)


def percent(share: float) -> str:
    """One decimal; small shares as `<0.1 %`, not as zero, and large ones as `>99.9 %`, not as all.

    >>> percent(0.1234), percent(0.0003), percent(0.9997), percent(1)
    ('12.3 %', '<0.1 %', '>99.9 %', '100.0 %')
    """
    if math.isnan(share):
        return "-"
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.9995 <= share < 1 - ROUNDING:
        return ">99.9 %"
    return f"{100 * share:.1f} %"


def percent_span(low: float, high: float) -> str:
    """An interval of shares: one decimal, or three if its ends would look the same.

    >>> percent_span(0.5, 0.623), percent_span(0.99966, 0.99973), percent_span(0.9987, 1)
    ('50.0 to 62.3 %', '99.966 to 99.973 %', '99.9 to 100.0 %')
    """
    digits = 3 if low < high and f"{100 * low:.1f}" == f"{100 * high:.1f}" else 1
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"


def quoted(text: str, width: int) -> str:
    """A text of a model in quotes on one line, in at most `width` columns; an ellipsis before the last quote if cut.

    >>> print(quoted("a text", 20), quoted("a long text", 9))
    'a text' 'a long…'
    """
    whole = spelled(repr(text))
    return whole if cell_len(whole) <= width else f"{start_of(whole, width - 1)}{whole[-1]}"


def label(text: str, width: int = 16) -> Text:
    """A text from a file or a model on one line, cut at its start if long; never read as markup."""
    return Text(end_of(_on_a_line(text), width))


def beginning(text: str, width: int) -> Text:
    """A text from a model on one line, cut at its end if long; never read as markup."""
    return Text(start_of(_on_a_line(text), width))


def labels(texts: Sequence[str], width: int) -> list[Text]:
    """Texts from a file or a model on one line each, cut if long (see `distinguishable`); never read as markup."""
    return [Text(line) for line in distinguishable(list(map(_on_a_line, texts)), width)]


def _on_a_line(text: str) -> str:
    return spelled(text).replace("\n", "\\n")


def nats(value: float) -> str:
    """A KL divergence or a drift: four decimals.

    >>> nats(0.00123), nats(12.345), nats(float("nan")), nats(float("inf"))
    ('0.0012', '12.3450', '-', 'inf')
    """
    return "-" if math.isnan(value) else f"{value:z.4f}"


def format_of(measure: str) -> Callable[[float], str]:
    """The format of a figure with this name.

    >>> format_of("exact KL")(1), format_of("excess TVD")(1)
    ('1.0000', '1.000')
    """
    return nats if "KL" in measure else thousandths


def cut_in_words(outcome: Outcome) -> str:
    """The suffix of an answer of which some, or all, were cut at the limit.

    >>> cut_in_words(Outcome("a", 5)), cut_in_words(Outcome("a", 5, 2)), cut_in_words(Outcome("a", 5, 5))
    ('', ' (2 unfinished)', ' (unfinished)')
    """
    if not outcome.unfinished:
        return ""
    return " (unfinished)" if outcome.unfinished == outcome.count else f" ({outcome.unfinished} unfinished)"


def thousandths(value: float) -> str:
    """A distance, an entropy, or a value in the units of the outcome: three decimals, none from 10 000 up.

    >>> thousandths(0.12345), thousandths(-0.0001), thousandths(123456.7), thousandths(float("nan"))
    ('0.123', '0.000', '123457', '-')
    """
    return "-" if math.isnan(value) else f"{value:z.0f}" if 10_000 <= abs(value) < math.inf else f"{value:z.3f}"


def tenths(value: float) -> str:
    """An expected number of things: one decimal.

    >>> tenths(9.96), tenths(123456.7)
    ('10.0', '123456.7')
    """
    return f"{value:.1f}"
