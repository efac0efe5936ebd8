"""Checkpoints: all that an interrupted training needs to go on, bit for bit, from where it was.

A checkpoint is a folder `checkpoint-STEP` in the run directory that appears whole or not at all: the
adapter as plain PEFT files, and `state.safetensors` with the optimiser and what had been seen. The random
numbers of a step follow from (seed, step), so no generator's state needs keeping.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusecli.files.writing import sync_folder
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import save_adapter
from diffusecli.runs.iteration import Iteration
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, cannot_write

FORMAT = "5"
_OF_THE_BASE = ("model", "revision", "model_revision", "model_fingerprint")
"""Settings that name the base model: other names of the same weights are the same settings."""


@dataclass
class Progress:
    """How far training is. Sums of the iteration under way are kept so that it can be finished after an interruption."""

    asked: dict[str, Any]  # the settings that make the result; another run must not go on from here
    at_once: int | None = None  # tokens (packed) or rows of a pass
    step: int = 0  # optimiser steps done
    tokens: int = 0
    seconds: float = 0.0
    before: dict[str, list[float]] = field(
        default_factory=dict
    )  # alias -> KL, on-target mass and the KL's standard error, all of the untrained adapter
    iterations: int = 0  # finished; their figures stand in metrics.jsonl
    last: Iteration | None = None  # of them
    under_way: dict[str, Any] = field(default_factory=dict)  # what the unfinished iteration has seen
    finished: str = ""  # why training stopped; empty while it goes on


def newest_checkpoint(run: RunDir) -> Path | None:
    """The checkpoint with the most steps, None when training left none."""
    return next(iter(_checkpoints(run)), None)


def save_checkpoint(run: RunDir, base: LoadedModel, moments: Mapping[int, Mapping[str, Tensor]], progress: Progress) -> Path:
    """Write a checkpoint and keep the one before it, until this one has proved good; raises `MachineError` when the disk is full."""
    folder = run.path / f"checkpoint-{progress.step}"
    if folder.is_dir():
        return folder  # the same state, whole already
    try:
        with tempfile.TemporaryDirectory(prefix=".checkpoint.", dir=run.path) as scratch:
            whole = Path(scratch) / "whole"
            save_adapter(base, whole)
            flat = {f"{weight}.{name}": m for weight, state in moments.items() for name, m in state.items()}
            save_file(flat, RunDir(whole).state, {"format": FORMAT, "progress": json.dumps(asdict(progress))})
            for path in whole.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            if run.metrics.is_file():  # the checkpoint counts on it
                with run.metrics.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(whole, folder)
        sync_folder(run.path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    discard_checkpoints(run, keep=2)
    return folder


def load_progress(
    checkpoint: Path, asked: Mapping[str, Any], base: LoadedModel | None = None
) -> tuple[Progress, dict[int, dict[str, Any]]]:
    """What was done, and the optimiser's state by the number of the weight.

    A `base` with the weights that the checkpoint was made of may have another name or place by now.

    Raises `InputError` when the file cannot be read or when it belongs to a run with other settings.
    """
    path = RunDir(checkpoint).state
    optimiser: dict[int, dict[str, Any]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                weight, name = key.split(".")
                optimiser.setdefault(int(weight), {})[name] = file.get_tensor(key)
            written, stored = file.metadata()["format"], json.loads(file.metadata()["progress"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path) from error
    if written != FORMAT:
        raise InputError(f"{path}: is of another version, start anew with --force")
    if not (isinstance(stored, dict) and isinstance(stored.get("asked"), dict)):
        raise _unreadable(path)
    now = json.loads(json.dumps(asked))
    if stored.get("finished") or now.get("processes") is None:  # what is left is the same for any number of them
        now["processes"] = stored["asked"].get("processes")
    if base is not None and base.has_weights_of(stored["asked"]):
        there = {key: stored["asked"][key] for key in _OF_THE_BASE if key in stored["asked"]}
        now = {key: value for key, value in now.items() if key not in _OF_THE_BASE} | there
    if differing := list(_differing(stored["asked"], now)):
        raise InputError(
            f"{checkpoint.parent}: holds an interrupted run with another {', another '.join(differing)}; "
            "give it back its settings to go on, or start anew with --force"
        )
    try:
        return TypeAdapter(Progress).validate_python(stored), optimiser
    except ValidationError as error:
        raise _unreadable(path) from error


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each setting that differs, with its two values where they are short."""
    for key in sorted({*there, *here}):
        one, other = there.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differing(one, other, f"{prefix}{key}.")
        elif one != other:
            short = all(isinstance(value, int | float | str | None) and len(str(value)) < 30 for value in (one, other))
            yield f"{prefix}{key}" + (f" ({one} there, {other} now)" if short else "")


def _unreadable(state: Path) -> InputError:
    return InputError(f"{state}: the checkpoint cannot be read, remove {state.parent} or start anew with --force")


def discard_checkpoints(run: RunDir, *, keep: int = 0) -> None:
    """Remove all but the newest checkpoints."""
    for folder in _checkpoints(run)[keep:]:
        discard_checkpoint(folder)


def discard_checkpoint(folder: Path) -> None:
    """Remove a checkpoint: out of the way by one rename, so that half of one is never taken for whole."""
    with tempfile.TemporaryDirectory(prefix=".checkpoint.", dir=folder.parent) as grave:
        os.replace(folder, Path(grave) / folder.name)


def _checkpoints(run: RunDir) -> list[Path]:
    """Newest first. Folders of other names are none of ours."""
    found = [folder for folder in run.path.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", folder.name) and folder.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    """The optimiser steps a checkpoint was written after."""
    return int(folder.name.removeprefix("checkpoint-"))
