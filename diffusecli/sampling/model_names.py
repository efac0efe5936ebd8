"""Compare names of models: the one asked for, those that a server lists, and those in its responses."""

from __future__ import annotations

import re
from collections.abc import Iterable


def is_called(asked: str, listed: str) -> bool:
    """Whether a listed name is the one asked for; it may have a folder or an owner before it, or Ollama's tag behind it.

    >>> [is_called("dice", name) for name in ("dice", "dice:latest", "models/dice", "dice-F16.gguf")]
    [True, True, True, False]
    """
    return listed in (asked, f"{asked}:latest") or listed.endswith(f"/{asked}")


def same_model(one: str, other: str) -> bool:
    """Whether two names differ at most in the folders or the owner before them and in Ollama's tag behind them.

    >>> same_model("owner/gpt", "gpt:latest"), same_model("models/gpt", "gpt-1f2e3d4c")
    (True, False)
    """
    first, second = (name.rstrip("/").rpartition("/")[2].removesuffix(":latest") for name in (one, other))
    return first == second


def other_names(asked: str, answered_as: Iterable[str]) -> str:
    """The names in a server's responses that are not the one asked for. A version of the model, with its date after the name, is the model.

    >>> other_names("gpt-4o", ["gpt-4o-2024-08-06"]), other_names("gpt", ["dice"]), other_names("gpt", ["own/gpt"])
    ('', 'dice', '')
    """
    same = re.compile(re.escape(asked) + r"[-@](\d{4}|\d{6}|\d{8}|\d{4}-\d\d-\d\d)")
    return " and ".join(name for name in answered_as if not (is_called(asked, name) or same.fullmatch(name)))
