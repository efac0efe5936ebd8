"""Where training starts: lock the run directory; find a checkpoint to resume, an adapter to continue, or create a new one."""

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
from diffusecli.runs.next_commands import again
from diffusecli.runs.progress import has_result
from diffusecli.runs.run_dir import RunDir, step_of
from diffusecli.system.errors import InputError
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import Progress, newest_checkpoint
from diffusecli.training.processes import Processes
from diffusecli.training.visits import MANY_PROMPTS


@contextmanager
def alone(run: RunDir, processes: Processes) -> Iterator[None]:
    """Lock the run directory against other trainings. Raises `InputError` in every process if it is locked.

    The first process holds the lock for all.
    """
    with ExitStack() as held:
        processes.first(lambda: held.enter_context(only_writer(run.path, run.lock)))
        processes.first(lambda: remove_scratch_folders(run.path, ".adapter.", ".checkpoint."))
        yield


def find_start(run: RunDir, *, force: bool, more: int = 0) -> Path | None:
    """The checkpoint to resume, or with `more` the finished run to continue; None to start from scratch.

    Raises `InputError` for a finished run without `force` or `more`, and for `more` without a finished run.
    """
    if force and more:
        raise InputError("--force starts again, and --more continues. Keep one of them")
    checkpoint = None if force else newest_checkpoint(run)
    if more and checkpoint is None:
        _require_finished(run, more)
        return run.path
    if _is_finished(run) and not force and checkpoint is None:
        raise InputError(
            f"{run.path}: already contains a finished run. Add --more N to train it further, --force to replace it, or choose another output_dir"
        )
    return checkpoint


def is_complete(run: RunDir) -> bool:
    """Whether the folder holds a finished run, and no training that can be resumed."""
    return _is_finished(run) and newest_checkpoint(run) is None


def _require_finished(run: RunDir, more: int) -> None:
    """Raise `InputError` if a run cannot be continued."""
    if not run.manifest.is_file() or not run.has_adapter:
        raise InputError(f"{run.path}: --more {more} continues a finished run, and there is none. Leave --more out")
    if not run.state.is_file():
        raise InputError(
            f"{run.state}: is missing, and --more {more} continues from it. To train the adapter further without it, set load_model: true, "
            f"ckpt_dir: {run.path} and another output_dir"
        )
    if run.read_manifest().get("adapter_sha256") != run.adapter_sha256:
        raise InputError(f"{run.path}: its adapter is not the one that was trained here, so --more {more} cannot continue it")


def require_same_end(checkpoint: Path, progress: Progress, more: int) -> None:
    """Raise `InputError` if an interrupted training was to end elsewhere than asked for now."""
    if progress.more == more:
        return
    was = f"with --more {progress.more}" if progress.more else "without --more"
    run = RunDir(checkpoint.parent)
    command = again(run) + (f" --more {progress.more}" if progress.more else "")
    raise InputError(f"{run.path}: contains a training that was interrupted, started {was}. Resume it first: `{command}`")


def _is_finished(run: RunDir) -> bool:
    return run.manifest.is_file() or run.has_adapter


def in_the_way(run: RunDir, *, force: bool, more: int = 0) -> str:
    """What a training would find in its output folder, as a message."""
    try:
        require_idle(run.path, run.lock)
        checkpoint = find_start(run, force=force, more=more)
    except InputError as error:
        return str(error)
    if checkpoint == run.path:
        return ""
    if checkpoint is not None and has_result(run, checkpoint):
        trains = "goes on from there" if more else "draws them"
        return f"{run.path}: contains a finished training whose samples are missing. `diffuse train` {trains}; --force restarts it"
    if checkpoint is not None:
        return f"{run.path}: contains an interrupted training. `diffuse train` resumes it from step {step_of(checkpoint)}; --force restarts it"
    return f"{run.path}: contains a run that would be replaced" if _is_finished(run) or newest_checkpoint(run) else ""


def require_start(start: Path, run: RunDir) -> None:
    """Raises `InputError` when there is no adapter to start from, or when this training would delete it."""
    if not RunDir(start).has_adapter:
        raise InputError(f"{start}: ckpt_dir contains no adapter. First train the run that creates it")
    if start.resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{start}: ckpt_dir is in the output_dir, which training empties first. Choose another output_dir")


def sized(wanted: LoraSettings, prompts: int) -> LoraSettings:
    """The LoRA settings for a number of training prompts: as configured; auto: small for few prompts, larger for many.

    >>> [(some.r, some.alpha) for some in (sized(LoraSettings(), 2), sized(LoraSettings(), 1000), sized(LoraSettings(r=8), 1000))]
    [(4, 8.0), (32, 32.0), (8, 8.0)]
    """
    are_many = prompts > MANY_PROMPTS
    r = (32 if are_many else 4) if wanted.r == "auto" else wanted.r
    alpha = float(r if are_many else 2 * r) if wanted.alpha == "auto" else wanted.alpha
    return wanted.model_copy(update={"r": r, "alpha": alpha})


def adapt(base: LoadedModel, wanted: LoraSettings, start: Path | None, notice: Notice, *, checkpoint: bool = False) -> LoraSettings:
    """Attach the adapter in `start` (a `checkpoint`, or the adapter to continue), or a new one. Returns its actual settings."""
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
            f"the adapter keeps its settings: r {own.r}, alpha {own.alpha:g}, dropout {own.dropout:g}. lora in the config is ignored"
        )
    return own


def prepare_weights(base: LoadedModel, run: RunDir, processes: Processes, *, gradient_checkpointing: bool) -> None:
    """Fuse LoRA layers, enable checkpointed layers, shard the base model, and check disk space."""
    fuse(base.model)
    if gradient_checkpointing:
        base.model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    require_room(base, run)
    if processes.sharded:
        processes.shard(base.model)


def require_room(base: LoadedModel, run: RunDir) -> None:
    """Raises `MachineError` without disk space for three checkpoints (weights and two moments each; one is being written) and the adapter."""
    there = next(path for path in (run.path.absolute(), *run.path.absolute().parents) if path.is_dir())
    require_space(there, round(sum(weight.numel() for weight in trainable(base.model)) * 4 * 10 / 1e6) + 10)
