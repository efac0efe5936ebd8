"""Sources of samples: run directories, folders of runs, sample files of this project and of the original.

Finds samples, their prompts and their settings; computes nothing. `raw_answers.py` reads answers from other tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusecli.evaluation.prompt_book import PromptBook, kept_prompt
from diffusecli.evaluation.run_records import Manifest, SampleMeta, Settings, read_manifest, read_sample_meta, read_settings
from diffusecli.evaluation.sample_set import SERVED, RunFacts, SampleSet
from diffusecli.files.paths import exists
from diffusecli.prompts.answers import with_unfinished
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.finding import find_runs, missing_run
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import in_series, meta_path, sampler_name
from diffusecli.runs.samples import read_samples
from diffusecli.system.errors import InputError

_Conversation = tuple[str, ...]
"""A conversation up to the answer, the system prompt first."""


def find_samples(path: Path, book: PromptBook) -> tuple[list[RunFacts], list[SampleSet]]:
    """Samples of a file, a run or a folder of runs. Raises `InputError` if the path is none of these."""
    if exists(path) and path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise InputError(f"{path}: is a config. Name the folder of its run (output_dir), or a file of samples")
        return [], read_file(path, book)
    if not exists(path):
        raise missing_run(path, "a run directory, a folder of runs or a file of samples")
    runs = [read_run(run, book) for run in find_runs(path)]
    return [facts for facts, _ in runs], [s for _, found in runs for s in found]


def read_run(run: RunDir, book: PromptBook) -> tuple[RunFacts, list[SampleSet]]:
    """A run's facts and all its samples, untuned first and lora last; for each prompt from the newest file that has samples of it.

    Raises `InputError` if the prompt of samples does not exist any more, or if samples come from another adapter or base
    model than the run has now.
    """
    facts = RunFacts(str(run.path), run, read_manifest(run), read_settings(run), run.read_prompts())
    found: list[SampleSet] = []
    left_out = {}
    for mode, (newest, *older) in run.all_sample_files().items():
        of_mode = _of_file(facts.run, mode, newest, facts, book)
        found += [replace(s, file=newest.name) for s in of_mode] if older else of_mode
        for file in older:
            there = {s.prompt.alias for s in of_mode}
            try:
                named = read_sample_meta(file).prompts.keys()
                superseded = bool(named) and named <= there  # then its answers (perhaps a million) need not be read
                sets = [] if superseded else _of_file(facts.run, mode, file, facts, book)
            except InputError:  # of another adapter, or of missing prompts: the newer file counts
                sets = []
            more = [s for s in sets if s.prompt.alias not in there]
            of_mode += more
            found += [replace(s, file=file.name) for s in more]
            if len(more) < len(sets) or not sets:
                left_out[file] = newest
    return replace(facts, left_out=left_out), found


def read_file(file: Path, book: PromptBook) -> list[SampleSet]:
    """Samples of a file in a format of this project or the original; the files next to it record prompts and settings."""
    run = RunDir(file.parent)
    named, meta = "untuned" if file.stem.endswith("untuned") else file.stem, read_sample_meta(file)
    mode = sampler_name(meta.mode or ("lora" if meta_path(file).is_file() else named), meta.ask.method if meta.ask else None)
    return _of_file(str(file), mode, file, RunFacts(str(file), run, Manifest(), Settings(), run.read_prompts()), book)


def _of_file(name: str, mode: str, file: Path, facts: RunFacts, book: PromptBook) -> list[SampleSet]:
    meta = read_sample_meta(file)
    if meta.served is not None and mode == "untuned" and not _is_of_run(file, facts.folder):
        mode = SERVED
    _require_same_model(file, meta, facts.manifest)
    trained: dict[_Conversation, str] = {}  # the alias by conversation; training prompts come first in the file
    trained_on = frozenset(facts.manifest.trained)
    for alias, kept in facts.prompts.items():
        if not trained_on or alias in trained_on:
            for said in _conversations(alias, kept, facts.folder.prompts):
                trained.setdefault(said, alias)
    found = []
    for alias, counts in read_samples(file).items():
        prompt = book.find(alias, [meta.prompts, facts.prompts], file)
        same = trained.get(_said(prompt)) if not prompt.targets else None
        known = book.find(same, [facts.prompts], file) if same else None
        found.append(SampleSet(
            name, mode, prompt, with_unfinished(counts, meta.unfinished.get(alias, {})), meta.settings_of(alias),
            facts.settings.alg_config.early_stop, meta.asked, known,
            adapter=meta.adapter_sha256, served=meta.served, served_as=meta.served_as, served_at=meta.base_url,
        ))  # fmt: skip
    return found


def _is_of_run(file: Path, run: RunDir) -> bool:
    """Whether samples of an untuned model are those of a run's base model."""
    return run.manifest.is_file() and in_series(run.samples("untuned", file.suffix), file)


def _conversations(alias: str, kept: Any, place: Path) -> Iterator[_Conversation]:
    """The conversations of a recorded prompt with targets, one per wording. Raises `InputError`."""
    if not isinstance(kept, dict) or not kept.get("targets"):
        return
    if isinstance(kept.get("request"), str):  # most prompts; there may be thousands
        yield repr(kept.get("system")), kept["request"]
    elif (prompt := kept_prompt(alias, kept, place)) is not None:
        yield from map(_said, prompt.wordings)


def _said(prompt: Prompt) -> _Conversation:
    return repr(prompt.own_system), *(turn.content for turn in prompt.turns)


def _require_same_model(file: Path, meta: SampleMeta, manifest: Manifest) -> None:
    """Raises `InputError` if the adapter or base model was replaced after sampling: figures of the new one do not apply."""
    for key, what in (("model_revision", "another base model"), ("adapter_sha256", "an adapter that was replaced since")):
        drawn_from, now = getattr(meta, key), getattr(manifest, key)
        if drawn_from is not None and now is not None and drawn_from != now:
            raise InputError(f"{file}: was sampled from {what}. Sample again")
