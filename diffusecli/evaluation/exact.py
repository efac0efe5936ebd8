"""Exact figures of a run's model: its own probabilities of every target, before and after training.

Loads the base model, scores, puts the adapter on, scores again. No sampling, many prompts a pass.
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
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import load_adapter, require_trained_on
from diffusecli.models.overflow import cause
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Retain
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.notices import Notice
from diffusecli.training.inputs import require_context
from diffusecli.training.loss import target_log_probs
from diffusecli.training.pass_choice import choose_strategy, fitting_answers
from diffusecli.training.processes import Processes
from diffusecli.training.retention import prepare, read_instructions
from diffusecli.training.scorer import Scorer


@dataclass(frozen=True)
class Measured:
    """What one run's model thinks."""

    log_q: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # mode, prompt digest -> [K], nats
    chat: dict[str, Any] = field(default_factory=dict)  # how the prompts were put to the model: system text, template, variables
    drift: float | None = None  # of the adapter on held-out instructions, nats per token


def scorer_of(base: LoadedModel, encoded: list[EncodedPrompt], source: ModelSource, settings: AlgConfig, notice: Notice) -> Scorer:
    """What scores these prompts with the model as it is now, in this process alone."""
    processes = Processes(source.device)
    strategy, _ = choose_strategy(base, encoded, source, settings, processes)
    return Scorer(base.model, strategy, None, processes, notice)


def measure(
    run: RunDir, source: ModelSource, settings: AlgConfig, retain: Retain, seed: int, prompts: Sequence[Prompt], notice: Notice
) -> Measured:
    """Score every prompt that has targets with the base model and, where there is one, with the run's adapter.

    Drift is measured on the instructions of `retain`, in the order that `seed` fixes.
    Raises `InputError` when a prompt is too long for the model or the adapter is not of this base.
    """
    wanted = {prompt.digest: prompt for prompt in prompts if prompt.targets}  # copies of a prompt have its figures
    if not wanted:
        return Measured()
    base = load_model(source, notice)
    if run.has_adapter:
        require_trained_on(base, recorded_base(run), run.path)
    encoded = [encode_prompt(prompt, base.chat) for prompt in wanted.values()]
    require_context(encoded, shape_of(base.model.config, 0).context)
    scorer = scorer_of(base, encoded, source, settings, notice)
    found: dict[tuple[str, str], np.ndarray] = {}

    def score(mode: str) -> None:
        scorer.model = base.model
        scores = scorer.log_probs(encoded)
        found.update({(mode, e.prompt.digest): target_log_probs(e, paths) for e, paths in zip(encoded, scores, strict=True)})

    chat = json.loads(json.dumps(base.chat_settings.recorded))
    if run.read_manifest().get("chat", chat) != chat:
        notice(
            f"{run.config}: has another system text, chat template or variables of it than training had. Exact figures are those of "
            "prompts rendered as this config says; they are not shown beside samples of prompts rendered otherwise"
        )
    score("untuned")
    if not run.has_adapter:
        return Measured(found, chat)
    instructions = read_instructions(retain)
    retention = prepare(base, retain, instructions, seed=seed, strategy=scorer.strategy, notice=notice)
    load_adapter(base, run.path, recorded=recorded_base(run), named=source.named, notice=notice)
    score("lora")
    scorer.strategy, _ = fitting_answers(scorer.strategy, "", base.model.config, retention.held_out, settings.batch_size)
    drift = scorer.drift(retention.held_out)
    if np.isnan(drift):
        raise cause(base.model, base.name)
    return Measured(found, chat, drift)
