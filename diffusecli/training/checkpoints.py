"""Checkpoints: everything that an interrupted training needs to resume with bit-identical results.

A checkpoint is a folder `checkpoint-STEP` in the run directory, written atomically. It holds the adapter as
plain PEFT files, and `state.safetensors` with the optimiser state and the progress. The random numbers of a
step follow from (seed, step), so no generator state is saved.
"""

from __future__ import annotations

import json
import os
import shutil
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
from diffusecli.runs.run_dir import STATE_FORMAT, RunDir
from diffusecli.system.errors import InputError, cannot_write, shortened
from diffusecli.system.notices import some_of
from diffusecli.training.retention import INSTRUCTION

_OF_THE_BASE = ("model", "revision", "model_revision", "model_fingerprint")
"""Settings that name the base model. Other names of the same weights count as the same settings."""

_PROMPTS = "prompts"
_LONGEST_VALUE = 30  # characters


@dataclass
class Progress:
    """The progress of a training. It includes the sums of the unfinished iteration, so that a resumed training can finish it."""

    asked: dict[str, Any]  # the settings that determine the result; a run with others must not resume from here
    at_once: int | None = None  # tokens (packed) or rows per pass
    step: int = 0  # optimiser steps done
    tokens: int = 0
    seconds: float = 0.0
    before: dict[str, list[float]] = field(
        default_factory=dict
    )  # alias -> KL, on-target mass, its standard error, its rounding (-1 if unknown); before training
    iterations: int = 0  # finished; their figures are in metrics.jsonl
    last: Iteration | None = None  # the last finished one
    under_way: dict[str, Any] = field(default_factory=dict)  # sums of the unfinished iteration
    finished: str = ""  # why training stopped; empty while it runs
    continued_at: list[int] = field(default_factory=list)  # iterations after which a finished training went on
    more: int = 0  # iterations of the last continuation

    @property
    def first(self) -> int:
        """The iteration after which this training, or its last continuation, started."""
        return self.continued_at[-1] if self.continued_at else 0


def newest_checkpoint(run: RunDir) -> Path | None:
    """The checkpoint with the most steps; None if there is none."""
    return next(iter(run.checkpoints), None)


def save_checkpoint(run: RunDir, base: LoadedModel, moments: Mapping[int, Mapping[str, Tensor]], progress: Progress) -> Path:
    """Write a checkpoint and keep the previous one until this one has proved good. Raises `MachineError` when the disk is full."""
    folder = run.path / f"checkpoint-{progress.step}"
    if folder.is_dir():
        return folder  # already written
    try:
        with tempfile.TemporaryDirectory(prefix=".checkpoint.", dir=run.path) as scratch:
            whole = Path(scratch) / "whole"
            save_adapter(base, whole)
            flat = {f"{weight}.{name}": m for weight, state in moments.items() for name, m in state.items()}
            save_file(flat, RunDir(whole).state, {"format": STATE_FORMAT, "progress": json.dumps(asdict(progress))})
            for path in whole.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            if run.metrics.is_file():  # resuming needs it
                with run.metrics.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(whole, folder)
        sync_folder(run.path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    discard_checkpoints(run, keep=2)
    return folder


def load_progress(
    checkpoint: Path, asked: Mapping[str, Any], base: LoadedModel | None = None, *, free: frozenset[str] = frozenset()
) -> tuple[Progress, dict[int, dict[str, Any]]]:
    """The progress, and the optimiser's state by index of the weight.

    The `base` may have another name or path than when the checkpoint was written, if its weights are the same. Settings of the
    algorithm in `free` may differ.

    Raises `InputError` when the file cannot be read or belongs to a run with other settings.
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
    if written != STATE_FORMAT:
        raise InputError(f"{path}: written by another version of diffuse. Restart training with --force")
    if not (isinstance(stored, dict) and isinstance(stored.get("asked"), dict)):
        raise _unreadable(path)
    now = json.loads(json.dumps(asked))
    if stored.get("finished") or now.get("processes") is None:  # the rest does not depend on their number
        now["processes"] = stored["asked"].get("processes")
    algorithms = stored["asked"].get("alg_config"), now.get("alg_config")
    if all(isinstance(some, dict) for some in algorithms) and algorithms[0].get("warmup") == 0 and not now.get("load_model"):
        algorithms[0]["warmup"] = algorithms[1].get("warmup")  # auto is 0 for a new adapter
    if base is not None and base.has_weights_of(stored["asked"]):
        same = {key: stored["asked"][key] for key in _OF_THE_BASE if key in stored["asked"]}
        now = {key: value for key, value in now.items() if key not in _OF_THE_BASE} | same
    there = _without(stored["asked"], free)
    if differing := list(_differing(there, _without(now, free))):
        if RunDir(checkpoint).manifest.is_file():  # a finished run
            raise InputError(
                f"{checkpoint}: was trained with different settings: {', '.join(differing)}. Restore them to train further"
            )
        raise InputError(
            f"{checkpoint.parent}: contains an interrupted run with different settings: {', '.join(differing)}. "
            "Restore the original settings to resume, or restart with --force"
        )
    try:
        return TypeAdapter(Progress).validate_python(stored), optimiser
    except ValidationError as error:
        raise _unreadable(path) from error


def _without(asked: dict[str, Any], free: frozenset[str]) -> dict[str, Any]:
    algorithm = asked.get("alg_config")
    return {**asked, "alg_config": {k: v for k, v in algorithm.items() if k not in free}} if isinstance(algorithm, dict) else asked


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each setting that differs, with both values. The first few of many prompts; instructions follow from `retain`."""
    for key in sorted({*there, *here} - {_PROMPTS}):
        one, other = there.get(key), here.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differing(one, other, f"{prefix}{key}.")
        elif one != other:
            before, now = (_in_brief(value, switched=isinstance(one, dict) or isinstance(other, dict)) for value in (one, other))
            yield f"{prefix}{key}" + (f" (was {before}, now {now})" if before != now else "")
    texts, digests = there.get(_PROMPTS), here.get(_PROMPTS)
    if isinstance(texts, dict) and isinstance(digests, dict):
        changed = [alias for alias in {**texts, **digests} if texts.get(alias) != digests.get(alias)]
        instructions = {alias for alias in changed if alias.startswith(INSTRUCTION)}
        if own := [alias for alias in changed if alias not in instructions]:
            yield f"prompts ({some_of(own)})"
        if instructions and there.get("retain") == here.get("retain"):
            yield "the instructions of retain"


def _in_brief(value: Any, *, switched: bool) -> str:
    """A value on one line. A section is only on or off."""
    if switched:
        return "on" if value else "off"
    return shortened(str(value), _LONGEST_VALUE)


def _unreadable(state: Path) -> InputError:
    if RunDir(state.parent).manifest.is_file():
        return InputError(f"{state}: cannot be read. To train the adapter further without it, set load_model: true and ckpt_dir")
    return InputError(f"{state}: the checkpoint cannot be read. Remove {state.parent} or restart training with --force")


def keep_state(run: RunDir) -> None:
    """Keep the optimiser's state of the newest checkpoint in the run, from which `--more` goes on, and remove the checkpoints."""
    last = newest_checkpoint(run)
    if last is not None and (state := RunDir(last).state).is_file():
        with tempfile.TemporaryDirectory(prefix=".checkpoint.", dir=run.path) as scratch:
            copy = Path(scratch) / state.name
            try:
                copy.hardlink_to(state)  # the checkpoint stays whole until it is removed
            except OSError:
                shutil.copyfile(state, copy)
            os.replace(copy, run.state)
    discard_checkpoints(run)


def discard_checkpoints(run: RunDir, *, keep: int = 0) -> None:
    """Remove all but the newest checkpoints."""
    for folder in run.checkpoints[keep:]:
        discard_checkpoint(folder)


def discard_checkpoint(folder: Path) -> None:
    """Remove a checkpoint. It is renamed first, so that a half-deleted one is never used."""
    with tempfile.TemporaryDirectory(prefix=".checkpoint.", dir=folder.parent) as grave:
        os.replace(folder, Path(grave) / folder.name)
