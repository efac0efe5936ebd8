"""The user's cache folder: models, base-model instructions and other files that can be recreated."""

from __future__ import annotations

import os
from pathlib import Path

from diffusecli.system.errors import MachineError


def cache_folder() -> Path:
    """`$DIFFUSE_CACHE`, else `diffuse` in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`)."""
    try:
        if chosen := os.environ.get("DIFFUSE_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffuse"
    except RuntimeError as error:
        raise MachineError("no home folder for cached models. Set DIFFUSE_CACHE to a writable folder") from error


def private_cache(name: str) -> Path:
    """A folder in the cache, created if missing. A new cache is readable by its owner only, whatever the umask."""
    cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache_folder() / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
