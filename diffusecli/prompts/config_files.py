"""Read config files, apply overrides of the command line, and report all problems.

Combines `config_overrides.py`, `config_paths.py` and `config_checks.py`. Configs of the original format are read unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffusecli.files.documents import Document, read_document
from diffusecli.files.paths import find
from diffusecli.files.positions import Location
from diffusecli.files.schema import problems_of
from diffusecli.prompts.config import Config
from diffusecli.prompts.config_bases import with_bases
from diffusecli.prompts.config_checks import doubtful_settings, template_variable_problems, vary_problems, words_for_numbers
from diffusecli.prompts.config_overrides import apply_overrides, at_its_option
from diffusecli.prompts.config_paths import named_folder, readable_paths, require_fetched, resolve_paths, wrong_paths
from diffusecli.system.errors import DiffuseError, InputError, Problem


@dataclass(frozen=True)
class Inspection:
    """The result of reading a config file: the config (None after an error), its problems and its document.

    `paths` are the prompt paths of the file as far as they are readable, even if something else is wrong: the files of each
    list entry. `overridden` are the options of the command line that replace values of the file.
    """

    config: Config | None
    problems: tuple[Problem, ...]
    document: Document | None = None
    paths: dict[Location, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    overridden: dict[Location, str] = field(default_factory=dict)


def inspect_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Inspection:
    """Read one config file, apply `key.sub=value` overrides, and report all problems.

    Paths in a config `kept` by a run are already resolved: nothing in them is replaced.
    """
    found = find(path)
    if found.place.is_file() and found.place.suffix not in (".yaml", ".yml"):
        is_prompt = found.place.suffix == ".json"
        remedy = "use a .yaml file" + (f", or --model MODEL --prompt {path}" if is_prompt else "")
        return Inspection(None, (Problem(found.name, "is a prompt, not a config" if is_prompt else "is not a config", remedy),))
    if (inside := found.place / "config.yaml").is_file():
        return Inspection(None, (Problem(found.name, "is a folder", f"name the config in it: {inside}"),))
    document, problems = read_document(found.place, name=found.name)
    if document is None:
        return Inspection(None, tuple(problems))
    if isinstance(document.data, dict):
        document.data.pop("$schema", None)  # for editors
        if not kept:
            document, wrong = with_bases(document, found.place)
            if wrong:
                return Inspection(None, tuple(wrong), document)
    return _inspected(document, problems, Path(path), overrides, kept=kept)


def _inspected(document: Document, problems: list[Problem], path: Path, overrides: Sequence[str], *, kept: bool) -> Inspection:
    """Check a config that was read. `path` is that of its file."""
    document, overridden = apply_overrides(document, overrides)
    require_fetched(document, overridden)
    path_problems = [] if kept else [at_its_option(p, location, overridden) for p, location in wrong_paths(document, path)]
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        wrong = [at_its_option(p, location, overridden) for p, location in problems_of(document, error, Config)]
        found = (*wrong, *path_problems, *words_for_numbers(document))
        return Inspection(None, found, document, readable_paths(document, path), overridden)
    problems.extend(path_problems)
    config = resolve_paths(config, path, kept=kept)
    if config.load_model and config.ckpt_dir is None:
        problems.append(document.problem(("load_model",), "load_model needs a ckpt_dir", "name the folder of an adapter"))
    problems.extend(template_variable_problems(document, config))
    problems.extend(at_its_option(p, location, overridden) for p, location in vary_problems(document, config))
    problems.extend(doubtful_settings(document, config))
    sound = not any(p.severity == "error" for p in problems)
    return Inspection(config if sound else None, tuple(problems), document, readable_paths(document, path), overridden)


def output_dir_of(path: Path) -> Path | None:
    """The folder into which a config trains, even if something else in it is wrong. Nothing is fetched. None if it cannot be read."""
    document = read_document(path)[0]
    try:
        document = with_bases(document, path)[0] if document is not None else None
    except DiffuseError:  # a base that cannot be fetched
        return None
    return named_folder(document, path) if document is not None else None


def read_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Config:
    """Read one config file, as `inspect_config`. Raises `InputError` with all errors in it."""
    inspected = inspect_config(path, overrides, kept=kept)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config


def config_from(fields: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A config from the fields that a program gives, checked and resolved as a file. Raises `InputError` with all errors in it.

    There is no file, so paths are relative to the working directory, and `{config}` in a folder name is an error.

    >>> config_from({"model": "owner/name", "output_dir": "results/{model}", "alg_config": {"n_iters": 3}}).output_dir
    'results/name'
    """
    inspected = _inspected(Document("config", "", dict(fields)), [], Path("{config}"), overrides, kept=False)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config
