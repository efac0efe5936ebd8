"""Distributions of scipy.stats as outcomes and weights: discrete ones cut where they have no end, continuous ones rounded.

Knows the names and parameters of scipy.stats; a call is parsed, never evaluated.
"""

from __future__ import annotations

import ast
import math
from itertools import pairwise
from typing import Any

from diffusecli.prompts.distributions import MOST_OUTCOMES, Distribution, require, require_manageable, rounded_shares
from diffusecli.system.errors import InputError, did_you_mean, many, sentence


def parse_call(call: str) -> tuple[str, tuple[float, ...], dict[str, float]]:
    """`norm(100, scale=15)` → name, numbers, named numbers. Literals only."""
    remedy = "Write NAME(number, …), e.g. 'nbinom(5, 0.3)'"
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, (), {}
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise InputError(f"--scipy {call!r}: is not a call. {remedy}")
        numbers = tuple(float(ast.literal_eval(argument)) for argument in tree.args)
        named = {str(keyword.arg): float(ast.literal_eval(keyword.value)) for keyword in tree.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"--scipy {call!r}: cannot be read. {remedy}") from error
    return tree.func.id, numbers, named


def discrete_distribution(
    name: str, arguments: tuple[float, ...], request: str, tail: float, keywords: dict[str, float] | None = None
) -> Distribution:
    """A discrete distribution of scipy.stats on its support, cut where no more than `tail` lies beyond in all."""
    frozen, discrete = _frozen(name, arguments, keywords or {})
    require(discrete, name, "is continuous. Round it with --decimals, e.g. --decimals 0")
    low, high = _cut_support(name, frozen, tail)
    first = math.ceil(low)
    last = max(first, math.floor(high))
    require_manageable(last - first + 1, name, "use a narrower distribution or, if its tail is infinite, raise --tail")
    values = range(first, last + 1)
    try:
        masses = [float(mass) for mass in frozen.pmf(list(values))]
    except OverflowError as error:  # parameters at the edge of what floats can hold
        raise InputError(f"{name}: its weights cannot be computed for {arguments}. Use less extreme parameters") from error
    require(math.fsum(masses) > 0, name, "has no mass on whole numbers")
    return Distribution(
        tuple(map(str, values)), _renormalised(masses), request, notice=_what_was_cut(values[0], values[-1], masses)
    )


def rounded_distribution(
    name: str, arguments: tuple[float, ...], request: str, tail: float, keywords: dict[str, float], decimals: int
) -> Distribution:
    """A continuous distribution of scipy.stats rounded to `decimals` places: each value takes the mass that rounds to it."""
    require(0 <= decimals <= 9, f"--decimals {decimals}", "must be between 0 and 9")
    frozen, discrete = _frozen(name, arguments, keywords)
    require(not discrete, name, "is discrete. Leave --decimals out")
    low, high = _cut_support(name, frozen, tail)
    scale = 10**decimals
    require(
        max(abs(low), abs(high)) * scale < 2**52,
        name,
        "its numbers are too large to be distinguished. Lower --decimals or its scale",
    )
    first, last = round(low * scale), round(high * scale)
    require_manageable(last - first + 1, name, "raise --tail or lower --decimals")
    edges = [(index - 0.5) / scale for index in range(first, last + 2)]
    cumulative = frozen.cdf(edges)
    masses = [float(above - below) for below, above in pairwise(cumulative)]
    outcomes = tuple(f"{index / scale:.{decimals}f}" for index in range(first, last + 1))
    kept = [index for index, mass in enumerate(masses) if mass > 0]  # drop ends without mass
    require(bool(kept), name, "has no mass there")
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
        raise InputError(f"--scipy: no distribution '{name}' in scipy.stats. {sentence(did_you_mean(name, known))}")
    kind = getattr(stats, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = kind(*arguments, **keywords)
            median = float(frozen.ppf(0.5))
    except TypeError as error:
        raise InputError(f"--scipy: {name} has the parameters ({kind.shapes or ''}), loc and scale: {error}") from error
    require(math.isfinite(median), f"--scipy {name}", "these parameters are outside its domain")
    return frozen, isinstance(kind, stats.rv_discrete)


def _cut_support(name: str, frozen: Any, tail: float) -> tuple[float, float]:
    """The support, each infinite end moved to where half of `tail` (all, if the other end is finite) lies beyond."""
    require(0 <= tail < 0.5, f"--tail {tail:g}", "must be 0 or more and below 0.5")
    import warnings

    low, high = (float(end) for end in frozen.support())
    share = tail / 2 if math.isinf(low) and math.isinf(high) else tail
    if (math.isinf(low) or math.isinf(high)) and share == 0:
        raise InputError("--tail 0: this distribution has an infinite tail. Give the probability to cut off, e.g. --tail 1e-6")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns at the edge of a domain; the checks below report it
        if math.isinf(high) and not math.isinf(low) and frozen.sf(low + MOST_OUTCOMES) > max(tail, 1e-300):
            raise InputError(f"{name}: more than {MOST_OUTCOMES} outcomes have mass. Raise --tail or use a narrower distribution")
        ends = float(frozen.ppf(share)) if math.isinf(low) else low, float(frozen.isf(share)) if math.isinf(high) else high
    require(all(map(math.isfinite, ends)), name, "its range cannot be computed. Raise --tail or use less extreme parameters")
    return ends


def _what_was_cut(first: object, last: object, masses: list[float]) -> str:
    missing = 1 - math.fsum(masses)
    if missing <= 1e-12:
        return ""
    return f"cut to {first} … {last}: {missing:.2g} of the mass is outside. The weights were renormalised"


def _renormalised(masses: list[float]) -> tuple[float, ...]:
    """To sum 1 when something was cut; as they are otherwise, so that no digit changes."""
    total = math.fsum(masses)
    return rounded_shares(mass / total if abs(total - 1) > 1e-12 else mass for mass in masses)
