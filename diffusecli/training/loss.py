"""Exact probabilities of every target: the code that all passes share.

For a trie the loss is L = - sum_k p_k ln q(y_k | x) = - sum_v mass(v) ln q(token(v) | path to its parent). Three passes give the same
numbers: one sequence (`packed_pass.py`), states (`state_pass.py`), one row per path (`rows_pass.py`). All split their work into
parts whose gradients add up, so that parts can run together, one after the other, or in several processes.

Axis names: J paths, K targets, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.prompts.divergence import summed
from diffusecli.training.answers import Answer
from diffusecli.training.batches import Batch
from diffusecli.training.layout import Part


@dataclass(frozen=True)
class PathScores:
    """Exact ln q of every path under the model, and the number of tokens fed."""

    log_probs: np.ndarray  # J, nats
    tokens_fed: int


@dataclass(frozen=True)
class Found:
    """Results of a pass over a batch, in the order of the batch."""

    parts: tuple[np.ndarray, ...]  # of edges (packed) or paths (rows), nats
    answers: tuple[np.ndarray, ...]  # [T] KL(base || tuned) of each token, nats


@dataclass(frozen=True)
class Loss:
    """Weights of the loss whose gradient is added: `scale` for all of it, `hold` for the answers."""

    hold: float = 0.0
    scale: float = 1.0


class Pass(Protocol):
    """A strategy to score prompts and answers, batch by batch."""

    @property
    def size(self) -> int | None:
        """The maximum tokens (packed) or rows of a part; None: no limit."""

    @property
    def weighs_spellings(self) -> bool:
        """Whether `run` computes the weights of spellings itself, for prompts in one part."""

    def sized(self, size: int | None) -> Pass:
        """The same pass with parts of another size."""

    def halved(self, batches: Sequence[Batch]) -> Pass:
        """The same pass with parts half as large as the largest batch."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Split one prompt into parts; `at_least` this many if the trie is large enough."""

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """Group the work into batches; `at_least` this many if there is enough work."""

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Score one batch from `batches`. With a `loss`, add its gradient."""

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """Log-probabilities ln q of all paths [J] from the results of all parts, nats."""

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
    """Anything that splits a prompt into parts."""

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """See `Pass`."""


def cut(strategy: Cutting, encoded: Sequence[EncodedPrompt], others: int, at_least: int) -> list[tuple[int, Part]]:
    """The parts of all prompts, as (index of the prompt, part). Prompts are split further if prompts and `others` are fewer than `at_least`."""
    each = -(-at_least // max(1, len(encoded) + others))
    return [(place, part) for place, e in enumerate(encoded) for part in strategy.parts(e, at_least=each)]


def longest(encoded: Sequence[EncodedPrompt]) -> EncodedPrompt:
    """The prompt with the longest rows, the first that a sliding window would cut."""
    return max(encoded, key=row_length)


def target_log_probs(encoded: EncodedPrompt, path_log_probs: np.ndarray) -> np.ndarray:
    """Log-probabilities ln q of all targets [K], summed over response variants and spellings."""
    return summed(encoded.owners, path_log_probs, len(encoded.prompt.targets))


def row_length(encoded: EncodedPrompt) -> int:
    """The number of tokens of the prompt with its longest target and the terminator."""
    return len(encoded.prompt_ids) + encoded.longest
