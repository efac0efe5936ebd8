"""Files that a training writes: metrics during training, and the run at the end."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from diffusecli.files.writing import append_line, mark_newest, move_into, require_no_link, write_json, write_text
from diffusecli.models.adapters import ADAPTER_FILES
from diffusecli.models.card import model_card, trained_digests
from diffusecli.models.devices import devices_of, peak_memory_mb
from diffusecli.models.lora import save_adapter
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.environment import environment
from diffusecli.runs.iteration import Iteration
from diffusecli.runs.progress import has_result
from diffusecli.runs.run_dir import RunDir, prompts_as_json
from diffusecli.system.errors import cannot_write
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import Progress, discard_checkpoints
from diffusecli.training.job import Job
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Exact
from diffusecli.training.rounding import Rounding


@dataclass(frozen=True)
class Trained:
    """The result of a training: the run, why it stopped, exact figures before and after."""

    run: RunDir
    reason: str
    before: Exact
    after: Exact
    test: Exact  # test prompts that were not trained on
    retention_kl: float | None  # drift on held-out instructions, nats per token
    seconds: float  # of the whole training
    digests: frozenset[str] = frozenset()  # digests of all trained prompts
    seconds_now: float = 0.0  # of the training in this command


def start_anew(run: RunDir, config: str, template: str | None) -> None:
    """Delete the files of an earlier run, then write the config (YAML) of this run and its chat template, if any."""
    try:
        discard_checkpoints(run)
        run.discard_trained()
        write_text(run.config, config)
        if template is not None:
            write_text(run.chat_template, template)
    except OSError as error:
        raise cannot_write(run.path, error) from error


def resume_metrics(path: Path, iterations: int, notice: Notice) -> None:
    """Keep the lines of finished iterations in metrics.jsonl; later ones will be written again."""
    require_no_link(path)
    kept = last = 0
    try:
        with path.open("ab+") as file:
            file.seek(0)
            for line in file:
                number = _iteration_of(line)
                if number is None or not last < number <= iterations:
                    break
                kept, last = kept + len(line), number
            file.truncate(kept)
    except OSError as error:
        raise cannot_write(path, error) from error
    if last < iterations:  # lost in a crash, or edited
        notice(f"{path}: lines after iteration {last} are missing. Figures continue with iteration {iterations + 1}")


def _iteration_of(line: bytes) -> int | None:
    """The iteration number of a complete line; None for any other line."""
    try:
        number = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return number if isinstance(number, int) and line.endswith(b"\n") else None


def record_iteration(run: RunDir, processes: Processes, seen: Iteration) -> None:
    """Append a line to metrics.jsonl, and send the figures to the tracker."""
    append_line(run.metrics, (json.dumps(asdict(seen), ensure_ascii=False) + "\n").encode())
    processes.track(flat({k: v for k, v in asdict(seen).items() if k not in ("iteration", "of")}), seen.iteration)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings or figures to `a/b: value`. Numbers, strings and booleans stay, lists become text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}/")
        elif value is not None:
            found[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return found


def save_run(job: Job, config: str, prompts: list[Prompt], trained: Trained, progress: Progress) -> None:
    """Write the run. `run.json` comes last, so a run that has it is complete."""
    run = trained.run
    try:
        write_text(run.config, config)
        write_json(run.prompts, prompts_as_json(prompts))
        if progress.continued_at:
            run.discard_samples()  # they are of the adapter before
        with tempfile.TemporaryDirectory(prefix=".adapter.", dir=run.path) as scratch:
            save_adapter(job.base, Path(scratch))
            move_into(run.path, (Path(scratch) / name for name in ADAPTER_FILES))
        mark_newest(run.path / ADAPTER_FILES[1], run.path.parent.glob(f"*/{ADAPTER_FILES[1]}"))
        manifest = _manifest(job, prompts, trained, progress)
        write_text(run.card, model_card(manifest, prompts))
        write_json(run.manifest, manifest)
    except (OSError, SafetensorError) as error:
        raise cannot_write(run.path, error) from error


def trained_before(run: RunDir, checkpoint: Path, prompts: list[Prompt]) -> Trained | None:
    """The result of an earlier, finished training whose samples are missing; None if more than sampling is left."""
    if not has_result(run, checkpoint):
        return None
    manifest = run.read_manifest()
    if manifest.get("prompt_sha256") != {prompt.alias: prompt.digest for prompt in prompts}:  # other test prompts
        return None

    def exact(when: str) -> Exact:
        kl, on_target = manifest[f"exact_kl{when}"], manifest[f"exact_on_target{when}"]
        named = {prompt.alias: prompt for prompt in prompts if prompt.alias in kl}
        errors = manifest["kl_errors_before" if when == "_before" else "kl_errors"]
        rounding = manifest.get("kl_rounding_before" if when == "_before" else "kl_rounding", {})
        figures = tuple((kl[alias], on_target[alias]) for alias in named)
        limits = (rounding.get(alias, 0.0) for alias in named)
        return Exact(
            tuple(named.values()), figures, errors=tuple(errors.get(alias, 0.0) for alias in named),
            rounding=tuple(Rounding(math.nan if limit is None else limit) for limit in limits),
        )  # fmt: skip

    try:
        return Trained(
            run, manifest["stopped"], exact("_before"), exact(""), exact("_test"), manifest["retention_kl"],
            manifest["training_seconds"], trained_digests(manifest),
        )  # fmt: skip
    except (KeyError, TypeError):
        return None


def _manifest(job: Job, prompts: list[Prompt], trained: Trained, progress: Progress) -> dict[str, Any]:
    base, retention = job.base, job.scorer.retention
    return {
        **base.recorded,
        "parameters": base.parameters,
        "device": str(base.device),
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "processes": progress.asked["processes"],  # those that trained; another number may have finished the run
        "seed": job.seed,
        "chat": base.chat_settings.recorded,
        "loss_pass": job.prompts.why,
        "pass_size": progress.at_once,
        "stopped": trained.reason,
        "iterations": progress.iterations,
        "continued_at": progress.continued_at,
        "steps": progress.step,
        "training_seconds": round(trained.seconds, 2),
        "tokens_fed": progress.tokens,
        "peak_memory_mb": peak_memory_mb(devices_of(base.model)),
        "prompts_trained": len(job.prompts.questions),
        "exact_kl_before": trained.before.kl,
        "exact_on_target_before": trained.before.on_target,
        "exact_kl": trained.after.kl,
        "exact_on_target": trained.after.on_target,
        "exact_kl_test": trained.test.kl,
        "exact_on_target_test": trained.test.on_target,
        "kl_errors_before": trained.before.estimated,
        "kl_errors": {**trained.after.estimated, **trained.test.estimated},
        "kl_rounding_before": trained.before.rounded,
        "kl_rounding": {**trained.after.rounded, **trained.test.rounded},
        "exact_wordings": {**trained.after.of_wordings, **trained.test.of_wordings},
        "retention_kl": trained.retention_kl,
        "retention": None if retention is None else {
            "weight": retention.weight, "instructions": len(retention.kept), "held_out": len(retention.held_out),
        },
        "adapter_sha256": trained.run.adapter_sha256,
        "prompt_sha256": {p.alias: p.digest for p in prompts},
        **environment(),
    }  # fmt: skip
