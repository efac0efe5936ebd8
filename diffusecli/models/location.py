"""Locate the files of a base model for transformers, and check its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusecli.files.paths import look_again
from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin, unknown_model
from diffusecli.models.ggufs import require_sound
from diffusecli.models.hub import answers, cached_folder
from diffusecli.models.source import ModelSource
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice


def _notice_code(name: str, notice: Notice, trusted: bool) -> None:
    if trusted:
        notice(f"running Python code that comes with {name}, because trust_remote_code is set")


def locate(source: ModelSource, notice: Notice) -> tuple[str, dict[str, Any]]:
    """The path or id of the model for transformers, and the options."""
    name, revision, trust_remote_code = source.name, source.revision, source.trust_remote_code
    if name in BUILTIN_MODELS:
        return str(ensure_builtin(name, notice)), {"local_files_only": True, "trust_remote_code": False}
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise InputError(f"the model file {name} does not exist: {look_again(name, 'check the path')}")
        require_sound(Path(name))
        return str(Path(name).parent), {"gguf_file": Path(name).name, "local_files_only": True, "trust_remote_code": False}
    if Path(name).is_dir():
        if (Path(name) / ADAPTER_FILES[0]).is_file():  # transformers would load it and the model that it names
            raise InputError(f"the model {name} is an adapter. Use it with --adapter, or use its base model")
        if not (Path(name) / "config.json").is_file() and (files := sorted(Path(name).glob("*.gguf"))):
            raise InputError(f"the model {name} is a folder of .gguf files. Name the file, e.g. {files[0]}")
        _notice_code(name, notice, trust_remote_code)
        return name, {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if Path(name).is_file():
        how = (
            f". If it is one of several parts, join them: `cat {Path(name).with_suffix('')}* > model.gguf`"
            if ".gguf" in name
            else ""
        )
        raise InputError(f"the model {name} is a file, but not a .gguf file. Name a .gguf file, or the folder of a model{how}")
    if unknown := unknown_model(name):
        raise InputError(unknown)
    _notice_code(name, notice, trust_remote_code)
    return name, {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "local_files_only": not answers(name, revision),
    }


def weights_place(place: str, options: dict[str, Any]) -> Path | None:
    """The folder or .gguf file of the model; None if unknown."""
    if "gguf_file" in options:
        return Path(place) / options["gguf_file"]
    return Path(place) if Path(place).is_dir() else cached_folder(place, options["revision"])
