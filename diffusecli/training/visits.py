"""Which prompts, wordings, contexts and instructions a step takes: all of it follows from the seed and the number of the step.

An iteration visits every prompt once, in a shuffled order. A visit takes some of the prompt's wordings, each once before any comes
again. The loss of a step is the mean over its prompts of the mean over the wordings that are taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_like
from diffusecli.prompts.config import AlgConfig
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.training.answers import Answer
from diffusecli.training.loss import row_length
from diffusecli.training.questions import Question
from diffusecli.training.retention import Retention
from diffusecli.training.rounds import in_rounds

_WORDINGS = 8
"""Of a prompt in one step, unless the config says how many."""
MANY_PROMPTS = 32
"""More prompts than that take several a step, and are shown by folder."""
_PROMPTS = 4
"""Of many in one step, unless the config says how many: as many prompts teach more in twice the steps than eight at a time."""


class Contexts(Protocol):
    """What surrounds requests, another at each visit."""

    def around(self, prompt: Prompt, *key: object) -> Prompt:
        """The prompt in a context that follows from the key."""


@dataclass(frozen=True)
class Visit:
    """One wording of one prompt, as a step takes it."""

    question: Question
    encoded: EncodedPrompt  # in its context; the weights of its trie are multiplied by its share
    share: float  # of the step's loss


@dataclass(frozen=True)
class Visits:
    """The plan of a training."""

    questions: Sequence[Question]
    settings: AlgConfig
    seed: int
    chat: Chat
    contexts: Contexts | None = None
    retention: Retention | None = None
    most_tokens: int | None = None  # of a prompt in a context, with its longest target

    @property
    def prompts(self) -> int:
        """In one step; the last of an iteration may have fewer."""
        return prompts_per_step(self.settings, len(self.questions))

    @cached_property
    def most_requests(self) -> int:
        """Of a step: the wordings of its prompts."""
        return min(self.prompts, len(self.questions)) * max(
            wordings_per_visit(self.settings, question) for question in self.questions
        )

    @property
    def per_iteration(self) -> int:
        """Steps in one go over all prompts."""
        return -(-len(self.questions) // self.prompts)

    def step(self, number: int) -> tuple[list[Visit], list[Answer]]:
        """What the step takes: wordings of prompts, and an answer to hold the model to."""
        iteration, place = divmod(number, self.per_iteration)
        order = random.Random(f"{self.seed} {iteration}").sample(range(len(self.questions)), len(self.questions))
        chosen = order[place * self.prompts : (place + 1) * self.prompts]
        visits = [visit for index in chosen for visit in self._wordings(index, iteration, 1 / len(chosen))]
        return visits, self.retention.answers(number) if self.retention else []

    def _wordings(self, index: int, iteration: int, share: float) -> list[Visit]:
        question = self.questions[index]
        count = wordings_per_visit(self.settings, question)
        name = f"{self.seed} {question.alias}"
        taken = [in_rounds(question.wordings, iteration * count + turn, name) for turn in range(count)]
        share /= count
        return [Visit(question, self._in_context(e, share, name, iteration), share) for e in taken]

    def _in_context(self, encoded: EncodedPrompt, share: float, name: str, iteration: int) -> EncodedPrompt:
        if self.contexts is not None:
            around = self.contexts.around(encoded.prompt, name, encoded.alias, iteration)
            try:
                placed = encoded if around is encoded.prompt else encode_like(around, self.chat, encoded)
            except InputError as error:
                raise InputError(f"{error}. If the template takes no earlier turns, set vary.turns to false") from error
            encoded = placed if self.most_tokens is None or row_length(placed) <= self.most_tokens else encoded
        return replace(encoded, trie=encoded.trie.scaled(share))


def wordings_per_visit(settings: AlgConfig, question: Question) -> int:
    """As the config says, and no more than there are."""
    wanted = _WORDINGS if settings.wordings_per_step == "auto" else settings.wordings_per_step
    return min(len(question.wordings), wanted)


def prompts_per_step(settings: AlgConfig, prompts: int) -> int:
    """As the config says; auto: one of few prompts, several of many."""
    if settings.prompts_per_step != "auto":
        return settings.prompts_per_step
    return _PROMPTS if prompts > MANY_PROMPTS else 1
