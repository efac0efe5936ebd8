"""What tables are made of: bars, percentages, short names. Texts from files and models are shown as they are, never read as markup."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from diffusecli.errors import printable
from diffusecli.open_ended import Outcome
from diffusecli.runs import MODES
from diffusecli.terminal import spelled

if TYPE_CHECKING:
    from diffusecli.evaluation import Evaluated
    from diffusecli.metrics import Figures
    from diffusecli.prompt import Prompt

_MARKUP = re.compile(r"[\\|`\[\]]")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp|www)([:.])")
_CALLS = re.compile(r"[@#](?=\w)")


def new_table(*columns: Text | tuple[str, str]) -> Table:
    """A table with a rule under its head; a column that is a pair stands on the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        if isinstance(column, tuple):
            table.add_column(column[0], justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=True)
    return table


def bar(share: float, style: str = "none", width: int = 14) -> Text:
    """A bar of up to `width` signs, an eighth of a sign exact."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style=style)


def percent(share: float) -> str:
    """One decimal, more where a rare target would read as nothing."""
    if math.isnan(share):
        return "-"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def short_names(aliases: Sequence[str]) -> dict[str, str]:
    """Aliases without the folders they share and, unless two would become one, without `.json`.

    >>> short_names(["prompts/a/x.json", "prompts/b/x.json"]), short_names(["x", "x.json"])
    ({'prompts/a/x.json': 'a/x', 'prompts/b/x.json': 'b/x'}, {'x': 'x', 'x.json': 'x.json'})
    """
    parts = [alias.split("/") for alias in dict.fromkeys(aliases)]
    shared = 0
    while all(len(way) > shared + 1 for way in parts) and len({tuple(way[: shared + 1]) for way in parts}) == 1:
        shared += 1
    names = {"/".join(way): "/".join(way[shared:]) for way in parts}
    bare = Counter(name.removesuffix(".json") for name in names.values())
    return {alias: short if bare[short := name.removesuffix(".json")] == 1 else name for alias, name in names.items()}


def marks(prompts: Iterable[Prompt]) -> dict[tuple[str, str], str]:
    """By `Prompt.key`: the first digits of the digest, to be put behind names that several prompts share; else empty."""
    keys = dict.fromkeys(prompt.key for prompt in prompts)
    shared = Counter(alias for alias, _ in keys)
    return {(alias, digest): f" ({digest[:8]})" if shared[alias] > 1 else "" for alias, digest in keys}


def prompt_names(prompts: Iterable[Prompt]) -> dict[tuple[str, str], str]:
    """By `Prompt.key`: short names, all different, for a file may have been edited between two runs or commands."""
    marked = marks(prompts)
    short = short_names([alias for alias, _ in marked])
    return {key: short[key[0]] + mark for key, mark in marked.items()}


def label(text: str, width: int = 16) -> Text:
    """A text from a file or a model on one line, its end kept; never read as markup."""
    line = spelled(text).replace("\n", "\\n")
    return Text(line if len(line) <= width else "…" + line[1 - width :])


def shorten(text: str, width: int) -> str:
    """A text whose beginning is kept."""
    return text if len(text) <= width else text[: width - 1] + "…"


def number(value: float) -> str:
    """Four signs or so: a KL may be .0012 or 12.

    >>> number(0.00123), number(1.5), number(12.345), number(float("nan")), number(float("inf"))
    ('0.0012', '1.50', '12.3', '-', 'inf')
    """
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def cut_in_words(outcome: Outcome) -> str:
    """What stands behind an answer of which some, or all, were cut at the limit.

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


def labels(rows: Iterable[Evaluated], between: str = " ") -> dict[tuple[str, str], str]:
    """What each sampler is called: its mode, after the run's short name where there are several runs; a file by its name."""
    pairs = list(dict.fromkeys((row.run, row.mode) for row in rows))
    names = short_names([run for run, _ in pairs])
    if len(names) == 1:
        return {(run, mode): mode for run, mode in pairs}
    return {(run, mode): names[run] if mode not in MODES else f"{names[run]}{between}{mode}" for run, mode in pairs}


def p_value(found: Figures) -> str:
    """Short; as small as the Monte Carlo allows is said so."""
    if math.isnan(found.p_value):
        return "-"
    return f"<{found.least_p:.0e}".replace("e-0", "e-") if found.at_least_p else f"{found.p_value:.2g}"


def markdown_cell(text: str) -> str:
    r"""A text from anywhere inside Markdown, in a table or not: it stays one cell, and no tag, link, picture or code of its own.

    Addresses are no links, and nobody is called by name (`@`), nor another issue by number (`#`), where a forge would do so.

    >>> print(markdown_cell("a|b\n<i> [x](y) `c` &lt; www.a.b http://c @d #1"))
    a\|b &lt;i> \[x\](y) \`c\` &amp;lt; www\.a.b http\://c @&#8203;d #&#8203;1
    """
    line = printable(text).replace("&", "&amp;").replace("\n", " ")
    line = _MARKUP.sub(r"\\\g<0>", line).replace("<", "&lt;")
    return _CALLS.sub(r"\g<0>&#8203;", _ADDRESS.sub(r"\1\\\2", line))


def markdown_code(text: str) -> str:
    r"""A text from anywhere as code within a line of Markdown, in more backticks than it has itself.

    >>> print(markdown_code("a"), markdown_code("`<b>"))
    `a` `` `<b> ``
    """
    line = printable(text).replace("\n", " ")
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if "`" in line or not line.strip() else f"{ticks}{line}{ticks}"
