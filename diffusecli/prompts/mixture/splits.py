"""The prompts of a mixture in their splits, which share nothing: neither requests nor, as each split says, parameters, questions and clauses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from diffusecli.prompts.distributions import require
from diffusecli.prompts.mixture.asking import Asked, Selection, asked
from diffusecli.prompts.mixture.catalogue import MIXTURE
from diffusecli.prompts.mixture.drawn import DrawsFamily
from diffusecli.prompts.mixture.reserved import is_reserved, reserved_texts, trained_texts

_MOST_TARGETS = 120
_TRIES = 200  # before a family is found to have no more


@dataclass(frozen=True)
class Split:
    """Which families, distributions and texts make its prompts."""

    name: str
    about: str
    families: tuple[DrawsFamily, ...]
    parameters: bool  # whether its distributions are reserved ones
    questions: Selection
    clauses: Selection
    part: float  # of the number of training prompts


_TRAINED = tuple(family for family in MIXTURE.values() if not family.held_out)
_APART = tuple(family for family in MIXTURE.values() if family.held_out)

SPLITS = (
    Split("train", "to train on", _TRAINED, False, trained_texts, trained_texts, 1),
    Split("held-out/wordings", "families as in training, asked in questions and forms that are never trained", _TRAINED, False,
          reserved_texts, reserved_texts, 0.1),
    Split("held-out/parameters", "families and wordings as in training, with parameters, lists and shares that are never trained",
          _TRAINED, True, trained_texts, trained_texts, 0.1),
    Split("held-out/families", "families that are never trained", _APART, True, list, trained_texts, 0.1),
)  # fmt: skip


def draw_mixture(count: int, seed: int) -> dict[str, dict[str, list[Asked]]]:
    """Prompts by split and family, `count` of them to train on. The same for a seed on any machine. Raises `InputError` for a small `count`."""
    require(
        count >= len(_TRAINED), f"--mixture {count}", f"must be {len(_TRAINED)} or more, a prompt for each family that is trained"
    )
    known: set[str] = set()
    return {split.name: _draw_split(split, math.ceil(count * split.part), seed, known) for split in SPLITS}


def _draw_split(split: Split, count: int, seed: int, known: set[str]) -> dict[str, list[Asked]]:
    """The prompts of a split. What a family cannot give, others give in its place, and each gives one at least."""
    sources = {family.name: _prompts(family, split, seed, known) for family in split.families}
    found: dict[str, list[Asked]] = {}
    left = {family.name: family.share for family in split.families}
    wanted = quotas(left, count)
    while left and sum(wanted.values()) > 0:
        for name, number in wanted.items():
            taken = [prompt for _, prompt in zip(range(number), sources[name], strict=False)]
            found.setdefault(name, []).extend(taken)
            if len(taken) < number:
                del left[name]
        wanted = quotas(left, max(0, count - sum(map(len, found.values()))), least=0) if left else {}
    return {name: prompts for name, prompts in found.items() if prompts}


def quotas(shares: Mapping[str, float], count: int, least: int = 1) -> dict[str, int]:
    """A number for each name in proportion to its share, `least` at least, with the sum `count` where there are enough.

    >>> quotas({"a": 6, "b": 3, "c": 0.1}, 10)
    {'a': 6, 'b': 3, 'c': 1}
    """
    exact = {name: count * share / math.fsum(shares.values()) for name, share in shares.items()}
    given = {name: max(least, math.floor(number)) for name, number in exact.items()}
    order: Sequence[str] = sorted(exact, key=lambda name: given[name] - exact[name])
    for index in range(max(0, count - sum(given.values()))):
        given[order[index % len(order)]] += 1
    for name in (
        sorted(given, key=lambda name: exact[name] - given[name]) * count
    ):  # those that `least` raised are paid for by the largest
        if sum(given.values()) <= count:
            break
        largest = max(given, key=lambda name: given[name])
        given[largest] -= given[largest] > least
    return given


def _prompts(family: DrawsFamily, split: Split, seed: int, known: set[str]) -> Iterator[Asked]:
    """Different prompts of a family, until it has no more."""
    rng = Random(f"{seed} {split.name} {family.name}")
    while True:
        for _ in range(_TRIES):
            made = _one(family, split, rng)
            if made is not None and made.request not in known:
                known.add(made.request)
                yield made
                break
        else:
            return


def _one(family: DrawsFamily, split: Split, rng: Random) -> Asked | None:
    distribution = family(rng)
    if not 2 <= len(distribution.outcomes) <= _MOST_TARGETS or is_reserved(distribution) != split.parameters:
        return None
    return asked(family.name, distribution, split.questions, split.clauses, rng)
