"""Assign parts of tries and answers to passes: full batches of about equal size, items with a shared prefix side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusecli.models.forest import common_prefix
from diffusecli.training.layout import Part


@dataclass(frozen=True)
class Batch:
    """The input of one pass."""

    parts: tuple[tuple[int, Part], ...]  # (index of the prompt, part of it)
    answers: tuple[int, ...]  # indices
    tokens: int  # fed for the whole batch
    memory: int = 0  # equivalent tokens in memory, where they differ from the tokens fed

    @property
    def size(self) -> int:
        """The size that is limited by the maximum of a pass."""
        return self.memory or self.tokens


@dataclass(frozen=True)
class Item:
    """A part or an answer, not yet in a batch."""

    prompt_ids: tuple[int, ...]
    below: int  # tokens after the prompt
    part: tuple[int, Part] | None = None
    answer: int | None = None


def filled(items: Sequence[Item], most: int | None, *, at_least: int = 1) -> list[Batch]:
    """Batches of at most `most` tokens, `at_least` of them where there are enough items. A larger item gets its own batch.

    >>> alike = [Item((1, 2, 3), 4, answer=place) for place in range(4)]
    >>> [(batch.answers, batch.tokens) for batch in filled(alike, 12)]
    [((0, 1), 11), ((2, 3), 11)]
    """
    if not items:
        return []
    ordered = sorted(items, key=lambda item: item.prompt_ids)
    costs = _costs(ordered)
    whole = sum(costs)
    wanted = max(at_least, 1 if most is None else -(-whole // most))
    batches: list[list[Item]] = []
    size = 0
    for item, cost in zip(ordered, costs, strict=True):
        too_much = most is not None and size + cost > most
        enough = size + cost / 2 > whole / wanted and len(batches) < wanted
        if not batches or too_much or enough:
            batches.append([])
            size = len(item.prompt_ids) + item.below
        else:
            size += cost
        batches[-1].append(item)
    return [_batch(some) for some in batches]


def _costs(ordered: Sequence[Item]) -> list[int]:
    """The tokens that each item adds to the item before it."""
    before: tuple[int, ...] = ()
    costs = []
    for item in ordered:
        costs.append(len(item.prompt_ids) - common_prefix(before, item.prompt_ids) + item.below)
        before = item.prompt_ids
    return costs


def _batch(items: Sequence[Item]) -> Batch:
    return Batch(
        tuple(item.part for item in items if item.part is not None),
        tuple(item.answer for item in items if item.answer is not None),
        sum(_costs(items)),
    )
