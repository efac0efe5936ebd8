"""`diffuse evaluate`: what samples say about the distribution they were asked to follow.

Reads run directories, hands counts to `metrics.py`, returns figures. Needs no model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffusecli.errors import InputError
from diffusecli.metrics import Figures, Tally, figures, tally
from diffusecli.prompt import Prompt, exists, read_prompt
from diffusecli.runs import RunDir, find_runs, meta_path, read_json_mapping
from diffusecli.samples import read_samples

_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True)
class Evaluated:
    """One prompt, one mode of one run."""

    run: str
    mode: str
    prompt: Prompt
    tally: Tally
    figures: Figures | None  # None when the prompt has no targets to compare with
    exact_kl: float | None  # of the adapter sampled, when training recorded it and sampling bent nothing
    settings: str  # how the samples were drawn, in words
    retention_kl: float | None  # of the adapter sampled: drift on held-out instructions, nats per token


def evaluate(paths: Iterable[Path]) -> list[Evaluated]:
    """Every sampled prompt of every run below `paths`, untuned before lora.

    Raises `InputError` when there is no run, no samples, a prompt that samples name is gone, or samples
    come from another adapter or base model than the run now holds.
    """
    paths = list(dict.fromkeys(paths))
    found = [row for path in paths if path.is_file() for row in _evaluate_file(path)]
    runs = list(dict.fromkeys(run for path in paths if not path.is_file() for run in find_runs(path)))
    found += [row for run in runs for row in _evaluate_run(run)]
    if not found:
        places = ", ".join(str(path) for path in paths)
        raise InputError(f"{places}: no samples there, make some with `diffuse sample`")
    return found


def _evaluate_file(file: Path) -> list[Evaluated]:
    """Samples that were written somewhere else than into a run."""
    if not meta_path(file).is_file():
        raise InputError(f"{file}: {meta_path(file).name} is not beside it, name a run or a file that `diffuse sample` wrote")
    mode = read_json_mapping(meta_path(file)).get("mode", "lora")
    return _rows(str(file), RunDir(file.parent), {mode: file}, {}, {})


def _evaluate_run(run: RunDir) -> list[Evaluated]:
    kept: dict[str, Any] = read_json_mapping(run.prompts) if run.prompts.is_file() else {}
    return _rows(str(run.path), run, run.sample_files(), kept, run.read_manifest())


def _rows(name: str, run: RunDir, files: dict[str, Path], kept: dict[str, Any], manifest: dict[str, Any]) -> list[Evaluated]:
    rows = []
    for mode, file in files.items():
        meta = read_json_mapping(meta_path(file)) if meta_path(file).is_file() else {}
        if meta.get("file", file.name) != file.name:  # it tells of samples in another format
            meta = {}
        _require_same_model(file, meta, manifest)
        settings = meta.get("settings", {})
        bent = any(settings.get(name, neutral) != neutral for name, neutral in _NEUTRAL.items())
        tuned = manifest if mode == "lora" else {}
        exact = {} if bent else {**tuned.get("exact_kl_test", {}), **tuned.get("exact_kl", {})}
        for alias, counts in read_samples(file).items():
            prompt = _prompt(alias, [meta.get("prompts", {}).get(alias), kept.get(alias)], run)
            counted = tally(prompt, counts)
            found = figures(prompt, counted) if prompt.targets else None
            drift = tuned.get("retention_kl")
            rows.append(Evaluated(name, mode, prompt, counted, found, exact.get(alias), _in_words(settings), drift))
    order = {alias: place for place, alias in enumerate(dict.fromkeys(row.prompt.alias for row in rows))}
    return sorted(rows, key=lambda row: order[row.prompt.alias])


def _require_same_model(file: Path, meta: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Samples of an adapter or a base that has since been replaced would stand beside figures of the new one."""
    for key, what in (("model_revision", "another base model"), ("adapter_sha256", "an adapter that was replaced since")):
        drawn_from, now = meta.get(key), manifest.get(key)
        if drawn_from is not None and now is not None and drawn_from != now:
            raise InputError(f"{file}: was sampled from {what}, sample again")


def _prompt(alias: str, kept: list[Any], run: RunDir) -> Prompt:
    """The prompt as it was sampled, else as the run kept it; runs of the original kept tokens only, so then the file itself."""
    for candidate in kept:
        if isinstance(candidate, dict) and "request" in candidate:
            try:
                return Prompt.model_validate({**candidate, "alias": alias})
            except ValidationError as error:
                raise InputError(f"{run.path}: the prompt {alias} that it keeps is not valid, sample again") from error
    if not exists(alias):
        raise InputError(f"{run.path}: its samples name the prompt {alias}, which is not there; run from where it is")
    return read_prompt(alias)


def _in_words(settings: dict[str, Any]) -> str:
    """Seed, length and whatever was not left neutral.

    >>> _in_words({"seed": 0, "max_new_tokens": 50, "temperature": 0.5, "top_k": 0})
    'seed 0, at most 50 tokens, temperature 0.5'
    """
    if not settings:
        return "settings unknown"
    bent = [
        f"{name.replace('_', '-')} {settings[name]:g}"
        for name, neutral in _NEUTRAL.items()
        if settings.get(name, neutral) != neutral
    ]
    return ", ".join(
        [f"seed {settings.get('seed')}", f"at most {settings.get('max_new_tokens')} tokens", *(bent or ["temperature 1"])]
    )
