"""Inputs of the training loop, prepared before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from diffusecli.models.architecture import counted_window, shape_of, trainable
from diffusecli.models.loading import LoadedModel
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import AlgConfig, Retain, Vary
from diffusecli.prompts.contexts import Contexts
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import many
from diffusecli.system.notices import CHECK, Notice
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.inputs import Inputs, require_agreement, require_context
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.pass_choice import checked_up_to, choose_strategy, fitting_answers
from diffusecli.training.processes import Processes
from diffusecli.training.questions import Question, every_wording, shown_as
from diffusecli.training.retention import Retention, prepare
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.scorer import Scorer
from diffusecli.training.visits import MANY_PROMPTS, Visits, needs_all


@dataclass(frozen=True)
class Prepared:
    """Prompts in tokens, and their scorer."""

    questions: list[Question]
    tests: list[Question]  # untrained prompts with targets, and held-out wordings of trained ones
    visits: Visits
    shown_as: dict[str, str]  # alias -> name under which its figures are shown
    scorer: Scorer
    weights: FlatWeights
    why: str  # the reason for this pass


@dataclass(frozen=True)
class Job:
    """Inputs of the training loop. Only the weights change."""

    run: RunDir
    base: LoadedModel
    prompts: Prepared
    settings: AlgConfig
    seed: int
    save_every: int  # iterations
    eval_every: int  # iterations
    tracked: dict[str, Any]  # settings to send to the tracker
    command: str  # the command that resumes, as text
    trained: bool  # whether the adapter comes from an earlier training

    @property
    def scorer(self) -> Scorer:
        """Scores the prompts with the current model."""
        return self.prompts.scorer

    @property
    def processes(self) -> Processes:
        """All processes of this training."""
        return self.scorer.processes

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps in one pass over all prompts."""
        return self.prompts.visits.per_iteration

    @property
    def weights(self) -> FlatWeights:
        """The trained weights."""
        return self.prompts.weights


def prepare_prompts(
    base: LoadedModel, source: ModelSource, inputs: Inputs, settings: AlgConfig, retain: Retain | Literal[False],
    vary: Vary | Literal[False], *, seed: int, size: int | None, processes: Processes, notice: Notice,
) -> Prepared:  # fmt: skip
    """Encode the prompts, choose the pass (in parts of the `size` used before), and get the base model's answers for retention."""
    questions, tests = ([Question.of(p, base.chat) for p in some] for some in (inputs.train, inputs.test))
    encoded = [wording for question in questions for wording in question.wordings]
    require_agreement(encoded, notice)
    context = shape_of(base.model.config, 0).context
    of_training = every_wording(questions)  # only these determine the pass, because a resumed run may have other test prompts
    require_context([*of_training, *every_wording(tests)], context)
    for remark in dict.fromkeys(remark for e in encoded for remark in e.remarks):
        notice(remark)
    if settings.targets_per_step != "auto" and (whole := [e.alias for e in encoded if needs_all(e)]):
        notice(
            f"{whole[0]}: has targets with several spellings or responses. Steps use all of them and ignore alg_config.targets_per_step"
        )
    strategy, why = choose_strategy(base, of_training, source, settings, processes, size)
    worded = f" in {len(encoded)} wordings" if len(encoded) > len(questions) else ""
    targets = sum(len(question.prompt.targets) for question in questions)
    fallback = isinstance(strategy, RowsPass)
    notice(f"{many(len(questions), 'prompt')}{worded}, {many(targets, 'target')}{f'; {why}' if fallback else ''}")
    if not fallback:
        notice(f"{CHECK}{why}")
    retention: Retention | None = None
    visits = Visits(questions, settings, seed, base.chat)
    if retain:
        retention = prepare(
            base, retain, inputs.instructions, seed=seed, strategy=strategy, notice=notice,
            shared=lambda mine: processes.first(lambda: mine), write=processes.main,
            steps=settings.n_iters * visits.per_iteration, most_requests=visits.most_requests,
        )  # fmt: skip
        answers = (*retention.kept, *retention.held_out)
        strategy, why = fitting_answers(strategy, why, base.model.config, answers, settings.batch_size)
    trained_on = {question.alias for question in questions}
    tests = [question for question in tests if question.prompt.targets and question.alias not in trained_on]
    tests += [held_out for question in [*questions, *tests] if (held_out := question.held_out_alone)]
    own_system = base.chat_settings.system is not None
    contexts = Contexts(vary, retention.turns if retention else (), own_system) if vary else None
    window = counted_window(base.model.config) if isinstance(strategy, PackedPass) else None
    most = min((bound for bound in (context, window) if bound is not None), default=None)
    if contexts is not None and len(questions) <= MANY_PROMPTS:
        placed = ((q, contexts.held_out(q.wordings[0].prompt)) for q in questions)
        tests += [around for q, some in placed if (around := q.in_contexts(some, base.chat, most))]
    weights = FlatWeights.of(trainable(base.model))
    scorer = Scorer(base.model, strategy, retention, processes, notice, weights, checked_up_to(base.model.config, of_training))
    visits = replace(visits, contexts=contexts, retention=retention, most_tokens=most)
    names = shown_as(questions, MANY_PROMPTS) | shown_as(tests, MANY_PROMPTS)
    return Prepared(questions, tests, visits, names, scorer, weights, why)
