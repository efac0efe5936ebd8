"""The distributions that the command line can name, one function each.

A family is a function with the `@family` decorator: its positional parameters are what the option takes, its keyword-only parameters are the
modifiers it understands (`--step`, `--tail`, …). Writing one here is all that adding one takes. Knows nothing of prompts, models or files.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from itertools import accumulate

from diffusecli.prompts.choices import weighted_choices
from diffusecli.prompts.distributions import (
    MOST_OUTCOMES,
    Distribution,
    family,
    merge_equal,
    require,
    require_manageable,
    rounded_shares,
)
from diffusecli.prompts.facts import (
    MOST_LISTED,
    binomial_facts,
    chance_facts,
    date_facts,
    dice_facts,
    in_digits,
    in_quotes,
    known,
    option_facts,
    poisson_facts,
    range_facts,
    share_texts,
    zipf_facts,
)
from diffusecli.prompts.scipy_stats import discrete_distribution, parse_call, rounded_distribution
from diffusecli.system.errors import InputError, many


@family("LO HI", "Equally likely numbers from LO to HI.", "1 100")
def uniform(low: str, high: str, *, step: str = "1") -> Distribution:
    """`low`, `low + step`, … up to `high`, in decimal arithmetic, so that 0.1 steps stay exact."""
    first, last, width = (_decimal(text, "--uniform") for text in (low, high, step))
    if width <= 0 or last < first:
        raise InputError(f"--uniform {low} {high} --step {step}: LO must not be above HI and the step must be positive")
    spread = (last - first) / width
    require_manageable(int(spread) + 1 if spread < MOST_OUTCOMES else MOST_OUTCOMES + 1, "--uniform", "raise --step")
    count = int(spread) + 1
    values = [first + width * index for index in range(count)]
    digits = max(0, *(-int(value.as_tuple().exponent) for value in (first, width)))
    outcomes = tuple(f"{value:.{digits}f}" for value in values)
    steps = "" if width == 1 and digits == 0 else f" in steps of {step}"
    return Distribution(
        outcomes,
        None,
        f"Generate a random number between {outcomes[0]} and {outcomes[-1]}{steps}, each equally likely.",
        facts=range_facts(outcomes[0], outcomes[-1], count, step),
    )


@family("N P", "Successes in N trials of probability P.", "10 0.2")
def binomial(trials: int, probability: float) -> Distribution:
    """B(n, p)."""
    require(
        trials >= 1 and 0 <= probability <= 1, f"--binomial {trials} {probability:g}", "N must be 1 or more and P between 0 and 1"
    )
    request = f"Generate a random number between 0 and {trials} drawn from the binomial distribution B({trials}, {in_digits(probability)})."
    made = discrete_distribution("binom", (trials, probability), request, 0.0)
    return replace(made, facts=binomial_facts(trials, probability))


@family("P", "1 with probability P, else 0.", "0.3")
def bernoulli(probability: float) -> Distribution:
    """One trial."""
    require(0 <= probability <= 1, f"--bernoulli {probability:g}", "P must be between 0 and 1")
    request = f"Run one trial that succeeds with probability {in_digits(probability)}. Report 1 for a success and 0 for a failure."
    return replace(discrete_distribution("bernoulli", (probability,), request, 0.0), facts=chance_facts(probability))


@family("LAM", "Events in an interval with LAM of them on average.", "4")
def poisson(mean: float, *, tail: float = 1e-6) -> Distribution:
    """Pois(lambda), cut where less than `tail` lies beyond."""
    require(mean > 0, f"--poisson {mean:g}", "LAM must be above 0")
    request = f"Generate a random count drawn from the Poisson distribution with mean {in_digits(mean)}."
    return replace(discrete_distribution("poisson", (mean,), request, tail), facts=poisson_facts(mean))


@family("P", "Trials of probability P up to the first success.", "0.25")
def geometric(probability: float, *, tail: float = 1e-6) -> Distribution:
    """Geom(p) on 1, 2, …, cut where less than `tail` lies beyond."""
    require(0 < probability <= 1, f"--geometric {probability:g}", "P must be above 0 and at most 1")
    request = f"Repeat a trial that succeeds with probability {probability} until it does, and report how many trials it took."
    return replace(discrete_distribution("geom", (probability,), request, tail), facts=chance_facts(probability))


@family("NdM", "The sum of N dice with M sides, plus a constant.", "2d6")
def dice(notation: str) -> Distribution:
    """`2d6`, `d20`, `3d6+2`: exact, by convolution of whole counts."""
    parts = re.fullmatch(r"(\d{0,3})d(\d{1,4})([+-]\d{1,6})?", notation.strip().lower())
    count, sides, shift = (int(parts[1] or 1), int(parts[2]), int(parts[3] or 0)) if parts else (0, 0, 0)
    require(count > 0 and sides > 0, f"--dice {notation}", "write it like 2d6, d20 or 3d6+2")
    require_manageable(count * sides, "--dice", "roll fewer dice")
    require(count <= 100, "--dice", "roll at most 100 dice")
    ways = [1]
    for _ in range(count):
        sums = [0, *accumulate(ways)]  # a die adds up `sides` neighbours, the difference of two running sums
        ways = [sums[min(total + 1, len(ways))] - sums[max(0, total - sides + 1)] for total in range(len(ways) + sides - 1)]
    offset = f", then add {shift}" if shift > 0 else f", then subtract {-shift}" if shift else ""
    what = "a fair die" if count == 1 else f"{count} fair dice"
    request = f"Roll {what} with {sides} sides{' each' if count > 1 else ''}{offset} and report the total."
    outcomes = tuple(str(count + shift + total) for total in range(len(ways)))
    return Distribution(
        outcomes, rounded_shares(number / sides**count for number in ways), request, facts=dice_facts(count, sides, shift)
    )


@family("S N", "Ranks 1 to N with weights 1 / rank^S.", "1 20")
def zipf(exponent: float, ranks: int) -> Distribution:
    """Zipf's law over finitely many ranks."""
    require(ranks >= 1 and abs(exponent) <= 50, f"--zipf {exponent:g} {ranks}", "N must be 1 or more and S between -50 and 50")
    require_manageable(ranks, "--zipf", "lower N")
    request = f"Generate a random rank between 1 and {ranks} drawn from Zipf's law with exponent {exponent:g}."
    return Distribution(
        tuple(str(rank) for rank in range(1, ranks + 1)),
        rounded_shares(rank**-exponent for rank in range(1, ranks + 1)),
        request,
        "rank",
        facts=zipf_facts(exponent, ranks),
    )


@family("", "Leading digits of numbers in the wild (Benford's law).", "")
def benford() -> Distribution:
    """Digit d with weight log10(1 + 1/d)."""
    request = "Generate a random leading digit, from 1 to 9, as Benford's law has it for numbers in the wild."
    return Distribution(tuple("123456789"), rounded_shares(math.log10(1 + 1 / d) for d in range(1, 10)), request, "digit")


@family("'NAME(…)'", "Any distribution of scipy.stats, by name and parameters.", "'nbinom(5, 0.3)'")
def scipy(call: str, *, tail: float = 1e-6, decimals: int | None = None) -> Distribution:
    """`nbinom(5, 0.3)`; a continuous one needs `decimals` to round to. Parsed, never evaluated."""
    name, arguments, keywords = parse_call(call)
    request = f"Generate a random number drawn from the distribution {call.strip()}, in the notation of scipy.stats."
    if decimals is None:
        return replace(discrete_distribution(name, arguments, request, tail, keywords), facts=known(call=call.strip()))
    places = "a whole number" if decimals == 0 else many(decimals, "decimal place")
    made = rounded_distribution(name, arguments, request, tail, keywords, decimals)
    return replace(made, facts=known(rounded_call=call.strip(), places=places))


@family("FROM TO", "Days from FROM to TO, equally likely.", "2024-06-01 2024-06-30")
def dates(first: str, last: str, *, date_format: str = "%B %-d") -> Distribution:
    """Each day in `date_format`. Weights of days with the same text (`%A`) are summed."""
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise InputError(f"--dates {first} {last}: write days as YEAR-MONTH-DAY, e.g. 2024-06-01") from error
    require(start <= end, f"--dates {first} {last}", "the first day must not be after the last")
    require_manageable((end - start).days + 1, "--dates", "use a shorter range")
    days = [start + timedelta(days=index) for index in range((end - start).days + 1)]
    texts = [day.strftime(date_format).strip() for day in days]
    require(all(texts), f"--date-format {date_format!r}", "writes nothing. Use for example '%B %-d'")
    unknown = re.findall(r"%[-_0^#]?[A-Za-z]", texts[0]) if "%%" not in date_format else []
    if unknown or "%" not in date_format:
        why = f"strftime has no code {unknown[0]}" if unknown else f"writes {texts[0]!r} for every day"
        raise InputError(f"--date-format {date_format!r}: {why}. Use codes such as %B, %-d and %Y")
    outcomes, weights = merge_equal((text, 1.0) for text in texts)
    ends = (texts[0], texts[-1]) if len(outcomes) == len(texts) else (start.isoformat(), end.isoformat())
    facts = date_facts(*ends, texts[0], len(days) if len(outcomes) == len(texts) else None)
    request = f"Pick a random day from {ends[0]} to {ends[1]}, every day equally likely, and write it like {texts[0]}."
    return Distribution(outcomes, None if weights is None else rounded_shares(weights), request, "date", facts=facts)


@family("", "The seven days of the week, equally likely.", "")
def weekdays() -> Distribution:
    """Monday to Sunday."""
    names = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return Distribution(names, None, "Pick a random day of the week, every day equally likely.", "day")


@family("", "The twelve months, equally likely.", "")
def months() -> Distribution:
    """January to December."""
    names = tuple(date(2024, month, 1).strftime("%B") for month in range(1, 13))
    return Distribution(names, None, "Pick a random month of the year, every month equally likely.", "month")


@family(
    "A=1,B=2,…",
    "Named outcomes with weights, or equally likely; also JSON.",
    "'rock=1,paper=1,scissors=2'",
)
def choices(listing: str) -> Distribution:
    """`rock=1,paper=1,scissors=2`. The weight follows the last `=` of an entry; `"a, b"` in quotes is one entry."""
    entries = weighted_choices(listing)
    weighted = any(weight is not None for _, weight in entries)
    if weighted and (bare := [name for name, weight in entries if weight is None]):
        hint = ". Decimals are written with a point" if bare[0].isdigit() else ""
        raise InputError(f"--choices: {bare[0]!r} has no weight, but others do. Give weights to all or none{hint}")
    pairs = [(name, 1.0 if weight is None else weight) for name, weight in entries]
    require(all(name for name, _ in pairs), "--choices", "an entry has no name. Write e.g. rock=1,paper=2")
    wrong = next(((name, w) for name, w in pairs if not (math.isfinite(w) and w >= 0)), None)
    require(wrong is None, "--choices", f"the weight {wrong[1]:g} of {wrong[0]!r} must be 0 or more" if wrong else "")
    require(any(w > 0 for _, w in pairs), "--choices", "at least one weight must be above 0")
    outcomes, weights = merge_equal(pairs)
    require(len(outcomes) == len(pairs), "--choices", "each name may occur only once")
    return _of_options(outcomes, weights, weights if weighted else None)


def _of_options(outcomes: tuple[str, ...], weights: tuple[float, ...] | None, stated: tuple[float, ...] | None) -> Distribution:
    """With a request that names the outcomes and their shares. Equal weights are facts only if `stated`."""
    names = in_quotes(outcomes)
    pairs = zip(names, share_texts(weights), strict=True) if weights else ()
    chances = ", ".join(f"{name} ({share})" for name, share in pairs) if weights else ", ".join(names)
    how = "with these probabilities" if weights else "all equally likely"
    request = f"Pick one of these at random, {how}: {chances}."
    return Distribution(outcomes, weights, request, "choice", facts=option_facts(outcomes, stated))


def naming_its_options(distribution: Distribution) -> Distribution:
    """The outcomes of a file, asked for as `--choices` asks. Raises `InputError` for more than a request can name."""
    count = len(distribution.outcomes)
    require(
        count <= MOST_LISTED,
        "--wordings",
        f"built-in requests list all targets, at most {MOST_LISTED}. There are {count}: write your own request with --request or --requests",
    )
    outcomes, weights = merge_equal(zip(distribution.outcomes, distribution.weights or [1.0] * count, strict=True))
    asked = _of_options(outcomes, weights, weights)
    return replace(asked, family=choices.name, notice=distribution.notice, fields=distribution.fields)


def _decimal(text: str, option: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise InputError(f"{option}: {text!r} is not a number") from error
    if not value.is_finite() or len(value.as_tuple().digits) > 20 or abs(value.adjusted()) > 20:
        raise InputError(f"{option}: {text[:40]!r} is not a number of at most 20 digits")
    return value
