"""A question: a prompt with all its wordings in tokens, and exact figures of a model's answers.

All wordings have the same target distribution. The figures of a prompt with several wordings are means over them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from diffusecli.models.chat import Chat
from diffusecli.models.encoding import EncodedPrompt, encode_like, encode_wordings
from diffusecli.models.sampled_tree import SampledTree
from diffusecli.prompts.divergence import exact_kl, exact_tvd
from diffusecli.prompts.groups import group_of
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import InputError
from diffusecli.training.loss import row_length, target_log_probs
from diffusecli.training.rounding import Rounding
from diffusecli.training.spelled import lowest_loss

_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Question:
    """A prompt and its wordings in tokens."""

    prompt: Prompt
    wordings: tuple[EncodedPrompt, ...]
    held_out: tuple[EncodedPrompt, ...] = ()

    @classmethod
    def of(cls, prompt: Prompt, chat: Chat) -> Question:
        """Encode every wording of a prompt. Raises the errors of `encode_prompt`."""
        encoded = encode_wordings([*prompt.wordings, *prompt.held_out], chat)
        return cls(prompt, encoded[: len(prompt.wordings)], encoded[len(prompt.wordings) :])

    @property
    def alias(self) -> str:
        """The prompt's path."""
        return self.prompt.alias

    @property
    def entropy(self) -> float:
        """The lowest possible loss of a wording, nats."""
        return lowest_loss(self.wordings[0])

    @property
    def held_out_alone(self) -> Question | None:
        """The held-out wordings as a separate question; None if there are none."""
        if not self.held_out:
            return None
        return Question(self.prompt.model_copy(update={"alias": f"{self.alias}#held-out"}), self.held_out)

    def in_contexts(self, placed: Sequence[tuple[str, Prompt]], chat: Chat, most: int | None = None) -> Question | None:
        """The first wording in held-out contexts, as a separate question; None if there are none.

        Contexts that the chat template refuses are skipped, and those longer than `most` tokens with the longest target.
        """
        encoded: list[EncodedPrompt] = []
        for _, prompt in placed:
            with suppress(InputError):
                encoded.append(encode_like(prompt, chat, self.wordings[0]))
        fitting = tuple(e for e in encoded if most is None or row_length(e) <= most)
        return Question(self.prompt.model_copy(update={"alias": f"{self.alias}#contexts"}), fitting) if fitting else None


def every_wording(questions: Sequence[Question]) -> list[EncodedPrompt]:
    """All wordings, trained and held out."""
    return [wording for question in questions for wording in (*question.wordings, *question.held_out)]


def sampled(questions: Sequence[Question], most: int, seed: str) -> list[Question]:
    """All questions, or a sample with at most `most` wordings in total and at least one per prompt in the sample.

    All prompts get the same number of wordings. What prompts with fewer wordings do not use goes to the others.
    """
    chosen = in_places(questions, most, seed)
    rooms = shared_out([len(question.wordings) for question in chosen], most)
    return [
        replace(q, wordings=tuple(in_places(q.wordings, room, f"{seed} {q.alias}"))) for q, room in zip(chosen, rooms, strict=True)
    ]


def shared_out(wanted: Sequence[int], most: int) -> list[int]:
    """Share out at most `most` items: each gets what it wants, or as many as the others that want more.

    >>> shared_out([1, 13, 13], 36), shared_out([1, 50, 5], 26), shared_out([9, 9], 5)
    ([1, 13, 13], [1, 20, 5], [3, 2])
    """
    given, left = [0] * len(wanted), most
    by_size = sorted(range(len(wanted)), key=lambda place: (wanted[place], -place))
    for waiting, place in zip(range(len(wanted), 0, -1), by_size, strict=True):
        given[place] = min(wanted[place], left // waiting)
        left -= given[place]
    return given


def in_places(items: Sequence[_Kind], most: int, seed: str) -> list[_Kind]:
    """All items, or a sample of `most` fixed by the seed, in their order.

    >>> in_places("abc", 3, "0"), sorted(in_places("abcdef", 4, "0")) == in_places("abcdef", 4, "0")
    (['a', 'b', 'c'], True)
    """
    if len(items) <= most:
        return list(items)
    return [items[place] for place in sorted(random.Random(seed).sample(range(len(items)), most))]


class Figures(NamedTuple):
    """Exact figures of one wording."""

    kl: float  # KL(target || model), nats
    on_target: float  # probability of all targets
    tvd: float  # total variation distance; all off-target answers count as one outcome
    error: float = 0.0  # standard error of the KL, nats; 0 if the figures are exact


_RECORDED = ("kl", "on_target", "tvd")
"""Figures of each wording that `run.json` records."""


@dataclass(frozen=True)
class Exact:
    """Exact figures of a model on some prompts, in order."""

    prompts: tuple[Prompt, ...]
    figures: tuple[tuple[float, float], ...]  # KL(target || model) in nats and on-target mass, means over wordings
    wordings: tuple[tuple[Figures, ...], ...] = ()  # by prompt and wording; () if only the means are known
    errors: tuple[float, ...] = ()  # standard errors of the KLs, 0 if exact; () if all are exact
    rounding: tuple[Rounding, ...] = ()  # by a 16-bit model; () if it was not measured

    @classmethod
    def of(cls, questions: Sequence[Question], found: Sequence[Figures], rounding: tuple[Rounding, ...] = ()) -> Exact:
        """Build it from the figures of all wordings, question by question."""
        ends = np.cumsum([len(question.wordings) for question in questions]).tolist()
        each = [tuple(found[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        means = tuple((float(np.mean([f.kl for f in some])), float(np.mean([f.on_target for f in some]))) for some in each)
        # upper bounds, because wordings are measured on the same targets
        of_means = tuple(float(np.mean([f.error for f in some])) for some in each)
        return cls(
            tuple(question.prompt for question in questions), means, tuple(each), of_means if any(of_means) else (), rounding
        )

    @property
    def kl(self) -> dict[str, float]:
        """KL(target || model) in nats, by alias."""
        return {prompt.alias: kl for prompt, (kl, _) in zip(self.prompts, self.figures, strict=True)}

    @property
    def on_target(self) -> dict[str, float]:
        """On-target mass by alias."""
        return {prompt.alias: mass for prompt, (_, mass) in zip(self.prompts, self.figures, strict=True)}

    @property
    def estimated(self) -> dict[str, float]:
        """Standard error of the KL by alias, for prompts whose figures are estimates."""
        return {prompt.alias: error for prompt, error in zip(self.prompts, self.errors, strict=False) if error}

    @property
    def rounded(self) -> dict[str, float | None]:
        """The rounding of the KL by alias, for 16-bit models; None if unknown."""
        pairs = zip(self.prompts, self.rounding, strict=False)
        return {prompt.alias: None if math.isnan(one.kl) else one.kl for prompt, one in pairs if one.kl}

    @property
    def of_wordings(self) -> dict[str, dict[str, list[float]]]:
        """Figures of each wording by alias, for prompts with several wordings."""
        pairs = zip(self.prompts, self.wordings, strict=True) if self.wordings else ()
        return {
            prompt.alias: {name: [round(getattr(f, name), 6) for f in some] for name in _RECORDED}
            for prompt, some in pairs
            if len(some) > 1
        }

    @property
    def finite(self) -> bool:
        """Whether every figure is finite."""
        return bool(np.isfinite(self.figures).all())


def by_name(exact: Exact, names: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    """KL and on-target mass by the names of `shown_as`; means over prompts with the same name."""
    seen: dict[str, list[tuple[float, float]]] = {}
    for prompt, figures in zip(exact.prompts, exact.figures, strict=True):
        seen.setdefault(names.get(prompt.alias, prompt.alias), []).append(figures)
    kl, on_target = ({name: float(np.mean([f[place] for f in some])) for name, some in seen.items()} for place in (0, 1))
    return kl, on_target


def shown_as(questions: Sequence[Question], most: int) -> dict[str, str]:
    """Alias -> name under which figures are shown: the alias, or the folder if there are more than `most` prompts."""
    aliases = [question.alias for question in questions]
    return group_of(aliases) if len(aliases) > most else dict(zip(aliases, aliases, strict=True))


def figures_of(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> Figures:
    """Exact figures of one wording from the log-probabilities of its paths [J], nats; estimates if the tree is sampled."""
    if isinstance(encoded.trie, SampledTree):
        found = encoded.trie.estimates(path_log_probs)
        return Figures(found.kl, found.on_target, found.tvd, found.error)
    log_q, p = target_log_probs(encoded, path_log_probs), np.array(encoded.prompt.probabilities)
    q = np.exp(log_q)
    return Figures(exact_kl(p, log_q), float(q.sum()), exact_tvd(p, q))
