"""`diffuse init-prompt --mixture`: write a folder of many different prompts for training and testing."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusecli.files.endings import require_ending
from diffusecli.files.paths import exists
from diffusecli.files.writing import require_writable
from diffusecli.prompts.mixture.folder import TITLE, mixture_files
from diffusecli.prompts.mixture.splits import draw_mixture
from diffusecli.system.errors import InputError, cannot_write

_PARTS = ("train", "held-out", "README.md")


def write_mixture(count: int, folder: Path, *, seed: int, force: bool = False) -> dict[str, int]:
    """Write `count` prompts to train on and the held-out splits. Returns how many prompts each split has.

    Raises `InputError` if the count is too small, or if the folder is not empty; `force` replaces an older mixture.
    """
    require_ending(folder, "-o", "--mixture writes a folder of prompts")
    _require_free(folder, force)
    require_writable(folder)
    drawn = draw_mixture(count, seed)
    for part in _PARTS[:2]:
        shutil.rmtree(folder / part, ignore_errors=True)
    for path, text in mixture_files(drawn, count, seed):
        _write(folder / path, text)
    return {split: sum(map(len, families.values())) for split, families in drawn.items()}


def _write(path: Path, text: str) -> None:
    """Write one of thousands of files without waiting for the disk: a lost mixture is regenerated in seconds. Raises `MachineError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def _require_free(folder: Path, force: bool) -> None:
    """Raises `InputError` unless the folder is new or empty, or an older mixture with `force`."""
    if not exists(folder):
        return
    if not folder.is_dir():
        raise InputError(f"-o {folder}: is a file. --mixture writes a folder: choose another path")
    there = sorted(path.name for path in folder.iterdir())
    if there and not force:
        raise InputError(f"-o {folder}: is not empty. Choose another folder, or add --force to replace an older mixture")
    readme = folder / "README.md"
    if there and (set(there) - set(_PARTS) or not readme.is_file() or not readme.read_text(encoding="utf-8").startswith(TITLE)):
        raise InputError(f"-o {folder}: holds files that do not belong to a mixture. Choose another folder")
