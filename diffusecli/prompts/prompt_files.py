"""Prompt files: find them by path, read the prompts and report all problems.

Knows where prompts are; `prompt_checks.py` checks them.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from diffusecli.files.documents import read_document
from diffusecli.files.paths import exists, find, look_again, real, spread, visible_files
from diffusecli.files.schema import problems_of
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.target_tables import names_table, with_table
from diffusecli.system.errors import InputError, Problem


def inspect_prompt(path: str | Path) -> tuple[Prompt | None, list[Problem]]:
    """Read one prompt file and report all problems.

    The prompt is None when any of the problems is an error.
    """
    found = find(path)
    document, problems = read_document(found.place, name=found.name)
    if document is None:
        return None, problems
    if isinstance(document.data, dict) and "alias" in document.data:
        problems.append(document.problem(("alias",), "unknown key 'alias'", "a prompt's alias is its path: remove it"))
    elif isinstance(document.data, dict) and isinstance(document.data.get("$schema", ""), str):
        document.data.pop("$schema", None)
    if isinstance(document.data, dict) and names_table(document.data.get("targets")) and not problems:
        problems.extend(with_table(document, found.place))
        if any(problem.severity == "error" for problem in problems):
            return None, problems
    try:
        prompt = Prompt.model_validate({**document.data, "alias": str(path)} if isinstance(document.data, dict) else document.data)
    except ValidationError as error:
        problems.extend(problem for problem, _ in problems_of(document, error, Prompt))
        return None, problems
    problems.extend(content_problems(document, prompt))
    return (None if any(p.severity == "error" for p in problems) else prompt), problems


def read_prompt(path: str | Path) -> Prompt:
    """Read one prompt file; raises `InputError` with every mistake in it."""
    prompt, problems = inspect_prompt(path)
    if prompt is None:
        raise InputError.of(p for p in problems if p.severity == "error")
    return prompt


def read_prompts(paths: Iterable[str | Path], made_by: str | None = None) -> list[Prompt]:
    """Read files, and folders recursively; raises `InputError` with every mistake of every file.

    `made_by` is the command that creates the files, for the message if they are missing.
    """
    found = [inspect_prompt(path) for path in prompt_files(paths, made_by)]
    errors = [p for _, problems in found for p in problems if p.severity == "error"]
    if errors:
        raise InputError.of(errors)
    return [prompt for prompt, _ in found if prompt is not None]


def prompt_files(paths: Iterable[str | Path], made_by: str | None = None) -> list[Path]:
    """The prompt files that `paths` name: files as they are, folders searched recursively for `*.json`; each once, by its first path.

    Raises `InputError` for a path that does not exist and for a folder without prompts.
    """
    found = [files_at(name, made_by) for path in paths for name in spread(path)]
    if wrong := [Problem(str(path), message, remedy) for path, _, message, remedy in found if message]:
        raise InputError.of(wrong)
    return each_once(file for _, files, _, _ in found for file in files)


def each_once(files: Iterable[Path]) -> list[Path]:
    """Every file under the first of its paths."""
    first: dict[Path, Path] = {}
    for file in files:
        first.setdefault(real(file), file)
    return list(first.values())


NOT_YET = "does not exist yet"


def files_at(path: str | Path, made_by: str | None = None) -> tuple[Path, list[Path], str, str]:
    """The path, the prompt files it names, and what is wrong with it (message and remedy, empty when nothing is).

    The message is `NOT_YET` where a command is known that makes the files, unless the name may be misspelt.
    """
    path, place = Path(path), find(path).place
    if not exists(place):
        if glob.has_magic(str(path)):
            return path, [], "matches no *.json prompt or folder", "check the pattern (relative to the working directory)"
        unknown = "check the path (relative to the working directory)"
        remedy = look_again(path, unknown)
        if made_by is not None and remedy == unknown:
            return path, [], NOT_YET, f"create it with `{made_by}`"
        separator = "" if remedy.endswith("?") else "."
        return path, [], "does not exist", f"{remedy}{separator} Or create it with `{made_by}`" if made_by is not None else remedy
    if place.is_dir():
        inside = visible_files(path, (".json",))
        return (path, inside, "", "") if inside else (path, [], "contains no *.json prompt", "name a folder with prompts or a file")
    return path, [path], "", ""
