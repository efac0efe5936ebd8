"""Visit items in rounds: each item once per round, in an order that follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

_Kind = TypeVar("_Kind")


def in_rounds(items: Sequence[_Kind], turn: int, seed: str) -> _Kind:
    """The item for the `turn`-th use.

    >>> sorted(in_rounds("abc", turn, "0") for turn in range(3))
    ['a', 'b', 'c']
    """
    round_, place = divmod(turn, len(items))
    return random.Random(f"{seed} {round_}").sample(items, len(items))[place]
