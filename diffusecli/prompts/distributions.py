"""Named distributions as outcomes and weights.

Knows nothing of prompts, models or files. A family is one function with the `@family` decorator: its
positional parameters are what the command-line option takes, its keyword-only parameters are the
modifiers it understands (`--step`, `--tail`, …). Writing one is all that adding one takes.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from itertools import accumulate, pairwise
from typing import Any

from diffusecli.files.cells import collection
from diffusecli.files.numerals import ending_of
from diffusecli.system.errors import InputError, did_you_mean, many

MOST_OUTCOMES = 100_000


@dataclass(frozen=True)
class Distribution:
    """What a family amounts to: the outcomes as text, their weights, and how to ask for a draw in English."""

    outcomes: tuple[str, ...]
    weights: tuple[float, ...] | None  # None: uniform
    request: str
    noun: str = "number"
    notice: str = ""  # what was cut off or found out, for the user; a line each
    fields: Mapping[str, str] = field(
        default_factory=dict
    )  # what fills the {placeholders} of a request, where more than the group does


@dataclass(frozen=True)
class Family:
    """A distribution that the command line can name."""

    name: str
    make: Callable[..., Distribution]
    metavar: str
    summary: str
    example: str

    @property
    def arguments(self) -> tuple[type, ...]:
        """Types of what the option takes, in order; none for a flag."""
        hints = typing.get_type_hints(self.make)
        parameters = inspect.signature(self.make).parameters.values()
        return tuple(hints[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def modifiers(self) -> tuple[str, ...]:
        """Names of the further options it understands."""
        return tuple(p.name for p in inspect.signature(self.make).parameters.values() if p.kind is p.KEYWORD_ONLY)


FAMILIES: dict[str, Family] = {}

_Make = Callable[..., Distribution]


def family(metavar: str, summary: str, example: str) -> Callable[[_Make], _Make]:
    """Register a function as a family; its name, with dashes, is the option's."""

    def register(make: _Make) -> _Make:
        name = make.__name__.replace("_", "-")
        FAMILIES[name] = Family(name, make, metavar, summary, f"--{name} {example}".rstrip())
        return make

    return register


@family("LO HI", "Equally likely numbers from LO to HI.", "1 100")
def uniform(low: str, high: str, *, step: str = "1") -> Distribution:
    """`low`, `low + step`, … up to `high`, in decimal arithmetic, so that 0.1 steps stay exact."""
    first, last, width = (_decimal(text, "--uniform") for text in (low, high, step))
    if width <= 0 or last < first:
        raise InputError(f"--uniform {low} {high} --step {step}: LO must not be above HI and the step must be positive")
    spread = (last - first) / width
    _require_manageable(int(spread) + 1 if spread < MOST_OUTCOMES else MOST_OUTCOMES + 1, "--uniform", "raise --step")
    count = int(spread) + 1
    values = [first + width * index for index in range(count)]
    digits = max(0, *(-int(value.as_tuple().exponent) for value in (first, width)))
    outcomes = tuple(f"{value:.{digits}f}" for value in values)
    steps = "" if width == 1 and digits == 0 else f" in steps of {step}"
    return Distribution(
        outcomes, None, f"Generate a random number between {outcomes[0]} and {outcomes[-1]}{steps}, each equally likely."
    )


@family("N P", "Successes in N trials of probability P.", "10 0.2")
def binomial(trials: int, probability: float) -> Distribution:
    """B(n, p)."""
    _require(
        trials >= 1 and 0 <= probability <= 1, f"--binomial {trials} {probability:g}", "N must be 1 or more and P between 0 and 1"
    )
    request = f"Generate a random number between 0 and {trials} drawn from the binomial distribution B({trials}, {probability:g})."
    return _discrete("binom", (trials, probability), request, 0.0)


@family("P", "1 with probability P, else 0.", "0.3")
def bernoulli(probability: float) -> Distribution:
    """One trial."""
    _require(0 <= probability <= 1, f"--bernoulli {probability:g}", "P must be between 0 and 1")
    request = f"Run one trial that succeeds with probability {probability:g}. Report 1 for a success and 0 for a failure."
    return _discrete("bernoulli", (probability,), request, 0.0)


@family("LAM", "Events in an interval that has LAM of them on average.", "4")
def poisson(mean: float, *, tail: float = 1e-6) -> Distribution:
    """Pois(lambda), cut where less than `tail` lies beyond."""
    _require(mean > 0, f"--poisson {mean:g}", "LAM must be above 0")
    return _discrete("poisson", (mean,), f"Generate a random count drawn from the Poisson distribution with mean {mean:g}.", tail)


@family("P", "Trials of probability P up to the first success.", "0.25")
def geometric(probability: float, *, tail: float = 1e-6) -> Distribution:
    """Geom(p) on 1, 2, …, cut where less than `tail` lies beyond."""
    _require(0 < probability <= 1, f"--geometric {probability:g}", "P must be above 0 and at most 1")
    request = f"Repeat a trial that succeeds with probability {probability} until it does, and report how many trials it took."
    return _discrete("geom", (probability,), request, tail)


@family("NdM", "The sum of N dice with M sides, plus a constant.", "2d6")
def dice(notation: str) -> Distribution:
    """`2d6`, `d20`, `3d6+2`: exact, by convolution of whole counts."""
    parts = re.fullmatch(r"(\d{0,3})d(\d{1,4})([+-]\d{1,6})?", notation.strip().lower())
    count, sides, shift = (int(parts[1] or 1), int(parts[2]), int(parts[3] or 0)) if parts else (0, 0, 0)
    _require(count > 0 and sides > 0, f"--dice {notation}", "write it like 2d6, d20 or 3d6+2")
    _require_manageable(count * sides, "--dice", "roll fewer dice")
    _require(count <= 100, "--dice", "roll at most 100 dice")
    ways = [1]
    for _ in range(count):
        sums = [0, *accumulate(ways)]  # a die adds up `sides` neighbours, the difference of two running sums
        ways = [sums[min(total + 1, len(ways))] - sums[max(0, total - sides + 1)] for total in range(len(ways) + sides - 1)]
    offset = f", then add {shift}" if shift > 0 else f", then subtract {-shift}" if shift else ""
    what = "a fair die" if count == 1 else f"{count} fair dice"
    request = f"Roll {what} with {sides} sides{' each' if count > 1 else ''}{offset} and report the total."
    outcomes = tuple(str(count + shift + total) for total in range(len(ways)))
    return Distribution(outcomes, _shares(number / sides**count for number in ways), request)


@family("S N", "Ranks 1 to N with weights 1 / rank^S.", "1 20")
def zipf(exponent: float, ranks: int) -> Distribution:
    """Zipf's law over finitely many ranks."""
    _require(ranks >= 1 and abs(exponent) <= 50, f"--zipf {exponent:g} {ranks}", "N must be 1 or more and S between -50 and 50")
    _require_manageable(ranks, "--zipf", "lower N")
    request = f"Generate a random rank between 1 and {ranks} drawn from Zipf's law with exponent {exponent:g}."
    return Distribution(
        tuple(str(rank) for rank in range(1, ranks + 1)), _shares(rank**-exponent for rank in range(1, ranks + 1)), request, "rank"
    )


@family("", "Leading digits of numbers in the wild (Benford's law).", "")
def benford() -> Distribution:
    """Digit d with weight log10(1 + 1/d)."""
    request = "Generate a random leading digit, from 1 to 9, as Benford's law has it for numbers in the wild."
    return Distribution(tuple("123456789"), _shares(math.log10(1 + 1 / d) for d in range(1, 10)), request, "digit")


@family("'NAME(…)'", "Any distribution of scipy.stats by name and parameters.", "'nbinom(5, 0.3)'")
def scipy(call: str, *, tail: float = 1e-6, decimals: int | None = None) -> Distribution:
    """`nbinom(5, 0.3)`; a continuous one needs `decimals` to round to. Parsed, never evaluated."""
    name, arguments, keywords = _parse_call(call)
    request = f"Generate a random number drawn from the distribution {call.strip()}, in the notation of scipy.stats."
    if decimals is None:
        return _discrete(name, arguments, request, tail, keywords)
    return _rounded(name, arguments, request, tail, keywords, decimals)


@family("FROM TO", "Days from FROM to TO, equally likely.", "2024-06-01 2024-06-30")
def dates(first: str, last: str, *, date_format: str = "%B %-d") -> Distribution:
    """Each day written as `date_format` says; days written alike (`%A`) are added up."""
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise InputError(f"--dates {first} {last}: write days as YEAR-MONTH-DAY, e.g. 2024-06-01") from error
    _require(start <= end, f"--dates {first} {last}", "the first day must not be after the last")
    _require_manageable((end - start).days + 1, "--dates", "name a shorter span")
    days = [start + timedelta(days=index) for index in range((end - start).days + 1)]
    texts = [day.strftime(date_format).strip() for day in days]
    _require(all(texts), f"--date-format {date_format!r}", "writes nothing, use for example '%B %-d'")
    unknown = re.findall(r"%[-_0^#]?[A-Za-z]", texts[0]) if "%%" not in date_format else []
    if unknown or "%" not in date_format:
        why = f"strftime knows no {unknown[0]}" if unknown else f"writes {texts[0]!r} for every day"
        raise InputError(f"--date-format {date_format!r}: {why}. Use codes such as %B, %-d and %Y")
    outcomes, weights = _added_up((text, 1.0) for text in texts)
    ends = (texts[0], texts[-1]) if len(outcomes) == len(texts) else (start.isoformat(), end.isoformat())
    request = f"Pick a random day from {ends[0]} to {ends[1]}, every day equally likely, and write it like {texts[0]}."
    return Distribution(outcomes, None if weights is None else _shares(weights), request, "date")


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
    "Named outcomes with weights; without weights equally likely. A JSON list or mapping, too.",
    "'rock=1,paper=1,scissors=2'",
)
def choices(listing: str) -> Distribution:
    """`rock=1,paper=1,scissors=2`. The weight follows the last `=` of an entry; `"a, b"` in quotes is one entry."""
    entries = _listed(listing)
    weighted = any(weight is not None for _, weight in entries)
    if weighted and (bare := [name for name, weight in entries if weight is None]):
        hint = ". Decimals are written with a point" if bare[0].isdigit() else ""
        raise InputError(f"--choices: {bare[0]!r} has no weight and others have one, give all of them or none{hint}")
    pairs = [(name, 1.0 if weight is None else weight) for name, weight in entries]
    _require(
        all(name and math.isfinite(w) and w >= 0 for name, w in pairs),
        "--choices",
        "every entry needs a name and a weight of 0 or more",
    )
    _require(any(w > 0 for _, w in pairs), "--choices", "at least one weight must be above 0")
    outcomes, weights = _added_up(pairs)
    _require(len(outcomes) == len(pairs), "--choices", "no name may be there twice")
    total = math.fsum(weights or ())
    chances = ", ".join(f"{name} ({w / total:.3g})" for name, w in pairs) if weights else ", ".join(outcomes)
    how = "with these probabilities" if weights else "all equally likely"
    return Distribution(outcomes, weights, f"Pick one of these at random, {how}: {chances}.", "choice")


_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:=([^,=]*))?(?:,|\Z)')
_PLAIN = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)%?")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:\s?[ap]m)?", re.IGNORECASE)
_AS_JSON = 'or, where a target ends so, write a JSON list: --choices \'["10:1", "2:1"]\''


def _listed(listing: str) -> list[tuple[str, float | None]]:
    """Names with their weights. Raises `InputError` where what stands between them, or a weight, is not certain."""
    if (found := collection(listing)) is not None and listing.strip()[:1] in ("[", "{"):
        return _of_json(found)
    entries, at = [], 0
    while at <= len(listing) and (match := _ENTRY.match(listing, at)):
        quoted, name, weight = match[1], match[2], match[3]
        entries.append((quoted.replace('""', '"') if quoted is not None else name.strip(), weight))
        at = match.end() + (match.end() == len(listing) and not match[0].endswith(","))
    _require_commas(listing, [name for name, _ in entries])
    if all(weight is None for _, weight in entries) and "=" not in listing:
        entries = _at_ends([name for name, _ in entries])
    return [(name, None if weight is None else _weight(name, weight)) for name, weight in entries]


def _of_json(found: list[Any] | dict[Any, Any]) -> list[tuple[str, float | None]]:
    pairs = list(found.items()) if isinstance(found, dict) else [(name, None) for name in found]
    if any(isinstance(part, list | dict | tuple) for pair in pairs for part in pair):
        raise InputError('--choices: a JSON list must hold texts, a mapping texts and weights, e.g. {"rock": 1, "paper": 2}')
    return [(str(name).strip(), None if weight is None else _weight(str(name), str(weight))) for name, weight in pairs]


def _require_commas(listing: str, names: Sequence[str]) -> None:
    """Raises `InputError` for entries that something else than a comma separates."""
    for sign in (";", "|", "\n", "\t"):
        parts = [part for part in listing.split(sign) if part.strip()]
        if len(parts) > 1 and (len(names) == 1 or all("=" in part for part in parts)):
            raise InputError(f"--choices: {listing!r} has {sign!r} between the choices. Separate them by commas")


def _at_ends(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Weights at the ends of names, where all have one and together they make 1 or 100 %; raises `InputError` where that is not certain."""
    found = [ending if ending and _PLAIN.fullmatch(ending.number) else None for ending in map(ending_of, names)]
    pairs = [(ending.text, ending.number) for ending in found if ending]
    total = math.fsum(_weight(*pair) for pair in pairs)
    complete = len(pairs) == len(names) > 1
    is_whole = math.isclose(total, 1, abs_tol=0.005)
    likely = [ending for ending in found if ending and (ending.is_likely or (complete and (is_whole or math.isclose(total, 100))))]
    if not likely or all(map(_TIME.fullmatch, names)):
        return [(name, None) for name in names]
    if complete and is_whole and (all("%" in weight for _, weight in pairs) or any("." in weight for _, weight in pairs)):
        return list(pairs)
    raise InputError(
        f"--choices: {names[found.index(likely[0])]!r} ends like a weight. Write {likely[0].text}={likely[0].number} if it is one, {_AS_JSON}"
    )


def _weight(name: str, text: str) -> float:
    """A number, or a percentage."""
    plain = text.strip()
    try:
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"--choices: the weight {plain!r} of {name!r} is no number, e.g. rock=1,paper=2") from error


def catalogue() -> Iterable[tuple[str, str]]:
    """Example line and what it means, for each family and for files."""
    files = [
        ("--from names.txt", "One target a line, equally likely."),
        ("--from answers.csv --column answer --count", "Observations to be counted; also JSON, Parquet, Excel."),
        ("--from names.csv --column name --weight-column n --top 200", "Targets with weights, the heaviest 200."),
        ("--from answers.csv --column answer --count --group-by region -o survey/", "A prompt per group of rows."),
    ]
    return [*((family.example, family.summary) for family in FAMILIES.values()), *files]


def make_distribution(name: str, value: Any, modifiers: Mapping[str, Any]) -> Distribution:
    """The family `name` made from its option's value and the modifiers that were given (None: not given).

    Raises `InputError` for a modifier that the family does not understand.
    """
    chosen = FAMILIES[name]
    given = {key: setting for key, setting in modifiers.items() if setting is not None}
    if foreign := [key for key in given if key not in chosen.modifiers]:
        takers = ", ".join(f"--{f.name}" for f in FAMILIES.values() if foreign[0] in f.modifiers)
        raise InputError(f"--{foreign[0].replace('_', '-')} does not go with --{name}, only with {takers}")
    values = () if not chosen.arguments else (value,) if len(chosen.arguments) == 1 else tuple(value)
    return chosen.make(*values, **given)


def _discrete(
    name: str, arguments: tuple[float, ...], request: str, tail: float, keywords: dict[str, float] | None = None
) -> Distribution:
    """A discrete distribution of scipy.stats on its support, cut where no more than `tail` lies beyond in all."""
    frozen, discrete = _frozen(name, arguments, keywords or {})
    _require(discrete, name, "is continuous: say how to round with --decimals, e.g. --decimals 0")
    low, high = _cut_support(name, frozen, tail)
    first = math.ceil(low)
    last = max(first, math.floor(high))
    _require_manageable(last - first + 1, name, "take a narrower distribution or, where it has no end, raise --tail")
    values = range(first, last + 1)
    try:
        masses = [float(mass) for mass in frozen.pmf(list(values))]
    except OverflowError as error:  # parameters at the edge of what floats can hold
        raise InputError(f"{name}: its weights cannot be computed for {arguments}, take less extreme parameters") from error
    _require(math.fsum(masses) > 0, name, "has no mass on whole numbers")
    return Distribution(
        tuple(map(str, values)), _renormalised(masses), request, notice=_what_was_cut(values[0], values[-1], masses)
    )


def _rounded(
    name: str, arguments: tuple[float, ...], request: str, tail: float, keywords: dict[str, float], decimals: int
) -> Distribution:
    """A continuous distribution of scipy.stats rounded to `decimals` places: each value takes the mass that rounds to it."""
    _require(0 <= decimals <= 9, f"--decimals {decimals}", "must be between 0 and 9")
    frozen, discrete = _frozen(name, arguments, keywords)
    _require(not discrete, name, "is discrete: leave --decimals out")
    low, high = _cut_support(name, frozen, tail)
    scale = 10**decimals
    _require(
        max(abs(low), abs(high)) * scale < 2**52, name, "its numbers are too large to be told apart, lower --decimals or its scale"
    )
    first, last = round(low * scale), round(high * scale)
    _require_manageable(last - first + 1, name, "raise --tail or lower --decimals")
    edges = [(index - 0.5) / scale for index in range(first, last + 2)]
    cumulative = frozen.cdf(edges)
    masses = [float(above - below) for below, above in pairwise(cumulative)]
    outcomes = tuple(f"{index / scale:.{decimals}f}" for index in range(first, last + 1))
    kept = [index for index, mass in enumerate(masses) if mass > 0]  # an end that rounds to a value of no mass goes
    _require(bool(kept), name, "has no mass there")
    outcomes, masses = outcomes[kept[0] : kept[-1] + 1], masses[kept[0] : kept[-1] + 1]
    places = "a whole number" if decimals == 0 else many(decimals, "decimal place")
    return Distribution(
        outcomes, _renormalised(masses), f"{request} Round it to {places}.", notice=_what_was_cut(outcomes[0], outcomes[-1], masses)
    )


def _frozen(name: str, arguments: tuple[float, ...], keywords: dict[str, float]) -> tuple[Any, bool]:
    """The distribution with its parameters, and whether it is discrete."""
    import warnings

    from scipy import stats

    kinds = (stats.rv_discrete, stats.rv_continuous)
    known = [word for word, value in vars(stats).items() if isinstance(value, kinds)]
    if name not in known:
        raise InputError(f"--scipy: no distribution '{name}' in scipy.stats, {did_you_mean(name, known)}")
    kind = getattr(stats, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = kind(*arguments, **keywords)
            median = float(frozen.ppf(0.5))
    except TypeError as error:
        raise InputError(f"--scipy: {name} takes the parameters ({kind.shapes or ''}), loc and scale: {error}") from error
    _require(math.isfinite(median), f"--scipy {name}", "these parameters are outside its domain")
    return frozen, isinstance(kind, stats.rv_discrete)


def _cut_support(name: str, frozen: Any, tail: float) -> tuple[float, float]:
    """The support, each infinite end moved to where half of `tail` (all, if the other end is finite) lies beyond."""
    _require(0 <= tail < 0.5, f"--tail {tail:g}", "must be 0 or more and below 0.5")
    import warnings

    low, high = (float(end) for end in frozen.support())
    share = tail / 2 if math.isinf(low) and math.isinf(high) else tail
    if (math.isinf(low) or math.isinf(high)) and share == 0:
        raise InputError("--tail 0: this distribution has no end, give the tail mass to cut off, e.g. --tail 1e-6")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns at the edge of a domain, the checks below tell
        if math.isinf(high) and not math.isinf(low) and frozen.sf(low + MOST_OUTCOMES) > max(tail, 1e-300):
            raise InputError(f"{name}: more than {MOST_OUTCOMES} outcomes hold mass, raise --tail or take a narrower distribution")
        ends = float(frozen.ppf(share)) if math.isinf(low) else low, float(frozen.isf(share)) if math.isinf(high) else high
    _require(all(map(math.isfinite, ends)), name, "where it ends cannot be computed, raise --tail or take less extreme parameters")
    return ends


def _what_was_cut(first: object, last: object, masses: list[float]) -> str:
    missing = 1 - math.fsum(masses)
    if missing <= 1e-12:
        return ""
    return f"cut to {first} … {last}: {missing:.2g} of the mass lies beyond, the weights were renormalised"


def _renormalised(masses: list[float]) -> tuple[float, ...]:
    """To sum 1 when something was cut; as they are otherwise, so that no digit changes."""
    total = math.fsum(masses)
    return _shares(mass / total if abs(total - 1) > 1e-12 else mass for mass in masses)


def _shares(masses: Iterable[float]) -> tuple[float, ...]:
    """Nine significant digits, summing to 1 to that precision."""
    listed = list(masses)
    total = math.fsum(listed)
    return tuple(float(f"{mass if abs(total - 1) < 1e-9 else mass / total:.9g}") for mass in listed)


def _added_up(pairs: Iterable[tuple[str, float]]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Equal outcomes merged, weights added; None for the weights when they are all alike."""
    sums: dict[str, float] = {}
    for text, weight in pairs:
        sums[text] = sums.get(text, 0.0) + weight
    return tuple(sums), None if len(set(sums.values())) == 1 else tuple(sums.values())


def _parse_call(call: str) -> tuple[str, tuple[float, ...], dict[str, float]]:
    """`norm(100, scale=15)` → name, numbers, named numbers. Literals only."""
    remedy = "write NAME(number, …), e.g. 'nbinom(5, 0.3)'"
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, (), {}
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise InputError(f"--scipy {call!r}: is no call, {remedy}")
        numbers = tuple(float(ast.literal_eval(argument)) for argument in tree.args)
        named = {str(keyword.arg): float(ast.literal_eval(keyword.value)) for keyword in tree.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"--scipy {call!r}: cannot be read, {remedy}") from error
    return tree.func.id, numbers, named


def _decimal(text: str, option: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise InputError(f"{option}: {text!r} is no number") from error
    if not value.is_finite() or len(value.as_tuple().digits) > 20 or abs(value.adjusted()) > 20:
        raise InputError(f"{option}: {text[:40]!r} is no number of at most 20 digits")
    return value


def _require(good: bool, where: str, remedy: str) -> None:
    if not good:
        raise InputError(f"{where}: {remedy}")


def _require_manageable(count: int, where: str, remedy: str) -> None:
    _require(count <= MOST_OUTCOMES, where, f"{count} outcomes are more than {MOST_OUTCOMES}, {remedy}")
