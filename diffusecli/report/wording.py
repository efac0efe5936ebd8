"""Format figures and texts for reports: thin spaces, real minus signs, dashes for unknown values, nothing unprintable.

No charts or HTML here.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from diffusecli.evaluation.distinctness import DRAWS
from diffusecli.evaluation.metrics import FIRST_DRAW, KINDS, OTHER_FIELDS, Figures, Worded
from diffusecli.evaluation.open_ended import Diversity
from diffusecli.evaluation.verdicts import p_value as p_in_words
from diffusecli.evaluation.verdicts import too_few
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.system.errors import many, printable, shortened

ROUNDING = 1e-9  # error of a sum of shares, or of a figure that is zero
_MOST_TEXT = 600  # characters of one text of a model
_MOST_ENTRIES = 40  # of a list or a mapping within settings and manifests
FEW_VALID = 0.05  # share of valid answers, below which their statistics say nothing
MANY_OFF = 0.05  # share of samples off target from which reports point to them
DRIFT_SCALE = "0.02 is small, 0.4 is large"
"""How much drift is bad, as measured in `docs/study.md`."""
STYLES = {"good": "green", "near": "yellow", "open": "yellow", "bad": "red"}
"""Kind of a verdict -> its colour on the terminal."""
_MARKS = (
    ("follows the target more evenly", "≈", "near"),
    ("follows the target over all wordings", "≈", "near"),
    ("follows the target", "✓", "good"),
    ("close to the target", "≈", "near"),
    ("differs from the target by a TVD", "?", "open"),
    ("differs from the target (", "?", "open"),
    ("differs from the target,", "?", "open"),
    ("undecided", "?", "open"),
    ("too few samples", "?", "open"),
    ("open-ended", "○", "open"),
    ("no samples", "–", "open"),
    ("not sampled", "–", "open"),
)
"""Beginning of a verdict -> its sign and kind. The first match counts; all other verdicts are bad."""


def short(text: str, width: int = 28) -> str:
    r"""One line of printable text, cut with an ellipsis.

    >>> short("a\nb"), short("abcdef", 4), short("\x1b[2J")
    ('a ⏎ b', 'abc…', '\\x1b[2J')
    """
    line = printable(" ⏎ ".join(text.split("\n")))
    return shortened(line, width)


def unique(labels: Iterable[str]) -> list[str]:
    """Make labels unique: repeated ones get a number.

    >>> unique(["a", "b", "a"])
    ['a', 'b', 'a #2']
    """
    seen: Counter[str] = Counter()
    found: list[str] = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return found


def known(value: float | None) -> float | None:
    """None if the value is not a finite number, which JSON cannot represent."""
    return value if value is not None and math.isfinite(value) else None


def percent(share: float | None, digits: int = 1) -> str:
    r"""A share as a percentage; a dash if unknown. A share that is not zero, or not all, never looks like it.

    >>> percent(0.1234), percent(float("nan")), percent(0.0001), percent(0.9997), percent(1 - 1e-12)
    ('12.3\u202f%', '–', '<0.1\u202f%', '>99.9\u202f%', '100.0\u202f%')
    """
    found = known(share)
    if found is None:
        return "–"
    step = 10**-digits  # in percent
    if 0 < found < 0.005 * step:
        return f"<{step:.{digits}f}\u202f%"
    if 1 - 0.005 * step <= found < 1 - ROUNDING:
        return f">{100 - step:.{digits}f}\u202f%"
    return f"{100 * found:.{digits}f}\u202f%"


def mark_of(verdict: str) -> tuple[str, str]:
    """Sign and kind (good, near, bad or open) of a verdict.

    >>> mark_of("follows the target (p = .43)"), mark_of("off target 41 %")
    (('✓', 'good'), ('✗', 'bad'))
    >>> mark_of("follows the target more evenly than independent draws would (p <= 0.0001)")
    ('≈', 'near')
    >>> mark_of("first draw: follows the target (p = 0.4)")
    ('✓', 'good')
    >>> mark_of("undecided, 2.8 % other or no value, TVD between 0.011 and 0.076 (p = 0.69, excess TVD 0.009)")
    ('?', 'open')
    """
    phrase = verdict.removeprefix(FIRST_DRAW).removeprefix(OTHER_FIELDS)
    return next(((sign, kind) for start, sign, kind in _MARKS if phrase.startswith(start)), ("✗", "bad"))


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    r"""A number with thin spaces between thousands and a real minus sign; a dash if unknown.

    A number above zero never looks like it, and one below never has a minus sign before zeros.

    >>> number(-1234.5, 1), number(0.0000123, 4), number(-0.0000123, 4), number(math.inf), number(0.5, 2, "+")
    ('−1\u202f234.5', '<0.0001', '0.0000', '–', '+0.50')
    """
    found = known(value)
    if found is None:
        return "–"
    if ROUNDING < found < 0.5 * 10**-digits and not sign:
        return f"<{10**-digits:.{digits}f}"
    return f"{found:{sign}z,.{digits}f}".replace(",", "\u202f").replace("-", "−")


def plus_minus(value: float, error: float, digits: int = 4) -> str:
    """A value with the half-width of its 95 % interval, from its standard error; only the value if it is exact.

    The half-width has two significant digits if `digits` decimals allow it, and the value as many decimals.

    >>> plus_minus(13.5004, 0.1), plus_minus(0.5, 0), plus_minus(0.0279, 0.001)
    ('13.50 ± 0.20', '0.5000', '0.0279 ± 0.0020')
    """
    half = 1.96 * error
    if half:
        digits = max(0, min(digits, 1 - math.floor(math.log10(half))))
    return f"{value:.{digits}f}" + (f" ± {half:.{digits}f}" if half else "")


def raised_entropy(found: Figures) -> str:
    """Why the entropy is above the target's, if many answers are off target: each such text counts as an outcome."""
    many_off = 1 - found.valid >= MANY_OFF and found.entropy > found.target_entropy
    return "; off-target texts raise it" if many_off else ""


def distinct_of_10(found: Diversity) -> str:
    """How many different texts are expected among 10 answers, with the half-width of the 95 % interval.

    If the interval ends at 1 or 10, the lowest and highest possible value, its limits are shown instead. A dash for fewer than 10 answers,
    a count for exactly 10, and one decimal if the error is unknown.
    """
    if math.isnan(found.distinct_of_10):
        return "–"
    if math.isnan(found.distinct_of_10_error):
        return f"{found.distinct_of_10:.{int(found.error_is_unknown)}f}"
    value, _, half = plus_minus(found.distinct_of_10, found.distinct_of_10_error, 3).partition(" ± ")
    low, high = float(value) - float(half), float(value) + float(half)
    if low >= 1 and high <= DRAWS:
        return f"{value} ± {half}"
    low_limit, high_limit = (
        str(end) if end in (1, DRAWS) else f"{end:.{len(half) - 2}f}" for end in (max(1, low), min(DRAWS, high))
    )
    return f"{value} ({low_limit} to {high_limit})"


def count(value: float | None) -> str:
    """A whole number."""
    return number(value, 0)


def span(low: float | None, high: float | None, digits: int = 3, factor: float = 1) -> str:
    """An interval.

    >>> span(0.1, 0.25, 2), span(-0.1, 0.2, 1), span(math.nan, 1)
    ('0.10 to 0.25', '−0.1 to 0.2', '–')
    """
    bounds = known(low), known(high)
    if bounds[0] is None or bounds[1] is None:
        return "–"
    first, last = (
        f"{factor * bound:,.{digits}f}".replace(",", "\u202f").replace("-", "−") for bound in bounds if bound is not None
    )
    return f"{first} to {last}"


def brief(value: float) -> str:
    """A level of significance, with three significant digits.

    >>> brief(0.05 / 2 / 2), brief(0.05 / 2 / 7)
    ('0.0125', '0.00357')
    """
    return f"{value:.3g}"


def key(value: float | None) -> str:
    """Sort key of a column; empty if unknown."""
    found = known(value)
    return "" if found is None else f"{found:.9g}"


def p_value(found: Figures) -> str:
    """The p-value of a test of fit; a dash if too few answers are valid for it to say anything."""
    return "–" if too_few(found) else p_from(found.p_value, found.least_p)


def p_from(value: float, least: float) -> str:
    r"""A Monte Carlo p-value; it cannot be below `least`, which is 1 / (B + 1) or twice that.

    >>> p_from(0.001, 0.001), p_from(0.0021, 0.0002), p_from(0.43, 0.0002), p_from(math.nan, 0.0002)
    ('≤\u202f0.001', '0.0021', '0.430', '–')
    """
    return f"≤\u202f{least:.2g}" if value <= least * 1.001 else number(value, 4 if value < 0.01 else 3)


_TYPOGRAPHY = (
    ("excess TVD -", "excess TVD −"),
    ("p <= ", "p\u202f≤\u202f"),
    ("p = ", "p\u202f=\u202f"),
    ("<=", "≤"),
    (" || ", " ‖ "),
    ("X2", "X²"),
    (" %", "\u202f%"),
)


def signs(words: str) -> str:
    r"""Typographic signs in place of those of a terminal. A number stays on the line of its sign.

    >>> signs("p <= 0.0001, KL(target || model), Pearson's X2, 23.8 %")
    "p\u202f≤\u202f0.0001, KL(target ‖ model), Pearson's X², 23.8\u202f%"
    """
    for plain, sign in _TYPOGRAPHY:
        words = words.replace(plain, sign)
    return words


def sentence(verdict: str) -> str:
    """A verdict without p-values.

    >>> sentence("off target 50 % (unfinished 30 %), no difference found in valid answers (p = 0.4)")
    'off target 50 % (unfinished 30 %), no difference found in valid answers'
    """
    return re.sub(r" \((highest )?p (=|<=) [^()]*\)", "", verdict)


def text(value: Any, most: int = _MOST_TEXT) -> str:
    """Printable text; the end of a long text is cut."""
    whole = printable(str(value).replace("\r\n", "\n"))
    return whole if len(whole) <= most else f"{whole[:most]}… ({len(whole) - most:,} more characters)".replace(",", "\u202f")


def readable(value: Mapping[str, Any]) -> str:
    """Indented, printable JSON without NaN; long lists and mappings are cut.

    >>> print(readable({"exact_kl": {f"{i}.json": i for i in range(1000)}})[-44:])
        "39.json": 39,
        "…": "960 more"
      }
    }
    """
    return printable(json.dumps({str(name): _plain(some) for name, some in value.items()}, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        rest = {"…": f"{len(value) - _MOST_ENTRIES} more"} if len(value) > _MOST_ENTRIES else {}
        return {str(name): _plain(some) for name, some in islice(value.items(), _MOST_ENTRIES)} | rest
    if isinstance(value, list | tuple):
        more = [f"… {len(value) - _MOST_ENTRIES} more"] if len(value) > _MOST_ENTRIES else []
        return [_plain(some) for some in value[:_MOST_ENTRIES]] + more
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value).replace("nan", "–").replace("inf", "∞")
    return value if value is None or isinstance(value, str | int) else str(value)


def around_command(advice: str) -> tuple[str, str, str]:
    """The text before a command in backticks, the command, and the text after it; without a command all is before it.

    >>> around_command("train: `diffuse train 'a`b.yaml'`"), around_command("wait")
    (('train: ', "diffuse train 'a`b.yaml'", ''), ('wait', '', ''))
    """
    found = re.fullmatch(r"([^`]*)`(.*)`([^`]*)", advice, re.DOTALL)
    return (found[1], found[2], found[3]) if found else (advice, "", "")


def of_wordings(figures: Sequence[Worded]) -> Iterator[str]:
    """One line per kind of wordings: their median and worst TVD, and the worst wording."""
    estimated = any(one.kind in ("draw", "field") for one in figures)
    for kind, name in KINDS.items():
        some = [one for one in figures if one.kind == kind]
        if some:
            worst = max(some, key=lambda one: one.tvd)
            text = short(worst.name, 40)
            figures_are = f"{'each given the previous ones, ' if kind == 'draw' else ''}{'estimated' if estimated else 'exact'}"
            yield f"{many(len(some), name)}: {figures_are} {median_and_worst([one.tvd for one in some])} ({text})"


def median_and_worst(tvds: Sequence[float]) -> str:
    """Median and worst TVD of many wordings.

    >>> median_and_worst([0.5, 0.1, 0.2])
    'TVD median 0.200, worst 0.500'
    """
    return f"TVD median {statistics.median(tvds):.3f}, worst {max(tvds):.3f}"


FILTERS = {
    "number": number, "brief": brief, "percent": percent, "text": text, "count": count, "span": span, "key": key, "short": short,
    "p_value": p_value, "p_from": p_from, "p_words": p_in_words, "of_wordings": of_wordings, "distinct_of_10": distinct_of_10, "sentence": sentence, "signs": signs, "with_rounding": with_rounding, "raised_entropy": raised_entropy, "around_command": around_command,
}  # fmt: skip
"""Filters of the HTML template."""
