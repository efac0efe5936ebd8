"""Passes that process one part or one answer at a time; `RowsPass` feeds one row per path and repeats the prompt.

Rows are the reference for the other passes, the fallback for models without another pass, and the baseline in benchmarks.

Axis names: T tokens of an answer, V vocabulary, J paths.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.devices import sum_dtype, uploaded
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.trie import TokenTrie
from diffusecli.training.answers import Answer, Held, divergence, summary
from diffusecli.training.batches import Batch
from diffusecli.training.cross_entropy import widened
from diffusecli.training.layout import Part
from diffusecli.training.loss import Found, Loss, cut


class OneByOne:
    """A pass that processes one part or one answer at a time."""

    weighs_spellings = False

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """One batch per part or answer."""
        parts = cut(self, encoded, len(answers), at_least)
        of_parts = [Batch(((place, part),), (), part.tokens, self.memory(encoded[place], part)) for place, part in parts]
        return of_parts + [Batch((), (place,), answer.tokens) for place, answer in enumerate(answers)]

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Log-probabilities of the part, or the divergence on the answer."""
        with torch.set_grad_enabled(loss is not None):
            parts = [self.part(model, encoded[i], part, loss) for i, part in batch.parts]
            return Found(tuple(parts), tuple([_divergence(model, answers[place], loss) for place in batch.answers]))

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """Logits of the answers, one row at a time."""
        return torch.cat([_answer_logits(model, answer) for answer in answers])

    @abstractmethod
    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """See `Pass`."""

    @abstractmethod
    def part(self, model: Any, encoded: EncodedPrompt, part: Part, loss: Loss | None) -> np.ndarray:
        """Score one part. With a `loss`, add its gradient."""

    def memory(self, _encoded: EncodedPrompt, part: Part) -> int:
        """The number of tokens with the same memory as a part."""
        return part.tokens


def _divergence(model: Any, answer: Answer, loss: Loss | None) -> np.ndarray:
    """KL(base || tuned) of each token [T]; with a `loss`, add the gradient of `hold` times its mean."""
    held = Held.of([answer], model.device)
    kl = divergence(held, *summary(_answer_logits(model, answer), held.likeliest))
    if loss is not None:
        ((held.weights * kl).sum() * (loss.hold * loss.scale)).backward()
    return np.asarray(kl.detach().cpu().double().numpy())


def _answer_logits(model: Any, answer: Answer) -> Tensor:
    """Logits of an answer's tokens [T, V], from a plain row."""
    (ids,) = uploaded([torch.tensor([[*answer.prompt_ids, *answer.answer_ids[:-1]]])], model.device)
    logits: Tensor = model(input_ids=ids, logits_to_keep=len(answer.answer_ids), use_cache=False).logits[0]
    return logits


@dataclass(frozen=True)
class RowsPass(OneByOne):
    """One row per path, `batch_size` rows at a time, padded on the right."""

    batch_size: int = 32

    @property
    def size(self) -> int | None:
        """Rows per part."""
        return self.batch_size

    def sized(self, size: int | None) -> RowsPass:
        """The same pass with parts of `size` rows."""
        return RowsPass(size or 1)

    def halved(self, batches: Sequence[Batch]) -> RowsPass:
        """Half the rows of the largest part."""
        return RowsPass(max(1, max((part.end - part.start for batch in batches for _, part in batch.parts), default=1) // 2))

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Ranges of paths."""
        trie = encoded.trie
        size = max(1, min(self.batch_size, -(-len(trie.leaves) // at_least)))
        ranges = [(start, min(start + size, len(trie.leaves))) for start in range(0, len(trie.leaves), size)]
        return [Part(a, b, (b - a) * (len(encoded.prompt_ids) + self._longest(trie, a, b))) for a, b in ranges]

    def part(self, model: Any, encoded: EncodedPrompt, part: Part, loss: Loss | None) -> np.ndarray:
        """Log-probabilities of the part's paths."""
        trie, prompt_length = encoded.trie, len(encoded.prompt_ids)
        paths = [trie.path(index) for index in range(part.start, part.end)]
        longest = self._longest(trie, part.start, part.end)
        rows = [[*encoded.prompt_ids, *path, *[0] * (longest - len(path))] for path in paths]
        all_lengths = torch.tensor([prompt_length + len(path) for path in paths])
        all_weights = torch.tensor(trie.weights[part.start : part.end].tolist(), dtype=sum_dtype(model.device))
        input_ids, lengths, weights = uploaded([torch.tensor(rows), all_lengths, all_weights], model.device)  # ids [B, P + longest]
        inside = (torch.arange(input_ids.shape[1], device=model.device) < lengths[:, None]).long()
        logits = model(input_ids=input_ids, attention_mask=inside, use_cache=False).logits[:, prompt_length - 1 : -1]
        scores = torch.log_softmax(widened(logits), dim=-1).gather(2, input_ids[:, prompt_length:, None])[:, :, 0]
        scores = (scores * inside[:, prompt_length:]).sum(1)  # [B]
        if loss is not None:
            (-(weights * scores).sum() * loss.scale).backward()
        return np.asarray(scores.detach().cpu().numpy())

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """Log-probabilities of all paths, in order."""
        log_probs = np.zeros(len(encoded.trie.leaves))
        for part, values in found.items():
            log_probs[part.start : part.end] = values
        return log_probs

    @staticmethod
    def _longest(trie: TokenTrie, start: int, end: int) -> int:
        return int(trie.depths[trie.leaves[start:end]].max())
