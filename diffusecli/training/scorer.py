"""Score prompts, and hold on to answers, with the work shared out between processes and in parts that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from diffusecli.models.architecture import trainable
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.overflow import cause
from diffusecli.prompts.divergence import exact_kl
from diffusecli.prompts.prompt import Prompt
from diffusecli.system.errors import MachineError
from diffusecli.system.notices import Notice
from diffusecli.training.layout import Part
from diffusecli.training.loss import Pass, target_log_probs
from diffusecli.training.processes import OutOfMemoryError, Piece, Processes
from diffusecli.training.retention import Answer, Retention


@dataclass(frozen=True)
class Exact:
    """Exact figures of a model on some prompts, in their order."""

    prompts: tuple[Prompt, ...]
    figures: tuple[tuple[float, float], ...]  # KL(target || model) in nats, mass on target

    @property
    def kl(self) -> dict[str, float]:
        """KL(target || model) in nats by alias, as files name prompts."""
        return {prompt.alias: kl for prompt, (kl, _) in zip(self.prompts, self.figures, strict=True)}

    @property
    def on_target(self) -> dict[str, float]:
        """Mass on target by alias, as files name prompts."""
        return {prompt.alias: mass for prompt, (_, mass) in zip(self.prompts, self.figures, strict=True)}

    @property
    def finite(self) -> bool:
        """Whether every figure is a number."""
        return bool(np.isfinite(self.figures).all())


@dataclass(frozen=True)
class Scores:
    """What one go over some prompts found."""

    log_probs: list[np.ndarray]  # per prompt: of its J paths, nats
    retained: list[float]  # per answer: KL(base || tuned) per token
    tokens_fed: int


@dataclass
class Scorer:
    """A model and how it is scored; `strategy` becomes smaller parts when memory does not suffice."""

    model: Any
    strategy: Pass
    retention: Retention | None
    processes: Processes
    notice: Notice

    def score(
        self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, backward: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> Scores:  # fmt: skip
        """Score every prompt; with `backward`, leave the gradient, summed over all processes, in the model's weights.

        `between` is called before each part. Raises `MachineError` when even the smallest parts do not fit.
        """
        while True:
            try:
                scores = self._try(encoded, answers, backward, between)
            except OutOfMemoryError as error:
                if backward:
                    self.model.zero_grad()  # of what part of it was done
                self._shrink(encoded, error)
            else:
                if backward:
                    self.processes.sum_gradients(trainable(self.model))
                return scores

    def log_probs(self, encoded: Sequence[EncodedPrompt]) -> list[np.ndarray]:
        """Per prompt, of its J paths in nats; raises `InputError`, with the cause, when one is not a number."""
        found = self.score(encoded).log_probs
        if any(np.isnan(log_probs).any() for log_probs in found):
            raise cause(self.model)
        return found

    def exact(self, encoded: Sequence[EncodedPrompt]) -> Exact:
        """Exact KL(p || q) in nats and exact on-target mass per prompt, one forward pass each."""
        scores = self.score(encoded).log_probs
        return Exact(
            tuple(e.prompt for e in encoded),
            tuple(figures_of(e, log_probs) for e, log_probs in zip(encoded, scores, strict=True)),
        )

    def _try(
        self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], backward: bool, between: Callable[[], None]
    ) -> Scores:
        strategy = self.strategy
        parts = [(place, part) for place, e in enumerate(encoded) for part in strategy.parts(e, at_least=self.processes.count)]
        pieces = [Piece(part.tokens, partial(strategy.run, self.model, encoded[i], part, backward=backward)) for i, part in parts]
        if self.retention is not None:
            pieces += [Piece(answer.tokens, partial(self.retention.run, self.model, answer)) for answer in answers]
        results = self.processes.run(pieces, between)
        found: list[dict[Part, np.ndarray]] = [{} for _ in encoded]  # by place: two prompts may have one alias
        for (place, part), result in zip(parts, results, strict=False):
            found[place][part] = result
        joined = [strategy.joined(e, of_prompt) for e, of_prompt in zip(encoded, found, strict=True)]
        return Scores(joined, results[len(parts) :], sum(piece.tokens for piece in pieces))

    def _shrink(self, encoded: Sequence[EncodedPrompt], error: OutOfMemoryError) -> None:
        largest = max(part.tokens for e in encoded for part in self.strategy.parts(e))
        smaller = self.strategy.halved(encoded)
        if max(part.tokens for e in encoded for part in smaller.parts(e)) >= largest:
            raise MachineError(
                f"{encoded[0].alias}: not enough memory even for the smallest part; set alg_config.gradient_checkpointing, "
                "precision: bf16 or quantize: nf4, or take a smaller model"
            ) from error
        self.strategy = smaller
        self.notice(f"not enough memory: going on in parts of {smaller.size}")


def figures_of(prompt: EncodedPrompt, path_log_probs: np.ndarray) -> tuple[float, float]:
    """KL(p || q) = sum p (ln p - ln q) over targets in nats, and the mass sum q on them."""
    log_q = target_log_probs(prompt, path_log_probs)
    return exact_kl(np.array(prompt.prompt.probabilities), log_q), float(np.exp(log_q).sum())
