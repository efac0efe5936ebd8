"""The command that a run needs next. It is accepted in the state in which the run is now; without such a command the result is empty."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

from diffusecli.files.locks import require_idle
from diffusecli.prompts.config import Config
from diffusecli.prompts.groups import MOST_SAMPLED
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.finding import config_of, is_at_home
from diffusecli.runs.run_dir import STATE_FORMAT, RunDir


def sampling(run: RunDir, prompt: str | None = None) -> str:
    """Draw samples, of this prompt if the run has too many; without an adapter its training.

    Raises `InputError` if the config cannot be read, or if the run is being trained now.
    """
    if not run.config.is_file():
        return ""
    if not run.has_adapter:
        return training(run)
    config, command = config_of(run), f"diffuse sample {quote(str(run.path))}"
    if config.test_prompts or run.read_manifest().get("prompts_trained", 0) <= MOST_SAMPLED:
        return command
    return f"{command} --prompt {quote(prompt)}" if prompt is not None and Path(prompt).is_file() else ""


def training(run: RunDir, more: int = 0) -> str:
    """Start or resume a training; continue a finished one for so many iterations, if not 0.

    Raises `InputError` if a config or a prompt cannot be read, or if the run is being trained now.
    """
    require_idle(run.path, run.lock)
    if not run.config.is_file() or not is_at_home(run):
        return ""
    command, digests = f"diffuse train {quote(str(run.config))}", _digests(config_of(run))
    if run.checkpoints:
        progress = _progress(RunDir(run.checkpoints[0]))
        if progress is None:
            return f"{command} --force"
        ends = f" --more {progress['more']}" if progress.get("more") else ""
        return f"{command}{ends}" if _is_of(progress, digests) else ""
    if run.has_adapter:
        manifest, progress = run.read_manifest(), _progress(run)
        same = progress is not None and progress.get("step") == manifest.get("steps") and _is_of(progress, digests)
        return f"{command} --more {more}" if more and same and manifest.get("adapter_sha256") == run.adapter_sha256 else ""
    return f"{command} --force" if run.manifest.is_file() else command


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
