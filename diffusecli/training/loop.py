"""The training loop: prompts in shuffled order; each step computes the exact gradient over all targets of its prompts.

It uses only the `Job`, no config. Passes are in `loss.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.devices import devices_of, peak_memory_mb
from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import cause
from diffusecli.runs.iteration import Iteration, Step
from diffusecli.runs.run_dir import step_of
from diffusecli.system.errors import InputError, InterruptedRun, many
from diffusecli.system.interrupts import Interrupts
from diffusecli.system.waits import waiting_for
from diffusecli.training.checkpoints import Progress, discard_checkpoint, newest_checkpoint, save_checkpoint
from diffusecli.training.job import Job
from diffusecli.training.processes import Between
from diffusecli.training.questions import Question, by_name, figures_of, sampled
from diffusecli.training.record import record_iteration, resume_metrics
from diffusecli.training.schedule import learning_rate, rate_share, reason_to_stop
from diffusecli.training.scorer import Scores
from diffusecli.training.spelled import loss_of
from diffusecli.training.visits import Visit, drawn_in_a_step, estimable

_BETAS = (0.9, 0.99)
"""AdamW's beta2 is .99, not .999: training takes tens of steps, and the running average must forget the gradients of the
first steps, which are a hundred times larger than the last."""

_WORDINGS_BEFORE = 32
"""Maximum wordings measured before the first step: a sample of those measured after the last, because thousands would take long."""

_WORDINGS_AFTER = 128
"""Maximum wordings measured after the last step."""

_WORDINGS_BETWEEN = 64
"""Maximum wordings of test prompts measured every `eval_every` iterations."""

_PATHS_BETWEEN, _PATHS_AFTER = 256, 4096
"""Maximum paths measured of a large tree: during training, and at the end if exact figures would take hours."""

_MOST_PREFIXES = 500_000
"""Maximum prefixes of all trees together for exact figures at the end."""

_STEPS_BETWEEN = 100
"""Steps between checkpoints within an iteration: an iteration over thousands of prompts takes long."""

Report = Callable[[Iteration], None]
Watch = Callable[[Step], None]


def optimise(job: Job, optimiser: torch.optim.Optimizer, progress: Progress, report: Report, watch: Watch) -> float:
    """Train from `progress` to the end and set `progress.finished` to the reason why training stopped. `watch` receives every step.

    Returns the seconds of this command's training.

    Raises `InterruptedRun` on an interruption, and `InputError` when the loss becomes NaN or infinite.
    """
    settings, processes = job.settings, job.processes
    rate = optimiser.param_groups[0]["lr"]
    steps, first = settings.n_iters * job.steps_per_iteration, progress.first * job.steps_per_iteration
    if not progress.before:
        before = job.scorer.exact(
            _estimable(job, sampled(measured_questions(job), _WORDINGS_BEFORE, f"{job.seed} before")), rounding=True
        )
        if np.isnan(before.figures).any():
            raise cause(job.base.model, job.base.name)
        pairs = zip(before.prompts, before.figures, before.rounding, strict=True)
        progress.before = {
            prompt.alias: [*figures, before.estimated.get(prompt.alias, 0.0), -1.0 if math.isnan(rounding.kl) else rounding.kl]
            for prompt, figures, rounding in pairs
        }
    earlier, started = progress.seconds, time.perf_counter()
    if processes.main:
        resume_metrics(job.run.metrics, progress.iterations, job.scorer.notice)
        processes.start_tracking(job.tracked)
    reason = progress.finished or None
    if reason is None and progress.last and not progress.under_way and progress.iterations > progress.first:
        reason = reason_to_stop(settings, progress.last)
    promise = "finishing this step and writing a checkpoint. Press Ctrl-C again to stop immediately"
    _train_mode(job.base, on=True)
    with Interrupts(job.scorer.notice, promise, patient=processes.count > 1) as interrupts:

        def between(_done: int, _of: int) -> None:
            if interrupts.asked and processes.count == 1:
                raise _AskedToStopError

        while reason is None and progress.step < steps:
            iteration, place = divmod(progress.step, job.steps_per_iteration)
            optimiser.param_groups[0]["lr"] = rate * rate_share(settings, progress.step - first, steps - first, trained=job.trained)
            try:
                kl, on_target = _step(job, optimiser, progress, between)
            except _AskedToStopError:
                job.weights.clear()
                _leave(job, optimiser, progress)
            progress.seconds = earlier + time.perf_counter() - started
            watch(Step(progress.step, steps, kl, on_target, progress.seconds, earlier))
            if progress.step % _STEPS_BETWEEN == 0 and place != job.steps_per_iteration - 1 and processes.main:
                save_checkpoint(job.run, job.base, moments_of(job, optimiser), progress)
            # the end of an iteration: report, stop, save
            if place == job.steps_per_iteration - 1:
                seen = _finished_iteration(job, progress)
                if processes.main:
                    record_iteration(job.run, processes, seen)
                report(seen)
                reason = reason_to_stop(settings, seen)
                if reason is None and (iteration + 1) % job.save_every == 0 and progress.step < steps and processes.main:
                    save_checkpoint(job.run, job.base, moments_of(job, optimiser), progress)
            if reason is None and progress.step == steps:
                reason = _finished(settings.n_iters, progress.first)
            progress.finished = reason or ""
            if any(processes.everyones(interrupts.asked)):
                _leave(job, optimiser, progress)
    _train_mode(job.base, on=False)
    progress.finished = reason or _finished(settings.n_iters, progress.first)
    return progress.seconds - earlier


def _finished(iterations: int, before: int) -> str:
    """The reason why a training ended after all its iterations, of which `before` are of the run that it continues.

    >>> _finished(50, 0), _finished(80, 50)
    ('finished 50 iterations', 'finished 80 iterations (30 more)')
    """
    return f"finished {many(iterations, 'iteration')}{f' ({iterations - before} more)' if before else ''}"


def _step(job: Job, optimiser: torch.optim.Optimizer, progress: Progress, between: Between) -> tuple[float, float]:
    """One optimiser step. Returns the mean KL in nats and the on-target mass of its prompts before the step.

    Raises `InputError` before the step when the gradient is NaN or infinite.
    """
    # 1. prompts, instructions and random numbers of this step, all from the seed and the step
    visits, answers = job.prompts.visits.step(progress.step)
    torch.manual_seed((job.seed * 1_000_003 + progress.step) % 2**63)
    # 2. gradients, summed over targets and processes
    with waiting_for(f"step {progress.step + 1}") as advance:

        def parts(done: int, of: int) -> None:
            between(done, of)
            advance(done, of)

        scores = job.scorer.score([visit.encoded for visit in visits], answers, backward=True, between=parts)
    norm = float(torch.nn.utils.clip_grad_norm_(job.weights.vectors, 1.0))
    if not (np.isfinite(norm) and all(np.isfinite(log_probs).all() for log_probs in scores.log_probs)):
        raise diverged(job, progress)
    # 3. the step
    optimiser.step()
    job.weights.clear()
    progress.step += 1
    progress.tokens += scores.tokens_fed
    progress.at_once = job.scorer.strategy.size
    return _note(job, progress, visits, scores, optimiser.param_groups[0]["lr"], norm)


def measured_questions(job: Job) -> list[Question]:
    """The training prompts that are measured at the end: all, or a sample fixed by the seed."""
    return sampled(job.prompts.questions, _WORDINGS_AFTER, f"{job.seed} after")


def make_optimiser(job: Job, state: dict[int, Any] | None) -> torch.optim.Optimizer:
    """AdamW at the full learning rate; with the moments in `state` if the run resumes."""
    rate = learning_rate(job.settings, job.base.model.config.get_text_config().hidden_size)
    optimiser = torch.optim.AdamW(
        job.weights.vectors, lr=rate, betas=_BETAS, eps=1e-5, weight_decay=job.settings.weight_decay, fused=True
    )
    if state:  # empty if the run was interrupted before its first step
        optimiser.load_state_dict({**optimiser.state_dict(), "state": job.weights.joined(state)})
    return optimiser


def moments_of(job: Job, optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state by weight."""
    return job.weights.split(optimiser.state_dict()["state"])


def _estimable(job: Job, questions: list[Question]) -> list[Question]:
    return [estimable(question, job.settings, _PATHS_BETWEEN) for question in questions]


def measurable(job: Job, questions: list[Question]) -> list[Question]:
    """The questions. Reduced to sampled paths if there are too many prefixes in total, or if answers are in parts."""
    prefixes = sum(len(wording.trie.internal) for q in questions for wording in q.wordings)
    few = _PATHS_AFTER // max(1, len(questions)) + 2
    listed = [estimable(q, job.settings, few) for q in questions] if prefixes > _MOST_PREFIXES else questions
    return [estimable(q, job.settings, _PATHS_BETWEEN) if q.prompt.in_parts else q for q in listed]


class _AskedToStopError(Exception):
    """Interruption between two parts of a step."""


def _note(job: Job, progress: Progress, visits: list[Visit], scores: Scores, rate: float, norm: float) -> tuple[float, float]:
    """Add a step's figures to the current iteration, by prompt or (if many) by folder. Returns the step's mean KL and on-target mass."""
    so_far = progress.under_way or {"loss": 0.0, "seen": {}, "kept": [], "norms": [], "rate": rate}
    prompts = len({visit.question.alias for visit in visits})
    kl = on_target = 0.0
    for visit, log_probs in zip(visits, scores.log_probs, strict=True):
        share = visit.share * prompts  # share of its prompt's figures
        so_far["loss"] += loss_of(visit.encoded, log_probs) * prompts
        found = figures_of(visit.encoded, log_probs)
        sums = so_far["seen"].setdefault(job.prompts.shown_as[visit.question.alias], [0.0, 0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, found.kl, found.on_target, share * found.error**2)):
            sums[place] += share * value
        kl, on_target = kl + visit.share * found.kl, on_target + visit.share * found.on_target
    so_far["kept"] += [float(kl.mean()) for kl in scores.divergences]
    so_far["norms"].append(norm)
    progress.under_way = so_far
    return kl, on_target


def _finished_iteration(job: Job, progress: Progress) -> Iteration:
    saw, number = progress.under_way, progress.iterations + 1
    tests = job.prompts.tests if number % job.eval_every == 0 else []
    tests = sampled(tests, _WORDINGS_BETWEEN, f"{job.seed} between")
    drawn_from = _drawn_from(job) if number % (job.settings.exact_every or number + 1) == 0 else []
    if tests or drawn_from:
        _train_mode(job.base, on=False)
    exact = by_name(job.scorer.exact(measurable(job, drawn_from)), job.prompts.shown_as)[0] if drawn_from else {}
    test = job.scorer.exact(_estimable(job, tests))
    order = [name for name in dict.fromkeys(job.prompts.shown_as.values()) if name in saw["seen"]]
    kl, on_target = ({name: saw["seen"][name][place] / saw["seen"][name][0] for name in order} for place in (1, 2))
    prompts = sum(sums[0] for sums in saw["seen"].values())
    means = [sum(sums[place] for sums in saw["seen"].values()) / prompts for place in (1, 2)]
    mean_test = [float(mean) for mean in np.mean(test.figures, axis=0)] if tests else [None, None]
    if tests or drawn_from:
        _train_mode(job.base, on=True)
    variances = {name: sums[3] for name, sums in saw["seen"].items() if sums[3]}
    errors = {name: math.sqrt(variance) / saw["seen"][name][0] for name, variance in variances.items()}
    loss_error = math.sqrt(sum(variances.values()))
    seen = Iteration(
        number, job.settings.n_iters, progress.step, saw["loss"], sum(q.entropy for q in job.prompts.questions), kl, on_target,
        float(np.mean(saw["kept"])) if saw["kept"] else None, saw["rate"], float(np.mean(saw["norms"])), progress.tokens,
        progress.seconds, peak_memory_mb(devices_of(job.base.model)), *by_name(test, job.prompts.shown_as),
        *means, *mean_test,
    )  # fmt: skip
    seen = replace(seen, kl_error=errors, mean_kl_error=loss_error / prompts, loss_error=loss_error, exact_kl=exact)
    progress.iterations, progress.last = number, seen
    progress.under_way = {}
    return seen


def _drawn_from(job: Job) -> list[Question]:
    """The prompts with listed targets whose steps sample targets."""
    listed = [question for question in job.prompts.questions if not question.prompt.in_parts]
    return [q for q in listed if any(drawn_in_a_step(job.settings, wording) is not None for wording in q.wordings)]


def _leave(job: Job, optimiser: torch.optim.Optimizer, progress: Progress) -> NoReturn:
    """Write a checkpoint, wait until it is written, and stop."""
    job.processes.first(lambda: save_checkpoint(job.run, job.base, moments_of(job, optimiser), progress))
    done = f"{progress.iterations} of {many(job.settings.n_iters, 'iteration')}"
    raise InterruptedRun(f"{job.run.path}: interrupted after {done}. Run {job.command} to resume")


def diverged(job: Job, progress: Progress) -> InputError:
    """The error for diverged weights. A checkpoint of this step is deleted, the previous one is kept."""

    def last_good() -> Path | None:
        last = newest_checkpoint(job.run)
        if last is not None and step_of(last) >= progress.step:
            discard_checkpoint(last)
            last = newest_checkpoint(job.run)
        return last

    last = job.processes.first(last_good)
    if not progress.step:  # before training: the base model itself is the cause
        return cause(job.base.model, job.base.name)
    if progress.continued_at:
        folders = f" Remove {job.run.path}/checkpoint-* first." if last else ""
        return InputError(
            f"{job.run.path}: the loss is NaN or infinite after {many(progress.step, 'step')}. The finished run is unchanged. Use --more with "
            f"a lower alg_config.learning_rate.{folders}"
        )
    kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint"
    overflowed = job.base.model.dtype == torch.float16
    why = ": fp16 overflowed or the learning rate is too high" if overflowed else ""
    remedy = "Set precision to bf16 or fp32, or lower" if overflowed else "Lower"
    return InputError(
        f"{job.run.path}: the loss is NaN or infinite after {many(progress.step, 'step')}{why}. {remedy} alg_config.learning_rate "
        f"and restart with --force ({kept})"
    )


def _train_mode(base: LoadedModel, on: bool) -> None:
    """Set only LoRA dropout and checkpointed layers to train mode.

    Dropout in the base model would make the exact figures noisy.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    base.model.eval()
    for name, module in base.model.named_modules():
        if "lora_dropout" in name or isinstance(module, GradientCheckpointingLayer):
            module.training = on
