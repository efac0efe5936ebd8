"""The families by name: the list for the command line, and distributions from names and options.

Finds every family in `families.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution, Family
from diffusecli.system.errors import InputError

FAMILIES: Mapping[str, Family] = {found.name: found for found in vars(families).values() if isinstance(found, Family)}


def catalogue() -> Iterable[tuple[str, str]]:
    """Example options and their summary, for each family and for files."""
    files = [
        ("--from names.txt", "One target per line, equally likely."),
        ("--from answers.csv --column answer --count", "Observations to count; also JSON, Parquet, Excel."),
        ("--from names.csv --column name --weight-column n --top 200", "Targets with weights, the 200 largest."),
        ("--from answers.csv --column answer --count --group-by region -o survey/", "A prompt per group of rows."),
    ]
    return [*((family.example, family.summary) for family in FAMILIES.values()), *files]


def make_distribution(name: str, value: Any, modifiers: Mapping[str, Any]) -> Distribution:
    """The distribution of the family `name` from its option's value and the given modifiers (None: not given).

    Raises `InputError` for a modifier that the family does not accept.
    """
    chosen = FAMILIES[name]
    given = {key: setting for key, setting in modifiers.items() if setting is not None}
    if foreign := [key for key in given if key not in chosen.modifiers]:
        takers = ", ".join(f"--{f.name}" for f in FAMILIES.values() if foreign[0] in f.modifiers)
        raise InputError(f"--{foreign[0].replace('_', '-')} has no effect with --{name}. Use it with {takers}")
    values = () if not chosen.arguments else (value,) if len(chosen.arguments) == 1 else tuple(value)
    return chosen(*values, **given)
