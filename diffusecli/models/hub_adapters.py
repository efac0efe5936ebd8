"""Adapters on the Hugging Face hub by name: `OWNER/NAME`, or `OWNER/NAME@REVISION`."""

from __future__ import annotations

import re
from pathlib import Path

from diffusecli.files.hub_paths import explained
from diffusecli.files.paths import exists
from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.system.errors import InputError

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_FILES = [*ADAPTER_FILES, "run.json", "config.yaml", "prompts.json", "chat_template.jinja"]


def is_on_hub(path: Path) -> bool:
    """Whether a path names an adapter on the hub: neither it nor its folder is here, and it has the form of a name there."""
    return not exists(path.parent) and _NAME.fullmatch(str(path)) is not None


def fetched_adapter(path: Path) -> tuple[Path, str]:
    """The local folder of an adapter on the hub, and its name with the commit. Raises `InputError` and `MachineError`."""
    from huggingface_hub import snapshot_download

    found = _NAME.fullmatch(str(path))
    if found is None:
        raise InputError(f"{path}: is not a name on the hub. Write OWNER/NAME")
    with explained(f"the adapter {path} (not a folder here)"):
        folder = Path(snapshot_download(found["repo"], revision=found["revision"], allow_patterns=_FILES))
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise InputError(f"the adapter {path}: has no {missing[0]}. Name the repository of a LoRA adapter")
    return folder, f"{found['repo']}@{folder.name}"
