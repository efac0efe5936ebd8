"""Which prompt an alias means: as it was sampled, as the run kept it, or the file of that name, wherever it is by now.

Knows prompts and where their files are; knows nothing of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffusecli.files.paths import exists, find
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import checked
from diffusecli.prompts.prompt_files import prompt_files, read_prompt
from diffusecli.prompts.wording_names import split_alias, wording_of
from diffusecli.system.errors import InputError


def kept_prompt(alias: str, kept: Any, place: Path) -> Prompt | None:
    """A prompt as a run keeps it; None for what is none (runs of the original kept tokens). Raises `InputError`."""
    if not isinstance(kept, dict) or not {"request", "messages"} & kept.keys():
        return None
    try:
        return checked(Prompt.model_validate({**kept, "alias": alias}))
    except (ValidationError, InputError) as error:
        raise InputError(f"{place}: the prompt {alias} that it keeps is not valid, sample again") from error


class PromptBook:
    """Finds the prompt that an alias means."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """`paths`: files and folders that stand in for those that are gone. Raises `InputError`."""
        self._files = prompt_files(paths)
        self._stands_for: dict[Path, str] = {}

    def find(self, alias: str, kept: Sequence[Mapping[str, Any]], place: Path) -> Prompt:
        """The prompt as it was sampled, else as the run kept it, else from the book, else from the alias as a path; so too a wording's whole.

        `kept` are prompts by alias. Runs of the original kept tokens only. Raises `InputError`.
        """
        if (prompt := self._known(alias, kept, place)) is not None:
            return prompt
        whole, name = split_alias(alias)
        asked = self._known(whole, kept, place) if name else None
        if asked is None:
            raise InputError(f"{place}: its samples name the prompt {alias}, which is not there; name it with --prompts")
        if (wording := wording_of(asked, name)) is None:
            raise InputError(f"{place}: its samples name {alias}, but {whole} has no such wording now; sample again")
        return wording

    def _known(self, alias: str, kept: Sequence[Mapping[str, Any]], place: Path) -> Prompt | None:
        """The prompt of this very alias."""
        for prompts in kept:
            if (prompt := kept_prompt(alias, prompts.get(alias), place)) is not None:
                return prompt
        near = self._nearest(alias)
        if len(near) > 1:
            raise InputError(f"{place}: {alias} may be {near[0]} or {near[1]}, name one of them with --prompts")
        if near and self._stands_for.setdefault(near[0], alias) != alias:
            raise InputError(
                f"{place}: {near[0]} cannot stand for both {alias} and {self._stands_for[near[0]]}, name both with --prompts"
            )
        if near or exists(find(alias).place):
            return read_prompt(near[0] if near else alias).model_copy(update={"alias": alias})
        return None

    def _nearest(self, alias: str) -> list[Path]:
        """The files whose paths end most like the alias; the name at least."""
        wanted = Path(alias).parts[::-1]
        alike = {file: _common(file.parts[::-1], wanted) for file in self._files}
        most = max(alike.values(), default=0)
        return [file for file, parts in alike.items() if parts == most] if most else []


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
