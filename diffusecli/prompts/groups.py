"""Which group a prompt belongs to: its folder, named relative to what all prompts have in common.

Knows paths only, and opens none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_NAMED = 100
"""Prompts that overviews name one by one; of more they sum up the folders."""

MOST_SAMPLED = 32
"""Training prompts that are sampled without being named."""

WHOLE = "."
"""The group of prompts that lie in the folder that all have in common."""


def group_of(aliases: Sequence[str]) -> dict[str, str]:
    """Alias -> its folder, relative to the folders that all aliases share; "." for that folder itself.

    >>> group_of(["mix/held-out/dice/1.json", "mix/held-out/coins/2.json"])
    {'mix/held-out/dice/1.json': 'dice', 'mix/held-out/coins/2.json': 'coins'}
    >>> group_of(["mix/dice/1.json", "mix/dice/2.json"])
    {'mix/dice/1.json': '.', 'mix/dice/2.json': '.'}
    """
    shared = shared_folders(aliases)
    return {alias: "/".join(alias.split("/")[shared:-1]) or WHOLE for alias in aliases}


def shared_folders(aliases: Sequence[str]) -> int:
    """How many folders at the beginning are the same in every alias.

    >>> shared_folders(["mix/train/1.json", "mix/held-out/1.json"]), shared_folders(["mix/1.json"]), shared_folders(["1.json"])
    (1, 1, 0)
    """
    folders = [alias.split("/")[:-1] for alias in aliases]
    if not folders:
        return 0
    first, last = min(folders), max(folders)  # whatever these two share, all between them share
    return next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), min(len(first), len(last)))


def split_of(group: str) -> str | None:
    """The group above a group, one level up; None when there is no level above.

    >>> split_of("held-out/wordings/dice"), split_of("wordings/dice"), split_of("dice"), split_of(".")
    ('held-out/wordings', 'wordings', None, None)
    """
    return group.rpartition("/")[0] or None


@dataclass(frozen=True)
class Folder:
    """Prompts that are summed up together: those of one folder, or of all folders below it."""

    name: str  # relative to what all prompts share; "." for that folder itself
    whole: bool  # with all folders below it
    top: bool  # no other folder of the list holds it, except the whole of all prompts
    aliases: frozenset[str]

    @property
    def label(self) -> str:
        """The name in a list: indented below the folder that holds it."""
        if self.name == WHOLE:
            return "all" if self.whole else WHOLE
        return self.name if self.top else "  " + (self.name.rpartition("/")[2])


def folders(aliases: Sequence[str]) -> list[Folder]:
    """The folders of prompts in order, each split before its families; first the whole of all where no level lies between.

    A split is listed where it holds several folders.

    >>> [folder.label for folder in folders(["held-out/words/dice/1.json", "held-out/words/coins/1.json", "held-out/odds/1.json"])]
    ['words', '  dice', '  coins', 'odds']
    >>> [folder.label for folder in folders(["dice/1.json", "coins/1.json"])]
    ['all', 'dice', 'coins']
    """
    group = group_of(aliases)
    groups = list(dict.fromkeys(group.values()))
    below = Counter(split for name in groups if (split := split_of(name)) is not None)
    splits = {name for name, count in below.items() if count + (name in groups) > 1}
    found = [] if splits or len(groups) < 2 else [Folder(WHOLE, True, False, frozenset(aliases))]
    for name in dict.fromkeys(_place(name, splits) for name in groups):
        inside = [each for each in groups if _place(each, splits) == name]
        if name in splits:
            found.append(Folder(name, True, True, _members(group, inside)))
        found += [Folder(each, False, name not in splits, _members(group, [each])) for each in inside]
    return found


def _place(group: str, splits: set[str]) -> str:
    """The entry of the list under which a group stands: its split, or itself."""
    split = split_of(group)
    return group if group in splits or split not in splits else str(split)


def _members(group: dict[str, str], names: Iterable[str]) -> frozenset[str]:
    wanted = set(names)
    return frozenset(alias for alias, name in group.items() if name in wanted)


def noun_of(names: Iterable[str]) -> str:
    """What figures by these names are of.

    >>> noun_of(["train/dice", "train/coins"]), noun_of(["dice.json"])
    ('folder', 'prompt')
    """
    return "prompt" if any(name.endswith(".json") for name in names) else "folder"
