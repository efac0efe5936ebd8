"""Which prompt an alias refers to: the one sampled, the one that the run kept, or the file of that name, even if it has moved.

Takes prompts and the paths of their files, not samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import checked
from diffusecli.prompts.prompt_files import files_at, prompt_files, read_prompt
from diffusecli.prompts.wording_names import split_alias, wording_of
from diffusecli.system.errors import InputError


def kept_prompt(alias: str, kept: Any, place: Path) -> Prompt | None:
    """A prompt from a run's records; None if the record is not a prompt (runs of the original kept tokens). Raises `InputError`."""
    if not isinstance(kept, dict) or not {"request", "messages"} & kept.keys():
        return None
    try:
        return checked(Prompt.model_validate({**kept, "alias": alias}))
    except (ValidationError, InputError) as error:
        raise InputError(f"{place}: the recorded prompt {alias} is not valid. Sample again") from error


class PromptBook:
    """Finds the prompt that an alias refers to."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """`paths`: files and folders that replace missing ones. Raises `InputError`."""
        self._files = prompt_files(paths)
        self._alias_of: dict[Path, str] = {}

    def find(self, alias: str, kept: Sequence[Mapping[str, Any]], place: Path) -> Prompt:
        """The prompt as sampled, otherwise as the run kept it, otherwise from the book, otherwise from the alias as a path.

        For a wording, the whole prompt is found in the same way. `kept` are prompts by alias; runs of the original kept only tokens. Raises
        `InputError`.
        """
        if (prompt := self._known(alias, kept, place)) is not None:
            return prompt
        whole, name = split_alias(alias)
        asked = self._known(whole, kept, place) if name else None
        if asked is None:
            raise InputError(f"{place}: its samples belong to the prompt {alias}, which does not exist. Name it with --prompts")
        if (wording := wording_of(asked, name)) is None:
            raise InputError(f"{place}: its samples belong to {alias}, but {whole} has no such wording now. Sample again")
        return wording

    def _known(self, alias: str, kept: Sequence[Mapping[str, Any]], place: Path) -> Prompt | None:
        """The prompt with exactly this alias."""
        for prompts in kept:
            if (prompt := kept_prompt(alias, prompts.get(alias), place)) is not None:
                return prompt
        near = self._nearest(alias)
        if len(near) > 1:
            raise InputError(f"{place}: {alias} may be {near[0]} or {near[1]}. Name one of them with --prompts")
        if near and self._alias_of.setdefault(near[0], alias) != alias:
            raise InputError(f"{place}: {near[0]} matches both {alias} and {self._alias_of[near[0]]}. Name both with --prompts")
        if near or files_at(alias)[1]:
            return read_prompt(near[0] if near else alias).model_copy(update={"alias": alias})
        return None

    def _nearest(self, alias: str) -> list[Path]:
        """The files whose paths share the longest end with the alias, at least the file name."""
        wanted = Path(alias).parts[::-1]
        alike = {file: _common(file.parts[::-1], wanted) for file in self._files}
        most = max(alike.values(), default=0)
        return [file for file, parts in alike.items() if parts == most] if most else []


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
