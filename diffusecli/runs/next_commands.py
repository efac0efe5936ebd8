"""The command that a run needs next. It is accepted in the state in which the run is now; without such a command the result is None."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from diffusecli.files.locks import is_idle
from diffusecli.files.paths import exists
from diffusecli.prompts.config import Config
from diffusecli.prompts.groups import MOST_SAMPLED
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.finding import config_of, config_of_future, recorded_config
from diffusecli.runs.progress import has_result, recorded_progress
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError


class Next(NamedTuple):
    """A command, and what it is for."""

    purpose: str
    command: str


def if_readable(step: Callable[[], Next | None]) -> Next | None:
    """The step; None if there is none, if the config or a prompt cannot be read, or if the run is being trained now."""
    try:
        return step()
    except InputError:
        return None


def sampling(run: RunDir, prompt: str | None = None) -> Next | None:
    """Draw samples, of this prompt if the run has too many; without an adapter its training.

    Raises `InputError` if the config cannot be read, or if the run is being trained now.
    """
    _require_idle(run)
    if not run.config.is_file():
        return None
    if not run.has_adapter:
        return training(run)
    config, command = config_of(run), f"diffuse sample {quote(str(run.path))}"
    if config.test_prompts or run.read_manifest().get("prompts_trained", 0) <= MOST_SAMPLED:
        return Next("draw samples", command)
    return Next("draw samples", f"{command} --prompt {quote(prompt)}") if prompt is not None and Path(prompt).is_file() else None


def in_progress(run: RunDir) -> str:
    """What `train` is doing in this run now; empty if it is not running."""
    if is_idle(run.lock):
        return ""
    return "drawing samples" if run.checkpoints and has_result(run, run.checkpoints[0]) else "training"


def _require_idle(run: RunDir) -> None:
    if doing := in_progress(run):
        raise InputError(f"{run.path}: `diffuse train` is still {doing}. Wait until it is done")


def first_training(model: str, prompt: str) -> str:
    """Train this model on a prompt, in a new folder."""
    folder = Path("results", Path(prompt).stem)
    if exists(folder) or not Path(prompt).is_file():
        return ""
    return f"diffuse train --model {quote(model)} --prompt {quote(prompt)} -o {quote(str(folder))}"


def training(run: RunDir, *, further: bool = False) -> Next | None:
    """Start or resume a training; `further`: continue a finished one for as many iterations as the last time.

    Raises `InputError` if a config or a prompt cannot be read, or if the run is being trained now.
    """
    _require_idle(run)
    if not run.config.is_file():
        return _of_future(run)
    config, command = recorded_config(run), again(run)
    digests = _digests(config)
    if run.checkpoints:
        return _resumed(command, recorded_progress(RunDir(run.checkpoints[0]).state), digests)
    if run.has_adapter:
        more = _more(run, digests, config.alg_config.n_iters) if further else None
        return Next("train further", f"{command} --more {more}") if more is not None else None
    if run.manifest.is_file():
        return Next("train again, because the adapter is missing", f"{command} --force")
    return Next("train", command)


def _resumed(command: str, progress: dict[str, Any] | None, digests: dict[str, str]) -> Next | None:
    """Finish a training from its checkpoint; None if its prompts changed."""
    if progress is None:
        return Next("train again, because the checkpoint cannot be read", f"{command} --force")
    ends = f" --more {progress['more']}" if progress.get("more") else ""
    return Next("finish the interrupted training", f"{command}{ends}") if _is_of(progress, digests) else None


def _of_future(run: RunDir) -> Next | None:
    """Train with the config whose output_dir is this folder, which only has samples of its base model; None if there is none."""
    config = None if run.has_adapter or run.manifest.is_file() else config_of_future(run.path)
    return Next("train", f"diffuse train {quote(str(config))}") if config is not None else None


def _more(run: RunDir, digests: dict[str, str], iterations: int) -> int | None:
    """For how many iterations a finished training goes on: as many as the last time, at first `iterations`; None if it cannot go on."""
    manifest, progress = run.read_manifest(), recorded_progress(run.state)
    if progress is None or progress.get("step") != manifest.get("steps") or not _is_of(progress, digests):
        return None
    return (progress.get("more") or iterations) if manifest.get("adapter_sha256") == run.adapter_sha256 else None


def again(run: RunDir) -> str:
    """The command that trains the run again, in the folder where it is now. Raises `InputError` if its config cannot be read."""
    is_moved = Path(recorded_config(run).output_dir).resolve() != run.path.resolve()
    return f"diffuse train {quote(str(run.config))}" + (f" --set {quote(f'output_dir={run.path}')}" if is_moved else "")


def _digests(config: Config) -> dict[str, str]:
    """The digest of each training prompt as it is now; the test prompts are read, too."""
    read_prompts(config.test_prompts)
    return {prompt.alias: prompt.digest for prompt in read_prompts(config.train_prompts)}


def _is_of(progress: dict[str, Any], digests: dict[str, str]) -> bool:
    """Whether the training was one on these prompts."""
    known = progress["asked"].get("prompts")
    return isinstance(known, dict) and all(known.get(alias) == digest for alias, digest in digests.items())
