"""Which part of a table counts, and distributions from sums of weights: cut, smoothed and sorted.

Knows neither files nor prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from diffusecli.files.tables import Layout, Table
from diffusecli.files.text import canonical
from diffusecli.prompts.distributions import Distribution
from diffusecli.system.errors import InputError, many

REQUEST = "Pick one at random."
NONE = "none"
"""Instead of a column: no weights, although a column looks like them; options of all groups together."""

_BELOW, _ABOVE = re.compile(r"(?i)<|≤|under|below|less than|up to|unter|bis"), re.compile(r"(?i)>|≥|over|above|more than|über")
_FIRST_NUMBER = re.compile(r"\D{0,12}?(-?\d+(?:[.,]\d+)?)")
_ISO_DAY = re.compile(r"\d{4}-\d\d(?:-\d\d)?")


@dataclass(frozen=True)
class Reading:
    """Which part of a file counts, and how."""

    column: str | None = None
    weight_column: str | None = None
    count: bool = False
    top: int | None = None
    min_count: float = 0.0
    alpha: float = 0.0
    group_by: tuple[str, ...] = ()
    alpha_within: tuple[str, ...] = ()  # of `group_by`: groups that agree in these have the same options
    options_column: str | None = None
    shares_column: str | None = None
    decimal: str | None = None
    template: str | None = None  # targets are records: placeholders are columns
    bins: tuple[str, ...] = ()  # column=width: numbers become ranges
    independent: tuple[str, ...] = ()  # fields of the template that do not depend on the others
    layout: Layout = field(default_factory=Layout)
    grouping: str = "--group-by"  # the option that named `group_by`

    def __post_init__(self) -> None:
        """Raise `InputError` for invalid options or combinations."""
        if not math.isfinite(self.alpha) or not math.isfinite(self.min_count):
            raise InputError("--alpha and --min-count must be finite numbers")
        if len(set(self.group_by)) < len(self.group_by):
            raise InputError(f"{self.grouping} {','.join(self.group_by)}: names a column twice")
        if self.decimal not in (None, ".", ","):
            raise InputError(f"--decimal {self.decimal!r}: must be . or ,")
        if self.bins and self.shares_column is not None:
            raise InputError(
                "--bins cannot be combined with --shares-column, whose options are not numbers of rows. Leave one of them out"
            )
        if self.template is not None and (self.column is not None or self.shares_column is not None):
            raise InputError("--template builds targets from several columns. Leave --column and --shares-column out")
        if self.independent and self.template is None:
            raise InputError("--independent has no effect without --template. Add --template")
        for name, width in self.widths.items():
            if not (math.isfinite(width) and width > 0):
                raise InputError(f"--bins {name}={width:g}: the width must be more than 0")
        if self.options_column is not None and self.shares_column is None:
            raise InputError("--options-column needs the column of the shares. Add --shares-column")
        if self.shares_column is not None and (self.column is not None or self.weight_column is not None or self.count):
            raise InputError("--shares-column takes options and shares from lists. Leave --column, --weight-column and --count out")
        if self.alpha_within and not (self.alpha and self.group_by):
            raise InputError("--alpha-within needs --alpha and --group-by")
        if self.alpha_within != (NONE,) and (foreign := [name for name in self.alpha_within if name not in self.group_by]):
            raise InputError(f"--alpha-within {foreign[0]}: must be one of {self.grouping} {','.join(self.group_by)}, or {NONE}")

    @property
    def widths(self) -> dict[str, float]:
        """The widths of `bins` by column. Raises `InputError` for text that is not column=width."""
        found: dict[str, float] = {}
        for text in self.bins:
            name, _, written = text.rpartition("=")
            column = name.strip()
            try:
                width = float(written)
            except ValueError:
                column, width = "", 0.0
            if not column:
                raise InputError(f"--bins {text!r}: must be a column and a width, like age=10")
            if column in found and found[column] != width:
                raise InputError(f"--bins {text}: {column} already has the width {found[column]:g}. Give one width per column")
            found[column] = width
        return found

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that the user names."""
        names = (self.column, self.weight_column, self.options_column, self.shares_column, *self.group_by, *self.widths)
        return tuple(name for name in names if name is not None and name != NONE)


def kept_targets(totals: Mapping[str, float], order: Sequence[str], reading: Reading) -> list[str]:
    """The targets with enough weight, in order."""
    heavy = [target for target in order if totals[target] >= reading.min_count]
    if reading.top is None or len(heavy) <= reading.top:
        return heavy
    chosen = set(sorted(heavy, key=lambda target: -totals[target])[: reading.top])
    return [target for target in heavy if target in chosen]


def distribution(
    table: Table, key: tuple[str, ...], totals: Mapping[str, float], options: Sequence[str], reading: Reading, *, counted: bool
) -> Distribution:
    """The distribution of one group over its options."""
    place = f"{table.path}{': ' + ', '.join(key) if key else ''}"
    kept = options if reading.alpha and reading.group_by else kept_targets(totals, options, reading)
    if not kept:
        raise InputError(f"{place}: no targets left. Lower --min-count {reading.min_count:g}")
    if not counted:
        return Distribution(tuple(kept), None, REQUEST, "answer")
    smoothed = [totals.get(target, 0.0) + reading.alpha for target in kept]
    total = math.fsum(smoothed)
    if not total > 0:
        raise InputError(f"{place}: all weights are zero. Give at least one target a positive weight")
    if math.isinf(total):
        raise InputError(f"{place}: the sum of the weights is too large. Divide all weights by the same number")
    notice = ""
    if not totals.keys() <= set(kept):
        share = math.fsum(totals.get(target, 0.0) for target in kept) / math.fsum(totals.values())
        notice = f"kept {len(kept)} of {many(len(totals), 'target')}, {100 * share:.1f} % of the weight"
    return Distribution(tuple(kept), tuple(float(f"{weight / total:.9g}") for weight in smoothed), REQUEST, "answer", notice)


def in_order(targets: Iterable[str], categories: Sequence[str], *, sort: bool) -> tuple[list[str], str]:
    """The targets in output order, and a notice that names the order."""
    seen = list(targets)
    places = {canonical(text): place for place, text in enumerate(categories)}
    if places and all(target in places for target in seen):
        return sorted(seen, key=places.__getitem__), "targets in the order of their categories"
    ranks = {target: rank for target in seen if (rank := _rank(target)) is not None} if sort else {}
    if len(ranks) == len(seen) and sort:
        return sorted(seen, key=lambda target: ranks[target]), "targets in ascending order"
    if sort and all(map(_ISO_DAY.fullmatch, seen)):
        return sorted(seen), "targets in ascending order"
    return seen, "targets in the order of the file"


def _rank(target: str) -> tuple[float, int] | None:
    """Sort key of a number or a range such as `18-24`, `under 18` or `65+`. None for other texts."""
    found = _FIRST_NUMBER.match(target)
    if found is None or _ISO_DAY.match(target):
        return None
    before = target[: found.start(1)].strip()
    if before and not (_BELOW.search(before) or _ABOVE.search(before) or before in "$€£±~"):
        return None
    return float(found[1].replace(",", ".")), -1 if _BELOW.search(before) else 1 if _ABOVE.search(before) else 0


def with_notices(made: dict[tuple[str, ...], Distribution], notices: Iterable[str]) -> dict[tuple[str, ...], Distribution]:
    """The distributions, with shared notices added before the first one's notice."""
    first = next(iter(made))
    joined = "\n".join(notice for notice in (*notices, made[first].notice) if notice)
    return {**made, first: replace(made[first], notice=joined)}
