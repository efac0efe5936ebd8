"""Score prompts and retention answers, distributed over processes, in parts that fit into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.overflow import cause
from diffusecli.models.probing import UNSUPPORTED
from diffusecli.models.unrounded import Unrounded, can_be_unrounded
from diffusecli.models.wide_output import NARROW
from diffusecli.system.errors import MachineError, first_line
from diffusecli.system.notices import WARNING, Notice
from diffusecli.system.waits import waiting_for
from diffusecli.training.answers import Answer
from diffusecli.training.batches import Batch
from diffusecli.training.flat_weights import FlatWeights
from diffusecli.training.layout import Part
from diffusecli.training.loss import Found, Loss, Pass, row_length
from diffusecli.training.processes import Between, FailedPieceError, OutOfMemoryError, Piece, Processes
from diffusecli.training.questions import Exact, Question, figures_of
from diffusecli.training.retention import Retention
from diffusecli.training.rounding import UNKNOWN, Rounding, measured
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.spelled import weighed_by


@dataclass(frozen=True)
class Scores:
    """Results of scoring some prompts."""

    log_probs: list[np.ndarray]  # per prompt: ln q of its J paths, nats
    divergences: list[np.ndarray]  # per answer: KL(base || tuned) of each token, nats
    tokens_fed: int


@dataclass
class Scorer:
    """A model and its pass. `strategy` changes to smaller parts when memory runs out."""

    model: Any
    strategy: Pass
    retention: Retention | None
    processes: Processes
    notice: Notice
    weights: FlatWeights | None = None  # trained by the backward pass
    most: int | None = None  # row length up to which the pass was compared with rows; longer prompts are measured in rows
    expected: tuple[type[Exception], ...] = ()  # errors of parts that all processes raise, as `FailedPieceError`

    def score(
        self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, backward: bool = False,
        between: Between = lambda _done, _of: None,
    ) -> Scores:  # fmt: skip
        """Score every prompt. With `backward`, add the gradient, summed over processes, to that of `weights`.

        `between` is called before each part. Raises `MachineError` when even the smallest parts do not fit.
        """
        while True:
            try:
                scores = self._try(encoded, answers, backward, between)
            except OutOfMemoryError as error:
                if backward and self.weights is not None:
                    self.weights.clear()  # gradients of the parts already done
                self._shrink(encoded, answers, error)
            else:
                if backward and self.weights is not None:
                    self.processes.sum_gradients(self.weights.gradients)
                return scores

    def log_probs(self, encoded: Sequence[EncodedPrompt]) -> list[np.ndarray]:
        """Per prompt: ln q of its J paths, nats. Raises `InputError` with the cause when one is NaN."""
        with waiting_for("measuring") as advance:
            found = self.score(encoded, between=advance).log_probs
        if any(np.isnan(log_probs).any() for log_probs in found):
            raise cause(self.model)
        return found

    def rounding(self, groups: Sequence[Sequence[tuple[EncodedPrompt, np.ndarray]]]) -> list[Rounding]:
        """The rounding of the figures of each group of wordings with ln q of their paths [J]: none for a 32-bit model."""
        if self.model.dtype not in NARROW:
            return [Rounding()] * len(groups)
        if not can_be_unrounded(self.model):
            self.notice(
                "the rounding of a 16-bit model is not measured while its weights are sharded or offloaded. To measure it, run "
                "`diffuse evaluate --exact` on a device that has memory for all of them"
            )
            return [UNKNOWN] * len(groups)
        apart = replace(self, weights=None, expected=UNSUPPORTED)  # less memory here means no smaller parts later

        def score(encoded: Sequence[EncodedPrompt]) -> list[np.ndarray]:
            with Unrounded(), waiting_for("measuring the rounding") as advance:
                return apart.score(encoded, between=advance).log_probs

        found, why = [UNKNOWN] * len(groups), ""
        try:
            found = measured(groups, score)
        except (MachineError, FailedPieceError, *UNSUPPORTED) as error:
            if isinstance(error, MachineError) and error.shared:  # another process has failed
                raise
            why = first_line(error)
        if failed := [one for one in self.processes.everyones(why) if one]:
            self.notice(f"{WARNING}the rounding of the 16-bit model cannot be measured ({failed[0]})")
            return [UNKNOWN] * len(groups)
        return found

    def exact(self, questions: Sequence[Question], *, rounding: bool = False) -> Exact:
        """Exact figures of every wording of these prompts, many per forward pass; with `rounding`, also that of a 16-bit model."""
        encoded = [wording for question in questions for wording in question.wordings]
        longer = self.most is not None and any(row_length(e) > self.most for e in encoded)
        scorer = replace(self, strategy=RowsPass(), most=None) if longer else self
        with waiting_for("measuring the exact figures") as advance:
            scores = scorer.score(encoded, between=advance).log_probs
        pairs = list(zip(encoded, scores, strict=True))
        ends = np.cumsum([0, *(len(question.wordings) for question in questions)]).tolist()
        groups = [pairs[start:end] for start, end in pairwise(ends)]
        of_rounding = scorer.rounding(groups) if rounding else ()
        return Exact.of(questions, [figures_of(e, log_probs) for e, log_probs in pairs], tuple(of_rounding))

    def drift(self, answers: Sequence[Answer]) -> float:
        """Mean KL(base || tuned) over all tokens of the answers, nats per token."""
        with waiting_for("measuring the drift") as advance:
            return float(np.concatenate(self.score((), answers, between=advance).divergences).mean())

    def _weighed(
        self, encoded: Sequence[EncodedPrompt], batches: Sequence[Batch], between: Between
    ) -> tuple[list[EncodedPrompt], int]:
        """The prompts with the gradient shares of their spellings, where the passes do not compute these, and the tokens fed for that.

        This is a separate pass without a gradient. Dropout draws different masks in it, so the shares come from another draw.
        """
        parts = Counter(place for batch in batches for place, _ in batch.parts)
        most = 1 if self.strategy.weighs_spellings else 0
        weighed, places = list(encoded), [place for place, e in enumerate(encoded) if e.choices and parts[place] > most]
        found = self.score([encoded[place] for place in places], between=between) if places else Scores([], [], 0)
        for place, log_probs in zip(places, found.log_probs, strict=True):
            weighed[place] = weighed_by(encoded[place], log_probs)
        return weighed, found.tokens_fed

    def _try(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], backward: bool, between: Between) -> Scores:
        strategy = self.strategy
        batches = strategy.batches(encoded, answers, at_least=self.processes.count)
        weighed, fed = self._weighed(encoded, batches, between) if backward else (encoded, 0)
        if self.strategy is not strategy:  # it did not fit: other prompts may be split now
            return self._try(encoded, answers, backward, between)

        def run(batch: Batch, *, scale: float = 1.0) -> Found:
            hold = self.retention.weight / max(1, len(answers)) if self.retention else 0.0  # weight of each answer in the mean
            loss = Loss(hold, scale) if backward else None
            return strategy.run(self.model, weighed, answers, batch, loss=loss)

        results = self.processes.run([Piece(batch.tokens, partial(run, batch)) for batch in batches], between, self.expected)
        parts: list[dict[Part, np.ndarray]] = [{} for _ in encoded]  # by index, because two prompts may have the same alias
        divergences: dict[int, np.ndarray] = {}
        for batch, result in zip(batches, results, strict=True):
            for (place, part), log_probs in zip(batch.parts, result.parts, strict=True):
                parts[place][part] = log_probs
            divergences |= zip(batch.answers, result.answers, strict=True)
        joined = [strategy.joined(e, of_prompt) for e, of_prompt in zip(encoded, parts, strict=True)]
        fed += sum(batch.tokens for batch in batches)
        return Scores(joined, [divergences[place] for place in range(len(answers))], fed)

    def _shrink(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], error: OutOfMemoryError) -> None:
        batches = self.strategy.batches(encoded, answers)
        smaller = self.strategy.halved(batches)
        if smaller.batches(encoded, answers) == batches:
            raise MachineError(
                f"{(encoded[0].alias + ': ') if encoded else ''}not enough memory even for the smallest part. Set "
                "alg_config.gradient_checkpointing, precision: bf16 or quantize: nf4, or use a smaller model"
            ) from error
        self.strategy = smaller
        self.notice(f"not enough memory: continuing with parts of {smaller.size}")
