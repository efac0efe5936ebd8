"""Exact probabilities of every target, and what every way to find them has in common.

For a trie the loss is L = - sum_k p_k ln q(y_k | x) = - sum_v mass(v) ln q(token(v) | path to its parent). Three ways give the same
numbers: one sequence (`packed_pass.py`), states (`state_pass.py`), one row per path (`rows_pass.py`). All cut their work into
parts whose gradients add up, so that parts can be run together, one after the other, or in several processes.

Axis names: J paths, K targets, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.training.answers import Answer
from diffusecli.training.batches import Batch
from diffusecli.training.layout import Part


@dataclass(frozen=True)
class PathScores:
    """ln q of every path under the model, exact, and how many tokens were fed to find them."""

    log_probs: np.ndarray  # J, nats
    tokens_fed: int


@dataclass(frozen=True)
class Found:
    """What a pass over a batch found, in its order."""

    parts: tuple[np.ndarray, ...]  # of edges (packed) or paths (rows), nats
    answers: tuple[np.ndarray, ...]  # [T] KL(base || tuned) of each token, nats


@dataclass(frozen=True)
class Loss:
    """What is added to the gradient: `scale` times the loss, in which answers weigh `hold`."""

    hold: float = 0.0
    scale: float = 1.0


class Pass(Protocol):
    """A way to score prompts and answers, batch by batch."""

    @property
    def size(self) -> int | None:
        """The most tokens (packed) or rows of a part; None for no bound."""

    @property
    def weighs_spellings(self) -> bool:
        """Whether `run` itself finds how much each spelling weighs, of prompts that are one part."""

    def sized(self, size: int | None) -> Pass:
        """The same in parts of another size."""

    def halved(self, batches: Sequence[Batch]) -> Pass:
        """The same in parts half as large as the largest of these."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Cut the work on one prompt; into `at_least` so many parts where the trie is large enough."""

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """What is run at once; `at_least` so many batches where there is enough work."""

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Score one batch of what `batches` was given; with a `loss`, its gradient is added."""

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """J: ln q of every path from the results of all parts, nats."""

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """Logits of the answers' tokens, one answer after the other [sum of T, V]."""


def score(model: Any, encoded: EncodedPrompt, strategy: Pass, *, backward: bool = False) -> PathScores:
    """Score one prompt, part by part; with `backward`, add up the gradient of L = - sum_k p_k ln q(y_k | x)."""
    batches = strategy.batches([encoded])
    found: dict[Part, np.ndarray] = {}
    for batch in batches:
        results = strategy.run(model, [encoded], (), batch, loss=Loss() if backward else None).parts
        found |= {part: result for (_, part), result in zip(batch.parts, results, strict=True)}
    return PathScores(strategy.joined(encoded, found), sum(batch.tokens for batch in batches))


class Cutting(Protocol):
    """What cuts the work on a prompt."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """See `Pass`."""


def cut(strategy: Cutting, encoded: Sequence[EncodedPrompt], others: int, at_least: int) -> list[tuple[int, Part]]:
    """The parts of all prompts; more of each where they, and `others`, are fewer than `at_least`."""
    each = -(-at_least // max(1, len(encoded) + others))
    return [(place, part) for place, e in enumerate(encoded) for part in strategy.parts(e, at_least=each)]


def longest(encoded: Sequence[EncodedPrompt]) -> EncodedPrompt:
    """The prompt whose rows are longest, the one a sliding window would cut first."""
    return max(encoded, key=row_length)


def target_log_probs(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> np.ndarray:
    """K: ln q of every target, its response variants and spellings summed."""
    totals = np.full(len(encoded.prompt.targets), -np.inf)
    np.logaddexp.at(totals, np.array(encoded.owners, dtype=int), path_log_probs)
    return totals


def row_length(encoded: EncodedPrompt) -> int:
    """The tokens of the prompt with its longest target, terminator included."""
    return len(encoded.prompt_ids) + encoded.longest
