"""The command that a run needs next. It is accepted in the state in which the run is now; without such a command the result is empty."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

from diffusecli.files.locks import is_idle
from diffusecli.files.paths import exists
from diffusecli.prompts.config import Config
from diffusecli.prompts.groups import MOST_SAMPLED
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.finding import config_of, config_of_future, is_at_home
from diffusecli.runs.run_dir import STATE_FORMAT, RunDir, step_of
from diffusecli.system.errors import InputError


def sampling(run: RunDir, prompt: str | None = None) -> str:
    """Draw samples, of this prompt if the run has too many; without an adapter its training.

    Raises `InputError` if the config cannot be read, or if the run is being trained now.
    """
    _require_idle(run)
    if not run.config.is_file():
        return ""
    if not run.has_adapter:
        return training(run)
    config, command = config_of(run), f"diffuse sample {quote(str(run.path))}"
    if config.test_prompts or run.read_manifest().get("prompts_trained", 0) <= MOST_SAMPLED:
        return command
    return f"{command} --prompt {quote(prompt)}" if prompt is not None and Path(prompt).is_file() else ""


def in_progress(run: RunDir) -> str:
    """What `train` is doing in this run now; empty if it is not running."""
    if is_idle(run.lock):
        return ""
    complete = run.has_adapter and bool(run.checkpoints) and run.read_manifest().get("steps") == step_of(run.checkpoints[0])
    return "drawing samples" if complete else "training"


def _require_idle(run: RunDir) -> None:
    if doing := in_progress(run):
        raise InputError(f"{run.path}: `diffuse train` is still {doing}. Wait until it is done")


def first_training(model: str, prompt: str) -> str:
    """Train this model on a prompt, in a new folder."""
    folder = Path("results", Path(prompt).stem)
    if exists(folder) or not Path(prompt).is_file():
        return ""
    return f"diffuse train --model {quote(model)} --prompt {quote(prompt)} -o {quote(str(folder))}"


def training(run: RunDir, *, further: bool = False) -> str:
    """Start or resume a training; `further`: continue a finished one for as many iterations as the last time.

    Raises `InputError` if a config or a prompt cannot be read, or if the run is being trained now.
    """
    _require_idle(run)
    if not run.config.is_file():
        return _of_future(run)
    if not is_at_home(run):
        return ""
    config = config_of(run)
    command, digests = again(run), _digests(config)
    if run.checkpoints:
        progress = _progress(RunDir(run.checkpoints[0]))
        if progress is None:
            return f"{command} --force"
        ends = f" --more {progress['more']}" if progress.get("more") else ""
        return f"{command}{ends}" if _is_of(progress, digests) else ""
    if run.has_adapter:
        return _further(run, digests, config.alg_config.n_iters) if further else ""
    return f"{command} --force" if run.manifest.is_file() else command


def _of_future(run: RunDir) -> str:
    """Train with the config whose output_dir is this folder, which only has samples of its base model; empty if there is none."""
    config = None if run.has_adapter or run.manifest.is_file() else config_of_future(run.path)
    return f"diffuse train {quote(str(config))}" if config is not None else ""


def _further(run: RunDir, digests: dict[str, str], iterations: int) -> str:
    """Continue a finished training for as many iterations as the last time, at first that many; empty if it cannot go on."""
    manifest, progress = run.read_manifest(), _progress(run)
    if progress is None or progress.get("step") != manifest.get("steps") or not _is_of(progress, digests):
        return ""
    more = progress.get("more") or iterations
    return f"{again(run)} --more {more}" if manifest.get("adapter_sha256") == run.adapter_sha256 else ""


def again(run: RunDir) -> str:
    """The command that trains the run again, without options."""
    return f"diffuse train {quote(str(run.config))}"


def _digests(config: Config) -> dict[str, str]:
    """The digest of each training prompt as it is now; the test prompts are read, too."""
    read_prompts(config.test_prompts)
    return {prompt.alias: prompt.digest for prompt in read_prompts(config.train_prompts)}


def _progress(state: RunDir) -> dict[str, Any] | None:
    """The progress in the state of a training; None if this version cannot resume from it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(state.state, framework="np") as file:
            metadata = file.metadata()
        found = json.loads(metadata["progress"]) if metadata["format"] == STATE_FORMAT else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("asked"), dict) else None


def _is_of(progress: dict[str, Any], digests: dict[str, str]) -> bool:
    """Whether the training was one on these prompts."""
    known = progress["asked"].get("prompts")
    return isinstance(known, dict) and all(known.get(alias) == digest for alias, digest in digests.items())
