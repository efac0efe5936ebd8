"""Families from dice, cards, urns, wheels and experiments of two stages."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise
from random import Random

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.facts import listed
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.drawn import draws, weighted
from diffusecli.prompts.mixture.listings import counts_in_a_line, pairs_in_lines
from diffusecli.prompts.mixture.options import options
from diffusecli.prompts.mixture.texts import pools
from diffusecli.prompts.scipy_stats import discrete_distribution

_SIDES = (4, 6, 6, 6, 8, 10, 12, 20)
_SUITS = ("hearts", "diamonds", "clubs", "spades")
_RANKS = ("ace", *map(str, range(2, 11)), "jack", "queen", "king")


@draws(1.5)
def dice(rng: Random) -> Distribution:
    """The sum of some dice."""
    shift = rng.choice(("", "", "", f"+{rng.randint(1, 9)}", f"-{rng.randint(1, 2)}"))
    return families.dice(f"{rng.randint(2, 5)}d{rng.choice(_SIDES)}{shift}")


@draws(1.2)
def die(rng: Random) -> Distribution:
    """One die with so many sides."""
    sides = rng.choice((4, 6, 6, 6, 8, 10, 12, 20, 30, 100, rng.randint(3, 30)))
    facts = (
        {"sides": str(sides)}
        | ({"plain": "die"} if sides == 6 else {})
        | ({"sides_words": chances.in_words(sides)} if sides < 21 else {})
    )
    return weighted([str(side) for side in range(1, sides + 1)], None, "number", **facts)


@draws(1.2)
def loaded_die(rng: Random) -> Distribution:
    """A die whose faces have stated chances."""
    faces = [str(face) for face in range(1, rng.choice((4, 5, 6, 6, 6, 8, 10)) + 1)]
    if rng.random() < 0.4:
        special, factor = rng.choice(faces), rng.choice((2, 3, 4, 5))
        words = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}[factor]
        weights = [factor if face == special else 1 for face in faces]
        return weighted(faces, weights, "number", sides=str(len(faces)), special=special, factor=words)
    parts = chances.shares(len(faces), rng)
    pairs = list(zip(faces, chances.in_one_notation(parts, rng), strict=True))
    facts = {
        "shares": rng.choice((", ", "; ")).join(f"{face}: {text}" for face, text in pairs),
        "block": "".join(f"\n- {face}: {text}" for face, text in pairs),
    }
    return weighted(faces, [float(part) for part in parts], "number", sides=str(len(faces)), **facts)


@draws(1.2)
def dice_extremes(rng: Random) -> Distribution:
    """The highest or lowest of several dice."""
    count, sides = rng.randint(2, 5), rng.choice(_SIDES)
    below = [(face / sides) ** count for face in range(sides + 1)]
    highest = [after - before for before, after in pairwise(below)]
    extreme, weights = rng.choice((("highest", highest), ("lowest", highest[::-1])))
    largest = "largest" if extreme == "highest" else "smallest"
    return weighted(
        [str(face) for face in range(1, sides + 1)], weights, "number", count=str(count), count_words=chances.in_words(count),
        sides=str(sides), extreme=extreme, largest=largest, function="max" if extreme == "highest" else "min",
    )  # fmt: skip


@draws(0.8)
def dice_pair(rng: Random) -> Distribution:
    """The difference or the product of two dice."""
    sides = rng.choice(_SIDES)
    if rng.random() < 0.33:
        sides = min(sides, 8)
        what = rng.choice(("the product", "the two numbers multiplied", "the first number times the second"))
        numbers = sorted(one * other for one in range(1, sides + 1) for other in range(1, sides + 1))
    else:
        what = rng.choice(
            ("the absolute difference", "the distance between the two numbers", "the larger minus the smaller number")
        )
        numbers = sorted(abs(one - other) for one in range(1, sides + 1) for other in range(1, sides + 1))
    return weighted([str(number) for number in numbers], None, "number", sides=str(sides), what=what)


@draws(1.2)
def cards(rng: Random) -> Distribution:
    """Suit, rank or colour of a card from a deck of 52, of 32, or without some cards."""
    deck, ranks = rng.choice((("a standard deck of 52 cards", _RANKS), ("a full deck of 52 playing cards", _RANKS), ("a 52-card deck", _RANKS),
                              ("a piquet deck (32 cards, 7 to ace)", ("7", "8", "9", "10", "jack", "queen", "king", "ace"))))  # fmt: skip
    aspect, names, weights = rng.choice((("suit", _SUITS, None), ("rank", ranks, None), ("colour", ("red", "black"), None)))
    if rng.random() < 0.5:
        gone = rng.choice(
            ("all the spades", "the four aces", "all clubs except the ace", "all the red aces", "the queen of hearts")
        )
        kept = [(rank, suit) for rank in ranks for suit in _SUITS if not _is_gone(rank, suit, gone)]
        colours = {"hearts": "red", "diamonds": "red", "clubs": "black", "spades": "black"}
        seen = [{"suit": suit, "rank": rank, "colour": colours[suit]}[aspect] for rank, suit in kept]
        names, deck = tuple(seen), f"{deck} from which {gone} {'has' if gone.startswith('the queen') else 'have'} been removed"
    return weighted(names, weights, aspect, deck=deck, aspect=aspect, answers=listed(list(dict.fromkeys(names)), "or"))


def _is_gone(rank: str, suit: str, gone: str) -> bool:
    """Whether a card has been taken out of the deck."""
    return {
        "all the spades": suit == "spades",
        "the four aces": rank == "ace",
        "all clubs except the ace": suit == "clubs" and rank != "ace",
        "all the red aces": rank == "ace" and suit in ("hearts", "diamonds"),
        "the queen of hearts": (rank, suit) == ("queen", "hearts"),
    }[gone]


@draws(1.2)
def urn(rng: Random) -> Distribution:
    """How many balls of a colour come when each is put back."""
    first, second = rng.sample(pools()["colour"], 2)
    good, bad, drawn = rng.randint(1, 12), rng.randint(1, 12), rng.randint(2, 8)
    made = discrete_distribution("binom", (drawn, good / (good + bad)), "", 0.0)
    return weighted(made.outcomes, made.weights, "number", **_urn_facts(first, second, good, bad, drawn, rng))


@draws(1.2, held_out=True)
def hypergeometric(rng: Random) -> Distribution:
    """How many balls of a colour come when none is put back."""
    first, second = rng.sample(pools()["colour"], 2)
    good, bad = rng.randint(2, 15), rng.randint(2, 15)
    drawn = rng.randint(2, min(10, good + bad - 1))
    numbers = range(max(0, drawn - bad), min(good, drawn) + 1)
    weights = [math.comb(good, number) * math.comb(bad, drawn - number) / math.comb(good + bad, drawn) for number in numbers]
    return weighted([str(number) for number in numbers], weights, "number", **_urn_facts(first, second, good, bad, drawn, rng))


def _urn_facts(first: str, second: str, good: int, bad: int, drawn: int, rng: Random) -> dict[str, str]:
    return {
        "first": first, "second": second, "good": str(good), "bad": str(bad), "total": str(good + bad), "drawn": str(drawn),
        "drawn_words": chances.in_words(drawn), "container": rng.choice(("urn", "bag", "box", "jar", "bowl")),
        "balls": rng.choice(("balls", "marbles", "beads", "tokens")),
    }  # fmt: skip


@draws(1.2, held_out=True)
def spinner(rng: Random) -> Distribution:
    """A wheel whose sectors have angles in degrees."""
    count = rng.choices(range(2, 7), (4, 8, 7, 4, 2))[0]
    names, noun = options(count, rng) if rng.random() < 0.5 else (rng.sample(pools()["colour"], count), "colour")
    unit = rng.choice((5, 10, 15, 30, 45))
    unit = unit if 360 // unit > count else 10
    angles = [unit * part for part in chances.split(360 // unit, count, rng)]
    sign = rng.choice(("°", " degrees", "°"))
    pairs = [(name, f"{angle}{sign}") for name, angle in zip(names, angles, strict=True)]
    return weighted(
        names, angles, noun, sectors=listed([f"{name} {text}" for name, text in pairs], "and"), pairs=counts_in_a_line(pairs, rng),
        block=pairs_in_lines(pairs, rng), wheel=rng.choice(("spinner", "wheel", "wheel of fortune", "roulette wheel", "prize wheel")),
        list=listed(names, "or"), count=str(count), noun=noun,
    )  # fmt: skip


@draws(1.2, held_out=True)
def two_stage(rng: Random) -> Distribution:
    """A coin or a chance decides which die is rolled."""
    first, second = rng.sample((4, 6, 8, 10, 12, 20), 2)
    share = Fraction(1, 2) if rng.random() < 0.5 else Fraction(rng.randrange(5, 100, 5), 100)
    weights = [
        float(share * (Fraction(1, first) if face <= first else 0) + (1 - share) * (Fraction(1, second) if face <= second else 0))
        for face in range(1, max(first, second) + 1)
    ]
    facts = {"first": str(first), "second": str(second)}
    if share == Fraction(1, 2):
        facts["coin"] = rng.choice(("a fair coin", "a coin"))
    else:
        facts["chance"], facts["other"] = chances.in_one_notation([share, 1 - share], rng)
        facts["p"] = chances.decimal(share) or ""
    return weighted([str(face) for face in range(1, len(weights) + 1)], weights, "number", **facts)


@draws(1.2, held_out=True)
def markov(rng: Random) -> Distribution:
    """The next state of a chain whose transition chances are stated."""
    states = rng.choice((("sunny", "rainy"), ("sunny", "cloudy", "rainy"), ("dry", "wet"), ("A", "B", "C"), ("up", "down"), ("asleep", "awake"),
                         ("busy", "idle"), ("red", "green", "blue"), ("healthy", "ill"), ("left", "right", "middle"), ("low", "medium", "high")))  # fmt: skip
    rows = {state: [Fraction(part, 20) for part in chances.split(20, len(states), rng)] for state in states}
    now = rng.choice(states)
    texts = {state: [chances.percent(part) or "" for part in parts] for state, parts in rows.items()}
    rules = [
        f"after {state}, {listed([f'{to} ({text}%)' for to, text in zip(states, texts[state], strict=True)], 'or')}"
        for state in states
    ]
    sentences = [
        f"From {state} it goes to {listed([f'{to} with probability {chances.decimal(part)}' for to, part in zip(states, rows[state], strict=True)], 'and')}."
        for state in states
    ]
    table = "".join(
        f"\n{state}: {', '.join(f'{to} {text}%' for to, text in zip(states, texts[state], strict=True))}" for state in states
    )
    return weighted(
        states, [float(part) for part in rows[now]], "state", now=now, rules="; ".join(rules), sentences=" ".join(sentences),
        block=table, states=listed(states, "or"),
    )  # fmt: skip


@draws(1, held_out=True)
def first_match(rng: Random) -> Distribution:
    """The position of the first success among a few, drawn without putting back: a key ring, a deck."""
    total, good = rng.randint(4, 20), rng.randint(2, 4)
    good = min(good, total - 2)
    weights = [math.comb(total - place, good - 1) / math.comb(total, good) for place in range(1, total - good + 2)]
    facts = {"total": str(total), "good": str(good), "good_words": chances.in_words(good), "bad": str(total - good)}
    return weighted([str(place) for place in range(1, len(weights) + 1)], weights, "number", **facts)
