"""Python API: training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.api.arguments import flag, function, optional, text, whole, wrong
from diffusecli.api.inputs import AnyPath, Prompts, are_prompts, configured, listed, trainable
from diffusecli.api.notices import calling
from diffusecli.api.placed import Placed
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.iteration import Iteration
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError
from diffusecli.system.notebook import Columns, frame, html_table
from diffusecli.system.notices import Notice

if TYPE_CHECKING:
    from pandas import DataFrame

    from diffusecli.training.record import Trained as Recorded


@dataclass(frozen=True)
class TrainedPrompt:
    """Exact figures of one prompt, from the model's own probabilities, without sampling."""

    prompt: Prompt = field(repr=False)  # its `alias` is the path of its file
    alias: str  # the prompt's name in files of the run
    trained_on: bool  # False for a test prompt that was not trained on
    exact_kl_before: float  # KL(target || model) in nats before training; nan if not measured
    exact_kl: float  # the same after training; 0 is perfect
    exact_on_target_before: float  # probability of any target before training; nan if not measured
    exact_on_target: float  # the same after training


@dataclass(frozen=True)
class Trained(Placed):
    """The result of a training."""

    path: Path  # the run directory, with the adapter, the config and all figures
    reason: str  # why training stopped
    seconds: float  # of training, without loading and sampling
    retention_kl: float | None  # drift from the base model on held-out instructions, nats per token; None without `retain`
    prompts: tuple[TrainedPrompt, ...]  # those trained on, then the test prompts that were not
    adapter_sha256: str = field(default="", repr=False)  # identifies the adapter; empty if unknown

    def require_unchanged(self) -> None:
        """Raises `InputError` if another training replaced the adapter."""
        now = RunDir(self.place).read_manifest().get("adapter_sha256")
        if self.adapter_sha256 and now is not None and now != self.adapter_sha256:
            raise InputError(
                f"{self.path}: the adapter was replaced by another training. Train into another output_dir, or use the result of the last training"
            )

    def to_frame(self) -> DataFrame:
        """A data frame with one row per prompt. The columns are named as in `run.json`, plus `prompt` and `trained_on`."""
        return frame(self._columns())

    def _repr_html_(self) -> str:
        """The table shown in notebooks."""
        return html_table(self._columns(), f"{self.path}: {self.reason}")

    def _columns(self) -> Columns:
        figures = ("trained_on", "exact_kl_before", "exact_kl", "exact_on_target_before", "exact_on_target")
        return {
            "prompt": [of.alias for of in self.prompts],
            **{name: [getattr(of, name) for of in self.prompts] for name in figures},
        }


def train(
    config: Config | AnyPath | None = None, *, train_prompts: Prompts | None = None, test_prompts: Prompts | None = None,
    force: bool = False, more: int = 0, report: Callable[[Iteration], None] | None = None, notice: Notice | None = None, **settings: Any,
) -> Trained:  # fmt: skip
    """Train a LoRA adapter until the model's answers follow the target weights, and write the run directory.

    - `config`: a `Config`, the path of a YAML file, or nothing if `settings` are complete.
    - `train_prompts`, `test_prompts`: prompts, files or folders that replace the config's. Without a config, `test_prompts` are by
      default the `train_prompts`. Prompts in memory are written to files in the folder `prompts` of the run directory, and the run
      refers to them by these files. Existing files are never replaced. For a mapping, such as the result of `init_prompts`, the
      values are the prompts.
    - `settings`: fields that override the config's, such as `model`, `output_dir`, `alg_config={"n_iters": 10}`. Groups are merged.
    - `force`: replace a finished run in the output folder.
    - `more`: number of iterations to continue a finished run, with its optimiser state. Its samples are drawn again.
    - `report`: called after every iteration with an `Iteration`, whose fields are those of a line of `metrics.jsonl`: `iteration`, `of`,
      `step`, `loss`, `optimal`, `kl`, `on_target`, `retention_kl`, `learning_rate`, `gradient_norm`, `tokens`, `seconds`, `memory_mb`,
      `test_kl`, `test_on_target`, and the means `mean_kl`, `mean_on_target`, `mean_test_kl` and `mean_test_on_target` over prompts.
      `kl`, `on_target`, `test_kl` and `test_on_target` are mappings by alias.
    - `notice`: called with the notices of the command line. By default they are logged.

    An interrupted training resumes when you call `train` again with the same inputs. Ctrl-C and the stop button of a notebook stop it after
    the current step.

    Raises `InputError` for wrong inputs, `MachineError` for problems with memory, disk and network, and `InterruptedRun` if training was
    stopped and saved a checkpoint.
    """
    _require_config(config)
    for name, value in settings.items():
        if isinstance(value, str):
            text(name, value)
    flag("force", force)
    whole("more", more, 0)
    optional(function, "report", report)
    optional(function, "notice", notice)
    with calling(notice) as say:
        fields = configured(config, settings)
        train_on = listed(train_prompts if train_prompts is not None else fields.get("train_prompts"), "train_prompts")
        test_on = listed(test_prompts if test_prompts is not None else fields.get("test_prompts"), "test_prompts")
        if train_prompts is not None and not train_on:
            raise InputError("train_prompts: is empty. Name a prompt, or remove it to use the config's")
        if config is None and test_prompts is None:
            test_on = train_on
        with trainable(fields, train_on, test_on, force=force, more=more) as chosen:
            with collector_off():
                from diffusecli.verbs.train import train as tune

            return _result(tune(chosen, report=report or (lambda _: None), notice=say, force=force, more=more))


def _require_config(config: Any) -> None:
    """Raises `InputError` for anything that is not a config."""
    if config is None or isinstance(config, Config | str | PathLike):
        return
    if are_prompts(config):
        raise InputError("config: these are prompts. Write train(train_prompts=…)")
    if isinstance(config, Mapping):
        raise InputError("config: is a mapping. Pass its settings by name: train(**settings)")
    raise wrong("config", "a Config or the path of its file", config)


def _result(done: Recorded) -> Trained:
    before = zip(done.before.prompts, done.before.figures, strict=True)
    known = {prompt.key: figures for prompt, figures in before}
    prompts = [
        TrainedPrompt(
            prompt, prompt.alias, exact is done.after, *(values[place] for place in (0, 1) for values in (known.get(prompt.key, (math.nan, math.nan)), figures))
        )
        for exact in (done.after, done.test)
        for prompt, figures in zip(exact.prompts, exact.figures, strict=True)
    ]  # fmt: skip
    adapter = done.run.read_manifest().get("adapter_sha256")
    return Trained(done.run.path, done.reason, done.seconds, done.retention_kl, tuple(prompts), str(adapter or ""))
