"""Choose the prompts, wordings, contexts and instructions of a step. All follow from the seed and the step number.

An iteration visits every prompt once, in shuffled order. A visit uses some of the prompt's wordings; each is used once before any is
used again. The loss of a step is the mean over its prompts of the mean over the wordings used.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_like
from diffusecli.models.sampled_tree import SampledTree, draw_paths, sampled_tree
from diffusecli.prompts.config import AlgConfig
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.training.answers import Answer
from diffusecli.training.loss import row_length
from diffusecli.training.questions import Question
from diffusecli.training.retention import Retention
from diffusecli.training.rounds import in_rounds

_WORDINGS = 8
"""Default maximum of wordings per prompt and step."""
MANY_PROMPTS = 32
"""With more prompts than this, a step uses several, and figures are shown by folder."""
_LARGE_TREE = 1000
"""With more prefixes than this, a step samples targets by default."""
_DRAWN = 64
"""Number of targets that such a step samples."""
_SEQUENCES = 16
"""Number of sequences that a step samples for answers in parts."""
_MOST_NODES = 5_000_000
"""Maximum nodes of a tree of sequences. Fewer sequences are sampled if it could have more."""
_PROMPTS = 4
"""Default prompts per step if there are many. Four per step learn more than eight per step in half as many steps."""


class Contexts(Protocol):
    """Contexts around requests, a different one at each visit."""

    def around(self, prompt: Prompt, *key: object) -> Prompt:
        """The prompt in a context determined by the key."""


@dataclass(frozen=True)
class Visit:
    """One wording of one prompt in a step."""

    question: Question
    encoded: EncodedPrompt  # in its context; trie weights are multiplied by `share`
    share: float  # share of the step's loss


@dataclass(frozen=True)
class Visits:
    """The visits of a training."""

    questions: Sequence[Question]
    settings: AlgConfig
    seed: int
    chat: Chat
    contexts: Contexts | None = None
    retention: Retention | None = None
    most_tokens: int | None = None  # maximum row length of a prompt in a context

    @property
    def prompts(self) -> int:
        """Prompts per step; the last step of an iteration may have fewer."""
        return prompts_per_step(self.settings, len(self.questions))

    @cached_property
    def most_requests(self) -> int:
        """The maximum requests of a step: wordings of all its prompts."""
        return min(self.prompts, len(self.questions)) * max(
            wordings_per_visit(self.settings, question) for question in self.questions
        )

    @property
    def per_iteration(self) -> int:
        """Steps in one pass over all prompts."""
        return -(-len(self.questions) // self.prompts)

    def step(self, number: int) -> tuple[list[Visit], list[Answer]]:
        """The visits of a step, and its retention answers."""
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
                raise InputError(f"{error}. If the chat template accepts no earlier turns, set vary.turns to false") from error
            encoded = placed if self.most_tokens is None or row_length(placed) <= self.most_tokens else encoded
        if (count := drawn_in_a_step(self.settings, encoded)) is not None:
            encoded = replace(encoded, trie=drawn_tree(encoded, count, f"{name} {encoded.alias} {iteration} targets"))
        return replace(encoded, trie=encoded.trie.scaled(share))


def wordings_per_visit(settings: AlgConfig, question: Question) -> int:
    """As configured, at most the number of wordings."""
    wanted = _WORDINGS if settings.wordings_per_step == "auto" else settings.wordings_per_step
    return min(len(question.wordings), wanted)


def drawn_in_a_step(settings: AlgConfig, encoded: EncodedPrompt) -> int | None:
    """How many targets (for answers in parts: sequences) a step samples from a prompt; None if it uses all.

    The weights of spellings and response variants depend on the model's probabilities of all of them, so such prompts are never sampled.
    """
    wanted = settings.targets_per_step
    if encoded.sequences is not None:
        return _SEQUENCES if wanted == "auto" else wanted
    if wanted == "auto":
        wanted = _DRAWN if len(encoded.trie.internal) > _LARGE_TREE else len(encoded.trie.leaves)
    return None if needs_all(encoded) or wanted >= len(encoded.trie.leaves) else wanted


def needs_all(encoded: EncodedPrompt) -> bool:
    """Whether a target has several paths, whose probabilities must be summed. Then a sample of paths gives no figures of targets."""
    return bool(encoded.choices) or len(encoded.prompt.variants) > 1


def estimable(question: Question, settings: AlgConfig, count: int) -> Question:
    """The prompt with its sampled trees reduced to `count` drawn paths. Its figures are then estimates."""
    return _reduced(question, lambda encoded: None if drawn_in_a_step(settings, encoded) is None else count)


def in_a_step(question: Question, settings: AlgConfig) -> Question:
    """The prompt with its trees reduced to what a step uses."""
    return _reduced(question, lambda encoded: drawn_in_a_step(settings, encoded))


def _reduced(question: Question, count: Callable[[EncodedPrompt], int | None]) -> Question:
    def cut(encoded: EncodedPrompt) -> EncodedPrompt:
        wanted = count(encoded)
        if wanted is None or (encoded.sequences is None and wanted >= len(encoded.trie.leaves)):
            return encoded
        return replace(encoded, trie=drawn_tree(encoded, wanted, None))

    return replace(question, wordings=tuple(map(cut, question.wordings)))


def drawn_tree(encoded: EncodedPrompt, count: int, seed: str | None) -> SampledTree:
    """The part of a prompt's tree that `count` drawn paths visit. Without a seed the paths are always the same."""
    number = random.Random(seed or "evenly").getrandbits(64)
    if encoded.sequences is not None:
        nodes = sum(len(trie) for trie in encoded.sequences.places)
        count = max(2, min(count, _MOST_NODES // nodes))
        return encoded.sequences.sample(count, number)
    return sampled_tree(encoded.trie, draw_paths(encoded.trie, np.random.default_rng(number).random(count)))


def prompts_per_step(settings: AlgConfig, prompts: int) -> int:
    """As configured; auto: one if there are few prompts, several if many."""
    if settings.prompts_per_step != "auto":
        return settings.prompts_per_step
    return _PROMPTS if prompts > MANY_PROMPTS else 1
