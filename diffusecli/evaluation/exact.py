"""Exact figures of a run's model: its own probabilities of every target, before and after training.

Loads the base model, scores, puts the adapter on, scores again. No sampling, one packed pass per prompt and model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import shape_of
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.loading import LoadedModel, load_configured
from diffusecli.models.lora import load_adapter, require_trained_on
from diffusecli.models.overflow import cause
from diffusecli.prompts.config import Config, Retain
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.notices import Notice
from diffusecli.training.checkpoints import Progress
from diffusecli.training.job import choose_way, require_context
from diffusecli.training.loss import PackedPass, target_log_probs
from diffusecli.training.processes import Processes
from diffusecli.training.retention import prepare, read_instructions
from diffusecli.training.scorer import Scorer


@dataclass(frozen=True)
class Measured:
    """What one run's model thinks."""

    log_q: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # mode, prompt digest -> [K], nats
    chat: dict[str, Any] = field(default_factory=dict)  # how the prompts were put to the model: system text, template, variables
    drift: float | None = None  # of the adapter on held-out instructions, nats per token


def scorer_of(base: LoadedModel, encoded: list[EncodedPrompt], config: Config, notice: Notice) -> Scorer:
    """What scores these prompts with the model as it is now, in this process alone."""
    processes = Processes(config.device)
    way, _ = choose_way(base, encoded, config, processes, Progress({}))
    return Scorer(base.model, way, None, processes, notice)


def measure(run: RunDir, config: Config, prompts: Sequence[Prompt], notice: Notice, *, named: bool = False) -> Measured:
    """Score every prompt that has targets with the base model and, where there is one, with the run's adapter.

    `named` says that the user named the base model, not the run.
    Raises `InputError` when a prompt is too long for the model or the adapter is not of this base.
    """
    wanted = {prompt.digest: prompt for prompt in prompts if prompt.targets}  # copies of a prompt have its figures
    if not wanted:
        return Measured()
    base = load_configured(config, notice, named=named)
    if run.has_adapter:
        require_trained_on(base, recorded_base(run), run.path)
    encoded = [encode_prompt(prompt, base.chat) for prompt in wanted.values()]
    require_context(encoded, shape_of(base.model.config, 0).context)
    scorer = scorer_of(base, encoded, config, notice)
    found: dict[tuple[str, str], np.ndarray] = {}

    def score(mode: str) -> None:
        scorer.model = base.model
        scores = scorer.log_probs(encoded)
        found.update({(mode, e.prompt.digest): target_log_probs(e, paths) for e, paths in zip(encoded, scores, strict=True)})

    chat = json.loads(json.dumps(base.chat_settings.told))
    if run.read_manifest().get("chat", chat) != chat:
        notice(
            f"{run.config}: has another system text, chat template or variables of it than training had. Exact figures are those of "
            "prompts rendered as this config says; they are not shown beside samples of prompts rendered otherwise"
        )
    score("untuned")
    if not run.has_adapter:
        return Measured(found, chat)
    retain = config.retain or Retain()  # drift is reported of runs too that were trained without
    instructions = read_instructions(retain)
    retention = prepare(base, retain, instructions, seed=config.seed, packed=isinstance(scorer.way, PackedPass), notice=notice)
    load_adapter(base, run.path, recorded=recorded_base(run), named=named, notice=notice)
    score("lora")
    drift = retention.drift(base.model)
    if np.isnan(drift):
        raise cause(base.model, base.name)
    return Measured(found, chat, drift)
