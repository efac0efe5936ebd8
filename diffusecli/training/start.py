"""Where a training starts: a folder of its own, a checkpoint to go on from, an adapter to continue, or a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from diffusecli.files.locks import only_writer, remove_scratch_folders, require_idle
from diffusecli.files.writing import require_space
from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import trainable
from diffusecli.models.fused import fuse
from diffusecli.models.loading import LoadedModel
from diffusecli.models.lora import attach_lora, load_adapter
from diffusecli.prompts.config import LoraSettings
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import newest_checkpoint, step_of
from diffusecli.training.processes import Processes
from diffusecli.training.visits import MANY_PROMPTS


@contextmanager
def alone(run: RunDir, processes: Processes) -> Iterator[None]:
    """Keep other trainings out of the run directory; raises `InputError` in every process when one is there already.

    The first process holds the lock for all.
    """
    with ExitStack() as held:
        processes.first(lambda: held.enter_context(only_writer(run.path, run.lock)))
        processes.first(lambda: remove_scratch_folders(run.path, ".adapter.", ".checkpoint."))
        yield


def find_start(run: RunDir, *, force: bool) -> Path | None:
    """The checkpoint to go on from, None to start anew; raises `InputError` for a finished run that is not to be replaced."""
    checkpoint = None if force else newest_checkpoint(run)
    if _is_finished(run) and not force and checkpoint is None:
        raise InputError(f"{run.path}: holds a finished run already, add --force to replace it or name another output_dir")
    return checkpoint


def _is_finished(run: RunDir) -> bool:
    return run.manifest.is_file() or run.has_adapter


def in_the_way(run: RunDir, *, force: bool) -> str:
    """What a training would meet in its output folder, for the user."""
    try:
        require_idle(run.path, run.lock)
        checkpoint = find_start(run, force=force)
    except InputError as error:
        return str(error)
    if checkpoint is not None:
        return f"{run.path}: holds an interrupted training that would go on from step {step_of(checkpoint)}; --force starts anew"
    return f"{run.path}: holds a run that would be replaced" if _is_finished(run) or newest_checkpoint(run) else ""


def require_start(start: Path, run: RunDir) -> None:
    """Raises `InputError` when there is no adapter to start from, or when it would be removed by what starts from it."""
    if not RunDir(start).has_adapter:
        raise InputError(f"{start}: ckpt_dir holds no adapter, train what makes it first")
    if start.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{start}: ckpt_dir is in the output_dir, which is emptied first; name another output_dir")


def sized(wanted: LoraSettings, prompts: int) -> LoraSettings:
    """The adapter for so many training prompts: rank and scale as the config says; auto: small for few, larger for many.

    >>> [(some.r, some.alpha) for some in (sized(LoraSettings(), 2), sized(LoraSettings(), 1000), sized(LoraSettings(r=8), 1000))]
    [(4, 8.0), (32, 32.0), (8, 8.0)]
    """
    are_many = prompts > MANY_PROMPTS
    r = (32 if are_many else 4) if wanted.r == "auto" else wanted.r
    alpha = float(r if are_many else 2 * r) if wanted.alpha == "auto" else wanted.alpha
    return wanted.model_copy(update={"r": r, "alpha": alpha})


def adapt(base: LoadedModel, wanted: LoraSettings, start: Path | None, notice: Notice, *, checkpoint: bool = False) -> LoraSettings:
    """Put on the adapter in `start` (a `checkpoint`, or what the user continues from), or a fresh one; returns the shape that it has."""
    if start is None:
        attach_lora(base, wanted)
        return wanted
    load_adapter(
        base, start, trainable=True, recorded=recorded_base(RunDir(start)), notice=(lambda _: None) if checkpoint else notice
    )
    has = base.model.peft_config["default"]
    own = wanted.model_copy(update={
        "r": has.r, "alpha": float(has.lora_alpha), "dropout": has.lora_dropout, "rslora": has.use_rslora, "dora": has.use_dora,
    })  # fmt: skip
    if own != wanted:
        notice(
            f"the adapter keeps its own shape: r {own.r}, alpha {own.alpha:g}, dropout {own.dropout:g}; lora in the config is not used"
        )
    return own


def prepare_weights(base: LoadedModel, run: RunDir, processes: Processes, *, gradient_checkpointing: bool) -> None:
    """Faster LoRA layers, checkpointed layers, a spread base; room on the disk for what will be trained."""
    fuse(base.model)
    if gradient_checkpointing:
        base.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    require_room(base, run)
    if processes.sharded:
        processes.shard(base.model)


def require_room(base: LoadedModel, run: RunDir) -> None:
    """Raises `MachineError` when the disk takes no two checkpoints of weights and two moments, a third under way, and the adapter."""
    there = next(path for path in (run.path.absolute(), *run.path.absolute().parents) if path.is_dir())
    require_space(there, round(sum(weight.numel() for weight in trainable(base.model)) * 4 * 10 / 1e6) + 10)
