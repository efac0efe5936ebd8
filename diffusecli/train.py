"""`diffuse train`: tune a LoRA adapter until the model's answers follow the target weights.

One loop: prompts in shuffled order, for each the exact full-batch gradient over all its targets and a
little of what holds the model to its old answers, then one optimiser step. Knows the config and the run
directory; what a pass costs and how it is done is `loss.py`'s business.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusecli.budget import Plan, estimated_memory, fastest_part, fitting_part, free_memory, peak_memory_mb
from diffusecli.builtin import Notice
from diffusecli.checkpoints import Progress, discard_checkpoints, load_progress, newest_checkpoint, save_checkpoint
from diffusecli.config import AlgConfig, Config
from diffusecli.encoding import EncodedPrompt, encode_prompt
from diffusecli.errors import InputError, InterruptedRun, MachineError
from diffusecli.fused import fuse
from diffusecli.generations import generate
from diffusecli.interrupts import Interrupts
from diffusecli.loss import PackedPass, Pass, RowsPass, choose_pass, longest, row_length, target_log_probs
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
from diffusecli.processes import OutOfMemoryError, Piece, Processes
from diffusecli.prompt import Prompt, read_prompts
from diffusecli.report.card import model_card
from diffusecli.retention import Retention, prepare, read_instructions
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

GENERATIONS = SamplingSettings(n_generations=1000, max_new_tokens=64)
"""What the original draws for each test prompt after training."""

_BETAS = (0.9, 0.99)
"""The second of AdamW's decays is .99, not .999: training lasts tens of steps, and the gradient of the
first ones, a hundred times the last, must be forgotten."""

_NOT_THE_RESULT = {"test_prompts", "output_dir", "generate", "save_every", "eval_every", "tracker", "device", "device_map"}
"""Settings that may differ between a run and its continuation."""


@dataclass(frozen=True)
class Exact:
    """Exact figures of a model on some prompts: alias -> KL(target || model) in nats, alias -> mass on target."""

    kl: dict[str, float]
    on_target: dict[str, float]


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
    retention: Retention | None
    processes: Processes
    notice: Notice

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
    prompts, _ = _read_inputs(config)
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
    prompts, test_prompts = _read_inputs(config)
    instructions = read_instructions(config.retain) if config.retain else []
    run = RunDir(Path(config.output_dir))
    checkpoint = None if force else newest_checkpoint(run)
    if (run.manifest.is_file() or run.has_adapter) and not force and checkpoint is None:
        raise InputError(f"{run.path}: holds a finished run already, add --force to replace it or name another output_dir")
    if config.load_model and config.ckpt_dir is not None and not RunDir(Path(config.ckpt_dir)).has_adapter:
        raise InputError(f"{config.ckpt_dir}: ckpt_dir holds no adapter, train what makes it first")
    require_writable(run.path)
    processes = Processes(config.device, config.tracker, run.path)

    # 2. model, adapter, tries
    torch.manual_seed(config.seed)  # of the adapter's first weights
    base = load_configured(config, notice, device=str(processes.device))
    asked = {
        **{k: v for k, v in config.model_dump(mode="json").items() if k not in _NOT_THE_RESULT},
        "prompts": {p.alias: p.digest for p in [*prompts, *instructions]}, "model_revision": base.revision,
        "processes": processes.count,
    }  # fmt: skip
    progress, optimiser_state = load_progress(checkpoint, asked) if checkpoint else (Progress(asked), None)
    _adapt(base, config, checkpoint)
    _prepare_layers(base, config)
    # two checkpoints of weights and two moments at a time, and the adapter
    require_space(run.path, round(sum(p.numel() for p in base.model.parameters() if p.requires_grad) * 4 * 7 / 1e6) + 10)
    if processes.sharded:
        processes.shard(base.model)
    encoded, tests = ([encode_prompt(p, base.tokenizer, base.eos_ids) for p in some] for some in (prompts, test_prompts))
    _require_context([*encoded, *tests], shape_of(base.model.config, 0).context)
    for remark in dict.fromkeys(remark for e in encoded for remark in e.remarks):
        notice(remark)
    way, why = _choose_way(base, encoded, config, processes, progress)
    notice(f"{len(encoded)} prompts, {sum(len(e.trie.leaves) for e in encoded)} targets; {why}")
    retention = None
    if config.retain:
        retention = prepare(
            base, config.retain, instructions, seed=config.seed, packed=isinstance(way, PackedPass), notice=notice,
            agreed=lambda cached: all(processes.everyones(cached)), write=processes.main,
        )  # fmt: skip
    trained_on = {e.alias for e in encoded}
    tests = [e for e in tests if e.prompt.targets and e.alias not in trained_on]
    job = _Job(config, run, base, encoded, tests, retention, processes, notice)

    # 3. the loop
    if checkpoint is None:
        _start_anew(job)
    else:
        done = len(progress.iterations)
        notice(f"{run.path}: going on after {done} of {config.alg_config.n_iters} iterations ({progress.step} steps)")
    reason, way = _optimise(job, way, progress, optimiser_state, report)

    # 4. exact figures of the final adapter, and everything to disk
    after, test = exact_figures(job, encoded, way), exact_figures(job, tests, way)
    if not np.isfinite(list(after.kl.values())).all():
        raise _diverged(job, len(progress.iterations))
    drift = retention.drift(base.model, packed=isinstance(way, PackedPass)) if retention else None
    before = Exact({a: kl for a, (kl, _) in progress.before.items()}, {a: mass for a, (_, mass) in progress.before.items()})
    trained = Trained(run, reason, before, after, test, drift, progress.seconds)
    if processes.main:
        _save(job, [*prompts, *test_prompts], trained, why, progress)
    if config.generate and test_prompts:
        generations = replace(GENERATIONS, seed=config.seed)
        notice(f"sampling {generations.n_generations} answers for each of {len(test_prompts)} test prompts")
        generate(
            base, test_prompts, generations, adapter=run, path=run.path / "gen.json", report=lambda *_: None, write=processes.main
        )
    processes.finish()
    return trained


def exact_figures(job: _Job, encoded: Sequence[EncodedPrompt], way: Pass) -> Exact:
    """Exact KL(p || q) in nats and exact on-target mass per prompt, one forward pass each."""
    scores = _score_together(job, encoded, way)[0]
    figures = {e.alias: _figures(e, log_probs) for e, log_probs in zip(encoded, scores, strict=True)}
    return Exact({a: kl for a, (kl, _) in figures.items()}, {a: mass for a, (_, mass) in figures.items()})


def _read_inputs(config: Config) -> tuple[list[Prompt], list[Prompt]]:
    if not config.train_prompts:
        raise InputError("train_prompts is empty: name at least one prompt file or folder")
    prompts = read_prompts(config.train_prompts)
    if empty := [prompt.alias for prompt in prompts if not prompt.targets]:
        raise InputError(f"{empty[0]}: has no targets to train on, move it to test_prompts")
    return prompts, read_prompts(config.test_prompts)


def _require_context(encoded: Sequence[EncodedPrompt], context: int | None) -> None:
    """Raises `InputError` for a prompt whose longest target leaves the model's context."""
    for e in encoded:
        if context is not None and row_length(e) > context:
            raise InputError(
                f"{e.alias}: the request with its longest target is {row_length(e)} tokens, the model takes {context}; shorten it"
            )


def _adapt(base: LoadedModel, config: Config, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        load_adapter(base, checkpoint, trainable=True)
    elif config.load_model and config.ckpt_dir is not None:
        load_adapter(base, config.ckpt_dir, trainable=True)
    else:
        lora = config.lora
        attach_lora(
            base, rank=lora.r, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, rslora=lora.rslora, dora=lora.dora
        )


def _prepare_layers(base: LoadedModel, config: Config) -> None:
    """Faster LoRA layers; checkpointed layers if asked for."""
    fuse(base.model)
    if config.alg_config.gradient_checkpointing:
        base.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})


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
    settings = config.alg_config
    most = settings.max_tokens_per_pass
    if most == "auto":
        shape = shape_of(base.model.config, base.parameters)
        fastest = fastest_part(shape, max(len(e.prompt_ids) for e in encoded))
        most = int(min(processes.everyones(min(fastest, fitting_part(shape, config, free_memory(base.device))))))
    way, why = choose_pass(base.model, longest(encoded), batch_size=settings.batch_size, max_tokens=most)
    if progress.at_once is None:
        progress.at_once = _at_once(way)
    return _with_size(way, progress.at_once), why


def _at_once(way: Pass) -> int | None:
    return way.max_tokens if isinstance(way, PackedPass) else way.batch_size if isinstance(way, RowsPass) else None


def _with_size(way: Pass, at_once: int | None) -> Pass:
    return replace(way, max_tokens=at_once) if isinstance(way, PackedPass) else RowsPass(at_once or 1)


def _halved(way: Pass, encoded: Sequence[EncodedPrompt]) -> Pass | None:
    """The same pass in smaller parts; None when they cannot get smaller."""
    largest = max(part.tokens for e in encoded for part in way.parts(e))
    smaller = _with_size(way, largest // 2 if isinstance(way, PackedPass) else max(1, (_at_once(way) or 1) // 2))
    return smaller if max(part.tokens for e in encoded for part in smaller.parts(e)) < largest else None


def _start_anew(job: _Job) -> None:
    """What an earlier run left in the folder goes; from here on it belongs to this one."""
    if not job.processes.main:
        return
    try:
        discard_checkpoints(job.run)
        job.run.discard_trained()
        write_text(job.run.config, job.config.to_yaml())
    except OSError as error:
        raise cannot_write(job.run.path, error) from error


def _optimise(job: _Job, way: Pass, progress: Progress, optimiser_state: dict[int, Any] | None, report: Report) -> tuple[str, Pass]:
    """The training loop; returns why it stopped, and the pass in the size that fitted."""
    config, settings, processes = job.config, job.settings, job.processes
    rate = learning_rate(settings, job.base.model.config.get_text_config().hidden_size)
    optimiser = _optimiser(job, rate, optimiser_state)
    steps = settings.n_iters * job.steps_per_iteration
    if not progress.before:
        before = exact_figures(job, job.encoded, way)
        progress.before = {alias: [kl, before.on_target[alias]] for alias, kl in before.kl.items()}
    earlier, started = progress.seconds, time.perf_counter()
    if processes.main:
        write_text(job.run.metrics, "".join(_line(seen) for seen in progress.iterations))
        processes.start_tracking(_flat(config.model_dump(mode="json")))
    reason = reason_to_stop(settings, progress.iterations[-1]) if progress.iterations and not progress.under_way else None
    promise = "finishing this step and writing a checkpoint; once more to stop at once"
    _train_mode(job.base, on=True)
    with Interrupts(job.notice, promise) as interrupts:
        while reason is None and progress.step < steps:
            # 1. the prompts of this step, its learning rate, its random numbers: all follow from the seed and the step
            iteration, place = divmod(progress.step, job.steps_per_iteration)
            order = random.Random(f"{config.seed} {iteration}").sample(job.encoded, len(job.encoded))
            batch = order[place * settings.prompts_per_step : (place + 1) * settings.prompts_per_step]
            optimiser.param_groups[0]["lr"] = rate * rate_share(settings, progress.step, steps)
            torch.manual_seed((config.seed * 1_000_003 + progress.step) % 2**63)
            # 2. gradients, summed over targets and processes
            try:
                scores, kept, tokens, way = _gradients(job, batch, way, progress, interrupts)
            except _AskedToStopError:
                optimiser.zero_grad()
                _leave(job, optimiser, progress)
            norm = float(torch.nn.utils.clip_grad_norm_(job.weights, 1.0))
            if not (np.isfinite(norm) and all(np.isfinite(log_probs).all() for log_probs in scores)):
                raise _diverged(job, iteration + 1)
            # 3. the step
            optimiser.step()
            optimiser.zero_grad()
            progress.step += 1
            progress.tokens += tokens
            progress.seconds = earlier + time.perf_counter() - started
            _note(progress, batch, scores, kept, optimiser.param_groups[0]["lr"], norm)
            # 4. the end of an iteration: tell, stop, keep
            if place == job.steps_per_iteration - 1:
                seen = _finished_iteration(job, progress, way)
                if processes.main:
                    _tell(job, seen)
                report(seen)
                reason = reason_to_stop(settings, seen)
                if reason is None and (iteration + 1) % config.save_every == 0 and progress.step < steps and processes.main:
                    save_checkpoint(job.run, job.base, optimiser, progress)
            if any(processes.everyones(interrupts.asked)) and reason is None and progress.step < steps:
                _leave(job, optimiser, progress)
    _train_mode(job.base, on=False)
    if processes.main:
        save_checkpoint(job.run, job.base, optimiser, progress)  # until the run is whole
    return reason or f"all {settings.n_iters} iterations done", way


def _optimiser(job: _Job, rate: float, state: dict[int, Any] | None) -> torch.optim.Optimizer:
    optimiser = torch.optim.AdamW(job.weights, lr=rate, betas=_BETAS, eps=1e-5, weight_decay=job.settings.weight_decay, fused=True)
    if state is not None:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return optimiser


class _AskedToStopError(Exception):
    """Ctrl-C between two parts of a step."""


def _gradients(
    job: _Job, batch: list[EncodedPrompt], way: Pass, progress: Progress, interrupts: Interrupts
) -> tuple[list[np.ndarray], list[float], int, Pass]:
    """Add up the step's gradient; when memory does not suffice, again in smaller parts.

    Returns the paths' log-probabilities of each prompt, the KL per token of each instruction, the tokens fed,
    and the pass in the size that fitted.
    """

    def between() -> None:
        if interrupts.asked and job.processes.count == 1:
            raise _AskedToStopError

    while True:
        try:
            kept = []
            if job.retention is not None:
                first = progress.step * job.settings.prompts_per_step
                kept = [job.retention.answer(first + turn) for turn in range(len(batch))]
            scores, found, tokens = _score_together(job, batch, way, kept, backward=True, between=between)
            job.processes.sum_gradients(job.weights)
            return scores, found, tokens, way
        except OutOfMemoryError as error:
            job.base.model.zero_grad()
            smaller = _halved(way, batch)
            if smaller is None:
                raise MachineError(
                    f"{batch[0].alias}: not enough memory even for the smallest part; set alg_config.gradient_checkpointing, "
                    "precision: bf16 or quantize: nf4, or take a smaller model"
                ) from error
            way, progress.at_once = smaller, _at_once(smaller)
            job.notice(f"not enough memory: going on in parts of {progress.at_once}")


def _score_together(
    job: _Job, encoded: Sequence[EncodedPrompt], way: Pass, kept: Sequence[Any] = (), *, backward: bool = False,
    between: Callable[[], None] = lambda: None,
) -> tuple[list[np.ndarray], list[float], int]:  # fmt: skip
    """Score prompts, and hold on to answers, with the work shared out between the processes; tokens fed as well."""
    model, at_least = job.base.model, job.processes.count
    parts = [(e, part) for e in encoded for part in way.parts(e, at_least=at_least)]
    pieces = [Piece(part.tokens, partial(_run_part, way, model, e, part, backward)) for e, part in parts]
    if job.retention is not None:
        pieces += [Piece(answer.tokens, partial(_run_answer, job.retention, model, answer)) for answer in kept]
    results = job.processes.run(pieces, between)
    found: dict[str, dict[Any, np.ndarray]] = {e.alias: {} for e in encoded}
    for (e, part), result in zip(parts, results, strict=False):
        found[e.alias][part] = result
    return [way.joined(e, found[e.alias]) for e in encoded], results[len(parts) :], sum(piece.tokens for piece in pieces)


def _run_part(way: Pass, model: Any, encoded: EncodedPrompt, part: Any, backward: bool, scale: float) -> np.ndarray:
    return way.run(model, encoded, part, backward=backward, scale=scale)


def _run_answer(retention: Retention, model: Any, answer: Any, scale: float) -> float:
    return retention.run(model, answer, scale=scale)


def _note(
    progress: Progress, batch: list[EncodedPrompt], scores: list[np.ndarray], kept: list[float], rate: float, norm: float
) -> None:
    """Add what a step saw to the iteration under way."""
    so_far = progress.under_way or {"loss": 0.0, "kl": {}, "on_target": {}, "kept": [], "norms": [], "rate": rate}
    for prompt, log_probs in zip(batch, scores, strict=True):
        so_far["loss"] += float(-np.dot(prompt.trie.weights, log_probs))
        so_far["kl"][prompt.alias], so_far["on_target"][prompt.alias] = _figures(prompt, log_probs)
    so_far["kept"] += kept
    so_far["norms"].append(norm)
    progress.under_way = so_far


def _finished_iteration(job: _Job, progress: Progress, way: Pass) -> Iteration:
    saw, number = progress.under_way, len(progress.iterations) + 1
    due = number % job.config.eval_every == 0
    _train_mode(job.base, on=False)
    test = exact_figures(job, job.tests if due else [], way)
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


def _leave(job: _Job, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Write a checkpoint and stop."""
    if job.processes.main:
        save_checkpoint(job.run, job.base, optimiser, progress)
    done = f"{len(progress.iterations)} of {job.settings.n_iters} iterations"
    raise InterruptedRun(f"{job.run.path}: interrupted after {done}; the same command goes on from there")


def _diverged(job: _Job, iteration: int) -> InputError:
    last = newest_checkpoint(job.run)
    kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
    return InputError(
        f"{job.run.path}: the loss is no number any more in iteration {iteration}; lower alg_config.learning_rate "
        f"and start anew with --force ({kept})"
    )


def _figures(prompt: EncodedPrompt, path_log_probs: np.ndarray) -> tuple[float, float]:
    """KL(p || q) = sum p (ln p - ln q) over targets in nats, and the mass sum q on them."""
    log_q = target_log_probs(prompt, path_log_probs)
    p = np.array(prompt.prompt.probabilities)
    likely = p > 0
    return float(np.sum(p[likely] * (np.log(p[likely]) - log_q[likely]))), float(np.exp(log_q).sum())


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
    except OSError as error:
        raise cannot_write(run.path, error) from error
    discard_checkpoints(run)


def _manifest(job: _Job, prompts: list[Prompt], trained: Trained, why: str, progress: Progress) -> dict[str, Any]:
    base, retention = job.base, job.retention
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
