"""Families whose outcomes are numbers: ranges, counts of events, rounded continuous distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from random import Random
from statistics import NormalDist

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution
from diffusecli.prompts.mixture import chances
from diffusecli.prompts.mixture.drawn import draws, weighted
from diffusecli.prompts.scipy_stats import discrete_distribution, rounded_distribution

_TAIL = 1e-5


def range_of(rng: Random, most: int = 100) -> tuple[int, int]:
    """The ends of a range of 2 to `most` whole numbers, small ones more often."""
    length = rng.randint(2, rng.choice((6, 10, 12, 20, 30, 50, most)))
    low = rng.choice(
        (1, 1, 1, 0, 0, rng.randint(2, 20), rng.randint(2, 100), rng.randint(100, 2000), -rng.randint(length, 2 * length + 40))
    )
    return low, low + length - 1


@draws(4)
def uniform(rng: Random) -> Distribution:
    """Whole numbers of a range."""
    low, high = range_of(rng)
    return families.uniform(str(low), str(high))


@draws(1.5)
def uniform_steps(rng: Random) -> Distribution:
    """Every tenth, fifth, … number of a range, or decimals."""
    step = rng.choice(
        (2, 3, 4, 5, 10, 20, 25, 50, 100, Fraction(1, 2), Fraction(1, 10), Fraction(1, 4), Fraction(1, 5), Fraction(1, 100))
    )
    low = rng.choice((0, 0, 1, rng.randint(0, 20))) * (step if rng.random() < 0.7 else 1)
    high = low + step * (rng.randint(2, rng.choice((6, 10, 20, 40))) - 1)
    return families.uniform(*(f"{float(number):.10g}" for number in (low, high)), step=f"{float(step):.10g}")


@draws(1.2)
def number_sets(rng: Random) -> Distribution:
    """Even, odd, prime or square numbers, or multiples, of a range."""
    low, high = rng.choice(((1, 10), (1, 20), (1, 50), (1, 100), (10, 50), (0, 30), (rng.randint(1, 60), rng.randint(70, 120))))
    divisor = rng.randint(3, 12)
    sorts: tuple[tuple[str, str, Callable[[int], bool]], ...] = (
        ("even number", "even numbers", lambda number: number % 2 == 0),
        ("odd number", "odd numbers", lambda number: number % 2 == 1),
        ("prime number", "prime numbers", lambda number: number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))),
        ("square number", "square numbers", lambda number: math.isqrt(number) ** 2 == number),
        (f"multiple of {divisor}", f"multiples of {divisor}", lambda number: number % divisor == 0),
        (f"number that is not divisible by {divisor}", f"numbers that are not divisible by {divisor}", lambda number: number % divisor != 0),
        ("number that ends in 3 or 7", "numbers that end in 3 or 7", lambda number: number % 10 in (3, 7)),
    )  # fmt: skip
    kind, kinds, fits = rng.choice(sorts)
    outcomes = [str(number) for number in range(low, high + 1) if fits(number)]
    return weighted(outcomes, None, "number", low=str(low), high=str(high), kind=kind, kinds=kinds)


@draws(2.5)
def binomial(rng: Random) -> Distribution:
    """Successes in some trials."""
    trials = rng.choice((rng.randint(1, 6), rng.randint(3, 12), rng.randint(5, 30), rng.randint(10, 60)))
    share = Fraction(1, 2) if rng.random() < 0.15 else chances.inner_chance(rng)
    return families.binomial(trials, float(share))


@draws(1.5)
def poisson(rng: Random) -> Distribution:
    """Events in an interval."""
    return families.poisson(
        rng.choice((rng.randint(1, 10), rng.randint(1, 20), rng.randint(2, 60) / 10, rng.randint(1, 99) / 100)), tail=_TAIL
    )


@draws(1.5)
def geometric(rng: Random) -> Distribution:
    """Trials up to the first success."""
    return families.geometric(rng.choice((rng.randint(15, 99) / 100, rng.randint(2, 9) / 10)), tail=1e-4)


@draws(1)
def negative_binomial(rng: Random) -> Distribution:
    """Failures before so many successes, or trials up to them."""
    successes, share = rng.randint(2, 8), rng.randint(25, 90) / 100
    drawn = discrete_distribution("nbinom", (successes, share), "", _TAIL)
    trials = rng.random() < 0.4
    outcomes = [str(int(outcome) + (successes if trials else 0)) for outcome in drawn.outcomes]
    facts = {
        "successes": str(successes),
        "successes_words": chances.in_words(successes),
        "p": f"{share:g}",
        "percent": f"{share * 100:.10g}",
    }
    facts |= {"what": rng.choice(("trials in all", "attempts in total"))} if trials else {"failures": "failures"}
    return weighted(outcomes, drawn.weights, "number", **facts)


@draws(1.5)
def zipf(rng: Random) -> Distribution:
    """Zipf's law over some ranks."""
    exponent = rng.choice((1, 1, 2, 0.5, 1.5, rng.randint(1, 30) / 10))
    return families.zipf(exponent, rng.choice((5, 10, 20, 50, 100, rng.randint(3, 40))))


@draws(0.6)
def benford(rng: Random) -> Distribution:  # noqa: ARG001 - nothing to draw
    """Leading digits."""
    return families.benford()


@draws(1)
def scipy(rng: Random) -> Distribution:
    """Distributions in the notation of scipy.stats."""
    share, low = rng.randint(5, 95) / 100, rng.randint(0, 10)
    call, decimals = rng.choice((
        (f"nbinom({rng.randint(2, 6)}, {rng.randint(4, 9) / 10:g})", None),
        (f"binom({rng.randint(2, 20)}, {share:g})", None),
        (f"randint({low}, {low + rng.randint(2, 30)})", None),
        (f"poisson({rng.randint(1, 90) / 10:g})", None),
        (f"norm({rng.randint(5, 80)}, {rng.randint(2, 12) / 2:g})", 0),
        (f"norm({rng.randint(-20, 20) / 10:g}, {rng.randint(2, 8) / 10:g})", 1),
        (f"expon(scale={rng.randint(2, 12) / 2:g})", 0),
        (f"gamma({rng.randint(1, 6)}, scale={rng.randint(1, 4)})", 0),
        (f"laplace({rng.randint(10, 40)}, {rng.randint(1, 4)})", 0),
    ))  # fmt: skip
    return families.scipy(call, tail=1e-4, decimals=decimals)


@draws(2)
def normal(rng: Random) -> Distribution:
    """A normal distribution, rounded."""
    if rng.random() < 0.2:
        mean, deviation, decimals = rng.randint(0, 50) / 10, rng.randint(1, 8) / 10, 1
    else:
        mean, deviation, decimals = (
            rng.choice((rng.randint(5, 60), rng.randint(20, 300))),
            rng.choice((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15)),
            0,
        )
    drawn = rounded_distribution("norm", (mean, deviation), "", 1e-4, {}, decimals)
    facts = {"mean": f"{mean:g}", "deviation": f"{deviation:g}", "variance": f"{deviation**2:.10g}"}
    facts |= {"whole": "a whole number"} if decimals == 0 else {"place": "one decimal place"}
    facts |= {"positive_whole": "a whole number"} if decimals == 0 and mean >= 4 * deviation else {}
    return weighted(drawn.outcomes, drawn.weights, "number", **facts)


@draws(1)
def exponential(rng: Random) -> Distribution:
    """An exponential distribution, rounded to whole numbers, or up or down."""
    mean = rng.choice((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, rng.randint(10, 90) / 10))
    how, shift = rng.choice((("nearest", 0.5), ("nearest", 0.5), ("down", 1.0), ("up", 0.0)))
    last = math.ceil(mean * 9)
    edges = [0.0, *(number + shift for number in range(last + 1))]
    masses = [math.exp(-before / mean) - math.exp(-after / mean) for before, after in pairwise(edges)]
    pairs = [(str(number), mass) for number, mass in enumerate(masses) if mass > 0]
    how = {
        "nearest": "rounded to the nearest whole number",
        "down": "rounded down to a whole number",
        "up": "rounded up to a whole number",
    }[how]
    return weighted(
        [name for name, _ in pairs], [mass for _, mass in pairs], "number", mean=f"{mean:g}", rate=f"1/{mean:g}", rounded=how
    )


@draws(1)
def beta(rng: Random) -> Distribution:
    """A beta distribution, rounded to tenths or hundredths."""
    first, second = (rng.choice((0.5, 1, 2, 2, 3, 4, 5, 6, 8, 10)) for _ in range(2))
    decimals, form = rng.choice(((1, "one decimal place"), (1, "one decimal place"), (2, "two decimal places")))
    drawn = rounded_distribution("beta", (first, second), "", 0, {}, decimals)
    return weighted(drawn.outcomes, drawn.weights, "number", first=f"{first:g}", second=f"{second:g}", form=form)


@draws(1.5)
def mixture_of_two(rng: Random) -> Distribution:
    """With a stated chance from one normal or uniform distribution, else from another."""
    share = Fraction(rng.choice((10, 20, 25, 30, 40, 50, 50, 60, 70, 75, 80, 90)), 100)
    parts = [_part(rng, rng.randint(0, 40)), _part(rng, rng.randint(20, 80))]
    masses: dict[int, float] = {}
    for (_, numbers), weight in zip(parts, (float(share), float(1 - share)), strict=True):
        for number, mass in numbers.items():
            masses[number] = masses.get(number, 0.0) + weight * mass
    first, other = chances.in_one_notation([share, 1 - share], rng)
    order = sorted(masses)
    return weighted(
        [str(number) for number in order], [masses[number] for number in order], "number", first=parts[0][0], second=parts[1][0],
        chance=first, other=other, p=chances.decimal(share) or "", percent=chances.percent(share) or "", rest=chances.percent(1 - share) or "",
    )  # fmt: skip


def _part(rng: Random, start: int) -> tuple[str, dict[int, float]]:
    """One part of a mixture: how it is described, and its numbers with their masses."""
    if rng.random() < 0.5:
        start = 2 if start == 1 else start  # from 1 it were a die of the family two-stage, which is held out
        last = start + rng.randint(1, 12)
        words = rng.choice(
            (
                "a whole number from {} to {}, all equally likely",
                "a uniform integer between {} and {}",
                "a random integer from {} to {}",
            )
        )
        return words.format(start, last), dict.fromkeys(range(start, last + 1), 1 / (last - start + 1))
    deviation = rng.choice((1, 1.5, 2, 3, 4))
    words = rng.choice(
        (
            "a normal number with mean {} and standard deviation {}, rounded to a whole number",
            "a number from N({}, {}²), rounded to a whole number",
        )
    )
    return words.format(start, f"{deviation:g}"), rounded_normal(start, deviation)


def rounded_normal(mean: float, deviation: float) -> dict[int, float]:
    """The mass of each whole number within four standard deviations."""
    law = NormalDist(mean, deviation)
    reach = math.ceil(4 * deviation)
    numbers: Sequence[int] = range(round(mean) - reach, round(mean) + reach + 1)
    return {number: law.cdf(number + 0.5) - law.cdf(number - 0.5) for number in numbers}


@draws(1.2, held_out=True)
def triangular(rng: Random) -> Distribution:
    """Whole numbers with weights that rise to a peak and fall again."""
    low = rng.choice((0, 1, 1, rng.randint(2, 50)))
    rise, fall = rng.randint(1, 10), rng.randint(1, 10)
    weights = [
        (rise + 1 - abs(step)) / (rise + 1) if step <= 0 else (fall + 1 - step) / (fall + 1) for step in range(-rise, fall + 1)
    ]
    numbers = [str(low + index) for index in range(len(weights))]
    return weighted(
        numbers,
        weights,
        "number",
        low=numbers[0],
        high=numbers[-1],
        peak=str(low + rise),
        below=str(low - 1),
        above=str(low + rise + fall + 1),
    )
