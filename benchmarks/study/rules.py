"""Questions made by rule, for `abilities.py`: many kinds of arithmetic, numbers, calendar, words and letters, each question with four answers.

A rule yields a question, its right answer and wrong answers, in any order. `by_rule` takes the first different ones of each kind, so that all
follows from the seed. Word lists are in `data/words.toml`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from benchmarks.study.abilities import DATA, Question, near
from diffusecli.prompts.number_words import number_words

EACH = 145
"""Questions of a kind, where it has as many."""

Made = Iterator[tuple[str, str, Sequence[str]]]
"""Question, right answer, at least three wrong ones."""

Rule = Callable[[np.random.Generator], Made]
RULES: dict[str, Rule] = {}

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TRIES = 40  # per question: a kind with fewer questions has all of them by then


def by_rule(seed: int = 0, each: int = EACH) -> list[Question]:
    """Up to `each` different questions of every kind; the right answer is as often in each place as numbers allow."""
    found = []
    for number, (kind, rule) in enumerate(RULES.items()):
        dice = np.random.default_rng([seed, number])
        made = _different(rule, dice, each)
        places = dice.permutation(np.arange(len(made)) % 4)
        for (question, right, wrong), place in zip(made, places, strict=True):
            options = (*wrong[:place], right, *wrong[place:])
            found.append(Question(question, options, int(place), kind))
    return found


def _different(rule: Rule, dice: np.random.Generator, each: int) -> list[tuple[str, str, list[str]]]:
    """The first questions that differ in their text, each with three wrong answers. No answer begins another."""
    made: dict[str, tuple[str, str, list[str]]] = {}
    for _, (question, right, wrong) in zip(range(_TRIES * each), rule(dice)):  # noqa: B905 - rules may end
        chosen: list[str] = []
        for option in dict.fromkeys(wrong):
            if not any(a.startswith(b) or b.startswith(a) for a in [right, *chosen] for b in [option]):
                chosen.append(option)
        if len(chosen) >= 3:
            made.setdefault(question, (question, right, chosen[:3]))
        if len(made) == each:
            break
    return list(made.values())


def _rule(kind: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES[kind] = rule
        return rule

    return add


def _number(dice: np.random.Generator, low: int, high: int) -> int:
    """From low to high, both included."""
    return int(dice.integers(low, high + 1))


def _others(dice: np.random.Generator, result: int, *steps: int) -> list[int]:
    """Numbers near a result, of as many digits, in random order."""
    return [int(n) for n in dice.permutation(near(result, steps))]


def _equation(dice: np.random.Generator, term: str, result: int, *steps: int) -> tuple[str, str, list[str]]:
    return f"What is {term}?", f"{term} = {result}", [f"{term} = {n}" for n in _others(dice, result, *steps)]


def _sentence(dice: np.random.Generator, question: str, start: str, result: int, *steps: int) -> tuple[str, str, list[str]]:
    return question, f"{start} {result}", [f"{start} {n}" for n in _others(dice, result, *steps)]


@_rule("addition to 100")
def _addition(dice: np.random.Generator) -> Made:
    while True:
        a, b = _number(dice, 11, 79), _number(dice, 2, 20)
        yield _equation(dice, f"{a} + {b}", a + b, 1, 2, 10)


@_rule("addition of three")
def _three(dice: np.random.Generator) -> Made:
    while True:
        a, b, c = (_number(dice, 2, 12) for _ in range(3))
        yield _equation(dice, f"{a} + {b} + {c}", a + b + c, 1, 2, 10)


@_rule("subtraction below 100")
def _subtraction(dice: np.random.Generator) -> Made:
    while True:
        a, b = _number(dice, 31, 99), _number(dice, 2, 20)
        yield _equation(dice, f"{a} - {b}", a - b, 1, 2, 10)


@_rule("multiplication to 12 times 12")
def _multiplication(dice: np.random.Generator) -> Made:
    while True:
        a, b = _number(dice, 2, 12), _number(dice, 2, 12)
        yield _equation(dice, f"{a} * {b}", a * b, 1, a, b)


@_rule("division")
def _division(dice: np.random.Generator) -> Made:
    while True:
        a, b = _number(dice, 2, 12), _number(dice, 2, 12)
        yield _equation(dice, f"{a * b} / {b}", a, 1, 2, 3)


@_rule("doubles")
def _doubles(dice: np.random.Generator) -> Made:
    while True:
        a = _number(dice, 6, 200)
        yield _sentence(dice, f"What is twice {a}?", f"Twice {a} is", 2 * a, 2, 4, 10)


@_rule("halves")
def _halves(dice: np.random.Generator) -> Made:
    while True:
        a = _number(dice, 3, 200)
        yield _sentence(dice, f"What is half of {2 * a}?", f"Half of {2 * a} is", a, 1, 2, 10)


@_rule("missing number")
def _missing(dice: np.random.Generator) -> Made:
    while True:
        a, b = _number(dice, 2, 30), _number(dice, 2, 30)
        yield _sentence(dice, f"Which number plus {a} is {a + b}?", "The number is", b, 1, 2, 10)


@_rule("stories of more")
def _more(dice: np.random.Generator) -> Made:
    while True:
        a, b, (name, thing) = _number(dice, 3, 30), _number(dice, 2, 9), _scene(dice)
        asked = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
        yield _sentence(dice, asked, f"{name} has", a + b, 1, 2, 10)


@_rule("stories of fewer")
def _fewer(dice: np.random.Generator) -> Made:
    while True:
        a, b, (name, thing) = _number(dice, 11, 30), _number(dice, 2, 9), _scene(dice)
        asked = f"{name} has {a} {thing} and gives {b} away. How many {thing} are left?"
        yield _sentence(dice, asked, f"{name} has", a - b, 1, 2, 10)


def _scene(dice: np.random.Generator) -> tuple[str, str]:
    return str(dice.choice(["Tom", "Anna", "Ben", "Lucy"])), str(dice.choice(["apples", "books", "coins", "pens", "stamps"]))


@_rule("rounding to tens")
def _tens(dice: np.random.Generator) -> Made:
    while True:
        a = _number(dice, 11, 994)
        if a % 5:
            nearest = round(a / 10) * 10
            wrong = [f"{a} rounds to {nearest + step}" for step in dice.permutation([-20, -10, 10, 20])]
            yield f"Round {a} to the nearest ten.", f"{a} rounds to {nearest}", wrong


def _four(dice: np.random.Generator) -> list[int]:
    return [int(n) for n in dice.choice(np.arange(10, 100), 4, replace=False)]


def _listed(options: Sequence[object]) -> str:
    *first, last = map(str, options)
    return f"{', '.join(first)} or {last}"


@_rule("smallest of four")
def _smallest(dice: np.random.Generator) -> Made:
    while True:
        some = _four(dice)
        yield f"Which number is the smallest: {_listed(some)}?", str(min(some)), [str(n) for n in some if n != min(some)]


@_rule("even number of four")
def _even(dice: np.random.Generator) -> Made:
    while True:
        odd, even = [int(n) for n in dice.choice(np.arange(11, 100, 2), 3, replace=False)], 2 * _number(dice, 5, 49)
        yield f"Which number is even: {_listed(dice.permutation([*odd, even]).tolist())}?", str(even), [str(n) for n in odd]


@_rule("sequences upwards")
def _upwards(dice: np.random.Generator) -> Made:
    while True:
        start, step = _number(dice, 1, 40), _number(dice, 1, 11)
        seen = ", ".join(str(start + step * place) for place in range(4))
        result = start + 4 * step
        yield f"Which number comes next: {seen}?", f"{seen}, {result}", [f"{seen}, {n}" for n in _others(dice, result, 1, step, 2)]


@_rule("sequences downwards")
def _downwards(dice: np.random.Generator) -> Made:
    while True:
        step = _number(dice, 1, 10)
        start = _number(dice, 4 * step + 10, 99)
        seen = ", ".join(str(start - step * place) for place in range(4))
        result = start - 4 * step
        yield f"Which number comes next: {seen}?", f"{seen}, {result}", [f"{seen}, {n}" for n in _others(dice, result, 1, step, 2)]


@_rule("numbers from words")
def _from_words(dice: np.random.Generator) -> Made:
    for a in dice.permutation(np.arange(10, 100)):
        yield _sentence(dice, f"Write {number_words(a)} as a number.", f"{number_words(a)} =", int(a), 1, 10, 20)


@_rule("numbers in words")
def _to_words(dice: np.random.Generator) -> Made:
    for a in dice.permutation(np.arange(20, 100)):
        yield f"Write {a} in words.", f"{number_words(a)}", [f"{number_words(n)}" for n in _others(dice, int(a), 1, 10, 20)]


_ROMAN = ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


def roman(number: int) -> str:
    """A Roman numeral below 90.

    >>> roman(4), roman(39), roman(66)
    ('IV', 'XXXIX', 'LXVI')
    """
    text = ""
    for value, sign in _ROMAN:
        count, number = divmod(number, value)
        text += count * sign
    return text


@_rule("Roman numerals")
def _roman(dice: np.random.Generator) -> Made:
    for a in dice.permutation(np.arange(1, 80)):
        yield _sentence(dice, f"Which number is the Roman numeral {roman(a)}?", f"{roman(a)} =", int(a), 1, 2, 10)


@_rule("units of time and length")
def _units(dice: np.random.Generator) -> Made:
    units = (
        ("minutes", "hours", 60),
        ("days", "weeks", 7),
        ("months", "years", 12),
        ("hours", "days", 24),
        ("centimeters", "meters", 100),
    )
    while True:
        (small, large, factor), a = units[_number(dice, 0, len(units) - 1)], _number(dice, 2, 30)
        yield _sentence(dice, f"How many {small} are {a} {large}?", f"{a} {large} =", a * factor, factor, 2 * factor, 10)


@_rule("hours of the clock")
def _clock(dice: np.random.Generator) -> Made:
    while True:
        now, later = _number(dice, 1, 12), _number(dice, 2, 11)
        result, times = (now + later - 1) % 12 + 1, dice.permutation(np.arange(1, 13))
        wrong = [f"It will be {n} o'clock" for n in times if n != result]
        yield f"It is {now} o'clock. What time will it be in {later} hours?", f"It will be {result} o'clock", wrong


def _round(dice: np.random.Generator, names: Sequence[str], unit: str) -> Made:
    """What comes some places after or before a name, in a circle."""
    while True:
        place, away, sign = _number(dice, 0, len(names) - 1), _number(dice, 1, 4), _number(dice, 0, 1) * 2 - 1
        right = names[(place + sign * away) % len(names)]
        many = f"{away} {unit}s" if away > 1 else f"one {unit}"
        wrong = [str(name) for name in dice.permutation(names) if name not in (right, names[place])]
        yield f"Which {unit} is {many} {'after' if sign > 0 else 'before'} {names[place]}?", right, wrong


@_rule("days of the week")
def _days(dice: np.random.Generator) -> Made:
    return _round(dice, DAYS, "day")


@_rule("months of the year")
def _months(dice: np.random.Generator) -> Made:
    return _round(dice, MONTHS, "month")


@_rule("next letters")
def _next_letters(dice: np.random.Generator) -> Made:
    while True:
        start, count = _number(dice, 0, 20), _number(dice, 2, 5)
        if start + count < len(LETTERS):
            seen, right = ", ".join(LETTERS[start : start + count]), LETTERS[start + count]
            others = [str(c) for c in dice.permutation(list(LETTERS)) if c != right and c not in seen]
            yield f"Which letter comes next: {seen}?", f"{seen}, {right}", [f"{seen}, {c}" for c in others]


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads((DATA / "words.toml").read_text(encoding="utf-8"))


def pairs(name: str) -> list[tuple[str, str]]:
    """The pairs of a list of words."""
    found = [pair.split() for pair in _words()[name].replace("\n", " ").split(",")]
    return [(a, b) for a, b in found]


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """Category -> its words."""
    return {name: tuple(words.split()) for name, words in _words()["categories"].items()}


def _paired(dice: np.random.Generator, name: str, question: str) -> Made:
    """Both directions of pairs of words; wrong answers are words of other pairs."""
    both = pairs(name)
    for a, b in dice.permutation([*both, *((b, a) for a, b in both)]).tolist():
        side = [pair[pair_side] for pair in both for pair_side in (0, 1)]
        known = {word for pair in both if {a, b} & set(pair) for word in pair}
        yield question.format(a), b, [str(word) for word in dice.permutation(side) if word not in known][:12]


@_rule("opposites")
def _opposites(dice: np.random.Generator) -> Made:
    return _paired(dice, "opposites", 'What is the opposite of "{}"?')


@_rule("synonyms")
def _synonyms(dice: np.random.Generator) -> Made:
    return _paired(dice, "synonyms", 'Which word means nearly the same as "{}"?')


def _forms(dice: np.random.Generator, name: str, question: str, wrong: Callable[[str], list[str]]) -> Made:
    for word, right in dice.permutation(pairs(name)).tolist():
        yield question.format(word), right, [str(form) for form in dice.permutation(wrong(word)) if form != right]


@_rule("plurals")
def _plurals(dice: np.random.Generator) -> Made:
    def wrong(word: str) -> list[str]:
        return [f"{word}es", f"{word}en", f"{word[:-1]}ies", f"{word[:-1]}ves", f"{word}s", f"{word[:-1]}ae"]

    return _forms(dice, "plurals", 'What is the plural of "{}"?', wrong)


@_rule("past tenses")
def _past_tenses(dice: np.random.Generator) -> Made:
    def wrong(word: str) -> list[str]:
        stem = word.removesuffix("e")
        return [f"{stem}ed", f"{stem}ing", f"{word}t", f"{stem}en", f"{stem}own", f"{stem}ought"]

    return _forms(dice, "past_tenses", 'What is the past tense of "{}"?', wrong)


@_rule("comparatives")
def _comparatives(dice: np.random.Generator) -> Made:
    def wrong(word: str) -> list[str]:
        stem = word.removesuffix("e")
        return [f"{stem}est", f"more {word}er", f"{stem}ier", f"{stem}ly", f"{stem}ness", f"{stem}{stem[-1]}er", f"{stem}er"]

    return _forms(dice, "comparatives", 'What is the comparative of "{}"?', wrong)


@_rule("capitals")
def _capitals(dice: np.random.Generator) -> Made:
    cities = [city.replace("-", " ") for _, city in pairs("capitals")]
    for country, city in dice.permutation(pairs("capitals")).tolist():
        right = city.replace("-", " ")
        yield f"What is the capital of {country}?", right, [str(other) for other in dice.permutation(cities) if other != right]


def _an(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@_rule("categories of words")
def _kinds(dice: np.random.Generator) -> Made:
    every = [(word, name) for name, words in categories().items() for word in words]
    for word, name in dice.permutation(every).tolist():
        beyond = [str(other) for other in dice.permutation(list(categories())) if not _overlap(name, str(other))]
        yield f"What kind of thing is this: {word}?", _an(name).capitalize(), [_an(other).capitalize() for other in beyond]


@_rule("words of categories")
def _members(dice: np.random.Generator) -> Made:
    every = [(word, name) for name, words in categories().items() for word in words]
    for right, name in dice.permutation(every).tolist():
        wrong = [str(dice.choice(words)) for other, words in categories().items() if not _overlap(name, other)]
        yield f"Name {_an(name)} that begins with {right[0].upper()}.", right, [str(word) for word in dice.permutation(wrong)]


_LIVING = {"animal", "bird", "fish", "insect"}


def _overlap(a: str, b: str) -> bool:
    """Whether a word of one category may be said to be of the other."""
    return a == b or {a, b} <= _LIVING or {a, b} <= {"fruit", "vegetable", "color"}


def _vocabulary() -> list[str]:
    return [word for words in categories().values() for word in words if word.islower() and len(word) > 3]


@_rule("first letters")
def _first(dice: np.random.Generator) -> Made:
    for word in dice.permutation(_vocabulary()).tolist():
        right = word[0].upper()
        yield f'What is the first letter of "{word}"?', right, [str(c) for c in dice.permutation(list(LETTERS)) if c != right]


@_rule("capital letters")
def _upper(dice: np.random.Generator) -> Made:
    for word in dice.permutation(_vocabulary()).tolist():
        yield f'Write "{word}" in capital letters.', word.upper(), [_shuffled(dice, word).upper() for _ in range(9)]


def _shuffled(dice: np.random.Generator, word: str) -> str:
    """The same letters in another order, the first one kept."""
    for _ in range(9):
        if (other := word[0] + "".join(dice.permutation(list(word[1:])))) != word:
            return other
    return word


@_rule("letters in order")
def _sorted(dice: np.random.Generator) -> Made:
    while True:
        letters = [str(c) for c in dice.choice(list(LETTERS), 4, replace=False)]
        right = " ".join(sorted(letters))
        wrong = [" ".join(dice.permutation(letters)) for _ in range(12)]
        yield f"Sort these letters by the alphabet: {' '.join(letters)}", right, [other for other in wrong if other != right]
