"""`diffuse train`: tune a LoRA adapter until the model's answers follow the target weights.

One loop: prompts in shuffled order, for each the exact full-batch gradient over all its targets and a
little of what holds the model to its old answers, then one optimiser step. Knows the config and the run
directory; what a pass costs and how it is done is `loss.py`'s business.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError

from diffusecli.budget import Plan, estimated_memory, fastest_part, fitting_part, free_memory, peak_memory_mb
from diffusecli.builtin import Notice
from diffusecli.checkpoints import (
    Progress,
    discard_checkpoint,
    discard_checkpoints,
    load_progress,
    newest_checkpoint,
    save_checkpoint,
    step_of,
)
from diffusecli.config import AlgConfig, Config
from diffusecli.encoding import EncodedPrompt, encode_prompt
from diffusecli.errors import InputError, InterruptedRun
from diffusecli.fused import fuse
from diffusecli.generations import generate
from diffusecli.interrupts import Interrupts
from diffusecli.loss import PackedPass, Pass, RowsPass, choose_pass, longest, row_length
from diffusecli.models import (
    ADAPTER_FILES,
    LoadedModel,
    attach_lora,
    load_adapter,
    load_configured,
    load_shape,
    load_tokenizer,
    save_adapter,
    shape_of,
)
from diffusecli.processes import Processes
from diffusecli.prompt import Prompt, read_prompts
from diffusecli.report.card import model_card
from diffusecli.retention import prepare, read_instructions
from diffusecli.runs import (
    Iteration,
    RunDir,
    cannot_write,
    environment,
    move_into,
    prompts_as_json,
    require_space,
    require_writable,
    write_json,
    write_text,
)
from diffusecli.sampling import SamplingSettings
from diffusecli.schedule import learning_rate, rate_share, reason_to_stop
from diffusecli.scorer import Exact, Scorer, Scores, figures_of

GENERATIONS = SamplingSettings(n_generations=1000, max_new_tokens=64)
"""What the original draws for each test prompt after training."""

_BETAS = (0.9, 0.99)
"""The second of AdamW's decays is .99, not .999: training lasts tens of steps, and the gradient of the
first ones, a hundred times the last, must be forgotten."""

_NOT_THE_RESULT = {"test_prompts", "output_dir", "generate", "save_every", "eval_every", "tracker", "device", "device_map"}
_NOT_THE_GRADIENT = {"max_tokens_per_pass", "batch_size", "gradient_checkpointing"}
"""Settings, of a run and of its algorithm, that may differ between a run and its continuation (the last only round differently)."""


@dataclass(frozen=True)
class Trained:
    """What a finished training leaves: where, why it stopped, and exact figures before and after."""

    run: RunDir
    reason: str
    before: Exact
    after: Exact
    test: Exact  # of test prompts that were not trained on
    retention_kl: float | None  # of the held-out instructions, nats per token
    seconds: float


Report = Callable[[Iteration], None]


@dataclass(frozen=True)
class _Job:
    """All that the loop works with; nothing of it changes but the weights."""

    config: Config
    run: RunDir
    base: LoadedModel
    encoded: list[EncodedPrompt]
    tests: list[EncodedPrompt]
    scorer: Scorer
    force: bool

    @property
    def processes(self) -> Processes:
        return self.scorer.processes

    @property
    def settings(self) -> AlgConfig:
        return self.config.alg_config

    @property
    def steps_per_iteration(self) -> int:
        return -(-len(self.encoded) // self.settings.prompts_per_step)

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        return [p for p in self.base.model.parameters() if p.requires_grad]


def plan(config: Config, notice: Notice) -> Plan:
    """Encode the prompts and estimate the cost; raises what `train` would raise for the inputs."""
    prompts = _read_inputs(config).train
    tokenizer = load_tokenizer(config.model, notice, revision=config.revision, trust_remote_code=config.trust_remote_code)
    shape = load_shape(config.model, notice, revision=config.revision, trust_remote_code=config.trust_remote_code)
    encoded = [encode_prompt(prompt, tokenizer) for prompt in prompts]
    _require_context(encoded, shape.context)
    tokens = {}
    for e in encoded:
        rows = sum(part.tokens for part in RowsPass(1).parts(e))
        tokens[e.alias] = (len(e.prompt.targets), e.prompt.entropy, sum(part.tokens for part in PackedPass().parts(e)), rows)
    chosen = config.alg_config.max_tokens_per_pass
    most = max(fastest_part(shape, max(len(e.prompt_ids) for e in encoded)) if chosen == "auto" else chosen, 1)
    at_once = max(part.tokens for e in encoded for part in PackedPass(most).parts(e))
    settings = config.alg_config
    return Plan(
        tokens,
        steps=settings.n_iters * -(-len(encoded) // settings.prompts_per_step),
        tokens_in_all=settings.n_iters * sum(packed for _, _, packed, _ in tokens.values()),
        learning_rate=learning_rate(config.alg_config, shape.hidden_size),
        parameters=shape.parameters,
        memory_gb=estimated_memory(shape, config, at_once, at_once) / 1e9,
    )


def train(config: Config, *, report: Report, notice: Notice, force: bool = False) -> Trained:
    """Train as `config` says, or go on where it was interrupted; then write the run directory and sample the test prompts.

    Raises `InputError` for what is wrong with the inputs before any model is loaded where that can be told, and
    `InterruptedRun` when it was asked to stop and left a checkpoint.
    """
    # 1. inputs: prompts, a writable output folder, what an interrupted run left there
    inputs = _read_inputs(config)
    run = RunDir(Path(config.output_dir))
    checkpoint = None if force else newest_checkpoint(run)
    if (run.manifest.is_file() or run.has_adapter) and not force and checkpoint is None:
        raise InputError(f"{run.path}: holds a finished run already, add --force to replace it or name another output_dir")
    if checkpoint is None and config.load_model and config.ckpt_dir is not None:
        _require_start(Path(config.ckpt_dir), run)
    require_writable(run.path)
    processes = Processes(config.device, config.tracker, run.path)
    if config.device_map and processes.count > 1:
        raise InputError("device_map: is for one process, remove it or start without a launcher")

    # 2. model, adapter, tries
    torch.manual_seed(config.seed)  # of the adapter's first weights
    base = load_configured(config, notice, device="cpu" if processes.sharded else str(processes.device))
    asked = _asked(config, inputs, base, processes)
    progress, optimiser_state = load_progress(checkpoint, asked) if checkpoint else (Progress(asked), None)
    config = _adapt(base, config, checkpoint, notice)
    _prepare_weights(base, config, run, processes)
    job, why = _make_job(base, config, inputs, run, processes, progress, notice, force)

    # 3. the loop
    if checkpoint is None:
        _start_anew(job)
    else:
        done = len(progress.iterations)
        notice(f"{run.path}: going on after {done} of {config.alg_config.n_iters} iterations ({progress.step} steps)")
    optimiser = _optimiser(job, optimiser_state)
    reason = _optimise(job, optimiser, progress, report)

    # 4. exact figures of the final adapter, and everything to disk; the last checkpoint stays until all is there
    after, test = job.scorer.exact(job.encoded), job.scorer.exact(job.tests)
    if not after.finite:
        raise _diverged(job, progress)
    if processes.main:
        save_checkpoint(run, base, optimiser, progress)
    drift = job.scorer.retention.drift(base.model) if job.scorer.retention else None
    before = Exact({a: kl for a, (kl, _) in progress.before.items()}, {a: mass for a, (_, mass) in progress.before.items()})
    trained = Trained(run, reason, before, after, test, drift, progress.seconds)
    if processes.main:
        _save(job, [*inputs.train, *inputs.test], trained, why, progress)
    if config.generate and inputs.test:
        generations = replace(GENERATIONS, seed=config.seed)
        notice(f"sampling {generations.n_generations} answers for each of {len(inputs.test)} test prompts")
        generate(
            base, inputs.test, generations, adapter=run, path=run.path / "gen.json", report=lambda *_: None, write=processes.main
        )
    if processes.main:
        discard_checkpoints(run)
    processes.finish()
    return trained


@dataclass(frozen=True)
class _Inputs:
    """The prompts of a config, read and checked."""

    train: list[Prompt]
    test: list[Prompt]
    instructions: list[Prompt]  # to hold on to; none when retention is off


def _read_inputs(config: Config) -> _Inputs:
    if not config.train_prompts:
        raise InputError("train_prompts is empty: name at least one prompt file or folder")
    prompts = read_prompts(config.train_prompts)
    if empty := [prompt.alias for prompt in prompts if not prompt.targets]:
        raise InputError(f"{empty[0]}: has no targets to train on, move it to test_prompts")
    return _Inputs(prompts, read_prompts(config.test_prompts), read_instructions(config.retain) if config.retain else [])


def _asked(config: Config, inputs: _Inputs, base: LoadedModel, processes: Processes) -> dict[str, Any]:
    """What makes the result; a run goes on only where it is the same."""
    told = {k: v for k, v in config.model_dump(mode="json").items() if k not in _NOT_THE_RESULT}
    told["alg_config"] = {k: v for k, v in told["alg_config"].items() if k not in _NOT_THE_GRADIENT}
    prompts = {p.alias: p.digest for p in [*inputs.train, *inputs.instructions]}
    return {**told, "prompts": prompts, "model_revision": base.revision, "processes": processes.count}


def _prepare_weights(base: LoadedModel, config: Config, run: RunDir, processes: Processes) -> None:
    """Faster LoRA layers, checkpointed layers, a spread base; room on the disk for what will be trained."""
    fuse(base.model)
    if config.alg_config.gradient_checkpointing:
        base.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    # two checkpoints of weights and two moments, a third under way, and the adapter
    require_space(run.path, round(sum(p.numel() for p in base.model.parameters() if p.requires_grad) * 4 * 10 / 1e6) + 10)
    if processes.sharded:
        processes.shard(base.model)


def _make_job(
    base: LoadedModel, config: Config, inputs: _Inputs, run: RunDir, processes: Processes, progress: Progress, notice: Notice,
    force: bool,
) -> tuple[_Job, str]:  # fmt: skip
    """Encode the prompts, choose the pass (and say why), and let the base answer what it is to be held to."""
    encoded, tests = ([encode_prompt(p, base.tokenizer, base.eos_ids) for p in some] for some in (inputs.train, inputs.test))
    _require_context([*encoded, *tests], shape_of(base.model.config, 0).context)
    for remark in dict.fromkeys(remark for e in encoded for remark in e.remarks):
        notice(remark)
    way, why = _choose_way(base, encoded, config, processes, progress)
    notice(f"{len(encoded)} prompts, {sum(len(e.trie.leaves) for e in encoded)} targets; {why}")
    retention = None
    if config.retain:
        retention = prepare(
            base, config.retain, inputs.instructions, seed=config.seed, packed=isinstance(way, PackedPass), notice=notice,
            agreed=lambda cached: all(processes.everyones(cached)), write=processes.main,
        )  # fmt: skip
    trained_on = {e.alias for e in encoded}
    tests = [e for e in tests if e.prompt.targets and e.alias not in trained_on]
    return _Job(config, run, base, encoded, tests, Scorer(base.model, way, retention, processes, notice), force), why


def _require_start(start: Path, run: RunDir) -> None:
    """Raises `InputError` when there is no adapter to start from, or when it would be removed by what starts from it."""
    if not RunDir(start).has_adapter:
        raise InputError(f"{start}: ckpt_dir holds no adapter, train what makes it first")
    if start.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{start}: ckpt_dir is in the output_dir, which is emptied first; name another output_dir")


def _require_context(encoded: Sequence[EncodedPrompt], context: int | None) -> None:
    """Raises `InputError` for a prompt whose longest target leaves the model's context."""
    for e in encoded:
        if context is not None and row_length(e) > context:
            raise InputError(
                f"{e.alias}: the request with its longest target is {row_length(e)} tokens, the model takes {context}; shorten it"
            )


def _adapt(base: LoadedModel, config: Config, checkpoint: Path | None, notice: Notice) -> Config:
    """Put on the adapter of the checkpoint, of ckpt_dir, or a new one; returns the config with the adapter's own settings."""
    lora = config.lora
    if checkpoint is not None:
        load_adapter(base, checkpoint, trainable=True)
    elif config.load_model and config.ckpt_dir is not None:
        RunDir(Path(config.ckpt_dir)).require_trained_on(base.name, base.revision)
        load_adapter(base, config.ckpt_dir, trainable=True)
    else:
        attach_lora(
            base, rank=lora.r, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, rslora=lora.rslora, dora=lora.dora
        )
        return config
    has = base.model.peft_config["default"]
    own = lora.model_copy(update={
        "r": has.r, "alpha": float(has.lora_alpha), "dropout": has.lora_dropout, "rslora": has.use_rslora, "dora": has.use_dora,
    })  # fmt: skip
    if own != lora:
        notice(
            f"the adapter keeps its own shape: r {own.r}, alpha {own.alpha:g}, dropout {own.dropout:g}; lora in the config is not used"
        )
    return config.model_copy(update={"lora": own})


def _train_mode(base: LoadedModel, on: bool) -> None:
    """Only what this training is meant to do: dropout before the adapter, checkpointed layers.

    Dropout of the base itself would blur the exact figures.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    base.model.eval()
    for name, module in base.model.named_modules():
        if "lora_dropout" in name or isinstance(module, GradientCheckpointingLayer):
            module.training = on


def _choose_way(
    base: LoadedModel, encoded: list[EncodedPrompt], config: Config, processes: Processes, progress: Progress
) -> tuple[Pass, str]:
    """The pass that the model takes, in parts of the size that was asked for, or is fastest and fits, or was used before."""
    settings, shape = config.alg_config, shape_of(base.model.config, base.parameters)
    chosen = settings.max_tokens_per_pass
    if chosen == "auto":
        fastest = fastest_part(shape, max(len(e.prompt_ids) for e in encoded))
        most = int(min(processes.everyones(min(fastest, fitting_part(shape, config, free_memory(base.device))))))
    else:
        most = chosen
    most = min(most, shape.context or most)  # some models count places in the packed sequence
    way, why = choose_pass(base.model, longest(encoded), batch_size=settings.batch_size, max_tokens=most)
    if progress.at_once is None or settings.max_tokens_per_pass != "auto":
        progress.at_once = way.size
    return way.sized(progress.at_once), why


def _start_anew(job: _Job) -> None:
    """What an earlier run left in the folder goes; from here on it belongs to this one."""
    if not job.processes.main:
        return
    try:
        discard_checkpoints(job.run)
        for leftover in job.run.path.glob(".adapter.*"):  # of a run that was killed while saving
            shutil.rmtree(leftover, ignore_errors=True)
        job.run.discard_trained()
        write_text(job.run.config, job.config.to_yaml())
    except OSError as error:
        raise cannot_write(job.run.path, error) from error


def _optimise(job: _Job, optimiser: torch.optim.Optimizer, progress: Progress, report: Report) -> str:
    """The training loop; returns why it stopped."""
    config, settings, processes = job.config, job.settings, job.processes
    rate = optimiser.param_groups[0]["lr"]
    steps = settings.n_iters * job.steps_per_iteration
    if not progress.before:
        before = job.scorer.exact(job.encoded)
        progress.before = {alias: [kl, before.on_target[alias]] for alias, kl in before.kl.items()}
    earlier, started = progress.seconds, time.perf_counter()
    if processes.main:
        write_text(job.run.metrics, "".join(_line(seen) for seen in progress.iterations))
        processes.start_tracking(_flat(config.model_dump(mode="json")))
    reason = reason_to_stop(settings, progress.iterations[-1]) if progress.iterations and not progress.under_way else None
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
                    _tell(job, seen)
                report(seen)
                reason = reason_to_stop(settings, seen)
                if reason is None and (iteration + 1) % config.save_every == 0 and progress.step < steps and processes.main:
                    save_checkpoint(job.run, job.base, optimiser, progress)
            if any(processes.everyones(interrupts.asked)) and reason is None and progress.step < steps:
                _leave(job, optimiser, progress)
    _train_mode(job.base, on=False)
    return reason or f"all {settings.n_iters} iterations done"


def _step(job: _Job, optimiser: torch.optim.Optimizer, progress: Progress, between: Callable[[], None]) -> None:
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


def _optimiser(job: _Job, state: dict[int, Any] | None) -> torch.optim.Optimizer:
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


def _finished_iteration(job: _Job, progress: Progress) -> Iteration:
    saw, number = progress.under_way, len(progress.iterations) + 1
    due = number % job.config.eval_every == 0
    _train_mode(job.base, on=False)
    test = job.scorer.exact(job.tests if due else [])
    _train_mode(job.base, on=True)
    seen = Iteration(
        number, job.settings.n_iters, progress.step, saw["loss"], sum(e.trie.entropy for e in job.encoded), saw["kl"], saw["on_target"],
        float(np.mean(saw["kept"])) if saw["kept"] else None, saw["rate"], float(np.mean(saw["norms"])), progress.tokens,
        progress.seconds, peak_memory_mb(), test.kl, test.on_target,
    )  # fmt: skip
    progress.iterations.append(seen)
    progress.under_way = {}
    return seen


def _tell(job: _Job, seen: Iteration) -> None:
    """A line of metrics.jsonl at once, and the same figures to the tracker."""
    try:
        with job.run.metrics.open("a", encoding="utf-8") as file:
            file.write(_line(seen))
    except OSError as error:
        raise cannot_write(job.run.metrics, error) from error
    job.processes.track(_flat({k: v for k, v in asdict(seen).items() if k not in ("iteration", "of")}), seen.iteration)


def _line(seen: Iteration) -> str:
    return json.dumps(asdict(seen), ensure_ascii=False) + "\n"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings or figures as `a/b: value`; numbers, words and truth values are kept, lists become text."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif value is not None:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return flat


def _leave(job: _Job, optimiser: torch.optim.Optimizer, progress: Progress) -> NoReturn:
    """Write a checkpoint, wait until it is there, and stop."""
    if job.processes.main:
        save_checkpoint(job.run, job.base, optimiser, progress)
    job.processes.everyones(None)
    done = f"{len(progress.iterations)} of {job.settings.n_iters} iterations"
    how = "the same command without --force" if job.force else "the same command"
    raise InterruptedRun(f"{job.run.path}: interrupted after {done}; {how} goes on from there")


def _diverged(job: _Job, progress: Progress) -> InputError:
    """The weights of this step are bad: a checkpoint of them goes, the one before it stays."""
    last = newest_checkpoint(job.run)
    if last is not None and step_of(last) >= progress.step and job.processes.main:
        discard_checkpoint(last)
        last = newest_checkpoint(job.run)
    kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return InputError(
        f"{job.run.path}: the loss is no number any more after {progress.step} steps; lower alg_config.learning_rate "
        f"and start anew with --force ({kept})"
    )


def _save(job: _Job, prompts: list[Prompt], trained: Trained, why: str, progress: Progress) -> None:
    """Adapter last but manifest: a run with a `run.json` is whole."""
    run = trained.run
    try:
        write_text(run.config, job.config.to_yaml())
        write_json(run.prompts, prompts_as_json(prompts))
        with tempfile.TemporaryDirectory(prefix=".adapter.", dir=run.path) as scratch:
            save_adapter(job.base, Path(scratch))
            move_into(run.path, (Path(scratch) / name for name in ADAPTER_FILES))
        manifest = _manifest(job, prompts, trained, why, progress)
        write_text(run.card, model_card(manifest, prompts))
        write_json(run.manifest, manifest)
    except (OSError, SafetensorError) as error:
        raise cannot_write(run.path, error) from error


def _manifest(job: _Job, prompts: list[Prompt], trained: Trained, why: str, progress: Progress) -> dict[str, Any]:
    base, retention = job.base, job.scorer.retention
    return {
        "model": base.name,
        "model_revision": base.revision,
        "parameters": base.parameters,
        "device": str(base.device),
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "processes": job.processes.count,
        "seed": job.config.seed,
        "loss_pass": why,
        "pass_size": progress.at_once,
        "stopped": trained.reason,
        "iterations": len(progress.iterations),
        "steps": progress.step,
        "training_seconds": round(trained.seconds, 2),
        "tokens_fed": progress.tokens,
        "peak_memory_mb": peak_memory_mb(),
        "exact_kl_before": trained.before.kl,
        "exact_on_target_before": trained.before.on_target,
        "exact_kl": trained.after.kl,
        "exact_on_target": trained.after.on_target,
        "exact_kl_test": trained.test.kl,
        "exact_on_target_test": trained.test.on_target,
        "retention_kl": trained.retention_kl,
        "retention": None if retention is None else {
            "weight": retention.weight, "instructions": len(retention.kept), "held_out": len(retention.held_out),
        },
        "adapter_sha256": trained.run.adapter_sha256,
        "prompt_sha256": {p.alias: p.digest for p in prompts},
        **environment(),
    }  # fmt: skip
