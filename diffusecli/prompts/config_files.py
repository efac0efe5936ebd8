"""Config files read, with what a command line overrides, and everything that is wrong with them.

Puts together what `config_overrides.py`, `config_paths.py` and `config_checks.py` know; configs of the original format are read unchanged.
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
from diffusecli.prompts.config_checks import doubtful_settings, template_variable_problems, vary_problems, words_for_numbers
from diffusecli.prompts.config_overrides import apply_overrides, at_its_option
from diffusecli.prompts.config_paths import readable_paths, resolve_paths, wrong_paths
from diffusecli.system.errors import InputError, Problem


@dataclass(frozen=True)
class Inspection:
    """What is known of a config file: the config when no error hides it, its problems, where its parts stand.

    `paths` are the prompt paths of the file wherever they are readable, even when something else is wrong: of each entry of a list what
    it leads to.
    """

    config: Config | None
    problems: tuple[Problem, ...]
    document: Document | None = None
    paths: dict[Location, tuple[tuple[str, ...], ...]] = field(default_factory=dict)


def inspect_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Inspection:
    """Read one config file, apply `key.sub=value` overrides, and tell everything that is wrong with it.

    In a config that a run `kept` paths are as they were resolved: nothing in them is replaced.
    """
    found = find(path)
    if found.place.is_file() and found.place.suffix not in (".yaml", ".yml"):
        return Inspection(None, (Problem(found.name, "is not a config", "name a .yaml file"),))
    document, problems = read_document(found.place, name=found.name)
    if document is None:
        return Inspection(None, tuple(problems))
    if isinstance(document.data, dict):
        document.data.pop("$schema", None)  # for editors
    return _inspected(document, problems, Path(path), overrides, kept=kept)


def _inspected(document: Document, problems: list[Problem], path: Path, overrides: Sequence[str], *, kept: bool) -> Inspection:
    """What is known of a config once it is read; `path` is that of its file."""
    document, overridden = apply_overrides(document, overrides)
    unmeant = [] if kept else [at_its_option(p, location, overridden) for p, location in wrong_paths(document, path)]
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        wrong = [at_its_option(p, location, overridden) for p, location in problems_of(document, error, Config)]
        return Inspection(None, (*wrong, *unmeant, *words_for_numbers(document)), document, readable_paths(document, path))
    problems.extend(unmeant)
    config = resolve_paths(config, path, kept=kept)
    if config.load_model and config.ckpt_dir is None:
        problems.append(document.problem(("load_model",), "load_model needs a ckpt_dir", "name the folder of an adapter"))
    problems.extend(template_variable_problems(document, config))
    problems.extend(at_its_option(p, location, overridden) for p, location in vary_problems(document, config))
    problems.extend(doubtful_settings(document, config))
    sound = not any(p.severity == "error" for p in problems)
    return Inspection(config if sound else None, tuple(problems), document, readable_paths(document, path))


def read_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Config:
    """Read one config file, as `inspect_config` does; raises `InputError` with every mistake in it."""
    inspected = inspect_config(path, overrides, kept=kept)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config


def config_from(fields: Mapping[str, Any]) -> Config:
    """A config of the fields that a program gives, checked and resolved as a file is; raises `InputError` with every mistake in it.

    There is no file, so paths are taken from the working directory, and `{config}` in the name of a folder is an error.

    >>> config_from({"model": "owner/name", "output_dir": "results/{model}", "alg_config": {"n_iters": 3}}).output_dir
    'results/name'
    """
    inspected = _inspected(Document("config", "", dict(fields)), [], Path("{config}"), (), kept=False)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config
