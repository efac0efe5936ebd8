"""Rows that are the sum of the others (`Total`): removed if this is certain, reported if it is likely.

Knows names of totals and sums of weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from diffusecli.files.tables import Table
from diffusecli.system.notices import some_of

_TOTAL = re.compile(r"(?i)(?:(?:grand|sub)[ -]?)?totals?|sums?|gesamt(?:summe)?|summe|insgesamt")
_LIKE_A_TOTAL = re.compile(r"(?i)all|alle|everyone|overall|base|basis|n")  # answers have these names, too


def remove_totals(table: Table, totals: dict[tuple[str, ...], dict[str, float]], *, percent: bool) -> Iterator[str]:
    """Remove rows of sums (`Total`) from the weights. Yields notices on them, on likely sums, and on percentages that do not sum to 100 %.

    A row is certainly a sum if its name is that of a total, its weight is the sum of all others, and the weights are 1 or 100 only without it.
    """
    left_out, doubtful, uneven = [], [], []
    for key, sums in totals.items():
        of = f" of {', '.join(key)}" if key else ""
        for target in [name for name in sums if len(sums) > 2 and (_TOTAL.fullmatch(name) or _LIKE_A_TOTAL.fullmatch(name))]:
            others = math.fsum(sums.values()) - sums[target]
            certain = _TOTAL.fullmatch(target) and table.counts is None and not _is_whole(sums[target] + others)
            if others <= 0 or not math.isclose(sums[target], others, rel_tol=0.02):
                continue
            if certain and math.isclose(
                sums[target], others, rel_tol=0.02 if _is_whole(sums[target]) else 1e-6
            ):  # shares are rounded
                del sums[target]
                left_out.append(f"{target!r}{of}")
            elif not math.isclose(sums[target] + others, 1, abs_tol=1e-6):  # weights that sum to 1 are shares of answers
                doubtful.append(f"{target!r}{of}")
        if percent and not math.isclose(whole := math.fsum(sums.values()), 1, abs_tol=0.02):
            uneven.append(f"{100 * whole:.1f} %{of}")
    if left_out:
        yield f"skipped rows that are the sum of the others: {some_of(left_out)}"
    if doubtful:
        yield f"rows with the weight of all others together count as answers: {some_of(doubtful)}. Remove them if they are sums"
    if uneven:
        yield f"percentages do not sum to 100 %. They are divided by their sum: {some_of(uneven)}"


def likely_sum(counts: Mapping[str, float]) -> str | None:
    """The name of a row that looks like a sum (`Total`) and has the count of all others together.

    >>> likely_sum({"a": 3, "b": 4, "Total": 7}), likely_sum({"a": 3, "Total": 4})
    ('Total', None)
    """
    whole = math.fsum(counts.values())
    return next((name for name, count in counts.items() if _TOTAL.fullmatch(name) and 2 * count == whole), None)


def _is_whole(weight: float) -> bool:
    """Whether it is 1 or 100, as far as rounded shares are."""
    return math.isclose(weight, 1, rel_tol=0.02) or math.isclose(weight, 100, rel_tol=0.02)
