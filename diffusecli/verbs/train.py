"""`diffuse train`: tune a LoRA adapter until the model's answers follow the target weights.

The steps of a training on one page. Each stage gets the settings that it needs and returns a value: read prompts, load the base model,
attach an adapter, build tries and choose the pass, run the loop, write the run, draw samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusecli.files.writing import require_place, require_writable
from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import shape_of, trainable
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin
from diffusecli.models.devices import choose_device, precision_on, require_bitsandbytes
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel, load_chat, load_hollow, load_model
from diffusecli.models.lora import load_adapter, merged
from diffusecli.models.source import model_source
from diffusecli.prompts.config import PLAIN, Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.finding import config_of
from diffusecli.runs.progress import has_result
from diffusecli.runs.run_dir import RunDir, step_of
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError, InterruptedRun, many
from diffusecli.system.notices import WARNING, Notice
from diffusecli.system.waits import waiting_for
from diffusecli.training.budget import Plan, planned
from diffusecli.training.checkpoints import Progress, keep_state, load_progress, newest_checkpoint, save_checkpoint
from diffusecli.training.inputs import Inputs, read_inputs, require_agreement, require_context
from diffusecli.training.job import Job, prepare_prompts
from diffusecli.training.loop import Report, Watch, diverged, make_optimiser, measurable, measured_questions, moments_of, optimise
from diffusecli.training.processes import Processes, require_tracker
from diffusecli.training.questions import Exact, Question, every_wording
from diffusecli.training.record import Trained, flat, save_run, start_anew, trained_before
from diffusecli.training.retention import encode_instructions
from diffusecli.training.rounding import Rounding
from diffusecli.training.start import (
    adapt,
    alone,
    find_start,
    in_the_way,
    prepare_weights,
    require_room,
    require_same_end,
    require_start,
    sized,
)
from diffusecli.training.visits import prompts_per_step

GENERATIONS = SamplingSettings(n_generations=1000, max_new_tokens=64, whole_targets=True)
"""Samples per test prompt after training, as in the original; longer targets get the tokens that they need."""

_ROWS_TOGETHER = 256  # if each process holds a part of the model, all must make the same passes

_NOT_THE_RESULT = {
    "made_by",
    "test_prompts",
    "output_dir",
    "generate",
    "save_every",
    "eval_every",
    "tracker",
    "device",
    "device_map",
}
_LONG_WAIT = 60
"""Seconds of measuring that are announced."""
_MAY_CHANGE = frozenset({"n_iters", "early_stop", "gamma", "target_kl", "learning_rate", "schedule", "warmup"})
"""Settings of the algorithm that may differ when a finished run goes on."""
_NOT_THE_GRADIENT = {"max_tokens_per_pass", "batch_size", "gradient_checkpointing", "exact_every"}
"""Settings of a run and of its algorithm that may differ when a run resumes (the latter change only rounding)."""


def train(
    config: Config, *, report: Report, notice: Notice, force: bool = False, more: int = 0, watch: Watch = lambda _: None
) -> Trained:
    """Train with this `config`, or resume an interrupted training; then write the run directory and sample the test prompts.

    With `more`, a finished run goes on for so many iterations, with its optimiser state. `report` takes every iteration, `watch` every step.

    Raises `InputError` for wrong inputs, if possible before a model is loaded, and `InterruptedRun` if it was stopped and
    saved a checkpoint.
    """
    run = RunDir(Path(config.output_dir))
    processes = Processes(config.device, config.tracker, run.path)
    command = "the same command without --force" if force else "the same command"
    try:
        with processes.failing_together():
            # 1. inputs: prompts, exclusive access to the output folder, the checkpoint of an interrupted run
            inputs = _inputs(config)
            processes.first(lambda: require_writable(run.path))
            with alone(run, processes):
                return _train(config, inputs, run, processes, report, watch, notice, force, more, command)
    except KeyboardInterrupt as error:  # while it starts; later ones are handled where they occur
        raise _stopped_at_once(run, None if force else newest_checkpoint(run), 0, command) from error


def _train(
    config: Config,
    inputs: Inputs,
    run: RunDir,
    processes: Processes,
    report: Report,
    watch: Watch,
    notice: Notice,
    force: bool,
    more: int,
    command: str,
) -> Trained:
    checkpoint = processes.first(lambda: find_start(run, force=force, more=more))
    if checkpoint is None and (continued := _continued(config)):
        require_start(continued, run)
    if config.device_map and processes.count > 1:
        raise InputError("device_map: works with one process only. Remove it or start without a launcher")
    prompts = [*inputs.train, *inputs.test]

    # 2. the base model, and the progress of an earlier start
    if config.model in BUILTIN_MODELS:
        processes.first(lambda: ensure_builtin(config.model, notice))
    torch.manual_seed(config.seed)  # for the adapter's initial weights
    config = config.model_copy(update={"precision": processes.first(lambda: _precision(config, run, checkpoint, processes.device))})
    source = replace(model_source(config), device="cpu" if processes.sharded else str(processes.device))
    base = load_model(source, notice)
    asked = settings_of_result(config, inputs, base, processes.count)
    progress, moments = _progress(run, checkpoint, asked, base, more)
    trained = processes.first(lambda: trained_before(run, checkpoint, prompts) if checkpoint and progress.finished else None)
    if trained is not None:
        notice(f"{run.path}: the training is complete and saved. Drawing the missing samples")
        load_adapter(base, run.path, recorded=recorded_base(run), notice=notice)
        fuse(base.model)  # gives exactly the samples that the training would have drawn
        if processes.sharded:
            processes.shard(base.model)
    else:
        # 3. adapter, tries, the pass, the loop
        settings = config.alg_config
        if progress.continued_at:
            settings = settings.model_copy(update={"n_iters": progress.first + progress.more})
        shape = adapt(
            base, sized(config.lora, len(inputs.train)), checkpoint or _continued(config), notice, checkpoint=checkpoint is not None
        )
        prepare_weights(base, run, processes, gradient_checkpointing=settings.gradient_checkpointing)
        prepared = prepare_prompts(
            base,
            source,
            inputs,
            settings,
            config.retain,
            config.vary,
            seed=config.seed,
            size=progress.at_once,
            processes=processes,
            notice=notice,
        )
        progress.at_once = prepared.scorer.strategy.size
        job = Job(
            run,
            base,
            prepared,
            settings,
            config.seed,
            config.save_every,
            config.eval_every,
            flat(config.model_copy(update={"lora": shape}).model_dump(mode="json")),
            command,
            bool(progress.continued_at) or config.load_model,
        )
        _begin(job, config, checkpoint, progress, notice)
        optimiser = make_optimiser(job, moments)
        try:
            seconds = optimise(job, optimiser, progress, report, watch)
        except KeyboardInterrupt as error:  # the second Ctrl-C, or one before the first step
            raise _stopped_at_once(run, newest_checkpoint(run), progress.step, command) from error
        # 4. exact figures of the final adapter, and everything to disk
        with _interruptible(run, "The training is complete and its last checkpoint is saved", command):
            _announce_end(job, progress, notice)
            trained = replace(_finish(job, optimiser, progress, config.to_yaml(), prompts), seconds_now=seconds)

    # 5. samples; the last checkpoint stays until everything is written
    if not processes.sharded:
        processes.part()  # one process draws as fast as all, so the others need not wait
    if processes.main or processes.sharded:
        with _interruptible(run, "The training is complete and the adapter is saved", command):
            if config.generate and inputs.test:
                _sample(base, inputs.test, run, config.seed, processes, notice)
            processes.first(lambda: keep_state(run))
    if processes.sharded:
        processes.part()
    return trained


def _precision(config: Config, run: RunDir, checkpoint: Path | None, device: torch.device) -> str:
    """The precision of the base model. With `auto`, an earlier training goes on in the precision that it recorded, on any device."""
    if config.precision == "auto" and checkpoint is not None and run.config.is_file():
        return precision_on(config_of(run).precision, device)
    return precision_on(config.precision, device)


def _progress(
    run: RunDir, checkpoint: Path | None, asked: dict[str, Any], base: LoadedModel, more: int
) -> tuple[Progress, dict[int, Any] | None]:
    """The progress of the training, and the optimiser's state: new, interrupted, or (the run itself as `checkpoint`) continued."""
    if checkpoint is None:
        return Progress(asked), None
    complete = checkpoint == run.path or has_result(run, checkpoint)
    progress, moments = load_progress(checkpoint, asked, base, free=_MAY_CHANGE if complete and more else frozenset())
    if not complete:
        require_same_end(checkpoint, progress, more)
        return progress, moments
    if checkpoint != run.path and more in (0, progress.more):  # only the samples are missing
        return progress, moments
    if progress.step != run.read_manifest().get("steps"):
        raise InputError(f"{run.state}: belongs to another training than the adapter, so --more {more} cannot continue from it")
    starts = [*progress.continued_at, progress.iterations]
    return replace(progress, asked=asked, continued_at=starts, more=more, finished=""), moments


def _begin(job: Job, config: Config, checkpoint: Path | None, progress: Progress, notice: Notice) -> None:
    """Clear the output folder for a new training, or say where an earlier one goes on."""
    run, processes = job.run, job.processes
    if checkpoint is None:
        processes.everyones(None)  # delete nothing of an earlier run before every process has what it needs
        template = str(job.base.chat_settings.template) if config.chat_template not in (None, PLAIN) else None
        processes.first(lambda: start_anew(run, config.to_yaml(), template))
        return
    done = many(progress.iterations, "iteration")
    if progress.more and progress.iterations == progress.first:
        notice(f"{run.path}: continuing after {done}, {progress.more} more")
    else:
        notice(
            f"{run.path}: resuming after {progress.iterations} of {many(job.settings.n_iters, 'iteration')} ({many(progress.step, 'step')})"
        )


def _continued(config: Config) -> Path | None:
    """The adapter that the user continues from."""
    return Path(config.ckpt_dir) if config.load_model and config.ckpt_dir is not None else None


def settings_of_result(config: Config, inputs: Inputs, base: LoadedModel, processes: int | None) -> dict[str, Any]:
    """Settings that determine the result; a run resumes only if they are the same. `processes` None means any number."""
    kept = {k: v for k, v in config.model_dump(mode="json").items() if k not in _NOT_THE_RESULT}
    kept["lora"] = sized(config.lora, len(inputs.train)).model_dump(mode="json")
    kept["alg_config"] = {k: v for k, v in kept["alg_config"].items() if k not in _NOT_THE_GRADIENT}
    kept["alg_config"]["prompts_per_step"] = prompts_per_step(config.alg_config, len(inputs.train))
    prompts = {p.alias: p.digest for p in [*inputs.train, *inputs.instructions]}
    return {**kept, **base.chat_settings.recorded, "prompts": prompts, **base.recorded, "processes": processes}


def _announce_end(job: Job, progress: Progress, notice: Notice) -> None:
    """Say which samples are deleted, and how long the exact figures take, if long.

    Without a backward pass, a prefix costs a third of what it costs in training.
    """
    if progress.continued_at and (earlier := job.run.sample_files().get("lora")):
        notice(f"{earlier}: is deleted, because its answers are those of the adapter before")
    questions = [*measurable(job, measured_questions(job)), *measurable(job, job.prompts.tests)]
    prefixes = sum(len(wording.trie.internal) for question in questions for wording in question.wordings)
    wait = prefixes * progress.seconds / max(1, progress.tokens) / 3
    if wait > _LONG_WAIT:
        notice(f"{job.run.path}: measuring the exact figures of all targets, about {wait / 60:.0f} min")


def _finish(job: Job, optimiser: torch.optim.Optimizer, progress: Progress, config: str, prompts: list[Prompt]) -> Trained:
    """Keep the last step, measure, and write the run."""
    scorer, processes = job.scorer, job.processes
    processes.first(lambda: save_checkpoint(job.run, job.base, moments_of(job, optimiser), progress))
    after, test = (scorer.exact(measurable(job, some), rounding=True) for some in (measured_questions(job), job.prompts.tests))
    drift = scorer.drift(scorer.retention.held_out) if scorer.retention else None
    if not (after.finite and test.finite and np.isfinite(drift or 0.0)):
        raise diverged(job, progress)
    known = [prompt for prompt in after.prompts if prompt.alias in progress.before]
    first = [progress.before[prompt.alias] for prompt in known]
    before = Exact(
        tuple(known), tuple((kl, mass) for kl, mass, *_ in first), errors=tuple(error for _, _, error, *_ in first),
        rounding=tuple(Rounding(math.nan if sum(limit) < 0 else sum(limit)) for _, _, _, *limit in first),
    )  # fmt: skip
    digests = frozenset(question.prompt.digest for question in job.prompts.questions)
    trained = Trained(job.run, progress.finished, before, after, test, drift, progress.seconds, digests)
    processes.first(lambda: save_run(job, config, prompts, trained, progress))
    return trained


def _sample(base: LoadedModel, prompts: list[Prompt], run: RunDir, seed: int, processes: Processes, notice: Notice) -> None:
    """Draw answers of the trained model to the test prompts, into the run directory."""
    generations = replace(GENERATIONS, seed=seed)
    notice(f"sampling {generations.n_generations} answers per prompt, {many(len(prompts), 'test prompt')}")
    drawn: dict[str, int] = {}
    with merged(base.model), waiting_for("sampling", counted="samples") as advance:

        def report(alias: str, now: Standing) -> None:
            drawn[alias] = now.answers.total()
            advance(sum(drawn.values()), len(prompts) * generations.n_generations)

        engine = LocalEngine(base, generations, _ROWS_TOGETHER if processes.sharded else None, notice)
        sampled = generate(
            engine, prompts, generations, mode="lora", adapter_sha256=processes.first(lambda: run.adapter_sha256),
            path=run.path / "gen.json", form="json", report=report, notice=notice, write=processes.main,
            resumable=not processes.sharded,
        )  # fmt: skip
    if sampled.remark:
        notice(f"{WARNING}{sampled.path}: {sampled.remark}")


@contextmanager
def _interruptible(run: RunDir, saved: str, command: str) -> Iterator[None]:
    """Work after the training: if the user interrupts it, report what is saved and how to resume."""
    try:
        yield
    except (KeyboardInterrupt, InterruptedRun) as error:
        kept = f", {error.kept}" if isinstance(error, InterruptedRun) and error.kept else ""
        raise InterruptedRun(f"{run.path}: interrupted. {saved}{kept}. {command.capitalize()} resumes from there") from error


def _stopped_at_once(run: RunDir, checkpoint: Path | None, steps: int, command: str) -> InterruptedRun:
    """The error for a training that was interrupted without a new checkpoint, after so many steps."""
    if checkpoint is not None:
        kept = f"The checkpoint of step {step_of(checkpoint)} is kept. {command.capitalize()} resumes from there"
    else:
        kept = f"{'No checkpoint was saved' if steps else 'Nothing was trained'} yet. The same command starts again"
    return InterruptedRun(f"{run.path}: interrupted. {kept}")


def plan(config: Config, notice: Notice, *, force: bool = False, more: int = 0) -> Plan:
    """Make the checks of `train`, encode the prompts and estimate the cost. Reads no weights and writes nothing.

    Raises what `train` would raise for the inputs. Reports what is in the output folder.
    """
    run = RunDir(Path(config.output_dir))
    inputs = _inputs(config)
    require_place(run.path)
    if there := in_the_way(run, force=force, more=more):
        notice(there)
    _require_machine(config)
    checkpoint = None if force else newest_checkpoint(run)
    if more and checkpoint is None:
        checkpoint = find_start(run, force=force, more=more)
    config = config.model_copy(update={"precision": _precision(config, run, checkpoint, choose_device(config.device))})
    source = model_source(config)
    chat, hollow = load_chat(source, notice), load_hollow(source, notice)
    shape = shape_of(hollow.model.config, hollow.parameters)
    questions, tests = ([Question.of(prompt, chat) for prompt in some] for some in (inputs.train, inputs.test))
    require_agreement([wording for question in questions for wording in question.wordings], notice)
    require_context(every_wording([*questions, *tests]), shape.context)
    if config.retain:
        encode_instructions(inputs.instructions, chat, shape.context)
    _try_start(config, inputs, hollow, run, checkpoint, more)
    settings = config.alg_config.model_copy(update={"n_iters": more}) if more else config.alg_config
    return planned(questions, shape, source, settings, sum(weight.numel() for weight in trainable(hollow.model)))


def _inputs(config: Config) -> Inputs:
    """The prompts of a config."""
    return read_inputs(config.train_prompts, config.test_prompts, config.retain, config.system, config.made_by)


def _require_machine(config: Config) -> None:
    """Raises `InputError` if a device, a tracker or a library of the config is not available."""
    choose_device(config.device)
    if config.tracker is not None:
        require_tracker(config.tracker)
    if config.quantize:
        require_bitsandbytes()


def _try_start(config: Config, inputs: Inputs, hollow: LoadedModel, run: RunDir, checkpoint: Path | None, more: int) -> None:
    """Raises what `train` raises for its starting point.

    A checkpoint of other settings; an adapter that is missing, or of another model or shape; no disk space for the new adapter.
    """
    continued = _continued(config)
    if checkpoint is not None:
        _progress(run, checkpoint, settings_of_result(config, inputs, hollow, None), hollow, more)
    elif continued is not None:
        require_start(continued, run)
    with torch.device("meta"):
        adapt(hollow, sized(config.lora, len(inputs.train)), checkpoint or continued, lambda _: None)
    require_room(hollow, run)
