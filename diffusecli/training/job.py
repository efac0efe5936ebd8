"""What a training works with: inputs read and checked, the model with its adapter, tries, the pass that fits.

Everything here happens before the first step; the loop is `train.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffusecli.files.locks import only_writer, remove_scratch_folders, require_idle
from diffusecli.files.writing import require_place, require_space
from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import shape_of, trainable
from diffusecli.models.chat import chat_settings
from diffusecli.models.devices import choose_device, require_bitsandbytes
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel, load_chat, load_hollow
from diffusecli.models.lora import attach_lora, load_adapter
from diffusecli.models.overflow import blamed
from diffusecli.prompts.config import AlgConfig, Config
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.prompt import Prompt, require_own_names
from diffusecli.prompts.prompt_files import read_prompts
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, many
from diffusecli.system.memory import SMALLER, enough_memory, free_memory
from diffusecli.system.notices import Notice
from diffusecli.training.budget import Plan, estimated_memory, fastest_part, fitting_part
from diffusecli.training.checkpoints import Progress, load_progress, newest_checkpoint, step_of
from diffusecli.training.loss import PackedPass, Pass, RowsPass, longest, row_length
from diffusecli.training.pass_choice import choose_pass
from diffusecli.training.processes import Processes, require_tracker
from diffusecli.training.retention import encode_instructions, prepare, read_instructions
from diffusecli.training.schedule import learning_rate
from diffusecli.training.scorer import Scorer

_NOT_THE_RESULT = {"test_prompts", "output_dir", "generate", "save_every", "eval_every", "tracker", "device", "device_map"}
_NOT_THE_GRADIENT = {"max_tokens_per_pass", "batch_size", "gradient_checkpointing"}
"""Settings, of a run and of its algorithm, that may differ between a run and its continuation (the last only round differently)."""


@dataclass(frozen=True)
class Job:
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
        """All that train together."""
        return self.scorer.processes

    @property
    def settings(self) -> AlgConfig:
        """How to train."""
        return self.config.alg_config

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps in one go over all prompts."""
        return -(-len(self.encoded) // self.settings.prompts_per_step)

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return trainable(self.base.model)


def plan(config: Config, notice: Notice, *, force: bool = False) -> Plan:
    """Check what `train` checks, encode the prompts and estimate the cost; no weights are read and nothing is written.

    Raises what `train` would raise for the inputs. Says what is in the output folder.
    """
    inputs, run = read_inputs(config), RunDir(Path(config.output_dir))
    require_place(run.path)
    if there := _in_the_way(run, force=force):
        notice(there)
    require_machine(config)
    named: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    chat = load_chat(config.model, chat_settings(config), notice, **named)
    hollow = replace(load_hollow(config.model, notice, **named), chat_settings=chat.settings)
    shape = shape_of(hollow.model.config, hollow.parameters)
    encoded, tests = ([encode_prompt(prompt, chat) for prompt in some] for some in (inputs.train, inputs.test))
    require_agreement(encoded, notice)
    require_context([*encoded, *tests], shape.context)
    if config.retain:
        encode_instructions(inputs.instructions, chat, shape.context)
    _require_start(config, inputs, hollow, run, force=force)
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


def require_machine(config: Config) -> None:
    """Raises `InputError` for a device, a tracker or a library that a config asks for and that is not there."""
    choose_device(config.device)
    if config.tracker is not None:
        require_tracker(config.tracker)
    if config.quantize:
        require_bitsandbytes()


def _require_start(config: Config, inputs: Inputs, hollow: LoadedModel, run: RunDir, *, force: bool) -> None:
    """Raises what `train` raises for what it starts from.

    A checkpoint of other settings; an adapter that is missing, of another model or of other shapes; no room for its own.
    """
    checkpoint = None if force else newest_checkpoint(run)
    if checkpoint is not None:
        load_progress(checkpoint, settings_of_result(config, inputs, hollow, None), hollow)
    elif config.load_model and config.ckpt_dir is not None:
        require_start(Path(config.ckpt_dir), run)
    with torch.device("meta"):
        adapt(hollow, config, checkpoint, lambda _: None)
    _require_room(hollow, run)


def find_start(run: RunDir, *, force: bool) -> Path | None:
    """The checkpoint to go on from, None to start anew; raises `InputError` for a finished run that is not to be replaced."""
    checkpoint = None if force else newest_checkpoint(run)
    if _is_finished(run) and not force and checkpoint is None:
        raise InputError(f"{run.path}: holds a finished run already, add --force to replace it or name another output_dir")
    return checkpoint


def _is_finished(run: RunDir) -> bool:
    return run.manifest.is_file() or run.has_adapter


def _in_the_way(run: RunDir, *, force: bool) -> str:
    """What a training would meet in its output folder, for the user."""
    try:
        require_idle(run.path, run.lock)
        checkpoint = find_start(run, force=force)
    except InputError as error:
        return str(error)
    if checkpoint is not None:
        return f"{run.path}: holds an interrupted training that would go on from step {step_of(checkpoint)}; --force starts anew"
    return f"{run.path}: holds a run that would be replaced" if _is_finished(run) or newest_checkpoint(run) else ""


@dataclass(frozen=True)
class Inputs:
    """The prompts of a config, read and checked."""

    train: list[Prompt]
    test: list[Prompt]
    instructions: list[Prompt]  # to hold on to; none when retention is off


def read_inputs(config: Config) -> Inputs:
    """Raises `InputError` for prompts that cannot be read or trained on."""
    if not config.train_prompts:
        raise InputError("train_prompts is empty: name at least one prompt file or folder")
    prompts = read_prompts(config.train_prompts)
    if empty := [prompt.alias for prompt in prompts if not prompt.targets]:
        raise InputError(f"{empty[0]}: has no targets to train on, move it to test_prompts")
    said = [conversation(prompt, config.system) for prompt in prompts]
    if wrong := [clash.problem() for clash in clashes(prompts, said) if not clash.agree]:
        raise InputError.of(wrong)
    inputs = Inputs(prompts, read_prompts(config.test_prompts), read_instructions(config.retain) if config.retain else [])
    require_own_names([*inputs.train, *inputs.test, *inputs.instructions])
    return inputs


def require_agreement(encoded: Sequence[EncodedPrompt], notice: Notice) -> None:
    """Raises `InputError` when the chat template makes one conversation of two prompts that expect different answers."""
    found = list(clashes((e.prompt for e in encoded), (e.prompt_ids for e in encoded)))
    if wrong := [clash.problem() for clash in found if not clash.agree]:
        raise InputError.of(wrong)
    for clash in found:
        notice(str(clash.problem()))


@contextmanager
def alone(run: RunDir, processes: Processes) -> Iterator[None]:
    """Keep other trainings out of the run directory; raises `InputError` in every process when one is there already.

    The first process holds the lock for all.
    """
    with ExitStack() as held:
        processes.first(lambda: held.enter_context(only_writer(run.path, run.lock)))
        processes.first(lambda: remove_scratch_folders(run.path, ".adapter.", ".checkpoint."))
        yield


def settings_of_result(config: Config, inputs: Inputs, base: LoadedModel, processes: int | None) -> dict[str, Any]:
    """What makes the result; a run goes on only where it is the same. `processes` None stands for any number of them."""
    told = {k: v for k, v in config.model_dump(mode="json").items() if k not in _NOT_THE_RESULT}
    told["alg_config"] = {k: v for k, v in told["alg_config"].items() if k not in _NOT_THE_GRADIENT}
    prompts = {p.alias: p.digest for p in [*inputs.train, *inputs.instructions]}
    return {**told, **base.chat_settings.told, "prompts": prompts, **base.recorded, "processes": processes}


def prepare_weights(base: LoadedModel, config: Config, run: RunDir, processes: Processes) -> None:
    """Faster LoRA layers, checkpointed layers, a spread base; room on the disk for what will be trained."""
    fuse(base.model)
    if config.alg_config.gradient_checkpointing:
        base.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    _require_room(base, run)
    if processes.sharded:
        processes.shard(base.model)


def _require_room(base: LoadedModel, run: RunDir) -> None:
    """Raises `MachineError` when the disk takes no two checkpoints of weights and two moments, a third under way, and the adapter."""
    there = next(path for path in (run.path.absolute(), *run.path.absolute().parents) if path.is_dir())
    require_space(there, round(sum(weight.numel() for weight in trainable(base.model)) * 4 * 10 / 1e6) + 10)


def make_job(
    base: LoadedModel, config: Config, inputs: Inputs, run: RunDir, processes: Processes, progress: Progress, notice: Notice,
    force: bool,
) -> tuple[Job, str]:  # fmt: skip
    """Encode the prompts, choose the pass (and say why), and let the base answer what it is to be held to."""
    encoded, tests = ([encode_prompt(p, base.chat) for p in some] for some in (inputs.train, inputs.test))
    require_agreement(encoded, notice)
    require_context([*encoded, *tests], shape_of(base.model.config, 0).context)
    for remark in dict.fromkeys(remark for e in encoded for remark in e.remarks):
        notice(remark)
    way, why = choose_way(base, encoded, config, processes, progress)
    notice(f"{many(len(encoded), 'prompt')}, {many(sum(len(e.trie.leaves) for e in encoded), 'target')}; {why}")
    retention = None
    if config.retain:
        retention = prepare(
            base, config.retain, inputs.instructions, seed=config.seed, packed=isinstance(way, PackedPass), notice=notice,
            shared=lambda mine: processes.first(lambda: mine), write=processes.main,
        )  # fmt: skip
    trained_on = {e.alias for e in encoded}
    tests = [e for e in tests if e.prompt.targets and e.alias not in trained_on]
    return Job(config, run, base, encoded, tests, Scorer(base.model, way, retention, processes, notice), force), why


def require_start(start: Path, run: RunDir) -> None:
    """Raises `InputError` when there is no adapter to start from, or when it would be removed by what starts from it."""
    if not RunDir(start).has_adapter:
        raise InputError(f"{start}: ckpt_dir holds no adapter, train what makes it first")
    if start.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{start}: ckpt_dir is in the output_dir, which is emptied first; name another output_dir")


def require_context(encoded: Sequence[EncodedPrompt], context: int | None) -> None:
    """Raises `InputError` for a prompt whose longest target leaves the model's context."""
    for e in encoded:
        if context is not None and row_length(e) > context:
            raise InputError(
                f"{e.alias}: the request with its longest target is {row_length(e)} tokens, the model takes {context}; shorten it"
            )


def adapt(base: LoadedModel, config: Config, checkpoint: Path | None, notice: Notice) -> Config:
    """Put on the adapter of the checkpoint, of ckpt_dir, or a new one; returns the config with the adapter's own settings."""
    lora = config.lora
    if checkpoint is not None:
        load_adapter(base, checkpoint, trainable=True, recorded=recorded_base(RunDir(checkpoint)))
    elif config.load_model and config.ckpt_dir is not None:
        load_adapter(base, config.ckpt_dir, trainable=True, recorded=recorded_base(RunDir(Path(config.ckpt_dir))), notice=notice)
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


def choose_way(
    base: LoadedModel, encoded: list[EncodedPrompt], config: Config, processes: Processes, progress: Progress
) -> tuple[Pass, str]:
    """The pass that the model takes, in parts of the size that was asked for, or is fastest and fits, or was used before."""
    settings, shape = config.alg_config, shape_of(base.model.config, base.parameters)
    chosen = settings.max_tokens_per_pass
    if chosen == "auto":
        length = max(len(e.prompt_ids) for e in encoded)
        fitting = fitting_part(shape, config, free_memory(base.device))
        most = int(min(processes.everyones(min(fastest_part(shape, length), fitting))))
    else:
        most = chosen
    most = min(most, shape.context or most)  # some models count places in the packed sequence
    with enough_memory(base.name, SMALLER), blamed(base.model, base.name):
        found = choose_pass(base.model, longest(encoded), batch_size=settings.batch_size, max_tokens=most)
    way, why = min(processes.everyones(found), key=lambda found: _boldness(found[0]))  # all must cut their work alike
    if chosen == "auto" and isinstance(way, PackedPass) and not way.tree:
        way = way.sized(min(most, fastest_part(shape, length, tree=False)))
    if progress.at_once is None or settings.max_tokens_per_pass != "auto":
        progress.at_once = way.size
    return way.sized(progress.at_once), why


def _boldness(way: Pass) -> tuple[bool, ...]:
    """How much a pass takes for granted of the model."""
    return (True, way.tree, way.sliced_head) if isinstance(way, PackedPass) else (False,)
