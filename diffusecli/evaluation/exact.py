"""Exact figures of a run's model: its own probabilities of every target, before and after training.

Loads the base model, scores, attaches the adapter, scores again. No sampling; many prompts per pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffusecli.evaluation.measured import Kind, Measured, kinds_of, pooled, worded
from diffusecli.evaluation.metrics import ExactFigures, Worded
from diffusecli.models.adapters import recorded_base
from diffusecli.models.architecture import shape_of
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.lora import load_adapter, require_trained_on
from diffusecli.models.overflow import cause
from diffusecli.models.sampled_tree import SampledTree
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Retain
from diffusecli.prompts.contexts import Contexts
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.wording_names import split_alias
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import many
from diffusecli.system.notices import Notice
from diffusecli.training.inputs import require_context
from diffusecli.training.loss import target_log_probs
from diffusecli.training.pass_choice import choose_strategy, fitting_answers
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question, figures_of
from diffusecli.training.retention import prepare, read_instructions
from diffusecli.training.scorer import Scorer
from diffusecli.training.visits import MANY_PROMPTS, drawn_tree

_SEQUENCES_MEASURED = 256
"""Number of sequences for estimates of answers in parts."""


def scorer_of(base: LoadedModel, encoded: list[EncodedPrompt], source: ModelSource, settings: AlgConfig, notice: Notice) -> Scorer:
    """A scorer of these prompts with the model in its current state, in this process only."""
    processes = Processes(source.device)
    strategy, _ = choose_strategy(base, encoded, source, settings, processes)
    return Scorer(base.model, strategy, None, processes, notice)


def measure(
    run: RunDir, source: ModelSource, settings: AlgConfig, retain: Retain, seed: int, prompts: Sequence[Prompt], notice: Notice,
    *, others: Sequence[Prompt] = (), contexts: Contexts | None = None,
) -> Measured:  # fmt: skip
    """Score all prompts with targets of a run, and `others`, with the base model and with the run's adapter if there is one.

    Every wording is scored. If there are few prompts, the first wording is also scored in the held-out `contexts`.
    Drift is measured on the instructions of `retain`, in the order set by `seed`.
    Raises `InputError` if a prompt is too long for the model, or if the adapter has another base model.
    """
    own, wanted = (
        {p.digest: p for p in some if p.targets} for some in (prompts, [*prompts, *others])
    )  # copies have the same figures
    if not wanted:
        return Measured()
    placed = _in_contexts(own, wanted, notice) if contexts is not None else set()
    base = load_model(source, notice)
    if run.has_adapter:
        require_trained_on(base, recorded_base(run), run.path)
    most = shape_of(base.model.config, 0).context
    asked = [_Asked.of(prompt, base.chat, contexts if key in placed else None, most) for key, prompt in wanted.items()]
    encoded = [e for one in asked for e in one.encoded]
    require_context(encoded, most)
    scorer = scorer_of(base, encoded, source, settings, notice)
    chat = json.loads(json.dumps(base.chat_settings.recorded))
    if run.read_manifest().get("chat", chat) != chat:
        notice(
            f"{run.config}: the system prompt, chat template or its variables differ from those of the training. Exact figures use this "
            "config. They are not shown for samples that were rendered differently"
        )
    measured = Measured(chat=chat)
    _keep(measured, "untuned", asked, scorer)
    if not run.has_adapter:
        return measured
    instructions = read_instructions(retain)
    retention = prepare(base, retain, instructions, seed=seed, strategy=scorer.strategy, notice=notice)
    load_adapter(base, run.path, recorded=recorded_base(run), named=source.named, notice=notice)
    scorer.model = base.model
    _keep(measured, "lora", asked, scorer)
    scorer.strategy, _ = fitting_answers(scorer.strategy, "", base.model.config, retention.held_out, settings.batch_size)
    drift = scorer.drift(retention.held_out)
    if np.isnan(drift):
        raise cause(base.model, base.name)
    return replace(measured, drift=drift)


def _keep(measured: Measured, mode: str, asked: Sequence[_Asked], scorer: Scorer) -> None:
    """Add the figures of all prompts with the model in its current state."""
    scores = iter(scorer.log_probs([e for one in asked for e in one.encoded]))
    by_prompt = [[next(scores) for _ in one.encoded] for one in asked]
    limits = scorer.rounding([list(zip(one.encoded, paths, strict=True)) for one, paths in zip(asked, by_prompt, strict=True)])
    for one, paths, limit in zip(asked, by_prompt, limits, strict=True):
        key = (mode, one.prompt.digest)
        measured.rounding[key] = limit
        if one.prompt.in_parts:
            measured.draws[key] = one.estimated(paths)
        else:
            measured.log_q[key], measured.wordings[key] = one.pooled(paths), one.each(paths)


def _in_contexts(own: Mapping[str, Prompt], wanted: Mapping[str, Prompt], notice: Notice) -> set[str]:
    """Digests of the prompts to measure in held-out contexts: all if they are few, otherwise the run's own prompts if those are few."""

    def are_few(some: Mapping[str, Prompt]) -> bool:
        return len({split_alias(prompt.alias)[0] for prompt in some.values()}) <= MANY_PROMPTS

    if are_few(wanted):
        return set(wanted)
    too_many = f"there are {len(wanted)} prompts, and the limit is {MANY_PROMPTS}"
    if own and are_few(own):
        notice(f"held-out contexts are measured only for the run's own {many(len(own), 'prompt')}: {too_many}")
        return set(own)
    notice(f"held-out contexts are not measured: {too_many}")
    return set()


@dataclass(frozen=True)
class _Asked:
    """All variants of a prompt to score: its wordings, its held-out wordings, its first wording in contexts."""

    prompt: Prompt
    encoded: tuple[EncodedPrompt, ...]
    kinds: tuple[tuple[Kind, str], ...]  # of each, and its name

    @classmethod
    def of(cls, prompt: Prompt, chat: Chat, contexts: Contexts | None, most: int | None) -> _Asked:
        """Encode a prompt; skip contexts of more than `most` tokens, and all contexts of a wording that was sampled separately."""
        question = Question.of(prompt, chat)
        contexts = None if split_alias(prompt.alias)[1] else contexts
        placed = contexts.held_out(question.wordings[0].prompt) if contexts is not None else ()
        names = {id(other): name for name, other in placed}
        around = question.in_contexts(placed, chat, most)
        others = around.wordings if around else ()
        kinds = [*kinds_of(prompt), *(("context", names[id(e.prompt)]) for e in others)]
        found = (*question.wordings, *question.held_out, *others)
        if prompt.in_parts:
            found = tuple(replace(e, trie=drawn_tree(e, _SEQUENCES_MEASURED, None)) for e in found)
        return cls(prompt, found, tuple(kinds))

    def estimated(self, paths: Sequence[np.ndarray]) -> ExactFigures:
        """Estimates for answers in parts, from drawn sequences: means over the wordings and over the earlier parts."""
        pairs = [(e.trie, log_probs) for e, log_probs in zip(self.encoded, paths, strict=True) if isinstance(e.trie, SampledTree)]
        whole = [tree.estimates(log_probs) for tree, log_probs in pairs[: len(self.prompt.wordings)]]
        each = zip(*(tree.of_draws(log_probs) for tree, log_probs in pairs[: len(whole)]), strict=True)
        draws = (
            Worded(
                "draw" if self.prompt.draws is not None else "field",
                name,
                *(math.fsum(getattr(one, name) for one in some) / len(some) for name in ("kl", "on_target", "tvd")),
            )
            for name, some in zip(self.prompt.record.fields if self.prompt.record else (), each, strict=True)
        )
        kl, on_target, error = (
            math.fsum(getattr(one, name) for one in whole) / len(whole) for name in ("kl", "on_target", "error")
        )
        return ExactFigures(kl, on_target, kl_error=error, wordings=(*self.each(paths), *draws))

    def pooled(self, paths: Sequence[np.ndarray]) -> np.ndarray:
        """Ln of the mean probability of each target [K] over the wordings, nats."""
        pairs = list(zip(self.encoded, paths, strict=True))[: len(self.prompt.wordings)]
        return pooled([target_log_probs(e, log_probs) for e, log_probs in pairs])

    def each(self, paths: Sequence[np.ndarray]) -> tuple[Worded, ...]:
        """Figures of each variant; () if there is only one wording."""
        found = (figures_of(e, log_probs) for e, log_probs in zip(self.encoded, paths, strict=True))
        return worded(self.kinds, ((one.kl, one.on_target, one.tvd) for one in found))
