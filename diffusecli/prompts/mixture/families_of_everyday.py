"""Families from calendars, clocks, words, digits and queues."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from random import Random

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.facts import listed
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.drawn import draws, weighted
from diffusecli.prompts.mixture.options import made_up
from diffusecli.prompts.mixture.texts import pools


@draws(1.5)
def dates(rng: Random) -> Distribution:
    """Days of a span, in several formats."""
    first = date(2020, 1, 1) + timedelta(days=rng.randrange(3650))
    last = first + timedelta(days=rng.randint(2, rng.choice((6, 14, 30, 60))))
    style = rng.choice(("%B %-d", "%-d %B", "%Y-%m-%d", "%d.%m.%Y", "%-d %b", "%b %-d"))
    if any((first + timedelta(days=day)).strftime("%m-%d") == "03-01" for day in range((last - first).days + 1)):
        style = rng.choice(("%Y-%m-%d", "%d.%m.%Y"))  # whether there is a 29 February takes a year to know
    return families.dates(first.isoformat(), last.isoformat(), date_format=style)


@draws(0.6)
def weekdays(rng: Random) -> Distribution:  # noqa: ARG001 - nothing to draw
    """The seven days."""
    return families.weekdays()


@draws(0.6)
def months(rng: Random) -> Distribution:  # noqa: ARG001 - nothing to draw
    """The twelve months."""
    return families.months()


@draws(1)
def calendar_spans(rng: Random) -> Distribution:
    """Months or weekdays of a stretch."""
    names, noun = rng.choice(((pools()["day"], "day"), (pools()["month"], "month")))
    length = rng.randint(2, len(names) - 1)
    start = rng.randrange(len(names))
    found = [names[(start + step) % len(names)] for step in range(length)]
    return weighted(
        found,
        None,
        noun,
        first=found[0],
        last=found[-1],
        noun=noun,
        count=str(length),
        where="the week" if noun == "day" else "the year",
    )


@draws(1)
def clock(rng: Random) -> Distribution:
    """A time between two others, in steps of some minutes."""
    step = rng.choice((5, 10, 15, 15, 20, 30, 60))
    start = rng.randrange(6 * 60, 21 * 60, step if step != 20 else 60)
    times = [
        f"{minute // 60:02d}:{minute % 60:02d}"
        for minute in range(start, min(start + step * rng.randint(2, 24), 24 * 60 - 1) + 1, step)
    ]
    return weighted(
        times, None, "time", first=times[0], last=times[-1], step=f"{step} minutes" if step != 60 else "hour", number=str(step)
    )


@draws(1.5)
def letters(rng: Random) -> Distribution:
    """A letter of a word, at random by its place."""
    nouns = [noun for noun in pools() if noun not in ("symbol", "server", "treatment")]
    words = [word for word in pools()[rng.choice(nouns)] if word.isalpha() and len(word) > 2]
    word = (rng.choice(words) if words and rng.random() < 0.75 else made_up(rng)).lower()
    word = word.upper() if rng.random() < 0.3 else word
    found = Counter(word)
    return weighted(list(found), list(found.values()), "letter", word=word, length=str(len(word)), spelled="-".join(word))


@draws(1.2)
def digits(rng: Random) -> Distribution:
    """A digit of a number such as a phone number, at random by its place."""
    groups = rng.choice(((3, 4), (3, 3, 4), (4, 4), (6,), (8,), (2, 2, 2, 2), (5, 3), (4, 4, 4, 4)))
    sign = rng.choice(("-", " ", "", "."))
    number = sign.join("".join(rng.choice("0123456789") for _ in range(group)) for group in groups)
    found = Counter(sorted(figure for figure in number if figure.isdigit()))
    return weighted(list(found), list(found.values()), "digit", number=number, length=str(sum(groups)))


@draws(0.6)
def any_digit(rng: Random) -> Distribution:
    """A digit of a random string: all digits, or all but some."""
    left_out = sorted(rng.sample("0123456789", rng.choice((0, 0, 1, 2, 3))))
    kept = [digit for digit in "0123456789" if digit not in left_out]
    facts = (
        {"without": listed(left_out, "and")}
        if left_out
        else {"all": "all ten digits", "place": rng.choice(("first", "second", "third", "last"))}
    )
    return weighted(
        kept, None, "digit", what=rng.choice(("PIN", "phone number", "serial number", "lottery number", "code")), **facts
    )


@draws(1.2)
def permutation(rng: Random) -> Distribution:
    """The place of one of several people or things in a random order."""
    count = rng.choice((rng.randint(2, 8), rng.randint(2, 12), rng.randint(5, 40)))
    person = rng.choice(pools()["name"])
    others = [name for name in rng.sample(pools()["name"], min(count, 8)) if name != person][: count - 1]
    facts = {"count": str(count), "person": person, "others": str(count - 1)}
    facts |= {"count_words": chances.in_words(count)} if count <= 20 else {}
    if len(others) == count - 1:
        facts["people"] = _listed(rng.sample([person, *others], count), rng)
    return weighted([str(place) for place in range(1, count + 1)], None, "number", **facts)


@draws(1)
def person_at_random(rng: Random) -> Distribution:
    """Who of several people is drawn, comes first or last in a random order."""
    people = rng.sample(pools()["name"], rng.randint(2, 10))
    role = rng.choice(("goes first", "goes last", "has to do the dishes", "gets the last piece of cake", "drives", "picks the film", "serves first",
                       "writes the minutes", "is on call this weekend", "gets the window seat", "pays the bill", "is the goalkeeper"))  # fmt: skip
    return weighted(people, None, "name", people=_listed(people, rng), count=str(len(people)), role=role)


def _listed(people: list[str], rng: Random) -> str:
    """All of them: no "or", for a race or a draw is among them all."""
    return rng.choice((listed(people, "and"), ", ".join(people)))
