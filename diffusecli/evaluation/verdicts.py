"""Verdicts: summarise the figures of a sampler in one phrase.

Takes figures; does not compute or show them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.metrics import ExactFigures, Figures
from diffusecli.evaluation.open_ended import Diversity
from diffusecli.system.errors import many

TOO_COARSE = 0.25  # no verdict on the weights if the test can only detect a TVD above this
CLOSE = 0.02  # a distance (TVD) without importance in most uses, whether shares or off-target answers cause it
_ZERO = 0.0005  # a TVD that is printed as 0.000
_USELESS = 0.5  # an upper bound of the TVD that is not worth printing alone
_TOLERATED = 0.01  # share of off-target answers that does not count against the model


_IS_CLOSE = f" (up to {CLOSE} is close)"


class Kind(NamedTuple):
    """The words for what is judged."""

    off: str  # a share that is no target
    valid: str
    new: float = 0.0  # share of answers that are new combinations of known values


ANSWERS, VALUES = Kind("off target {}", "valid answers"), Kind("{} other or no value", "valid values")
"""Whole answers, and the values of one field of records."""


def verdict(found: Figures, exact: ExactFigures | None = None, of: Kind = ANSWERS, level: float = SIGNIFICANCE) -> str:
    """One phrase: first the valid share, then the weights, with the figures in brackets.

    The test of fit rejects below `level`. The model's own probabilities take precedence over samples that are too few to show a difference.
    """
    if found.n == 0:
        return "no samples"
    if many_off(found):
        return _off_target(found, exact, of, level)
    if found.p_value < level:
        return f"{_departure(found, exact)} ({_p(found)}, excess TVD {found.excess_tvd:z.3f})"
    if exact is not None and _lowest_tvd(exact, found) > CLOSE:
        return f"differs from the target by an exact TVD of {exact.tvd_of_answers:.3f}, not visible in {many(found.n, 'sample')} ({_p(found)})"
    if found.detectable_tvd > TOO_COARSE:
        missed = (
            "no difference would be detected"
            if found.detectable_tvd >= 1
            else f"the test could miss a true TVD below {found.detectable_tvd:.3f}"
        )
        return f"too few samples for a verdict ({missed})"
    return _follows(found, exact)


def open_verdict(found: Diversity, unfinished: int = 0) -> str:
    """The verdict for a prompt without a list of valid answers."""
    if not found.n:
        return "no samples"
    beyond = "" if math.isnan(found.beyond) else f", {_percent(found.beyond)} beyond the targets"
    cut = f" ({_percent(unfinished / found.n)} unfinished)" if unfinished else ""
    return f"open-ended: {many(found.distinct, 'different answer')} in {found.n}{cut}{beyond}, {_percent(found.unseen_mass)} of the next would be new"


def doubted(doubt: str, found: Figures, of: Kind = ANSWERS) -> str:
    """The verdict on records whose fields differ. The fields' table shows the rest.

    The shares of whole answers are wrong because those of the fields are, so they are not judged again.
    """
    return f"{doubt}; {_share_off(found, of)}" if many_off(found) else doubt


def other_values(share: float) -> str:
    """The share of answers in which a field has another value or none."""
    return VALUES.off.format(_percent(share))


def is_off(words: str, found: Figures, of: Kind = ANSWERS) -> bool:
    """Whether a verdict is that too many answers are off target, before anything else."""
    return words.startswith(_share_off(found, of))


def many_off(found: Figures) -> bool:
    """Whether certainly more answers are off target than tolerated: wrongly with at most 2.5 %, because the interval is exact."""
    return found.valid_high < 1 - _TOLERATED


def _share_off(found: Figures, of: Kind) -> str:
    cut = found.unfinished / found.n
    parts = [f"unfinished {_percent(cut)}"] if cut else []
    if of.new >= _ZERO:
        rest = 1 - found.valid - of.new - cut
        new = "all" if rest < _ZERO and not cut else _percent(of.new)
        parts = [f"{new} new combinations", *([f"{_percent(rest)} other values or another form"] if rest >= _ZERO else []), *parts]
    return of.off.format(_percent(1 - found.valid)) + (f" ({', '.join(parts)})" if parts else "")


def _off_target(found: Figures, exact: ExactFigures | None, of: Kind, level: float) -> str:
    """The verdict if certainly more answers are off target than tolerated.

    How much that matters depends on the bounds of the distance, as for wrong shares; off-target answers are part of it.
    The larger part is named first: the TVD is the off-target share plus what targets that come too often have beyond their weights.
    """
    off, (low, high) = _share_off(found, of), _bounds(found, exact)
    figures = f"({_p(found)}, excess TVD {found.excess_tvd:z.3f})"
    if high <= CLOSE:
        return f"close to the target, {off} {figures}"
    if low <= CLOSE:
        if found.p_value < level or too_few(found, level):
            return f"{_differs(low, high)}, {off} {figures}"
        return f"undecided, {off}, {_between(low, high)}{_IS_CLOSE} {figures}"
    if found.p_value < level and found.excess_tvd > 2 * (1 - found.valid):
        return f"wrong shares{_missing(found)}, {off} {figures}"
    if found.tvd_low <= CLOSE and not found.p_value < level:  # only the exact figure shows it
        return f"{off}, exact TVD {high:.3f}{_IS_CLOSE} ({_p(found)})"
    return off + (f", {_of_valid(found, of, level)} ({_p(found)})" if found.valid > 0.5 else "")


def too_few(found: Figures, level: float = SIGNIFICANCE) -> bool:
    """Whether so few answers are valid that a test which does not reject says nothing about the weights."""
    return not found.p_value < level and found.detectable_tvd > TOO_COARSE and found.df > 0


def _of_valid(found: Figures, of: Kind, level: float) -> str:
    if found.p_value < level:
        return "wrong shares"
    return f"too few {of.valid} for a verdict on the weights" if too_few(found, level) else f"no difference found in {of.valid}"


def _departure(found: Figures, exact: ExactFigures | None) -> str:
    """Why the test of fit rejects. The size of the difference is the exact TVD if known, otherwise its interval."""
    impossible = "answers include targets of weight zero"
    if math.isinf(found.g):  # they are a part of the distance, as off-target answers are
        return f"close to the target, but {impossible}" if _bounds(found, exact)[1] <= CLOSE else impossible
    if found.too_even:
        return "follows the target more evenly than independent draws would"
    low, high = _bounds(found, exact)
    if high <= CLOSE:
        return "close to the target"
    missing = _missing(found)
    if low <= CLOSE:
        return f"{_differs(low, high)}{missing}"
    return f"wrong shares{missing}"


def _bounds(found: Figures, exact: ExactFigures | None) -> tuple[float, float]:
    """Bounds of the TVD: exact if the model's probabilities are known and explain the share off target, otherwise of its 95 % interval.

    They do not explain answers that were cut.
    """
    if exact is not None and (low := _lowest_tvd(exact, found)) <= exact.tvd_of_answers:
        return low, exact.tvd_of_answers
    return found.tvd_low, found.tvd_high


def _differs(low: float, high: float) -> str:
    """The difference with its bounds, if they say anything."""
    return "differs, perhaps by little" + (f": {_between(low, high)}{_IS_CLOSE}" if low >= _ZERO or high < _USELESS else "")


def _between(low: float, high: float) -> str:
    """Bounds of a TVD. An upper bound above what counts as close is not rounded to it.

    >>> _between(0.0134, 0.0456), _between(0.0134, 0.0201), _between(0.0, 0.03)
    ('true TVD between 0.013 and 0.046', 'true TVD between 0.013 and 0.0201', 'true TVD of at most 0.030')
    """
    highest = f"{high:.3f}"
    if float(highest) <= CLOSE < high:
        highest = f"{math.ceil(1e4 * high) / 1e4:.4f}"
    return f"true TVD between {low:.3f} and {highest}" if low >= _ZERO else f"true TVD of at most {highest}"


def _follows(found: Figures, exact: ExactFigures | None) -> str:
    least = found.detectable_tvd
    detected = (
        ""
        if math.isnan(least)
        else f"; a TVD of {least:{'.3f' if least >= _ZERO else '.2g'}} or more would be detected with 80 % power"
    )
    figures = f"({_p(found)}, excess TVD {found.excess_tvd:z.3f}{detected})"
    if exact is not None and exact.tvd - exact.tvd_of_answers > CLOSE:
        return f"follows the target over all wordings {figures}; individual wordings differ by an exact TVD of {exact.tvd:.3f} on average"
    return f"follows the target {figures}"


def _missing(found: Figures) -> str:
    """How many targets were seen, if clearly fewer than from a perfect sampler."""
    if found.seen >= 0.9 * found.seen_expected:
        return ""
    if found.seen_expected > found.targets - 0.5:
        return f", {found.seen} of {many(found.targets, 'target')} seen"
    return f", {many(found.seen, 'target')} seen where {found.seen_expected:.0f} are expected"


def _lowest_tvd(exact: ExactFigures, found: Figures) -> float:
    """A lower bound of the model's TVD: mass off target may belong to other tokenisations of targets, up to the valid share of samples. nan if unknown."""
    return exact.tvd_of_answers - max(0.0, 1 - exact.on_target) + 1 - found.valid_high


def _p(found: Figures) -> str:
    return p_value(found.p_value, found.least_p)


def p_value(value: float, least: float = 0.0) -> str:
    """A p-value with its sign; `least` is the smallest one that Monte Carlo can give, 1 / (B + 1) or twice that.

    >>> p_value(0.923), p_value(0.0001, 0.0001), p_value(float("nan"))
    ('p = 0.92', 'p <= 0.0001', '-')
    """
    if math.isnan(value):
        return "-"
    return f"p <= {least:.2g}" if value <= least * 1.001 else f"p = {value:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
