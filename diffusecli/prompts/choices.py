"""Parse choices in one text, `rock=1,paper=1,scissors=2` or JSON, into names with weights.

Refuses text that could be read in two ways. Knows nothing of distributions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from diffusecli.files.cells import collection
from diffusecli.files.numerals import ending_of
from diffusecli.system.errors import InputError

_ENTRY = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*?))\s*(?:=([^,=]*))?(?:,|\Z)')
_PLAIN = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)%?")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?:\s?[ap]m)?", re.IGNORECASE)
_AS_JSON = 'If the target itself ends like this, write a JSON list: --choices \'["10:1", "2:1"]\''


def weighted_choices(listing: str) -> list[tuple[str, float | None]]:
    """Names with their weights. Raises `InputError` if a separator or a weight is not certain."""
    if (found := collection(listing)) is not None and listing.strip()[:1] in ("[", "{"):
        return _of_json(found)
    entries, at = [], 0
    while at <= len(listing) and (match := _ENTRY.match(listing, at)):
        quoted, name, weight = match[1], match[2], match[3]
        entries.append((quoted.replace('""', '"') if quoted is not None else name.strip(), weight))
        at = match.end() + (match.end() == len(listing) and not match[0].endswith(","))
    _require_commas(listing, [name for name, _ in entries])
    _require_no_pairs(listing, entries)
    if all(weight is None for _, weight in entries) and "=" not in listing:
        entries = _at_ends([name for name, _ in entries])
    return [(name, None if weight is None else _weight(name, weight)) for name, weight in entries]


def _of_json(found: list[Any] | dict[Any, Any]) -> list[tuple[str, float | None]]:
    pairs = list(found.items()) if isinstance(found, dict) else [(name, None) for name in found]
    if any(isinstance(part, list | dict | tuple) for pair in pairs for part in pair):
        raise InputError(
            '--choices: a JSON list must hold texts, and a mapping must hold texts and weights, e.g. {"rock": 1, "paper": 2}'
        )
    return [(str(name).strip(), None if weight is None else _weight(str(name), str(weight))) for name, weight in pairs]


def _require_commas(listing: str, names: Sequence[str]) -> None:
    """Raise `InputError` for entries that are not separated by commas."""
    for sign in (";", "|", "\n", "\t"):
        parts = [part for part in listing.split(sign) if part.strip()]
        if len(parts) > 1 and (len(names) == 1 or all("=" in part for part in parts)):
            raise InputError(f"--choices: {listing!r} has {sign!r} between the choices. Separate them with commas")


def _require_no_pairs(listing: str, entries: Sequence[tuple[str, str | None]]) -> None:
    """Raise `InputError` for a single target that looks like several names with numbers."""
    words = listing.split()
    names, numbers = words[::2], words[1::2]
    several = (
        len(entries) == 1 and entries[0][1] is None and len(names) == len(numbers) > 1 and not listing.lstrip().startswith('"')
    )
    if several and all(map(_PLAIN.fullmatch, numbers)) and not any(map(_PLAIN.fullmatch, names)):
        pairs = ",".join(f"{name}={number}" for name, number in zip(names, numbers, strict=True))
        raise InputError(
            f"--choices: {listing!r} looks like several targets with weights. Write {pairs}. If it is one target, quote it: '\"{listing}\"'"
        )


def _at_ends(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Weights at the ends of names, if all names have one and the sum is 1 or 100 %. Raises `InputError` if this is not certain."""
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
        f"--choices: {names[found.index(likely[0])]!r} ends like a weight. Write {likely[0].text}={likely[0].number} if it is one. {_AS_JSON}"
    )


def _weight(name: str, text: str) -> float:
    """A number, or a percentage."""
    plain = text.strip()
    try:
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError as error:
        raise InputError(f"--choices: the weight {plain!r} of {name!r} is not a number. Write e.g. rock=1,paper=2") from error
