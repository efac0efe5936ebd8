"""Options as people list them, in a line or in lines: `tea, milk or juice`, bullets, `tea: 20%, milk: 80%`, table lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from diffusecli.prompts.facts import listed

Written = TypeVar("Written")
Pairs = Sequence[tuple[str, str]]


_IN_A_LINE: tuple[tuple[float, Callable[[Sequence[str]], str]], ...] = (
    (6, ", ".join),
    (4, lambda items: listed(items, "or")),
    (4, lambda items: listed(items, "and")),
    (1, lambda items: listed(items, ", or" if len(items) > 2 else "or").replace(" , or", ", or")),
    (1, lambda items: listed(items, ", and" if len(items) > 2 else "and").replace(" , and", ", and")),
    (2, " or ".join),
    (1, " / ".join),
    (1, "/".join),
    (1, " | ".join),
    (1, "; ".join),
    (1, lambda items: ", ".join(f'"{item}"' for item in items)),
    (1, lambda items: ", ".join(f"'{item}'" for item in items)),
    (1, lambda items: listed([f'"{item}"' for item in items], "or")),
    (1, lambda items: "[" + ", ".join(f'"{item}"' for item in items) + "]"),
    (1, lambda items: "[" + ", ".join(items) + "]"),
    (1, lambda items: "(" + ", ".join(items) + ")"),
    (1, lambda items: "{" + ", ".join(items) + "}"),
    (1, lambda items: ", ".join(f"{number}) {item}" for number, item in enumerate(items, 1))),
    (1, lambda items: " ".join(f"({number}) {item}" for number, item in enumerate(items, 1))),
)

_IN_LINES: tuple[tuple[float, Callable[[Sequence[str]], str]], ...] = (
    (3, lambda items: "".join(f"\n- {item}" for item in items)),
    (1, lambda items: "".join(f"\n* {item}" for item in items)),
    (1, lambda items: "".join(f"\n• {item}" for item in items)),
    (2, lambda items: "".join(f"\n{item}" for item in items)),
    (1, lambda items: "".join(f"\n{number}. {item}" for number, item in enumerate(items, 1))),
    (1, lambda items: "".join(f"\n{letter}) {item}" for letter, item in zip("abcdefghijkl", items, strict=False))),
)

_Pairing = tuple[tuple[float, str], ...]
"""Weights and formats; {0} is the name, {1} its share."""

_PAIRED_CLEARLY: _Pairing = (
    (4, "{0}: {1}"),
    (1, "{0} = {1}"),
    (1, "{0} with probability {1}"),
    (1, "{0} with a chance of {1}"),
    (1, "P({0}) = {1}"),
    (1, "'{0}': {1}"),
)
"""If names are numbers too, these words show which of two numbers is the share."""

_PAIRED: _Pairing = (
    *_PAIRED_CLEARLY,
    (4, "{0} {1}"),
    (3, "{0} ({1})"),
    (2, "{1} {0}"),
    (1, "{0} - {1}"),
    (1, "{1} for {0}"),
    (1, "{0} → {1}"),
)

_PAIRED_LINES_CLEARLY: _Pairing = (
    (4, "\n- {0}: {1}"),
    (2, "\n{0}: {1}"),
)

_PAIRED_LINES: _Pairing = (
    *_PAIRED_LINES_CLEARLY,
    (1, "\n* {0} ({1})"),
    (1, "\n{0} | {1}"),
    (1, "\n| {0} | {1} |"),
    (1, "\n{0}\t{1}"),
    (1, "\n{1} {0}"),
    (1, "\n{0},{1}"),
    (1, "\n• {1}: {0}"),
)


def in_a_line(items: Sequence[str], rng: Random) -> str:
    """The items in a line of a form that is drawn."""
    return _drawn(_IN_A_LINE, rng)(items)


def in_lines(items: Sequence[str], rng: Random) -> str:
    """The items in lines of their own; begins with a line break."""
    return _drawn(_IN_LINES, rng)(items)


def pairs_in_a_line(pairs: Pairs, rng: Random) -> str:
    """Names and shares in a line."""
    if rng.random() < 0.08:
        return "{" + ", ".join(f'"{name}": {_json(share)}' for name, share in pairs) + "}"
    write = _drawn(_PAIRED_CLEARLY if _are_numbers(pairs) else _PAIRED, rng)
    texts = [write.format(*pair) for pair in pairs]
    return rng.choice((", ".join, ", ".join, "; ".join, lambda items: listed(items, "and")))(texts)


def counts_in_a_line(pairs: Pairs, rng: Random) -> str:
    """Names and numbers that are no chances: counts, angles."""
    clear = ("{}: {}", "{}: {}", "{} = {}")
    write = rng.choice(clear if _are_numbers(pairs) else (*clear, "{} {}", "{} ({})"))
    return rng.choice((", ", ", ", "; ")).join(write.format(*pair) for pair in pairs)


def pairs_in_lines(pairs: Pairs, rng: Random) -> str:
    """Names and shares in lines of their own; begins with a line break."""
    write = _drawn(_PAIRED_LINES_CLEARLY if _are_numbers(pairs) else _PAIRED_LINES, rng)
    return "".join(write.format(*pair) for pair in pairs)


def _are_numbers(pairs: Pairs) -> bool:
    return any(name.isdigit() for name, _ in pairs)


def _json(share: str) -> str:
    """A share as a JSON value: a number, or a text where it is written otherwise."""
    return share if share.replace(".", "", 1).isdigit() and not share.startswith(".") else f'"{share}"'


def _drawn(table: Sequence[tuple[float, Written]], rng: Random) -> Written:
    return rng.choices([write for _, write in table], [weight for weight, _ in table])[0]
