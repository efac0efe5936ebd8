"""Exact figures of a served model (`--exact --engine openai`), or their limits if the server lists only the most likely tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusecli.evaluation.bounds import bounded_figures
from diffusecli.evaluation.measured import Measured, kinds_of, pooled, worded
from diffusecli.evaluation.sample_set import SERVED, SampleSet
from diffusecli.models.chat import ChatSettings
from diffusecli.prompts.answer_texts import answer_texts
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.divergence import exact_kl, exact_tvd, summed
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.answer_paths import Asked
from diffusecli.sampling.connection import Service
from diffusecli.sampling.first_tokens import FirstTokens
from diffusecli.sampling.served_names import check_name
from diffusecli.sampling.served_probabilities import served_probabilities
from diffusecli.system.notices import Notice, some_of


@dataclass(frozen=True)
class ServedFigures:
    """What a server says of its model, for each way in which prompts were rendered."""

    model: str  # the server's name for it
    by_chat: Mapping[str, Measured]
    other: str = ""  # the only model that the server lists, if it has another name

    def of(self, sample: SampleSet) -> Measured | None:
        """The figures of the model that drew these samples; None if another one did."""
        return self.by_chat.get(_key(sample.asked or {})) if sample.served == self.model else None

    def unsampled(self, sets: Sequence[SampleSet]) -> Iterator[SampleSet]:
        """An empty sample set for every prompt that was measured, but has no samples of the model's own distribution."""
        there = {s.prompt.key for s in sets if (own := self.of(s)) is not None and not s.bent and own.knows(SERVED, s.prompt)}
        for measured in self.by_chat.values():
            for prompt in measured.prompts:
                if prompt.key not in there and measured.knows(SERVED, prompt):
                    there.add(prompt.key)
                    yield SampleSet(
                        self.model, SERVED, prompt, Answers(), asked=measured.chat, served=self.model, served_as=self.other
                    )


def served_figures(
    service: Service, sets: Sequence[SampleSet], others: Sequence[Prompt], chat: ChatSettings, notice: Notice
) -> ServedFigures:
    """Measure the prompts of samples as they were rendered, and other prompts with the settings `chat`."""
    if elsewhere := sorted(
        {s.served_at for s in sets if s.served == service.model and s.served_at and _elsewhere(service, s.served_at)}
    ):
        notice(
            f"{service.base_url}: samples of the model {service.model} are from another address ({some_of(elsewhere)}). Their exact figures are "
            "right only if both servers have the same model"
        )
    settings, prompts = {_key(chat.recorded): chat}, {_key(chat.recorded): list(others)}
    for sample in sets:
        own = chat if sample.asked is None else _settings(sample.asked)
        settings.setdefault(key := _key(own.recorded), own)
        prompts.setdefault(key, []).append(sample.prompt)
    measured = {key: measure_served(service, own, prompts[key], notice) for key, own in settings.items() if prompts[key]}
    warning, other = check_name(service, "figures") if any(one.log_q or one.bounds for one in measured.values()) else ("", "")
    if warning:
        notice(warning)
    return ServedFigures(service.model, measured, other)


def _elsewhere(service: Service, address: str) -> bool:
    return address.rstrip("/") != service.base_url.rstrip("/")


def _settings(asked: Mapping[str, Any]) -> ChatSettings:
    """Recorded settings, except for a chat template: a server has its own."""
    return ChatSettings(None, asked.get("chat_template_kwargs") or {}, asked.get("system"))


def _key(recorded: Mapping[str, Any]) -> str:
    return json.dumps(_settings(recorded).recorded, sort_keys=True)


def measure_served(service: Service, chat: ChatSettings, prompts: Sequence[Prompt], notice: Notice) -> Measured:
    """Score all wordings of all prompts with targets. Raises the errors of `served_probabilities`."""
    wanted = {prompt.digest: prompt for prompt in prompts if prompt.targets}  # copies have the same figures
    if in_parts := [prompt.alias for prompt in wanted.values() if prompt.in_parts]:
        notice(f"answers in parts are not measured on a server: {some_of(in_parts)}")
    asked = {digest: _asked(prompt, chat) for digest, prompt in wanted.items() if not prompt.in_parts}
    if not asked:
        return Measured(chat=chat.recorded, mode=SERVED, prompts=tuple(prompts))
    found = served_probabilities(service, chat, [one for some in asked.values() for one in some])
    notice(f"{service.base_url}: {'exact figures' if found.exact else 'limits, not exact figures,'} from {found.how}")
    scores, measured = iter(found.scores), Measured(chat=chat.recorded, mode=SERVED, prompts=tuple(prompts))
    for digest, some in asked.items():
        _keep(measured, wanted[digest], [next(scores) for _ in some])
    return measured


def _asked(prompt: Prompt, chat: ChatSettings) -> list[Asked]:
    """Each wording with all its answers, the trained ones first."""
    return [
        Asked(one.alias, tuple(chat.messages(one)), tuple(answer.text for answer in answer_texts(one)), one.eos)
        for one in (*prompt.wordings, *prompt.held_out)
    ]


def _keep(measured: Measured, prompt: Prompt, scores: Sequence[np.ndarray | FirstTokens]) -> None:
    """Add the figures of one prompt from the scores of its wordings."""
    key, trained = (SERVED, prompt.digest), len(prompt.wordings)
    if limits := [score for score in scores[:trained] if isinstance(score, FirstTokens)]:
        measured.bounds[key] = bounded_figures(prompt, limits)
        return
    owners = [answer.target for answer in answer_texts(prompt)]
    each = [summed(owners, score, len(prompt.targets)) for score in scores if not isinstance(score, FirstTokens)]
    p = np.array(prompt.probabilities)
    figures = [(exact_kl(p, log_q), float(np.exp(log_q).sum()), exact_tvd(p, np.exp(log_q))) for log_q in each]
    measured.log_q[key], measured.wordings[key] = pooled(each[:trained]), worded(kinds_of(prompt), figures)
