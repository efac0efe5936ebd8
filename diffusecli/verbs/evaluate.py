"""`diffuse evaluate`: compare samples with the distribution that they should follow.

Takes sample sets from `sources.py` and `raw_answers.py`, computes statistics from counts, returns figures. Needs a model only for exact figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np

from diffusecli.evaluation.comparison import COPIED, chance_of_equal
from diffusecli.evaluation.evaluation import UNSAMPLED, Evaluated, Evaluation, by_prompt, differences, matrices
from diffusecli.evaluation.fit import SIGNIFICANCE
from diffusecli.evaluation.metrics import AT_N, ExactFigures, cells, figures
from diffusecli.evaluation.names import shown
from diffusecli.evaluation.open_ended import by_line, diversity
from diffusecli.evaluation.ordered import ordered, values_in
from diffusecli.evaluation.prompt_book import PromptBook, kept_prompt
from diffusecli.evaluation.raw_answers import read_answers
from diffusecli.evaluation.record_fit import record_figures
from diffusecli.evaluation.sample_set import SERVED, RunFacts, SampleSet
from diffusecli.evaluation.sdmetrics_score import require_sdmetrics
from diffusecli.evaluation.sources import find_samples
from diffusecli.files.paths import real
from diffusecli.files.tables import Layout
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching, tally
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import inspect_prompt, is_there, prompt_files, read_prompts
from diffusecli.runs.next_commands import again, sampling
from diffusecli.runs.sample_files import BASELINES, MODES
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError, did_you_mean, sentence
from diffusecli.system.notices import Notice, some_of
from diffusecli.system.waits import waiting_for

if TYPE_CHECKING:
    from diffusecli.evaluation.measured import Measured
    from diffusecli.evaluation.served_exact import ServedFigures
    from diffusecli.sampling.connection import Service


@dataclass(frozen=True)
class Question:
    """Arguments from the command line or a program."""

    matching: Matching = field(default_factory=Matching)
    prompts: tuple[Path, ...] = ()  # replace missing ones; with `exact`, also held-out prompts to measure
    prompt: Path | None = None  # the prompt of raw answers
    column: str | None = None
    only: tuple[str, ...] = ()
    exact: bool = False
    seed: int = 0  # of Monte Carlo and bootstrap
    trust_remote_code: bool = False  # with `exact`
    model: str | None = None  # with `exact`: another name or path of the runs' base model
    count_column: str | None = None  # counts for `column`
    layout: Layout = field(default_factory=Layout)  # of the file with raw answers
    given: tuple[SampleSet, ...] = ()  # samples that are in no file
    at_n: int = AT_N  # draws of the excess TVD of exactly known models
    sdmetrics: bool = False  # also SDMetrics' quality score of records
    service: Service | None = None  # with `exact`: a server with the model to measure, instead of the runs' models


def evaluate(paths: Iterable[Path], question: Question | None = None, notice: Notice = lambda _: None) -> Evaluation:
    """Evaluate every sampled prompt of every run and file; the same prompt from several samplers is compared.

    Raises `InputError` if there are no samples, if the prompt of samples does not exist any more, or if samples
    come from another adapter or base model than the run has now.
    """
    question = question or Question()
    if question.sdmetrics:
        require_sdmetrics()
    paths = list(dict.fromkeys(paths))
    paths = [path for path in paths if not path.name.endswith(".meta.json")] or paths  # `gen*.json` names settings too
    runs, sets = _collect(paths, question, notice)
    sets = [*sets, *question.given]
    sets += _only_recorded(runs, sets) if not question.prompts else []
    if not question.prompts and (empty := [facts.run for facts in runs if not any(s.run == facts.run for s in sets)]) and sets:
        notice(f"warning: left out, because there are no samples and no figures: {some_of(empty)}")
    for used, older in _left_out(runs, paths).items():
        notice(
            f"{used}: holds the newest samples. Older ones are skipped: {some_of([str(file) for file in older])}. Name a file to evaluate it too"
        )
    if not question.exact and (unused := _other_prompts(sets, question)):
        notice(
            f"{', '.join(unused)}: differs from the prompt that was sampled under this name. The samples are compared with the sampled prompt. "
            "Add --exact for exact figures of both"
        )
    elif sets and question.prompts and not question.exact and not _sampled(sets, question):
        raise _no_samples_of(question.prompts, paths, runs)
    held_out = _held_out(question) if question.exact else []
    served = _measure_served(runs, sets, held_out, question, notice)
    measured = _measure(runs, sets, held_out, question, notice) if question.exact and served is None else {}
    sets = [*sets, *_unsampled(runs, sets, measured, held_out), *(served.unsampled(sets) if served is not None else ())]
    there = list(dict.fromkeys(s.prompt.alias for s in sets))
    sets = [s for s in sets if _wanted(s.prompt.alias, question.only)]
    if not sets:
        if there:
            raise InputError(
                f"--only {', '.join(question.only)}: matches no prompt path. {sentence(did_you_mean(question.only[0], there))}"
            )
        raise InputError(f"{', '.join(map(str, paths))}: no samples found. {_remedy(runs)}")
    facts, owners = {run.run: run for run in runs}, {s.run: _owner(s, runs) for s in sets}
    if unknown := sorted(
        {s.run for s in sets if s.prompt.targets and s.adapter is not None and s.run not in facts and owners[s.run] is None}
    ):
        notice(f"{some_of(unknown)}: no exact KL, because the run with this adapter is not named. Name its folder too")
    for copy, first, aliases in _copies(sets):
        notice(
            f"warning: {copy}: has exactly the answers of {first} to {some_of(aliases)}. The same model with the same seed draws the same answers, "
            "which say nothing new. Sample with another --seed"
        )
    for other in dict.fromkeys((s.run, s.mode, s.served, s.served_as) for s in sets if s.served_as and s.mode != SERVED):
        run, mode, asked, answered = other
        notice(
            f"warning: {run} ({shown(mode)}): the server was asked for {asked}, and its answers name {answered}. They may be of another model"
        )
    judged = []
    with waiting_for("computing the statistics") as advance:
        for place, each in enumerate(sets):
            advance(place, len(sets))
            owner = owners[each.run] or each.run
            known = served.of(each) if served is not None else measured.get(owner)
            judged.append(_judge(each, facts.get(owner) if each.mode != SERVED else None, known, question))
    places = {run: place for place, run in enumerate(dict.fromkeys(row.run for row in judged))}
    rows = [r for same in by_prompt(judged) for r in sorted(same, key=lambda row: _place(row, places[row.run]))]
    return Evaluation(
        question.matching, question.seed, tuple(rows), tuple(differences(rows, question.seed)), tuple(matrices(rows, runs, lambda alias: _wanted(alias, question.only))),
        tuple(runs), _drifts([run for run in runs if not question.only or run.run in places], measured), question.at_n,
    )  # fmt: skip


def _copies(sets: Sequence[SampleSet]) -> Iterator[tuple[str, str, list[str]]]:
    """Samplers with exactly the answers of an earlier one: the two, and the prompts. Not if counts may be equal by chance, or of one base model."""
    first: dict[tuple[str, frozenset[tuple[str, int]]], SampleSet] = {}
    found: dict[tuple[str, str], list[str]] = {}
    for s in sets:
        if chance_of_equal(s.counts.values()) < COPIED:
            same = first.setdefault((s.prompt.digest, frozenset(s.counts.items())), s)
            if (s.run, s.mode) != (same.run, same.mode) and not s.mode == same.mode == "untuned":
                found.setdefault((_named(s), _named(same)), []).append(s.prompt.alias)
    yield from ((copy, original, aliases) for (copy, original), aliases in found.items())


def _named(sample: SampleSet) -> str:
    """The run and the mode, or the file."""
    return sample.run if Path(sample.run).stem == sample.mode else f"{sample.run} ({shown(sample.mode)})"


def _remedy(runs: Sequence[RunFacts]) -> str:
    """What to do if there are no samples."""
    if not runs:
        return "Name a run or a file of samples"
    run = runs[0].folder
    try:
        step = sampling(run)
    except InputError as error:  # a prompt is missing, or the run is being trained now
        return str(error)
    if step is not None:
        drawn = f"Draw some with `{step.command}`, or measure prompts with --exact --prompts"
        return drawn if run.has_adapter else f"The training is not finished. Run `{step.command}` first"
    if run.config.is_file() and not run.has_adapter:
        return f"The training is not finished, and its prompts have changed since. Start again with `{again(run)} --force`"
    return "Draw some with `diffuse sample`"


def _no_samples_of(prompts: Sequence[Path], paths: Sequence[Path], runs: Sequence[RunFacts]) -> InputError:
    """The error for `--prompts` without a prompt that was sampled."""
    named = some_of([str(prompt) for prompt in prompts])
    drawn = next((facts.folder.path for facts in runs if facts.folder.has_adapter), None)
    if drawn is None:
        remedy = "Name samples of it, or leave --prompts out"
    else:
        prompt = "".join(f" --prompt {quote(str(prompt))}" for prompt in prompts)
        remedy = f"Draw some with `diffuse sample {quote(str(drawn))}{prompt}`, or add --exact to measure the model without samples"
    return InputError(f"{', '.join(map(str, paths))}: no samples of {named} (--prompts). {remedy}")


def _owner(sample: SampleSet, runs: Sequence[RunFacts]) -> str | None:
    """The run that a sample set belongs to: its own, or for a file outside of all runs the one with the adapter that drew the answers."""
    own = (facts.run for facts in runs if facts.run == sample.run)
    drawn = (facts.run for facts in runs if sample.adapter is not None and facts.manifest.adapter_sha256 == sample.adapter)
    return next(own, None) or next(drawn, None)


def _place(row: Evaluated, of_run: int) -> tuple[int, int, int]:
    """Tuned models come before baselines, in the order of the runs; of a run's baselines the untuned model comes first."""
    baseline = row.mode in BASELINES
    return int(baseline), of_run, BASELINES.index(row.mode) if baseline else 0


def _collect(paths: Sequence[Path], question: Question, notice: Notice) -> tuple[list[RunFacts], list[SampleSet]]:
    if question.prompt is not None:
        if folders := [path for path in paths if not path.is_file()]:
            raise InputError(
                f"{folders[0]}: {'is a folder' if folders[0].is_dir() else 'does not exist'}. With --prompt, name a file of answers"
            )
        return [], [
            read_answers(path, question.prompt, question.column, question.count_column, question.layout, notice) for path in paths
        ]
    book = PromptBook(question.prompts)
    found = [find_samples(path, book) for path in paths]
    once: dict[Path, tuple[list[RunFacts], list[SampleSet]]] = {}  # a run or file named by several paths counts once
    for runs, sets in found:
        for facts in runs:
            once.setdefault(facts.folder.path.resolve(), ([facts], [s for s in sets if s.run == facts.run]))
        for sample in sets if not runs else ():
            once.setdefault(Path(sample.run).resolve(), ([], sets))
    of_runs = [file.resolve() for runs, _ in found for facts in runs for file in facts.folder.sample_files().values()]
    for file in of_runs:  # named in addition to its run
        once.pop(file, None)
    return [facts for runs, _ in once.values() for facts in runs], [s for _, sets in once.values() for s in sets]


def _left_out(runs: Sequence[RunFacts], paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """The newest sample files of runs, with the older ones that they supersede, except those that were named."""
    named = {path.resolve() for path in paths}
    found: dict[Path, list[Path]] = {}
    for facts in runs:
        for file, used in facts.left_out.items():
            if file.resolve() not in named:
                found.setdefault(used, []).append(file)
    return found


def _measure(
    runs: Sequence[RunFacts], sets: Sequence[SampleSet], held_out: Sequence[Prompt], question: Question, notice: Notice
) -> dict[str, Measured]:
    """Exact figures of each run: the prompts of its samples, its own and the requested ones."""
    with collector_off():
        from diffusecli.evaluation.exact import measure
        from diffusecli.evaluation.measured import Measured
    from diffusecli.models.source import model_source
    from diffusecli.prompts.config import Retain
    from diffusecli.prompts.contexts import Contexts
    from diffusecli.runs.finding import config_of

    if not runs:
        raise InputError("--exact needs the run. Name its folder")
    found = {}
    for facts in runs:
        if not facts.folder.config.is_file():
            raise InputError(f"{facts.run}: config.yaml is missing. --exact needs it")
        sampled = [s.prompt for s in sets if s.run == facts.run and _wanted(s.prompt.alias, question.only)]
        prompts = [*sampled, *(prompt for prompt in held_out if facts.holds(prompt))]
        config = config_of(facts.folder, model=question.model, trust_remote_code=question.trust_remote_code)
        retain = config.retain or Retain()  # drift is also measured for runs without retention
        if not any(prompt.targets for prompt in [*prompts, *held_out]):
            found[facts.run] = Measured()
            continue
        source = model_source(config, named=question.model is not None)
        contexts = Contexts(config.vary, own_system=config.system is not None) if config.vary else None
        found[facts.run] = measure(
            facts.folder, source, config.alg_config, retain, config.seed, prompts, notice, others=held_out, contexts=contexts
        )
    return found


def _measure_served(
    runs: Sequence[RunFacts], sets: Sequence[SampleSet], held_out: Sequence[Prompt], question: Question, notice: Notice
) -> ServedFigures | None:
    """Figures of the served model: the prompts of all samples, and the requested ones; None without a server."""
    if question.service is None:
        return None
    with collector_off():
        from diffusecli.evaluation.served_exact import served_figures
        from diffusecli.models.chat import ChatSettings
    from diffusecli.runs.finding import config_of

    config = next((config_of(facts.folder) for facts in runs if facts.folder.config.is_file()), None)
    chat = ChatSettings(None, config.chat_template_kwargs or {}, config.system) if config is not None else ChatSettings()
    wanted = [s for s in sets if s.prompt.targets and _wanted(s.prompt.alias, question.only)]
    service = question.service if question.service.model else replace(question.service, model=_served_name(runs))
    return served_figures(service, wanted, held_out, chat, notice)


def _served_name(runs: Sequence[RunFacts]) -> str:
    """The name of the run's adapter at a server, as for `sample`. Raises `InputError` unless there is one run with an adapter."""
    tuned = [facts.folder for facts in runs if facts.folder.has_adapter]
    if len(tuned) != 1:
        raise InputError("--engine openai needs --model, unless exactly one trained run is named. Name the server's model")
    return tuned[0].served_name


def _held_out(question: Question) -> list[Prompt]:
    return [prompt for prompt in read_prompts(question.prompts) if _wanted(prompt.alias, question.only)] if question.prompts else []


def _unsampled(
    runs: Sequence[RunFacts], sets: Sequence[SampleSet], measured: Mapping[str, Measured], held_out: Sequence[Prompt]
) -> list[SampleSet]:
    """An empty sample set for every prompt that was measured exactly but not sampled."""
    there = {(s.run, s.mode, s.prompt.key) for s in sets}
    found = []
    for facts in (facts for facts in runs if facts.run in measured):
        own = list({s.prompt.key: s.prompt for s in sets if s.run == facts.run}.values())
        alike: dict[str, list[Prompt]] = {}
        for prompt in own:
            alike.setdefault(prompt.digest, []).append(prompt)
        new = [p for p in held_out if not any(_is_of(p, other) for other in alike.get(p.digest, ()))]
        known = {prompt.key: prompt for prompt in [*own, *new]}
        found += [
            SampleSet(facts.run, mode, prompt, Answers())
            for key, prompt in known.items()
            for mode in MODES if measured[facts.run].knows(mode, prompt) and (facts.run, mode, key) not in there
        ]  # fmt: skip
    return found


def _only_recorded(runs: Sequence[RunFacts], sets: Sequence[SampleSet]) -> Iterator[SampleSet]:
    """An empty sample set for every prompt with figures from training, of runs without any samples."""
    sampled = {s.run for s in sets}
    for facts in runs:
        recorded = {} if facts.run in sampled else {**facts.manifest.exact_kl, **facts.manifest.exact_kl_test}
        for alias in recorded:
            prompt = kept_prompt(alias, facts.prompts.get(alias), facts.folder.prompts)
            if prompt is not None:
                yield SampleSet(facts.run, "lora", prompt, Answers())


def _is_of(given: Prompt, sampled: Prompt) -> bool:
    """Whether a prompt file is the sampled prompt with the same digest: the same file, or a replacement of a missing file."""
    if is_there(sampled.alias):
        return real(given.alias) == real(sampled.alias)
    return Path(given.alias).name == Path(sampled.alias).name


def _other_prompts(sets: Sequence[SampleSet], question: Question) -> list[str]:
    """Named prompt files whose content differs from what was sampled under their path."""
    sampled: dict[Path, set[str]] = {}
    for s in sets if question.prompts else ():
        if is_there(s.prompt.alias):
            sampled.setdefault(real(s.prompt.alias), set()).add(s.prompt.digest)
    there = [file for file in prompt_files(question.prompts) if real(file) in sampled]
    return [str(file) for file in there if (now := inspect_prompt(file)[0]) is not None and now.digest not in sampled[real(file)]]


def _sampled(sets: Sequence[SampleSet], question: Question) -> bool:
    """Whether any named prompt, or one of its wordings, has samples under any name."""
    digests = {s.prompt.digest for s in sets}
    named = [prompt for prompt, _ in map(inspect_prompt, prompt_files(question.prompts)) if prompt is not None]
    return any(one.digest in digests for prompt in named for one in (prompt, *prompt.wordings, *prompt.held_out))


def _judge(sample: SampleSet, run: RunFacts | None, measured: Measured | None, question: Question) -> Evaluated:
    """All figures of one sample set."""
    prompt, matching = sample.prompt, question.matching
    tallied = tally(prompt, sample.counts, matching)
    found = figures(prompt, tallied, seed=question.seed) if prompt.targets and tallied.n else None
    at = values_in(prompt.spellings) if tallied.on_target else None
    is_open = tallied.n > 0 and (not prompt.targets or sample.examples)
    known = prompt if prompt.targets else sample.trained_on
    compared = Answers()
    for text, count in sample.counts.items() if is_open else ():
        key, cut = matching.key(text) or text.strip(), sample.counts.unfinished[text]
        compared.add(key, count - cut)
        compared.add(key, cut, unfinished=True)
    beyond = 1 - tally(known, sample.counts, matching).on_target / tallied.n if is_open and known else math.nan
    return Evaluated(
        sample.run, sample.mode, prompt, tallied, sample.settings, sample.examples,
        figures=found,
        cells=cells(prompt, tallied, rejected=found is not None and found.p_value < SIGNIFICANCE),
        ordered=ordered(*at, np.array(tallied.counts), np.array(prompt.probabilities)) if at else None,
        diversity=diversity(compared, beyond, unfinished=compared.unfinished) if is_open else None,
        lines=by_line(compared, [matching.key(t) or t for t in known.every_spelling] if known else (), compared.unfinished) if is_open else (),
        exact=_exact(sample, run, measured, question.at_n),
        bounds=measured.limits(sample.mode, sample.prompt) if measured is not None and not sample.bent else None,
        records=record_figures(prompt, sample.counts, question.seed, matching, sdmetrics=question.sdmetrics),
        file=sample.file, served=sample.served or "", served_as=sample.served_as,
    )  # fmt: skip


def _exact(sample: SampleSet, run: RunFacts | None, measured: Measured | None, at_n: int) -> ExactFigures | None:
    """Figures measured now, otherwise those from training; None for samples with changed distribution or different rendering."""
    if sample.bent:
        return None
    if measured is not None and sample.asked in (None, measured.chat):
        found = measured.figures(sample.mode, sample.prompt, sample.counts.total() or UNSAMPLED, at_n)
        if found is not None:
            return found
    if run is None:
        return None
    same = sample.asked is None or run.manifest.chat in (None, sample.asked)
    return _recorded(sample, run) if same else None


def _recorded(sample: SampleSet, run: RunFacts) -> ExactFigures | None:
    """Figures that training recorded of exactly this prompt, under any name."""
    manifest = run.manifest
    own = manifest.kl_errors, manifest.kl_rounding
    lora = [(manifest.exact_kl_test, manifest.exact_on_target_test, *own), (manifest.exact_kl, manifest.exact_on_target, *own)]
    untuned = [(manifest.exact_kl_before, manifest.exact_on_target_before, manifest.kl_errors_before, manifest.kl_rounding_before)]
    before = [] if run.settings.load_model else untuned
    of_mode = {"lora": lora, "untuned": before}.get(sample.mode, [])
    for alias in run.names_of(sample.prompt) if of_mode else ():
        for kl, on_target, errors, rounding in of_mode:
            if alias in kl:
                limit = rounding.get(alias, 0.0)
                return ExactFigures(
                    kl[alias], on_target.get(alias, math.nan), kl_error=errors.get(alias, 0.0),
                    rounding=math.nan if limit is None else limit,
                )  # fmt: skip
    of_wording = run.of_wording(sample.prompt) if sample.mode == "lora" else None
    if of_wording is None:
        return None
    unknown = math.nan if manifest.kl_rounding else 0.0  # training records that of whole prompts
    return ExactFigures(*of_wording, rounding=unknown, tvd_rounding=unknown)


def _drifts(runs: Sequence[RunFacts], measured: Mapping[str, Measured]) -> dict[str, float]:
    """Drift measured now, otherwise from training."""
    found = {}
    for run in runs:
        now = measured[run.run].drift if run.run in measured else None
        found[run.run] = now if now is not None else run.manifest.retention_kl
    return {name: drift for name, drift in found.items() if drift is not None}


def _wanted(alias: str, only: Sequence[str]) -> bool:
    return not only or any(part in alias for part in only)
