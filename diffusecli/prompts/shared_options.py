"""Options that groups of answers have in common, so that smoothing (`--alpha`) reaches those that a group never chose.

Refuses groups that look like answers to different questions. Knows sums of weights by group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from diffusecli.files.column_names import as_argument
from diffusecli.files.tables import Table
from diffusecli.prompts.weighing import NONE, Reading, kept_targets
from diffusecli.system.errors import InputError, many

_COMPARED = 200  # groups


def shared_options(
    table: Table, totals: Mapping[tuple[str, ...], Mapping[str, float]], order: Sequence[str], reading: Reading
) -> tuple[dict[tuple[str, ...], list[str]], list[str]]:
    """The options of each group: all that any group chose, so that smoothing reaches those that it did not choose itself."""
    within = [] if reading.alpha_within == (NONE,) else [reading.group_by.index(name) for name in reading.alpha_within]
    if not reading.alpha_within:
        _require_one_question(table, totals, reading)
    pools: dict[tuple[str, ...], dict[str, float]] = {}
    for key, sums in totals.items():
        pool = pools.setdefault(tuple(key[i] for i in within), {})
        for target, weight in sums.items():
            pool[target] = pool.get(target, 0.0) + weight
    kept = {pool: kept_targets(sums, [target for target in order if target in sums], reading) for pool, sums in pools.items()}
    options = {key: kept[tuple(key[i] for i in within)] for key in totals}
    added = [(target, key) for key, pool in options.items() for target in pool if target not in totals[key]]
    if not added:
        return options, []
    example = f"{added[0][0]!r} in {', '.join(added[0][1])}"
    return options, [
        f"--alpha {reading.alpha:g}: {many(len(added), 'option')} that a group never chose got this weight, e.g. {example}"
    ]


def _require_one_question(table: Table, totals: Mapping[tuple[str, ...], Mapping[str, float]], reading: Reading) -> None:
    """Raises `InputError` where groups have no option in common, or few, as answers to different questions do."""
    for position, name in enumerate(reading.group_by):
        chosen: dict[str, set[str]] = {}
        for key, sums in totals.items():
            chosen.setdefault(key[position], set()).update(sums)
        large = [(value, options) for value, options in chosen.items() if len(options) > 1]
        for (one, first), (other, second) in combinations(large[:_COMPARED], 2):
            shared = first & second
            differ = min(len(first), len(second)) - len(shared) >= 2 and 2 * len(shared) < len(first | second)
            if not shared or differ:
                common = f"{len(shared)} of {len(first | second)} options" if shared else "no option"
                raise InputError(
                    f"{table.path}: {one!r} and {other!r} have {common} in common, and --alpha would give each the other's. "
                    f"Add --alpha-within {as_argument(name)} if these are different questions, else --alpha-within {NONE}"
                )
