"""The families by name: what the command line lists, and how a name with its options becomes a distribution.

Finds every family in `families.py`; knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from diffusecli.prompts import families
from diffusecli.prompts.distributions import Distribution, Family
from diffusecli.system.errors import InputError

FAMILIES: Mapping[str, Family] = {found.name: found for found in vars(families).values() if isinstance(found, Family)}


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
    return chosen(*values, **given)
