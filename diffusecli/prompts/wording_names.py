"""What wordings are called: `dice.json#2` is the second of `dice.json`, `dice.json#held-out-1` the first that is only measured.

Reads names back; `Prompt.wordings` and `Prompt.held_out` give them. Figures of training name all that are only measured as one:
`dice.json#held-out`, and `dice.json#contexts` in contexts.
"""

from __future__ import annotations

import re

from diffusecli.prompts.prompt import Prompt

_WORDING = re.compile(r"(.+)#(\d+|held-out(?:-\d+)?|contexts)", re.DOTALL)


def split_alias(alias: str) -> tuple[str, str]:
    """The alias of the whole prompt, and the name of the wording; empty where the alias is of no wording.

    >>> split_alias("dice.json#2"), split_alias("dice.json#held-out-1"), split_alias("dice.json")
    (('dice.json', '2'), ('dice.json', 'held-out-1'), ('dice.json', ''))
    """
    found = _WORDING.fullmatch(alias)
    return (found[1], found[2]) if found else (alias, "")


def wording_of(whole: Prompt, name: str) -> Prompt | None:
    """The wording of this name; None where the prompt has none."""
    return next((one for one in (*whole.wordings, *whole.held_out) if one.alias == f"{whole.alias}#{name}"), None)


def readable(alias: str) -> str:
    """A name for tables.

    >>> readable("dice.json"), readable("dice.json#2"), readable("dice.json#held-out-1"), readable("Roll a die.#2")
    ('dice', 'dice #2', 'dice held-out 1', 'Roll a die. #2')
    """
    whole, name = split_alias(alias)
    short = whole.removesuffix(".json")
    return short if not name else f"{short.rstrip()} {'#' if name.isdigit() else ''}{name.replace('out-', 'out ')}"
