"""Convert arguments of programs to inputs of the verbs: paths and texts, prompts in memory, configs in three forms."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from diffusecli.api.arguments import path as path_text
from diffusecli.api.arguments import several, wrong
from diffusecli.files.documents import Document
from diffusecli.files.paths import exists, meant
from diffusecli.files.schema import problems_of
from diffusecli.files.writing import require_writable, write_text
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_files import config_from, read_config
from diffusecli.prompts.file_names import file_names
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_checks import checked
from diffusecli.prompts.prompt_files import inspect_prompt, prompts_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import DiffuseError, InputError

AnyPath = str | Path
Prompts = Prompt | AnyPath | Iterable[Prompt | AnyPath] | Mapping[Any, Prompt | AnyPath]
"""One prompt or several: values, files, folders, patterns. For a mapping its values are used."""

_FOLDER = "prompts"
_NAMES_OF_RUNS = ("gen", "run")  # a folder with such a .json looks like a run
_LONGEST_NAME = 40


def listed(prompts: Any, name: str = "prompts") -> list[Prompt | str]:
    """One prompt or several as a list, paths as text with `~` expanded. Raises `InputError` for anything else."""
    if prompts is None:
        return []
    must = "a prompt, a path, or a list of these"
    if isinstance(prompts, Prompt | str | PathLike):
        some = [prompts]
    else:
        some = several(name, prompts.values() if isinstance(prompts, Mapping) else prompts, must)
    if foreign := [one for one in some if not isinstance(one, Prompt | str | PathLike)]:
        raise wrong(name, must, foreign[0])
    return [one if isinstance(one, Prompt) else meant(str(one)) for one in some]


def are_prompts(value: Any) -> bool:
    """Whether this is a prompt in memory, or several."""
    some = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    return bool(some) and all(isinstance(one, Prompt) for one in some)


def path_of(path: AnyPath, name: str = "path") -> Path:
    """The path with `~` expanded; raises `InputError` for a path with a variable in it, or for anything else."""
    return Path(meant(path_text(name, path)))


def configured(config: Config | AnyPath | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config or its file, or none, overridden by `settings`; groups such as `alg_config` are merged.

    Raises `InputError` for a file that is not a config.
    """
    if config is not None and not isinstance(config, Config):  # `{model}` in its paths is the model in `settings`, if given
        config, settings = read_config(path_of(config, "config"), list(_overrides(_plain(settings)))), {}
    fields: dict[str, Any] = {} if config is None else _plain(config)
    for name, value in _plain(settings).items():
        group = fields.get(name)
        fields[name] = {**group, **value} if isinstance(group, dict) and isinstance(value, dict) else value
    return fields


def _overrides(settings: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Settings as on the command line: `alg_config.n_iters=10`."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _overrides(value, f"{within}{name}.")
        else:
            yield f"{within}{name}={json.dumps(value, default=str)}"


@contextmanager
def trainable(
    fields: Mapping[str, Any], train: Sequence[Prompt | str], test: Sequence[Prompt | str], *, force: bool, more: int = 0
) -> Iterator[Config]:
    """Yield the config of these fields for a training, with prompts in memory written into the run's folder.

    Raises `InputError` before anything is written if the fields are wrong or the folder holds a finished run. If the training is
    refused before it starts, the prompt files are removed.
    """
    in_memory = [one for one in (*train, *test) if isinstance(one, Prompt)]
    if not in_memory:
        yield config_from({**fields, "train_prompts": [*train], "test_prompts": [*test]})
        return
    from diffusecli.training.start import find_start

    run = RunDir(Path(config_from({**fields, "train_prompts": [], "test_prompts": []}).output_dir))
    find_start(run, force=force, more=more)
    wanted = [(one, valid(one)) for one in in_memory]
    with _nothing_left(run):
        files = {id(one): kept_in(run.path / _FOLDER, prompt) for one, prompt in wanted}
        paths = [[files[id(one)] if isinstance(one, Prompt) else one for one in prompts] for prompts in (train, test)]
        yield config_from({**fields, "train_prompts": paths[0], "test_prompts": paths[1]})


@contextmanager
def _nothing_left(run: RunDir) -> Iterator[None]:
    """If the training is refused before it starts, remove the prompt files and folders that were created for it."""
    folder = run.path / _FOLDER
    before, config = set(folder.glob("*")), _bytes_of(run.config)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except DiffuseError:
        if _bytes_of(run.config) == config:  # otherwise the run has started and needs these files
            for file in set(folder.glob("*")) - before:
                file.unlink(missing_ok=True)
            for path in made:
                with suppress(OSError):  # not empty
                    path.rmdir()
        raise


def _bytes_of(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def valid(prompt: Prompt) -> Prompt:
    """The prompt; raises `InputError` for the same problems as in a file. Fields changed in a copy have not been checked yet."""
    fields = {field.alias or name: getattr(prompt, name) for name, field in Prompt.model_fields.items()}
    if prompt.messages and prompt.request == "":  # absent in a file
        del fields["request"]
    try:
        made = Prompt.model_validate(fields)
    except ValidationError as error:
        document = Document(_short(prompt), "", fields)
        raise InputError.of(problem for problem, _ in problems_of(document, error, Prompt)) from error
    checked(made.model_copy(update={"alias": _short(made)}))  # errors name it
    return made


def kept_in(folder: Path, prompt: Prompt) -> str:
    """The path of a file with exactly this prompt: the file that it was read from, otherwise one in this folder, written if missing.

    A file with another prompt is never replaced: the name gets a number.
    """
    if prompt.alias and _holds(prompt.alias, prompt):
        return prompt.alias
    require_writable(folder)
    stem = Path(file_names([(_short(prompt),)])[0]).stem
    for number in count(1):
        path = folder / (f"{stem}-{number}.json" if number > 1 or stem in _NAMES_OF_RUNS else f"{stem}.json")
        if not exists(path):
            write_text(path, prompt.to_json())
        if _holds(path, prompt):
            return str(path)
    raise AssertionError


def named(prompts: Iterable[Prompt], run: RunDir | None) -> list[Prompt]:
    """Prompts with aliases: the run's alias of the same prompt, otherwise their own, otherwise the request."""
    known = run.read_manifest().get("prompt_sha256", {}) if run is not None else {}
    of_run = {digest: alias for alias, digest in known.items()} if isinstance(known, dict) else {}
    return [p.model_copy(update={"alias": of_run.get(p.digest) or p.alias or p.question}) for p in map(valid, prompts)]


def _short(prompt: Prompt) -> str:
    """A few words that name a prompt."""
    own = Path(prompt.alias).name.removesuffix(".json")
    return own or textwrap.shorten(prompt.question, _LONGEST_NAME, placeholder="") or prompt.question[:_LONGEST_NAME]


def _holds(path: AnyPath, prompt: Prompt) -> bool:
    there, _ = inspect_prompt(path) if prompts_of(Path(path)) else (None, [])
    return there is not None and there.digest == prompt.digest


def _plain(value: Any) -> Any:
    """Models as mappings of their explicitly set fields, paths as text."""
    if isinstance(value, BaseModel):
        return _plain({name: getattr(value, name) for name in value.model_fields_set})
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
