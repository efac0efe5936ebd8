"""`diffuse train`: tune a LoRA adapter until the model's answers follow the target weights.

One loop: prompts in shuffled order, for each the exact full-batch gradient over all its targets and a
little of what holds the model to its old answers, then one optimiser step. Knows the config and the run
directory; what a pass costs and how it is done is `loss.py`'s business.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from diffusecli.files.writing import require_writable
from diffusecli.models.adapters import recorded_base
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel, load_configured
from diffusecli.models.lora import load_adapter, merged
from diffusecli.models.overflow import cause
from diffusecli.prompts.config import Config
from diffusecli.runs.iteration import Iteration
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, InterruptedRun, many
from diffusecli.system.interrupts import Interrupts
from diffusecli.system.memory import peak_memory_mb
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import (
    Progress,
    discard_checkpoint,
    discard_checkpoints,
    load_progress,
    newest_checkpoint,
    save_checkpoint,
    step_of,
)
from diffusecli.training.job import (
    Inputs,
    Job,
    adapt,
    alone,
    find_start,
    make_job,
    prepare_weights,
    read_inputs,
    require_start,
    settings_of_result,
)
from diffusecli.training.processes import Processes
from diffusecli.training.record import Trained, flat, save_run, start_anew, take_up_metrics, tell, trained_before
from diffusecli.training.schedule import learning_rate, rate_share, reason_to_stop
from diffusecli.training.scorer import Exact, Scores, figures_of

GENERATIONS = SamplingSettings(n_generations=1000, max_new_tokens=64, whole_targets=True)
"""What the original draws for each test prompt after training; longer targets get the tokens they take."""

_ROWS_TOGETHER = 256  # where processes hold a part of the model each, all must make the same passes

_BETAS = (0.9, 0.99)
"""The second of AdamW's decays is .99, not .999: training lasts tens of steps, and the gradient of the
first ones, a hundred times the last, must be forgotten."""

Report = Callable[[Iteration], None]


def train(config: Config, *, report: Report, notice: Notice, force: bool = False) -> Trained:
    """Train as `config` says, or go on where it was interrupted; then write the run directory and sample the test prompts.

    Raises `InputError` for what is wrong with the inputs before any model is loaded where that can be told, and
    `InterruptedRun` when it was asked to stop and left a checkpoint.
    """
    run = RunDir(Path(config.output_dir))
    processes = Processes(config.device, config.tracker, run.path)
    with processes.failing_together():
        # 1. inputs: prompts, an output folder to ourselves, what an interrupted run left there
        inputs = read_inputs(config)
        processes.first(lambda: require_writable(run.path))
        with alone(run, processes):
            return _train(config, inputs, run, processes, report, notice, force)


def _train(
    config: Config, inputs: Inputs, run: RunDir, processes: Processes, report: Report, notice: Notice, force: bool
) -> Trained:
    checkpoint = processes.first(lambda: find_start(run, force=force))
    if checkpoint is None and config.load_model and config.ckpt_dir is not None:
        require_start(Path(config.ckpt_dir), run)
    if config.device_map and processes.count > 1:
        raise InputError("device_map: is for one process, remove it or start without a launcher")

    # 2. model, adapter, tries
    if config.model in BUILTIN_MODELS:
        processes.first(lambda: ensure_builtin(config.model, notice))
    torch.manual_seed(config.seed)  # of the adapter's first weights
    base = load_configured(config, notice, device="cpu" if processes.sharded else str(processes.device))
    asked = settings_of_result(config, inputs, base, processes.count)
    progress, optimiser_state = load_progress(checkpoint, asked, base) if checkpoint else (Progress(asked), None)
    trained = processes.first(lambda: trained_before(run, checkpoint, [*inputs.train, *inputs.test]) if checkpoint else None)
    if trained is not None:
        notice(f"{run.path}: the training is done and saved; its samples are missing")
        load_adapter(base, run.path, recorded=recorded_base(run), notice=notice)
        if processes.sharded:
            processes.shard(base.model)
    else:
        config = adapt(base, config, checkpoint, notice)
        prepare_weights(base, config, run, processes)
        job, why = make_job(base, config, inputs, run, processes, progress, notice, force)
        trained = _trained(job, why, inputs, checkpoint, progress, optimiser_state, report)

    # 5. samples; the last checkpoint stays until all is there
    if not processes.sharded:
        processes.part()  # one process draws as fast as all, and the others need not wait for it
    if processes.main or processes.sharded:
        with _interruptible(run, "The training is done and the adapter is saved", force):
            _sample(base, config, inputs, run, processes, notice)
            processes.first(lambda: discard_checkpoints(run))
    if processes.sharded:
        processes.part()
    return trained


def _trained(
    job: Job, why: str, inputs: Inputs, checkpoint: Path | None, progress: Progress,
    optimiser_state: dict[int, dict[str, Any]] | None, report: Report,
) -> Trained:  # fmt: skip
    """Train, or go on, and write all but the samples."""
    run, base, processes = job.run, job.base, job.processes
    # 3. the loop
    if checkpoint is None:
        processes.everyones(None)  # nothing of an earlier run goes before every process has what it needs
        processes.first(lambda: start_anew(job))
    else:
        job.scorer.notice(
            f"{run.path}: going on after {progress.iterations} of {many(job.settings.n_iters, 'iteration')} "
            f"({many(progress.step, 'step')})"
        )
    optimiser = _optimiser(job, optimiser_state)
    _optimise(job, optimiser, progress, report)

    # 4. exact figures of the final adapter, and everything to disk
    with _interruptible(run, "The training is done and its last checkpoint is saved", job.force):
        processes.first(lambda: save_checkpoint(run, base, optimiser, progress))
        after, test = job.scorer.exact(job.encoded), job.scorer.exact(job.tests)
        drift = job.scorer.retention.drift(base.model) if job.scorer.retention else None
        if not (after.finite and test.finite and np.isfinite(drift or 0.0)):
            raise _diverged(job, progress)
        before = Exact(after.prompts, tuple((kl, mass) for kl, mass in (progress.before[prompt.alias] for prompt in after.prompts)))
        trained = Trained(run, progress.finished, before, after, test, drift, progress.seconds)
        processes.first(lambda: save_run(job, [*inputs.train, *inputs.test], trained, why, progress))
    return trained


def _sample(base: LoadedModel, config: Config, inputs: Inputs, run: RunDir, processes: Processes, notice: Notice) -> None:
    """Answers to the test prompts, if they are wanted."""
    if not (config.generate and inputs.test):
        return
    generations = replace(GENERATIONS, seed=config.seed)
    notice(f"sampling {generations.n_generations} answers a prompt, {many(len(inputs.test), 'test prompt')}")
    with merged(base.model):
        engine = LocalEngine(base, generations, _ROWS_TOGETHER if processes.sharded else None, notice)
        sampled = generate(
            engine, inputs.test, generations, mode="lora", adapter_sha256=processes.first(lambda: run.adapter_sha256),
            path=run.path / "gen.json", form="json", report=lambda *_: None, notice=notice, write=processes.main,
            resumable=not processes.sharded,
        )  # fmt: skip
    if sampled.warning:
        notice(f"{sampled.path}: {sampled.warning}")


@contextmanager
def _interruptible(run: RunDir, saved: str, force: bool) -> Iterator[None]:
    """Work after the training: when the user interrupts it, say what is saved and how to resume."""
    try:
        yield
    except (KeyboardInterrupt, InterruptedRun) as error:
        kept = f", {error.kept}" if isinstance(error, InterruptedRun) and error.kept else ""
        raise InterruptedRun(
            f"{run.path}: interrupted. {saved}{kept}. {_same_command(force).capitalize()} goes on from there"
        ) from error


def _same_command(force: bool) -> str:
    return "the same command without --force" if force else "the same command"


def _train_mode(base: LoadedModel, on: bool) -> None:
    """Only what this training is meant to do: dropout before the adapter, checkpointed layers.

    Dropout of the base itself would blur the exact figures.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    base.model.eval()
    for name, module in base.model.named_modules():
        if "lora_dropout" in name or isinstance(module, GradientCheckpointingLayer):
            module.training = on


def _optimise(job: Job, optimiser: torch.optim.Optimizer, progress: Progress, report: Report) -> None:
    """The training loop; `progress` says in the end why it stopped."""
    config, settings, processes = job.config, job.settings, job.processes
    rate = optimiser.param_groups[0]["lr"]
    steps = settings.n_iters * job.steps_per_iteration
    if not progress.before:
        before = job.scorer.exact(job.encoded)
        if np.isnan(before.figures).any():
            raise cause(job.base.model, job.base.name)
        progress.before = {prompt.alias: list(figures) for prompt, figures in zip(before.prompts, before.figures, strict=True)}
    earlier, started = progress.seconds, time.perf_counter()
    if processes.main:
        take_up_metrics(job, progress.iterations)
        processes.start_tracking(flat(config.model_dump(mode="json")))
    reason = progress.finished or None
    if reason is None and progress.last and not progress.under_way:
        reason = reason_to_stop(settings, progress.last)
    promise = "finishing this step and writing a checkpoint; once more to stop at once"
    _train_mode(job.base, on=True)
    with Interrupts(job.scorer.notice, promise, patient=processes.count > 1) as interrupts:

        def between() -> None:
            if interrupts.asked and processes.count == 1:
                raise _AskedToStopError

        while reason is None and progress.step < steps:
            iteration, place = divmod(progress.step, job.steps_per_iteration)
            optimiser.param_groups[0]["lr"] = rate * rate_share(settings, progress.step, steps)
            try:
                _step(job, optimiser, progress, between)
            except _AskedToStopError:
                optimiser.zero_grad()
                _leave(job, optimiser, progress)
            progress.seconds = earlier + time.perf_counter() - started
            # the end of an iteration: tell, stop, keep
            if place == job.steps_per_iteration - 1:
                seen = _finished_iteration(job, progress)
                if processes.main:
                    tell(job, seen)
                report(seen)
                reason = reason_to_stop(settings, seen)
                if reason is None and (iteration + 1) % config.save_every == 0 and progress.step < steps and processes.main:
                    save_checkpoint(job.run, job.base, optimiser, progress)
            if reason is None and progress.step == steps:
                reason = f"all {many(settings.n_iters, 'iteration')} done"
            progress.finished = reason or ""
            if any(processes.everyones(interrupts.asked)):
                _leave(job, optimiser, progress)
    _train_mode(job.base, on=False)
    progress.finished = reason or f"all {many(settings.n_iters, 'iteration')} done"


def _step(job: Job, optimiser: torch.optim.Optimizer, progress: Progress, between: Callable[[], None]) -> None:
    """One step of the optimiser; raises `InputError` before it when the gradient is no number."""
    # 1. the prompts of this step, its instructions, its random numbers: all follow from the seed and the step
    seed, at_once = job.config.seed, job.settings.prompts_per_step
    iteration, place = divmod(progress.step, job.steps_per_iteration)
    order = random.Random(f"{seed} {iteration}").sample(job.encoded, len(job.encoded))
    batch = order[place * at_once : (place + 1) * at_once]
    first, retention = iteration * len(job.encoded) + place * at_once, job.scorer.retention
    answers = [retention.answer(first + turn) for turn in range(len(batch))] if retention else []
    torch.manual_seed((seed * 1_000_003 + progress.step) % 2**63)
    # 2. gradients, summed over targets and processes
    scores = job.scorer.score(batch, answers, backward=True, between=between)
    norm = float(torch.nn.utils.clip_grad_norm_(job.weights, 1.0))
    if not (np.isfinite(norm) and all(np.isfinite(log_probs).all() for log_probs in scores.log_probs)):
        raise _diverged(job, progress)
    # 3. the step
    optimiser.step()
    optimiser.zero_grad()
    progress.step += 1
    progress.tokens += scores.tokens_fed
    progress.at_once = job.scorer.way.size
    _note(progress, batch, scores, optimiser.param_groups[0]["lr"], norm)


def _optimiser(job: Job, state: dict[int, Any] | None) -> torch.optim.Optimizer:
    """AdamW at the full learning rate, with the moments of an earlier part of the run."""
    rate = learning_rate(job.settings, job.base.model.config.get_text_config().hidden_size)
    optimiser = torch.optim.AdamW(job.weights, lr=rate, betas=_BETAS, eps=1e-5, weight_decay=job.settings.weight_decay, fused=True)
    if state is not None:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return optimiser


class _AskedToStopError(Exception):
    """Ctrl-C between two parts of a step."""


def _note(progress: Progress, batch: list[EncodedPrompt], scores: Scores, rate: float, norm: float) -> None:
    """Add what a step saw to the iteration under way."""
    so_far = progress.under_way or {"loss": 0.0, "kl": {}, "on_target": {}, "kept": [], "norms": [], "rate": rate}
    for prompt, log_probs in zip(batch, scores.log_probs, strict=True):
        so_far["loss"] += float(-np.dot(prompt.trie.weights, log_probs))
        so_far["kl"][prompt.alias], so_far["on_target"][prompt.alias] = figures_of(prompt, log_probs)
    so_far["kept"] += scores.retained
    so_far["norms"].append(norm)
    progress.under_way = so_far


def _finished_iteration(job: Job, progress: Progress) -> Iteration:
    saw, number = progress.under_way, progress.iterations + 1
    due = number % job.config.eval_every == 0
    _train_mode(job.base, on=False)
    test = job.scorer.exact(job.tests if due else [])
    _train_mode(job.base, on=True)
    seen = Iteration(
        number, job.settings.n_iters, progress.step, saw["loss"], sum(e.trie.entropy for e in job.encoded), saw["kl"], saw["on_target"],
        float(np.mean(saw["kept"])) if saw["kept"] else None, saw["rate"], float(np.mean(saw["norms"])), progress.tokens,
        progress.seconds, peak_memory_mb(), test.kl, test.on_target,
    )  # fmt: skip
    progress.iterations, progress.last = number, seen
    progress.under_way = {}
    return seen


def _leave(job: Job, optimiser: torch.optim.Optimizer, progress: Progress) -> NoReturn:
    """Write a checkpoint, wait until it is there, and stop."""
    job.processes.first(lambda: save_checkpoint(job.run, job.base, optimiser, progress))
    done = f"{progress.iterations} of {many(job.settings.n_iters, 'iteration')}"
    raise InterruptedRun(f"{job.run.path}: interrupted after {done}; {_same_command(job.force)} goes on from there")


def _diverged(job: Job, progress: Progress) -> InputError:
    """The weights of this step are bad: a checkpoint of them goes, the one before it stays."""

    def last_good() -> Path | None:
        last = newest_checkpoint(job.run)
        if last is not None and step_of(last) >= progress.step:
            discard_checkpoint(last)
            last = newest_checkpoint(job.run)
        return last

    last = job.processes.first(last_good)
    if not progress.step:  # nothing was learned yet that could be wrong
        return cause(job.base.model, job.base.name)
    kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    overflowed = job.base.model.dtype == torch.float16
    why = ": fp16 overflowed, or steps are too large" if overflowed else ""
    remedy = "set precision to bf16 or fp32, or lower" if overflowed else "lower"
    return InputError(
        f"{job.run.path}: the loss is no number any more after {many(progress.step, 'step')}{why}; {remedy} alg_config.learning_rate "
        f"and start anew with --force ({kept})"
    )
