"""Check and resolve the paths in a config.

Knows which settings hold paths; reads none of the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusecli.files.documents import Document
from diffusecli.files.endings import other_format
from diffusecli.files.hub_paths import is_address
from diffusecli.files.paths import at_home, exists, find, spread, wrong_as_written
from diffusecli.files.positions import Location
from diffusecli.prompts.config import PLAIN, Config, short_name
from diffusecli.prompts.config_overrides import at_its_option
from diffusecli.system.errors import DiffuseError, InputError, MachineError, Problem, nearest

_FILLED = ("output_dir", "ckpt_dir")
"""The settings in which {model} and {config} are replaced."""
_PROMPTS = ("train_prompts", "test_prompts", "retain")
"""The settings that may name files on the hub."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
"""An environment variable. Replaced in `output_dir` only."""
_BARE_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
"""An environment variable without braces, which is not replaced."""
_UNCLOSED = re.compile(r"\$?\{[A-Za-z_]\w*(?![\w}])")
"""A placeholder without its closing brace."""


def wrong_paths(document: Document, path: Path) -> Iterator[tuple[Problem, Location]]:
    """Paths and names that are not meant literally, such as unreplaced placeholders."""
    data = document.data if isinstance(document.data, dict) else {}
    written: dict[Location, Any] = {(name,): data.get(name) for name in ("model", "revision", "device", "chat_template", *_FILLED)}
    for key, listed in _prompt_lists(document).items():
        written |= {(*key, index): text for index, text in enumerate(listed)} if isinstance(listed, list) else {}
    for location, named in written.items():
        if not isinstance(named, str):
            continue
        text, unset = _with_variables(named) if location == ("output_dir",) else (named, "")
        if unset:
            remedy = "set it, or write the folder itself"
            state = "is empty" if unset in os.environ else "is not set"
            yield document.problem(location, f"the environment variable {unset} {state}", remedy), location
            continue
        message, remedy = wrong_as_written(text, readable=location[0] in _PROMPTS)
        if location[0] in _FILLED and (opened := _UNCLOSED.search(text)) and not exists(text):
            yield document.problem(location, f"{text}: '{opened[0]}' has no closing brace", f"write {opened[0]}}}"), location
            continue
        left = re.search(r"\{[^{}]*\}", _filled(text, str(data.get("model")), path)) if location[0] in _FILLED else None
        if left and not message and not exists(text):
            message, remedy = (
                f"'{left[0]}' is not replaced by a value",
                _like(left[0], path) or f"only {_replaced(location)} are replaced: write the value itself",
            )
        elif location == ("output_dir",) and (name := _BARE_VARIABLE.search(text)) and message:
            remedy = f"write ${{{name[1]}}} for an environment variable"
        elif location == ("output_dir",) and not message and not exists(text) and (ending := other_format(Path(text))):
            message, remedy = f"a run is a folder, not a {ending} file", f"choose a folder name without {ending}"
        elif location == ("output_dir",) and not message and _is_file(_filled(text, str(data.get("model")), path)):
            message, remedy = "is a file, and a run is a folder", "choose another folder"
        if message:
            yield document.problem(location, f"{text}: {message}", remedy), location


def _is_file(path: str) -> bool:
    return exists(path) and Path(path).is_file()


def require_fetched(document: Document, overridden: dict[Location, str]) -> None:
    """Fetch the prompt files on the hub. Raises one error for all that cannot be fetched: `MachineError` if only the network is at fault."""
    problems, wrong = [], False
    for key, listed in _prompt_lists(document).items():
        for index, text in enumerate(listed if isinstance(listed, list) else ()):
            try:
                if isinstance(text, str) and is_address(text):
                    find(text)
            except DiffuseError as error:
                wrong = wrong or isinstance(error, InputError)
                problems.append(at_its_option(document.problem((*key, index), str(error)), (*key, index), overridden))
    if problems:
        raise (InputError if wrong else MachineError).of(problems)


def resolve_paths(config: Config, path: Path, *, kept: bool) -> Config:
    """The config with resolved paths. Paths `kept` by a run are only located, not expanded."""

    def meant(text: str) -> str:
        return text if kept else at_home(text)

    def found(text: str) -> str:
        return find(meant(text), path.parent).name

    def listed(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(found, texts)) if kept else tuple(name for text in texts for name in spread(meant(text), path.parent))

    model, retain, template = meant(config.model), config.retain, config.chat_template
    if retain and retain.prompts != "builtin":
        retain = retain.model_copy(update={"prompts": listed(retain.prompts)})
    return config.model_copy(update={
        "model": model,
        "retain": retain,
        "train_prompts": listed(config.train_prompts),
        "test_prompts": listed(config.test_prompts),
        "output_dir": _filled(config.output_dir, model, path) if kept else _output_dir(config.output_dir, model, path),
        "chat_template": template if template in (None, PLAIN) else found(template),
        "ckpt_dir": found(_filled(config.ckpt_dir, model, path)) if config.ckpt_dir is not None else None,
    })  # fmt: skip


def named_folder(document: Document, path: Path) -> Path | None:
    """The `output_dir` of a config, resolved; None if it has none."""
    data = document.data if isinstance(document.data, dict) else {}
    return Path(_output_dir(data["output_dir"], str(data.get("model")), path)) if isinstance(data.get("output_dir"), str) else None


def readable_paths(document: Document, path: Path) -> dict[Location, tuple[tuple[str, ...], ...]]:
    """The valid lists of prompt paths, resolved, by location. Entries with a wrong path give no files."""
    return {
        key: tuple(() if wrong_as_written(p, readable=True)[0] else tuple(spread(at_home(p), path.parent)) for p in listed)
        for key, listed in _prompt_lists(document).items()
        if isinstance(listed, list) and all(isinstance(p, str) and p for p in listed)
    }


def _prompt_lists(document: Document) -> dict[Location, Any]:
    """The values at the keys for lists of prompt paths."""
    data = document.data if isinstance(document.data, dict) else {}
    retain = data.get("retain")
    lists: dict[Location, Any] = {(key,): data.get(key) for key in ("train_prompts", "test_prompts")}
    lists["retain", "prompts"] = retain.get("prompts") if isinstance(retain, dict) else None
    return lists


def _with_variables(text: str) -> tuple[str, str]:
    """A text with `${NAME}` replaced by environment variables, and the name of the first one that is not set or empty."""
    unset = [name for name in _VARIABLE.findall(text) if not os.environ.get(name)]
    return _VARIABLE.sub(lambda found: os.environ.get(found[1], found[0]), text), next(iter(unset), "")


def _replaced(location: Location) -> str:
    """What is replaced in this setting."""
    return "{model}, {config} and ${NAME}" if location == ("output_dir",) else "{model} and {config}"


def _output_dir(text: str, model: str, path: Path) -> str:
    """The folder of a run, as written in a config."""
    return _filled(at_home(_with_variables(text)[0]), model, path)


def _like(placeholder: str, path: Path) -> str:
    """The placeholder that was meant, as a question; empty if none is similar. Without a config file `{config}` is none."""
    known = [name for name in ("{model}", "{config}") if name != str(path)]
    near = nearest(placeholder.lower(), known, 0.7)
    return f"did you mean '{near}'?" if near is not None else ""


def _filled(text: str, model: str, path: Path) -> str:
    """A folder name with {model} and {config} replaced."""
    return text.replace("{model}", short_name(model)).replace("{config}", path.stem)
