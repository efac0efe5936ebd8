"""Families whose options or chances are stated in the request: lists, percentages, ranks, odds, counts."""

from __future__ import annotations

import json
from fractions import Fraction
from random import Random

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.facts import listed
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.drawn import draws, weighted
from diffusecli.prompts.mixture.listings import counts_in_a_line, in_a_line, in_lines, pairs_in_a_line, pairs_in_lines
from diffusecli.prompts.mixture.options import made_up, option_count, options
from diffusecli.prompts.mixture.texts import pools

_CONTAINERS = ("bag", "box", "jar", "bowl", "basket", "sack", "tin", "drawer", "hat", "urn")
_THINGS = ("marbles", "balls", "tokens", "beads", "buttons", "sweets", "chips", "cards", "pencils", "socks", "counters", "discs")
_FACTORS = {
    Fraction(1): "as likely as",
    Fraction(2): "twice as likely as",
    Fraction(3): "three times as likely as",
    Fraction(4): "four times as likely as",
    Fraction(5): "five times as likely as",
    Fraction(10): "ten times as likely as",
    Fraction(1, 2): "half as likely as",
    Fraction(1, 3): "a third as likely as",
    Fraction(1, 4): "a quarter as likely as",
    Fraction(3, 2): "one and a half times as likely as",
}


@draws(12)
def choose(rng: Random) -> Distribution:
    """One of the options listed, each equally likely."""
    names, noun = options(option_count(rng), rng)
    return weighted(
        names, None, noun, list=in_a_line(names, rng), block=in_lines(names, rng), noun=noun, nouns=_plural(noun),
        count=str(len(names)), count_words=chances.in_words(len(names)), code=", ".join(f"'{name}'" for name in names),
    )  # fmt: skip


@draws(12)
def percentages(rng: Random) -> Distribution:
    """One of the options, with the chances stated: percentages, decimals, fractions."""
    names, noun = options(option_count(rng), rng)
    parts = chances.shares(len(names), rng)
    texts = chances.in_one_notation(parts, rng)
    pairs = list(zip(names, texts, strict=True))
    exact = [chances.decimal(part) for part in parts]
    facts = {"numbers": ", ".join(f"{text}" for text in exact if text)} if None not in exact else {}
    return weighted(
        names, [float(part) for part in parts], noun, shares=pairs_in_a_line(pairs, rng), block=pairs_in_lines(pairs, rng), noun=noun,
        nouns=_plural(noun), list=in_a_line(names, rng), chances=listed(texts, "and"), count=str(len(names)),
        code=", ".join(f"'{name}'" for name in names), **facts,
    )  # fmt: skip


@draws(4)
def choices(rng: Random) -> Distribution:
    """The family of `init-prompt`: options with weights or without."""
    names, _ = options(min(option_count(rng), 8), rng)
    if rng.random() < 0.4:
        return families.choices(json.dumps(names))
    parts = chances.split(rng.choice((20, 100, 100)), len(names), rng)
    return families.choices(json.dumps({name: part / sum(parts) for name, part in zip(names, parts, strict=True)}))


@draws(3)
def rest(rng: Random) -> Distribution:
    """Chances for all options but the last, which gets the rest."""
    names, noun = options(min(option_count(rng), 7), rng)
    parts = chances.shares(len(names), rng)
    texts = chances.in_one_notation(parts, rng)
    pairs = list(zip(names[:-1], texts[:-1], strict=True))
    steps = (
        [f"{text} of the time {name}" for name, text in pairs]
        if "%" in texts[0]
        else [f"{name} with probability {text}" for name, text in pairs]
    )
    return weighted(
        names, [float(part) for part in parts], noun, shares=pairs_in_a_line(pairs, rng), block=pairs_in_lines(pairs, rng),
        steps=listed(steps, "and"), last=names[-1], noun=noun, list=in_a_line(names, rng),
    )  # fmt: skip


@draws(3)
def ranks(rng: Random) -> Distribution:
    """`A is twice as likely as B`: each option compared with one that has been named."""
    names, noun = options(rng.randint(2, 5), rng)
    weights = {names[0]: Fraction(1)}
    relations = []
    for name in names[1:]:
        known = rng.choice(list(weights))
        factor, words = rng.choice(list(_FACTORS.items()))
        upwards = rng.random() < 0.5
        first, second = (name, known) if upwards else (known, name)
        weights[name] = weights[known] * factor if upwards else weights[known] / factor
        relations.append(f"{first} is {words} {second}")
    order = rng.sample(names, len(names))
    return weighted(
        order, [float(weights[name]) for name in order], noun, relations=listed(relations, "and"), sentences=". ".join(relations),
        block="".join(f"\n- {relation}" for relation in relations), list=in_a_line(order, rng), noun=noun,
    )  # fmt: skip


@draws(3)
def odds(rng: Random) -> Distribution:
    """Odds for or against one of two options, or a ratio of several."""
    count = rng.choice((2, 2, 2, 3, 4, 5))
    names, noun = options(count, rng)
    highest = rng.choice((5, 10, 20))
    parts = [rng.randint(1, highest) for _ in names]
    sign = rng.choice((":", " : ", " to ", "-"))
    facts = {"list": listed(names, "and"), "ratio": sign.join(map(str, parts)), "noun": noun, "choices": in_a_line(names, rng)}
    if count == 2:
        to = rng.choice((" to ", ":", " to ", "-to-"))
        facts |= {
            "odds": f"{parts[0]}{to}{parts[1]}",
            "first": names[0],
            "second": names[1],
            "against": f"{parts[1]}{to}{parts[0]}",
        }
    return weighted(names, parts, noun, **facts)


@draws(2)
def labelled(rng: Random) -> Distribution:
    """Options with labels, equally likely or with percentages; the answer is the label."""
    names, _ = _no_labels(rng.randint(2, 7), rng)
    labels, noun = rng.choice((("ABCDEFG", "letter"), ("ABCDEFG", "letter"), ("abcdefg", "letter"), ("1234567", "number")))
    sign = rng.choice((")", ".", ":", " =", " -"))
    if rng.random() < 0.4:
        texts = [f"{label}{sign} {name}" for label, name in zip(labels, names, strict=False)]
        facts = {"even": ", ".join(texts), "even_block": "".join(f"\n{text}" for text in texts)}
        return weighted(labels[: len(names)], None, noun, noun=noun, count=str(len(names)), **facts)
    parts = [Fraction(part, 100) for part in chances.split(rng.choice((100, 100, 20)), len(names), rng)]
    parts = [part / sum(parts) for part in parts]
    texts = [f"{label}{sign} {name} ({chances.percent(part)}%)" for label, name, part in zip(labels, names, parts, strict=False)]
    facts = {"shares": ", ".join(texts), "shares_block": "".join(f"\n{text}" for text in texts)}
    return weighted(labels[: len(names)], [float(part) for part in parts], noun, noun=noun, **facts)


def _no_labels(count: int, rng: Random) -> tuple[list[str], str]:
    """Options that cannot be confused with a label: no letters, no numbers."""
    names, noun = options(count, rng)
    while any(len(name) == 1 or name.isdigit() for name in names):
        names, noun = options(count, rng)
    return names, noun


@draws(4)
def counts(rng: Random) -> Distribution:
    """A thing drawn from a container that holds so many of each colour or kind."""
    names = rng.sample(pools()["colour"], rng.choices(range(2, 8), (8, 8, 5, 3, 2, 1))[0])
    numbers = [rng.randint(1, rng.choice((4, 10, 20, 50))) for _ in names]
    numbers = [2 if number == 1 and rng.random() < 0.5 else number for number in numbers]
    pairs = [(name, str(number)) for name, number in zip(names, numbers, strict=True)]
    texts = [f"{number} {name}" for name, number in pairs]
    in_full = [f"{chances.in_words(number)} {name}" for name, number in zip(names, numbers, strict=True)]
    return weighted(
        names, numbers, "colour", counts=rng.choice((listed(texts, "and"), ", ".join(texts), listed(in_full, "and"))),
        container=rng.choice(_CONTAINERS), things=rng.choice(_THINGS), total=str(sum(numbers)), colours=in_a_line(names, rng),
        block=pairs_in_lines(pairs, rng), code=" + ".join(f"['{name}'] * {number}" for name, number in pairs),
    )  # fmt: skip


@draws(3)
def raffle(rng: Random) -> Distribution:
    """People who hold tickets, shares or votes: the winner."""
    names = rng.sample(pools()["name"], rng.choices(range(2, 9), (6, 8, 7, 5, 3, 2, 1))[0])
    if rng.random() < 0.15:
        names = [made_up(rng).capitalize() for _ in names]
    numbers = [rng.randint(2, rng.choice((6, 12, 40, 200))) for _ in names]
    what = rng.choice(("tickets", "tickets", "entries", "lots", "slips of paper", "shares"))
    pairs = list(zip(names, map(str, numbers), strict=True))
    first = [f"{names[0]} has {numbers[0]} {what}"]
    holdings = rng.choice((
        listed([*first, *(f"{name} {number}" for name, number in pairs[1:])], "and"),
        listed([f"{name} holds {number} {what}" for name, number in pairs], "and"),
        ", ".join(f"{name} has {number}" for name, number in pairs),
    ))  # fmt: skip
    return weighted(
        names, numbers, "name", holdings=holdings, what=what, total=str(sum(numbers)), block=pairs_in_lines(pairs, rng),
        pairs=counts_in_a_line(pairs, rng), people=listed(names, "and"),
    )  # fmt: skip


@draws(3)
def survey(rng: Random) -> Distribution:
    """How many people gave which answer: the answer of one of them."""
    names, noun = _no_labels(rng.choices(range(2, 8), (4, 8, 7, 5, 3, 2))[0], rng)  # beside numbers of answers
    total = rng.choice((10, 20, 40, 50, 80, 100, 120, 200, 250, 400, 500, 1000))
    numbers = chances.split(total, len(names), rng)
    pairs = list(zip(names, map(str, numbers), strict=True))
    return weighted(
        names, numbers, noun, total=str(total), block=pairs_in_lines(pairs, rng), noun=noun, nouns=_plural(noun), list=in_a_line(names, rng),
        counts=listed([f"{number} {rng.choice(('said', 'chose', 'named'))} {name}" for name, number in pairs], "and"),
        pairs=rng.choice((", ", "; ")).join(f"{name}: {number}" for name, number in pairs),
        times=listed([f"{name} {'once' if number == '1' else f'{number} times'}" for name, number in pairs], "and"),
    )  # fmt: skip


def _plural(noun: str) -> str:
    """Several of a kind.

    >>> _plural("city"), _plural("day"), _plural("dish")
    ('cities', 'days', 'dishes')
    """
    if noun.endswith("y") and noun[-2] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "sh", "ch")) else f"{noun}s"
