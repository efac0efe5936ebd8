"""Families with two outcomes of which one has a stated chance."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.families import bernoulli as _bernoulli
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.drawn import draws, weighted
from diffusecli.prompts.mixture.options import options

_PAIRS = (
    ("success", "failure"), ("win", "lose"), ("hit", "miss"), ("pass", "fail"), ("rain", "dry"), ("open", "closed"), ("on", "off"),
    ("accept", "reject"), ("true", "false"), ("up", "down"), ("left", "right"), ("buy", "sell"), ("stay", "go"), ("alive", "dead"),
    ("on time", "late"), ("broken", "intact"), ("positive", "negative"), ("black", "white"), ("0", "1"), ("A", "B"), ("spam", "ham"),
    ("odd", "even"), ("guilty", "not guilty"), ("hot", "cold"), ("day", "night"), ("sick", "healthy"), ("x", "y"),
)  # fmt: skip
_EVENTS = (
    "It rains tomorrow", "The train is late", "The bus comes on time", "The parcel arrives today", "The seed sprouts", "The shop is open",
    "The keeper saves the penalty", "The patient recovers", "The bulb works", "The file is corrupted", "The team wins", "The visitor buys something",
    "The alarm goes off", "The plane takes off on time", "The student passes the test", "The cat comes when called", "The server answers",
    "The bread is sold out", "The test is positive", "The phone rings", "The lift is broken", "The guest likes the soup", "The ticket wins",
    "The egg is cracked", "The dog barks", "The battery is empty", "The letter gets lost", "The switch is on", "The deal goes through",
)  # fmt: skip


def _facts(share: Fraction, rng: Random) -> dict[str, str]:
    """The chance and the opposite one in a notation that is drawn, and in notations that some questions need."""
    first, other = chances.in_one_notation([share, 1 - share], rng)
    facts = {"chance": first, "other": other}
    if (number := chances.decimal(share)) is not None:
        facts["p"] = number
    if (number := chances.percent(share)) is not None and (opposite := chances.percent(1 - share)) is not None:
        facts |= {"percent": number, "opposite": opposite}
    if (share * 100).denominator == 1:
        hundred = int(share * 100)
        facts |= {"hits": str(hundred), "misses": str(100 - hundred), "hits_words": chances.in_words(hundred)}
    if 0 < share < 1 and share.denominator <= 20:
        facts |= {
            "odds": f"{share.numerator} to {share.denominator - share.numerator}",
            "of": str(share.denominator),
            "good": str(share.numerator),
        }
    return facts


@draws(4)
def bernoulli(rng: Random) -> Distribution:
    """1 with a stated chance, else 0."""
    share = chances.chance(rng)
    return _bernoulli(float(share))


@draws(4)
def trial(rng: Random) -> Distribution:
    """1 with a chance stated in any notation, else 0."""
    share = chances.chance(rng)
    return weighted(("1", "0"), (float(share), float(1 - share)), rng.choice(("digit", "number", "bit")), **_facts(share, rng))


@draws(3)
def coin(rng: Random) -> Distribution:
    """A coin that shows heads with a stated chance."""
    share = chances.chance(rng)
    sides = rng.choice((("heads", "tails"), ("heads", "tails"), ("Heads", "Tails"), ("H", "T")))
    return weighted(sides, (float(share), float(1 - share)), "side", heads=sides[0], tails=sides[1], **_facts(share, rng))


@draws(4)
def yes_or_no(rng: Random) -> Distribution:
    """Whether something with a stated chance happens."""
    share = chances.chance(rng)
    yes, no = rng.choice((("yes", "no"), ("yes", "no"), ("Yes", "No"), ("YES", "NO"), ("true", "false"), ("y", "n")))
    event = rng.choice(_EVENTS)
    facts = {"event": event[0].lower() + event[1:], "yes": yes, "no": no}
    return weighted((yes, no), (float(share), float(1 - share)), "answer", **facts, **_facts(share, rng))


@draws(5)
def two_outcomes(rng: Random) -> Distribution:
    """One of two texts with a stated chance, else the other."""
    share = chances.chance(rng)
    pair = rng.sample(rng.choice(_PAIRS), 2) if rng.random() < 0.6 else options(2, rng)[0]
    order = rng.sample(range(2), 2)
    weights = (float(share), float(1 - share))
    facts = {"first": pair[0], "second": pair[1], **_facts(share, rng)}
    return weighted(
        [pair[index] for index in order], [weights[index] for index in order], rng.choice(("answer", "outcome", "word")), **facts
    )
