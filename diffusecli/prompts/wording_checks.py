"""Whether wordings of one question ask for the same: the ranges, chances and counts that they name, and the options among them.

What a text leaves open contradicts nothing; only what two texts both name can differ. Knows texts; knows nothing of files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from diffusecli.prompts.number_words import with_figures

Claims = Mapping[str, frozenset[str]]
"""What a text says: the kind of a statement (a range, a chance, a number of trials) and all that it says of this kind."""

_NUMBER = r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w-]|[.,]\d)"
_RANGES = [
    re.compile(pattern.replace("N", f"({_NUMBER})"), re.IGNORECASE)
    for pattern in (
        r"between N and N",
        r"N (?:to|through) N",
        r"at least N and (?:is )?at most N",
        r"(?:interval|range) \[N, N\]",
        r"(?<!numpy\.random\.)(?<!np\.random\.)\b(?:randint|randbetween)\(N, N\)",
    )
]
_DASHED = re.compile(r"(?<![\w.,-])(\d+)(?:-|–|\.\.|…)(\d+)(?![\w-]|[.,]\d)")
_DIE = re.compile(r"\ban? (\d+)[- ]sided die\b|\bdie with (\d+) (?:sides|faces)\b|(?<!\w)1?d(\d+)\b", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?(?:%|per ?cent)", re.IGNORECASE)
_RATIO = re.compile(r"\b(\d+) (?:in|of|out of)(?: every)? (\d+)\b")
_DECIMAL = re.compile(r"(?<![\w.,-])0?\.\d+(?![\w-]|[.,]\d)")
_COUNTED = re.compile(r"(?<![\w.,/+-])(\d+)[ -]([A-Za-z]{4,})")
_WORD = re.compile(r"[^\W\d_]{4,}")
_NO_NOUNS = frozenset({
    "with", "from", "once", "times", "time", "each", "every", "percent", "chance", "else", "otherwise", "please", "through", "that", "this",
    "when", "where", "which", "random", "inclusive", "only", "both", "means", "stands", "shows", "comes", "appears", "sided",
})  # fmt: skip
_SAME_SHARE = 0.006  # 33% and 1/3 mean the same


DOUBLED_BRACES = "write braces once: only the requests of --group-by and --given need them doubled"
"""The fix for a request that has doubled braces, which the model sees as they are."""


def loose_brace(text: str) -> str:
    """What is wrong with the braces of a request; empty if each one has its counterpart.

    >>> loose_brace("like this: {{a}, {b}}"), loose_brace("like this: {pet"), loose_brace("like this: pet}")
    ('', 'has an opening brace that is not closed', 'has a closing brace that is not opened')
    """
    depth = 0
    for sign in re.findall(r"[{}]", text):
        depth += 1 if sign == "{" else -1
        if depth < 0:
            return "has a closing brace that is not opened"
    return "has an opening brace that is not closed" if depth else ""


def contradictions(requests: Sequence[str], targets: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Wordings that ask for something else than another: the index of both, and in what they differ.

    Each is compared with the first of those that say what most say. At most one contradiction is reported for each.
    """
    if len(requests) < 2:
        return
    options = _options(targets)
    bare = [with_figures(text) for text in map(_without_targets(targets), requests)]
    outcomes = frozenset(word for target in targets for word in (*_DECIMAL.findall(target), *_WORD.findall(target.lower())))
    claims = [claims_of(text, outcomes) for text in bare]
    named = [_named(text, options) for text in requests]
    usual = {kind: _most_common([c[kind] for c in claims if kind in c]) for kind in dict.fromkeys(k for c in claims for k in c)}
    widest = max(named, key=len, default=frozenset())
    for index, claim in enumerate(claims):
        for kind, said in claim.items():
            if _differ(kind, said, usual[kind]):
                other = next(place for place, c in enumerate(claims) if c.get(kind) == usual[kind])
                yield index, other, f"{_stated(kind, said)}, not {_stated(kind, usual[kind])}"
                break
        else:
            if (named[index] < widest and named[index]) or (len(named[index] & widest) > 1 and named[index] != widest):
                yield index, named.index(widest), f"the options {_list(named[index])}, not {_list(widest)}"


def departure(original: str, paraphrase: str, targets: Sequence[str]) -> str:
    """In what a paraphrase departs from its original: stricter than `contradictions`, it must name the same. "" where it does.

    >>> departure("A number from 1 to 10", "Any of the numbers one to twelve", ())
    'name other numbers'
    """
    options = _options(targets)
    mine, theirs = map(_without_targets(targets), (original, paraphrase))
    if {option for option in options if _names(mine, option)} != {option for option in options if _names(theirs, option)}:
        return "name other options"
    ignored = {1.0} if not re.search(r"(?<![\w.])1(?![\w.]|\.\d)", mine) else set()  # "one" is also a pronoun
    wanted, named = _numbers(mine) - ignored, _numbers(theirs)
    return "" if wanted <= named and named - wanted <= {1.0} else "name other numbers"


def _numbers(text: str) -> set[float]:
    """All numbers of a text, with percentages and ratios (1 in 5) as shares."""
    rest = with_figures(text)
    found = {int(hits) / int(all_) for hits, all_ in _RATIO.findall(rest) if int(all_)}
    found |= {float(percent) / 100 for percent in _PERCENT.findall(rest)}
    rest = _PERCENT.sub("", _RATIO.sub("", rest))
    return {round(number, 6) for number in found | {float(number) for number in re.findall(r"\d+(?:\.\d+)?|\.\d+", rest)}}


def claims_of(text: str, outcomes: frozenset[str] = frozenset()) -> Claims:
    """What a text with figures says of ranges, chances and numbers of things. Words and decimals of outcomes are no claims.

    >>> claims_of("Try it 10 times from 1 to 6 with 20% chance, for 8 players")
    {'range': frozenset({'1 to 6'}), 'chance': frozenset({'0.2'}), 'players': frozenset({'8'})}
    """
    found: dict[str, set[str]] = {}
    for pattern in (*_RANGES, _DASHED):
        for low, high in pattern.findall(text):
            if float(low) < float(high):
                found.setdefault("range", set()).add(f"{low} to {high}")
    for sides in _DIE.findall(text):
        found.setdefault("range", set()).add(f"1 to {''.join(sides)}")
    if chances := _chances(text, outcomes):
        found["chance"] = {", ".join(f"{chance:.6g}" for chance in chances)}
    for number, noun in _COUNTED.findall(_RATIO.sub("", text)):
        if noun.lower() not in _NO_NOUNS | outcomes:
            found.setdefault(noun.lower(), set()).add(number)
    return {kind: frozenset(said) for kind, said in found.items()}


def _chances(text: str, outcomes: frozenset[str]) -> list[float]:
    """The probabilities that a text states: one, or several that make 1. Anything else may be other numbers."""
    found = [float(percent) / 100 for percent in _PERCENT.findall(text)]
    found += [int(hits) / int(all_) for hits, all_ in _RATIO.findall(text) if 0 < int(hits) < int(all_)]
    found += [float(number) for number in _DECIMAL.findall(_PERCENT.sub("", text)) if number not in outcomes]
    every = sorted(chance for chance in found if 0 < chance < 1)
    different = sorted(set(every))
    if len(different) == 1:
        return different
    return next((chances for chances in (every, different) if abs(math.fsum(chances) - 1) < 0.02), [])


def _differ(kind: str, said: frozenset[str], usual: frozenset[str]) -> bool:
    """Whether two statements of a kind have nothing in common. A chance and its complement, success and failure, go together."""
    if kind != "chance":
        return not said & usual
    mine, theirs = ([float(text) for text in ", ".join(texts).split(", ")] for texts in (said, usual))
    if len(mine) > 2 and len(theirs) > 2:
        return len(mine) == len(theirs) and any(abs(a - b) > _SAME_SHARE for a, b in zip(mine, theirs, strict=True))
    return len(mine) + len(theirs) < 5 and all(min(abs(a - b), abs(1 - a - b)) > _SAME_SHARE for a in mine for b in theirs)


def _stated(kind: str, said: frozenset[str]) -> str:
    texts = " or ".join(sorted(said, key=lambda text: (len(text), text)))
    return f"{kind} {texts}" if kind in ("range", "chance") else f"{texts} {kind}"


def _most_common(said: Sequence[frozenset[str]]) -> frozenset[str]:
    return Counter(said).most_common(1)[0][0]


def _options(targets: Sequence[str]) -> tuple[str, ...]:
    """What targets name, if it is words: without what all have around it. None for one target or very many."""
    if not 1 < len(targets) <= 1000:
        return ()
    start, end = _frame(targets)
    cores = [target[len(start) : len(target) - len(end)] for target in targets]
    return tuple(core for core in cores if len(core) > 1 and core[0].isalpha())


def _frame(targets: Sequence[str]) -> tuple[str, str]:
    """What all targets begin and end with, as far as it is no part of their words: it has no letter or digit at the seam."""
    if len(targets) < 2:
        return "", ""
    start, end = _common_start(targets), _common_start([target[::-1] for target in targets])[::-1]
    return re.sub(r"\w+$", "", start), re.sub(r"^\w+", "", end)


def _common_start(texts: Sequence[str]) -> str:
    """What all begin with: the first and the last in alphabetical order differ soonest."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(min(texts), max(texts), strict=False))
    return "".join(letter for letter, _ in pairs)


def _named(text: str, options: Sequence[str]) -> frozenset[str]:
    """The options that a text names: none where it names one, as an example, or a range from the first to the last."""
    lowered = text.lower()
    found = [option for option in options if option.lower() in lowered and _names(text, option)]
    is_range = found and re.search(rf"{re.escape(options[0])},? (?:to|through|until|…),? {re.escape(options[-1])}", text)
    return frozenset() if len(found) < 2 or is_range else frozenset(found)


def _names(text: str, option: str) -> bool:
    flags = re.IGNORECASE if option.islower() else re.NOFLAG
    return re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text, flags) is not None


def _without_targets(targets: Sequence[str]) -> Callable[[str], str]:
    """Removes targets as they are written, which are examples of the form; bare words stay."""
    known = frozenset(targets)
    start, end = _frame(targets)
    if not start or not end:
        return lambda request: request
    pattern = re.compile(rf"{re.escape(start)}.*?{re.escape(end)}")
    return lambda request: pattern.sub(lambda match: "" if match[0] in known else match[0], request)


def _list(texts: frozenset[str]) -> str:
    shown = sorted(texts)
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
