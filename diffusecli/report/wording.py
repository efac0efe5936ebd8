"""The words of reports: verdicts, labels and texts of models, nothing unprintable. Figures are in `numbers.py`.

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

from diffusecli.evaluation.comparison import are_copies, no_interval
from diffusecli.evaluation.distinctness import DRAWS
from diffusecli.evaluation.evaluation import Difference
from diffusecli.evaluation.metrics import FIRST_DRAW, KINDS, OTHER_FIELDS, Figures, Worded
from diffusecli.evaluation.open_ended import Diversity
from diffusecli.evaluation.records import FieldFigures, RecordFigures
from diffusecli.evaluation.verdicts import p_value as p_in_words
from diffusecli.prompts.rounded_figures import with_rounding
from diffusecli.report.numbers import brief, count, key, number, p_from, p_value, percent, plus_minus, span
from diffusecli.system.errors import many, printable, shortened

_MOST_TEXT = 600  # characters of one text of a model
_MOST_ENTRIES = 40  # of a list or a mapping within settings and manifests
FEW_VALID = 0.05  # share of valid answers, below which their statistics say nothing
MANY_OFF = 0.05  # share of samples off target from which reports point to them
_SOME_OFF, _RAISED = 0.01, 0.02  # share off target, and nats above the target, from which reports say why the entropy is high
MERGED = "answers that differ only in case, quotes, Markdown signs or closing punctuation are one"
"""How different answers of open-ended prompts are counted."""
DRIFT_SCALE = "0.02 is small, 0.4 is large"
"""How much drift is bad, as measured in `docs/study.md`."""
STYLES = {"good": "green", "near": "yellow", "open": "yellow", "bad": "red"}
"""Kind of a verdict -> its colour on the terminal."""
_MARKS = (
    ("follows the target more evenly", "≈", "near"),
    ("follows the target over all wordings", "≈", "near"),
    ("follows the target", "✓", "good"),
    ("close to the target", "≈", "near"),
    ("differs, perhaps", "?", "open"),
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


def mark_of(verdict: str) -> tuple[str, str]:
    """Sign and kind (good, near, bad or open) of a verdict.

    >>> mark_of("follows the target (p = .43)"), mark_of("off target 41 %")
    (('✓', 'good'), ('✗', 'bad'))
    >>> mark_of("follows the target more evenly than independent draws would (p <= 0.0001)")
    ('≈', 'near')
    >>> mark_of("first draw: follows the target (p = 0.4)")
    ('✓', 'good')
    >>> mark_of("undecided, 2.8 % other or no value, true TVD between 0.011 and 0.076 (p = 0.69, excess TVD 0.009)")
    ('?', 'open')
    """
    phrase = phrase_of(verdict)
    return next(((sign, kind) for start, sign, kind in _MARKS if phrase.startswith(start)), ("✗", "bad"))


def phrase_of(verdict: str) -> str:
    """A verdict without what it is of.

    >>> phrase_of("first draw: too few samples"), phrase_of("too few samples")
    ('too few samples', 'too few samples')
    """
    return verdict.removeprefix(FIRST_DRAW).removeprefix(OTHER_FIELDS)


def raised_entropy(found: Figures) -> str:
    """Why the entropy is clearly above the target's, if texts off target can explain half of it: each such text counts as an outcome.

    A share o of n answers, all different, adds at most o ln(o n) - o ln o - (1 - o) ln(1 - o).
    """
    off, above = 1 - found.valid, found.entropy - found.target_entropy
    if off < _SOME_OFF or above <= _RAISED:
        return ""
    most = (
        off * math.log(max(1.0, off * found.n))
        - off * math.log(off)
        - (found.valid * math.log(found.valid) if found.valid else 0.0)
    )
    return "; off-target texts raise it" if most >= above / 2 else ""


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


def furthest_value(records: RecordFigures, field: FieldFigures) -> str:
    """Of a field that differs the value furthest from its weight, and of one with too many other values the most frequent of them; otherwise empty."""
    far, unknown = field.furthest, field.unknown
    shares = (
        [f"{short(far.value)!r} {100 * far.share:.1f} %, wanted {100 * far.weight:.1f} %"]
        if far is not None and field in records.wrong_fields
        else []
    )
    others = (
        [f"most frequent other value {short(unknown.value)!r} {100 * unknown.share:.1f} %"]
        if unknown is not None and field.other_values
        else []
    )
    return "; ".join([*shares, *others])


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


def missing_intervals(found: Iterable[Difference]) -> str:
    """Why some differences have no interval; empty if all have one."""
    reasons = {
        no_interval(d.before.tally, d.after.tally, entropy=name == "entropy")
        for d in found
        if not are_copies(d.before.tally, d.after.tally)
        for name, some in (("excess TVD", d.excess_tvd), ("entropy", d.entropy))
        if not math.isnan(some.value) and math.isnan(some.low) and (name != "entropy" or d.has_entropy)
    }
    return f"there are {' or '.join(sorted(reasons))}" if reasons else ""


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
    "p_value": p_value, "p_from": p_from, "p_words": p_in_words, "of_wordings": of_wordings, "distinct_of_10": distinct_of_10, "sentence": sentence, "signs": signs, "with_rounding": with_rounding, "raised_entropy": raised_entropy, "around_command": around_command, "furthest_value": furthest_value, "missing_intervals": missing_intervals,
}  # fmt: skip
"""Filters of the HTML template."""
