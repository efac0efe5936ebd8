"""Which group a prompt belongs to: its folder, named relative to what all prompts have in common.

Knows paths only, and opens none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

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
