"""What can be said about a family's parameters: names with texts that fill the templates of `wordings/`.

A fact that does not hold for a call (a die with sides from 5 to 9, words for 3.5) is absent, and so are the templates that need it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from diffusecli.prompts.number_words import number_words

Facts = Mapping[str, str]

_OF_LISTS = re.compile(r'[,;"()]|\b(?:or|and)\b', re.IGNORECASE)

MOST_LISTED = 20
"""A range of at most so many numbers can be listed in full."""


def known(**facts: str | int | None) -> dict[str, str]:
    """Those of the facts that hold: numbers as figures and, under `…_words`, in words."""
    found: dict[str, str] = {}
    for name, value in facts.items():
        if value is not None:
            found[name] = str(value)
        if isinstance(value, int) and (words := number_words(value)) is not None:
            found[f"{name}_words"] = words
    return found


def range_facts(first: str, last: str, count: int, step: str) -> dict[str, str]:
    """Facts of equally likely numbers. Whole ones in steps of 1 have `low` and `high`, others `first`, `last` and `step`."""
    if Decimal(step) != 1 or not first.lstrip("-").isdigit():
        return known(first=first, last=last, step=step, count=count) if count > 2 else {}
    low, high = int(first), int(last)
    die = low == 1 and high > 2
    return {
        **known(low=low, high=high, count=count, beyond=high + 1),
        **known(range=f"{low}-{high}" if low >= 0 else None),
        **known(values=", ".join(map(str, range(low, high + 1))) if 2 < count <= MOST_LISTED else None),
        **(known(start=low, end=high) if low >= 1 else {}),
        **(_die_facts(high, "sides") if die else {}),
    }


def chance_facts(p: float) -> dict[str, str]:
    """Facts of a probability: figures, percentages, and "1 in 5" where that is exact."""
    exact = _fraction(p)
    percent, rest = _percent(exact), _percent(1 - exact)
    facts = known(p=in_digits(p), q=in_digits(float(1 - exact)), percent=percent, q_percent=rest)
    if percent is not None and "." not in percent:
        facts |= known(percent=int(percent))
    facts |= {f"a_{name}": with_article(facts[name]) for name in ("percent", "percent_words") if name in facts}
    return facts | (_share_facts(exact) if 0 < exact < 1 and exact.denominator <= 100 else {})


def binomial_facts(trials: int, p: float) -> dict[str, str]:
    """Facts of `trials` trials of probability `p`; `trials` itself is a fact for two and more, because stories are about several."""
    several = known(trials=trials, coins=trials if p == 0.5 else None) if trials > 1 else {}
    return {**known(n=trials), **several, **chance_facts(p)}


def poisson_facts(mean: float) -> dict[str, str]:
    """Facts of a mean number of events."""
    return known(mean=int(mean) if mean == int(mean) and mean > 1 else in_digits(mean))


def dice_facts(count: int, sides: int, shift: int) -> dict[str, str]:
    """Facts of `count` dice with `sides` sides and a constant."""
    constant = f"{shift:+d}" if shift else ""
    then = f", then add {shift}" if shift > 0 else f", then subtract {-shift}" if shift else ""
    facts = known(notation=f"{count if count > 1 else ''}d{sides}{constant}")
    facts["roll"] = f"a fair die with {sides} sides{then}" if count == 1 else f"{count} fair dice with {sides} sides each{then}"
    words = number_words(count), number_words(sides)
    facts["roll_words"] = (
        f"a fair die with {words[1]} sides{then}" if count == 1 else f"{words[0]} fair dice with {words[1]} sides each{then}"
    )
    if shift:
        return facts
    return facts | (_die_facts(sides, "die_sides") if count == 1 else known(dice=count, sides=sides))


def zipf_facts(exponent: float, ranks: int) -> dict[str, str]:
    """Facts of Zipf's law over several ranks."""
    if ranks < 2:
        return {}
    s = f"{exponent:g}"
    return known(exponent=s, ranks=ranks, decay=s if exponent > 0 else None, plain=ranks if exponent == 1 and ranks > 3 else None)


def date_facts(first: str, last: str, like: str, days: int | None) -> dict[str, str]:
    """Facts of a span of days that are written like `like`; `days` is None where several of them are written alike."""
    return known(first=first, last=last, like=like, days=days if days is not None and days > 1 else None)


def option_facts(names: Sequence[str], weights: Sequence[float] | None) -> dict[str, str]:
    """Facts of named outcomes: other ones with weights than without. None for a single outcome, which leaves no choice."""
    if len(names) < 2:
        return {}
    code, names = json.dumps(list(names), ensure_ascii=False), in_quotes(names)
    if weights is None:
        lists = known(options=", ".join(names), options_or=listed(names, "or"), options_and=listed(names, "and"), options_code=code)
        return lists | known(number=len(names))
    shares = share_texts(weights)
    texts = [str(int(weight)) for weight in weights] if _are_whole(weights) else shares
    facts = known(names_or=listed(names, "or"), names_and=listed(names, "and"), code_names=code)
    facts["chances"] = ", ".join(f"{name} ({share})" for name, share in zip(names, shares, strict=True))
    is_whole = sum(map(Decimal, shares)) == 1  # else numpy would refuse them
    facts |= known(weights_list=listed(shares, "and"), code_shares=f"[{', '.join(shares)}]" if is_whole else None)
    facts |= known(weights_and=listed(texts, "and"), code_weights=f"[{', '.join(texts)}]")
    return facts | _exact_weight_facts(names, weights)


def in_quotes(names: Sequence[str]) -> list[str]:
    """Names for a list in a sentence: all in quotes where one of them holds what lists are written with.

    >>> in_quotes(["a", "b"]), in_quotes(["tea", "milk, warm"]), in_quotes(["Bo's", 'a "b"'])
    (['a', 'b'], ['"tea"', '"milk, warm"'], ["“Bo's”", '“a "b"”'])
    """
    if not any(_OF_LISTS.search(name) for name in names):
        return list(names)
    straight = next((mark for mark in "\"'" if not any(mark in name for name in names)), "")
    opening, closing = straight or "“", straight or "”"
    return [f"{opening}{name}{closing}" for name in names]


def in_digits(value: float, digits: int = 6) -> str:
    """A number in so many digits, or in as many as distinguish it from 1; without an exponent.

    >>> in_digits(0.25), in_digits(1e-7), in_digits(0.99999999), in_digits(1.0)
    ('0.25', '0.0000001', '0.99999999', '1')
    """
    texts = (f"{value:.{number}g}" for number in range(digits, 18))
    return format(Decimal(next(text for text in texts if text != "1" or value == 1)), "f")


def share_texts(weights: Sequence[float]) -> list[str]:
    """What weights are of their sum, in three digits, or in as many as distinguish a share from 1.

    >>> share_texts([1, 3]), share_texts([1, 9998, 1])
    (['0.25', '0.75'], ['0.0001', '0.9998', '0.0001'])
    """
    total = math.fsum(weights)
    return [in_digits(weight / total, 3) for weight in weights]


def listed(texts: Sequence[str], word: str) -> str:
    """Texts as a list in English.

    >>> listed(["a", "b", "c"], "or")
    'a, b or c'
    """
    return f"{', '.join(texts[:-1])} {word} {texts[-1]}" if len(texts) > 1 else "".join(texts)


def with_article(text: str) -> str:
    """The text after "a" or "an", as a number or a noun is spoken.

    >>> with_article("8"), with_article("eleven"), with_article("number"), with_article("80"), with_article("11.5"), with_article("hour")
    ('an 8', 'an eleven', 'a number', 'an 80', 'an 11.5', 'an hour')
    """
    whole = text.split(".", maxsplit=1)[0].split("-", maxsplit=1)[0].split("%", maxsplit=1)[0]
    vowel = (
        whole[:1] == "8" or whole in ("11", "18")
        if whole[:1].isdigit()
        else text.startswith("hour") or (text[:1].lower() in "aeiou" and not text.startswith("one"))
    )
    return f"{'an' if vowel else 'a'} {text}"


def _die_facts(sides: int, name: str) -> dict[str, str]:
    facts = known(**{name: sides}, a_die=f"{with_article(str(sides))}-sided die")
    if words := number_words(sides):
        facts["a_die_words"] = f"{with_article(words)}-sided die"
    return facts


def _fraction(p: float) -> Fraction:
    """The simple fraction that the number means, if there is one (1/3), else the decimal as it is written."""
    simple = Fraction(p).limit_denominator(100)
    return simple if float(simple) == p else Fraction(str(p))


def _percent(share: Fraction) -> str | None:
    """The percentage where it has two decimals at most."""
    hundredths = share * 10_000
    return f"{float(share * 100):.2f}".rstrip("0").rstrip(".") if hundredths.denominator == 1 else None


def _share_facts(share: Fraction) -> dict[str, str]:
    """`share` is "1 in 5"; `hits` of `of` the same with two hits at least, for stories about several."""
    top, bottom = share.numerator, share.denominator
    facts = known(share=f"{top} in {bottom}", share_words=f"{number_words(top)} in {number_words(bottom)}")
    facts |= known(hits=max(2, top), of=bottom * (2 if top == 1 else 1))
    return facts | known(one_in=bottom if top == 1 and bottom > 2 else None)


def _exact_weight_facts(names: Sequence[str], weights: Sequence[float]) -> dict[str, str]:
    """Percentages and ratios, where they are whole."""
    total = math.fsum(weights)
    percents = [100 * weight / total for weight in weights]
    facts: dict[str, str] = {}
    if all(abs(percent - round(percent, 1)) < 1e-9 for percent in percents):
        pairs = [(name, f"{round(percent, 1):g}%") for name, percent in zip(names, percents, strict=True)]
        facts = known(percents=", ".join(f"{name} {percent}" for name, percent in pairs))
        facts |= known(percents_and=listed([f"{percent} for {name}" for name, percent in pairs], "and"))
    if _are_whole(weights):
        facts |= known(ratio=" to ".join(str(int(weight)) for weight in weights))
    return facts


def _are_whole(weights: Sequence[float]) -> bool:
    return all(weight == int(weight) for weight in weights)
