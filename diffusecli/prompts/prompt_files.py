"""Prompt files: find them by path, read the prompts and report all problems.

Knows where prompts are; `prompt_checks.py` checks them.
"""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from diffusecli.files.documents import Document, parse_json, read_document
from diffusecli.files.hub_paths import is_address
from diffusecli.files.paths import exists, find, in_a_file, look_again, real, spread, visible_files
from diffusecli.files.reading import MOST_BYTES, read_text
from diffusecli.files.schema import problems_of
from diffusecli.files.table_files import TABULAR
from diffusecli.prompts.file_names import file_names
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import content_problems
from diffusecli.prompts.target_tables import names_table, with_table
from diffusecli.system.errors import InputError, Problem, did_you_mean, many


@dataclass(frozen=True)
class _Contents:
    """What a prompt file holds: one prompt, or several by name if it has `given` columns. With an error, none."""

    prompts: dict[str, Prompt]  # name -> prompt; "" for a file with one
    problems: dict[str, list[Problem]]  # name -> problems; under "" those of the file

    @property
    def several(self) -> bool:
        """Whether the file holds prompts by name."""
        return bool(self.prompts) and "" not in self.prompts


def inspect_prompt(path: str | Path) -> tuple[Prompt | None, list[Problem]]:
    """Read one prompt and report all problems.

    A file with `given` columns holds several prompts, whose paths are those of the file and a name: `people.json/north.json`.
    The prompt is None when any of the problems is an error.
    """
    if (within := _file_of(path)) is not None:
        contents = _contents(within[0])
        if within[1] not in contents.prompts:
            known = did_you_mean(within[1], list(contents.prompts)) if contents.several else "the file holds a single prompt"
            return None, contents.problems.get("") or [Problem(str(path), "no such prompt in the file", known)]
        return contents.prompts[within[1]], contents.problems.get(within[1], [])
    contents = _contents(path)
    if contents.several:
        first = next(iter(contents.prompts))
        return None, [
            Problem(str(path), f"holds {many(len(contents.prompts), 'prompt')}", f"name one of them, such as {path}/{first}")
        ]
    return contents.prompts.get(""), contents.problems.get("", [])


def _file_of(path: str | Path) -> tuple[Path, str] | None:
    """The prompt file that holds the prompt of this path, and the prompt's name; None for the path of a file or folder."""
    place = find(path).place
    return (Path(path).parent, place.name) if not exists(place) and in_a_file(place) else None


def _contents(path: str | Path) -> _Contents:
    """Read a prompt file."""
    found = find(path)
    document, problems = _document(found.place, found.name)
    if document is None:
        return _Contents({}, {"": problems})
    if isinstance(document.data, dict) and "alias" in document.data:
        problems.append(document.problem(("alias",), "unknown key 'alias'", "a prompt's alias is its path: remove it"))
    elif isinstance(document.data, dict) and isinstance(document.data.get("$schema", ""), str):
        document.data.pop("$schema", None)
    if isinstance(document.data, dict) and names_table(document.data.get("targets")) and is_address(path):
        remedy = "read the table with init-prompt --from instead"
        return _Contents({}, {"": [document.problem(("targets",), "a prompt on the hub must list its targets", remedy)]})
    if isinstance(document.data, dict) and names_table(document.data.get("targets")) and not problems:
        if document.data["targets"].get("given"):
            return _given_contents(str(path), document.text, _stamp(found.place.parent / str(document.data["targets"].get("from"))))
        described, problems = with_table(document, found.place)
        if () not in described:
            return _Contents({}, {"": problems})
        document.data.update(described[()])
    prompt, more = _prompt(document, document.data, found.name if is_address(path) else str(path))
    problems = [*problems, *more]
    return _Contents({"": prompt} if prompt is not None and not _wrong(problems) else {}, {"": problems})


def _document(place: Path, name: str) -> tuple[Document | None, list[Problem]]:
    """The document, or the problems that hide it. Tables and configs are named as such."""
    if place.suffix.lower() in TABULAR:
        command = f"diffuse init-prompt --from {shlex.quote(name)} -o {shlex.quote(f'{place.stem}.json')}"
        return None, [Problem(name, "is a table, not a prompt (.json)", f"create a prompt from it: `{command}`")]
    document, problems = read_document(place, name=name)
    if (
        document is not None
        and isinstance(document.data, dict)
        and "train_prompts" in document.data
        and "request" not in document.data
    ):
        return None, [Problem(name, "is a config, not a prompt (.json)", "name a prompt, or the config in place of the run")]
    return document, problems


@lru_cache(maxsize=16)  # the prompts of a table are asked for one by one
def _given_contents(path: str, text: str, _stamp: tuple[int, int]) -> _Contents:
    """The prompts of a file with `given` columns. Its text and the table's stamp are part of the key: both may change."""
    found = find(path)
    document = Document(found.name, text, parse_json(found.name, text)[0])
    document.data.pop("$schema", None)
    described, problems = with_table(document, found.place)
    prompts, each = dict[str, Prompt](), dict[str, list[Problem]]()
    seen = set[tuple[str, ...]]()
    keys = sorted(described)  # so that names do not depend on the order of the rows
    names = dict(zip(keys, file_names(keys), strict=True))
    for key, fields in described.items():
        name = names[key]
        prompt, own = _prompt(document, fields, f"{path}/{name}")
        each[name] = [p for p in own if (p.severity, p.message) not in seen]  # the same in all of them: reported once
        seen.update((p.severity, p.message) for p in own)
        if prompt is not None:
            prompts[name] = prompt
    problems = [*problems, *(p for own in each.values() for p in own if p.severity == "error")]
    if _wrong(problems) or not prompts:
        return _Contents({}, {"": problems})
    first = next(iter(prompts))
    each[first] = [*problems, *each[first]]
    return _Contents(prompts, each)


_ALONE = ("weights", "eos", "system", "response")
"""Keys without which the rest of a prompt can be checked."""


def _prompt(document: Document, data: object, alias: str) -> tuple[Prompt | None, list[Problem]]:
    """The prompt with these fields, and its problems."""
    try:
        prompt = Prompt.model_validate({**data, "alias": alias} if isinstance(data, dict) else data)
    except ValidationError as error:
        problems = [problem for problem, _ in problems_of(document, error, Prompt)]
        wrong = [
            str(one["loc"][0])
            for one in error.errors()
            if one["loc"] and (one["loc"][0] in _ALONE or (one["type"] == "extra_forbidden" and len(one["loc"]) == 1))
        ]
        if isinstance(data, dict) and len(wrong) == len(error.errors()):  # the rest of the prompt is checked, too
            problems += _prompt(document, {key: value for key, value in data.items() if key not in wrong}, alias)[1]
        return None, problems
    return prompt, list(content_problems(document, prompt))


def _wrong(problems: Iterable[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def _stamp(table: Path) -> tuple[int, int]:
    """Size and time of change; zeros for a missing file."""
    try:
        known = table.stat()
    except (OSError, ValueError):
        return 0, 0
    return known.st_size, known.st_mtime_ns


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
        if files := prompts_of(path):
            return path, files, "", ""
        return path, [], *_why_missing(path, made_by)
    if place.is_dir():
        inside = [prompt for file in visible_files(path, (".json",)) for prompt in prompts_of(file)]
        return (path, inside, "", "") if inside else (path, [], "contains no *.json prompt", "name a folder with prompts or a file")
    return path, prompts_of(path), "", ""


def _why_missing(path: Path, made_by: str | None) -> tuple[str, str]:
    """Message and remedy for a path that does not exist."""
    if glob.has_magic(str(path)):
        return "matches no *.json prompt or folder", "check the pattern (relative to the working directory)"
    if (within := _file_of(path)) is not None:
        return "does not exist", did_you_mean(within[1], list(_contents(within[0]).prompts))
    unknown = "check the path (relative to the working directory)"
    remedy = look_again(path, unknown)
    if made_by is not None and remedy == unknown:
        return NOT_YET, f"create it with `{made_by}`"
    separator = "" if remedy.endswith("?") else "."
    return "does not exist", f"{remedy}{separator} Or create it with `{made_by}`" if made_by is not None else remedy


def is_there(path: str | Path) -> bool:
    """Whether a file, a folder, or a prompt in a file with several exists."""
    return exists(find(path).place if is_address(path) else path) or (in_a_file(path) and bool(prompts_of(Path(path))))


def prompts_of(file: Path) -> list[Path]:
    """The paths of the prompts in a file: its own, or several. For the path of a prompt in such a file that path; [] for other missing files."""
    if (within := _file_of(file)) is not None:
        contents = _contents(within[0])  # without any, the file's problems are reported
        return [file] if within[1] in contents.prompts or not contents.prompts else []
    place = find(file).place
    try:
        if not place.is_file() or '"given"' not in read_text(place, MOST_BYTES):  # a pipe can be read only once
            return [file] if exists(place) else []
    except (OSError, ValueError):
        return [file] if exists(place) else []  # reported when it is read
    contents = _contents(file)
    return [file / name for name in contents.prompts] if contents.several else [file]
