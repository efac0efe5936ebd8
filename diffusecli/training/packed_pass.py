"""The packed pass: it feeds each distinct prefix once, in sequences up to the token budget (see `forest.py`).

Axis names: S packed tokens, R scored rows, V vocabulary, h hidden width, J paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.attention import over
from diffusecli.models.block_attention import Blocks
from diffusecli.models.devices import is_spread
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.training.answers import Answer
from diffusecli.training.batches import Batch, Item, filled
from diffusecli.training.cross_entropy import scored
from diffusecli.training.layout import Packed, Part, dense_mask, edges_of, pack, path_sums
from diffusecli.training.loss import Found, Loss, cut
from diffusecli.training.output_layer import output_layer, without_output_layer
from diffusecli.training.spelled import weighed_by


@dataclass(frozen=True)
class PackedPass:
    """Feed each distinct prefix once, in sequences up to the token budget (see `forest.py`).

    L = - sum_k p_k ln q(y_k | x) = - sum_v mass(v) ln q(token(v) | path to its parent). A trie with more than
    `max_tokens` packed tokens is split into depth-first chunks, each with the prompt and the ancestors it needs.
    With `tree` (see `block_attention.py`) attention skips other trees; without, a dense mask hides them.
    With `sliced_head` only a slice of rows of logits is in memory at a time; without, all scored rows are.
    """

    max_tokens: int | None = None
    tree: bool = False
    sliced_head: bool = False

    @property
    def size(self) -> int | None:
        """Tokens."""
        return self.max_tokens

    @property
    def weighs_spellings(self) -> bool:
        """True with sliced logits. Whole logits would be needed twice, because the gradient overwrites them."""
        return self.sliced_head

    def sized(self, size: int | None) -> PackedPass:
        """The same pass with parts of at most `size` tokens."""
        return replace(self, max_tokens=size)

    def halved(self, batches: Sequence[Batch]) -> PackedPass:
        """Half the tokens of the largest batch."""
        return self.sized(max(batch.tokens for batch in batches) // 2)

    def parts(self, encoded: EncodedPrompt, *, at_least: int = 1) -> list[Part]:
        """Consecutive ranges of internal nodes within the budget. They have similar sizes, because the largest determines the memory."""
        trie, internal, length = encoded.trie, encoded.trie.internal, len(encoded.prompt_ids)
        if not len(internal):
            return [Part(0, 0, length)]
        deepest = trie.deepest - 1
        room = len(internal) if self.max_tokens is None else max(1, self.max_tokens - length - deepest)
        room = -(-len(internal) // max(at_least, -(-len(internal) // room)))
        found, start = [], 0
        while start < len(internal):
            context = int(trie.depths[internal[start]]) - 1
            end = min(start + room, len(internal))
            found.append(Part(start, end, length + context + end - start))
            start = end
        return found

    def batches(self, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer] = (), *, at_least: int = 1) -> list[Batch]:
        """Full batches of parts and answers, sorted by shared prefixes."""
        parts = cut(self, encoded, len(answers), at_least)
        items = [Item(encoded[i].prompt_ids, part.tokens - len(encoded[i].prompt_ids), (i, part)) for i, part in parts]
        items += [Item(a.prompt_ids, len(a.answer_ids) - 1, answer=place) for place, a in enumerate(answers)]
        return filled(items, self.max_tokens, at_least=at_least)

    def run(
        self, model: Any, encoded: Sequence[EncodedPrompt], answers: Sequence[Answer], batch: Batch, *, loss: Loss | None = None
    ) -> Found:
        """Log-probabilities of the edges that leave a part's nodes, in the order of the child nodes."""
        own = [answers[place] for place in batch.answers]
        packed = pack([(encoded[i], part) for i, part in batch.parts], own, model.device)
        head = output_layer(model) if self.sliced_head else None
        with torch.set_grad_enabled(loss is not None), self.seeing(model, packed) as mask:
            scores = self.scores(model, packed, mask, head)
            if loss is not None and self.weighs_spellings:
                packed = _weighed(packed, scores.detach(), head, [(encoded[i], part) for i, part in batch.parts])
            log_probs, kl = scored(scores, head, packed, loss)
        found = torch.cat([log_probs, kl]).cpu().numpy()  # the host waits for the device once
        by_answer = np.split(found[len(log_probs) :], np.cumsum([len(a.answer_ids) for a in own])[:-1]) if own else []
        return Found(tuple(packed.by_part(found[: len(log_probs)])), tuple(by_answer))

    def joined(self, encoded: EncodedPrompt, found: Mapping[Part, np.ndarray]) -> np.ndarray:
        """The sum of the edges' log-probabilities along each path."""
        return path_sums(encoded.trie, found)

    def answer_logits(self, model: Any, answers: Sequence[Answer]) -> Tensor:
        """Logits from one sequence with all answers, or from several if they exceed `max_tokens`."""
        if len(answers) > 1 and self.max_tokens is not None and sum(answer.tokens for answer in answers) > self.max_tokens:
            half = len(answers) // 2
            return torch.cat([self.answer_logits(model, some) for some in (answers[:half], answers[half:])])
        packed = pack([], answers, model.device)
        with self.seeing(model, packed) as mask:
            return self.scores(model, packed, mask, None)

    @contextmanager
    def seeing(self, model: Any, packed: Packed) -> Iterator[Tensor | dict[str, Tensor]]:
        """Inside this context, forward and backward passes use the layout. Yields the mask for the model."""
        if self.tree:
            with over(Blocks.of(packed.forest)):
                yield torch.zeros(1, 1, 1, 1, device=model.device)
        else:
            yield dense_mask(model.config, packed.forest, model.dtype, model.device)

    @staticmethod
    def scores(model: Any, packed: Packed, mask: Tensor | dict[str, Tensor], head: Any | None) -> Tensor:
        """Logits of the scored rows [R, V]; with a `head`, the hidden states before it [R, h]."""
        with without_output_layer(head):
            logits: Tensor = model(
                input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=mask,
                logits_to_keep=packed.scored.tolist() if is_spread(model) else packed.scored_ids, use_cache=False,
            ).logits.squeeze(0)  # fmt: skip
        return logits


def _weighed(packed: Packed, scores: Tensor, head: Any | None, parts: Sequence[tuple[EncodedPrompt, Part]]) -> Packed:
    """The sequence with masses of spellings from this pass's probabilities, for prompts that are whole in it."""
    whole = [bool(e.choices) and (part.start, part.end) == (0, len(e.trie.internal)) for e, part in parts]
    if not any(whole):
        return packed
    scores = scores[: packed.rows_of_edges]
    with torch.no_grad():
        log_probs, _ = scored(scores.clone() if head is None else scores, head, packed.of_edges(), None)
    masses = []
    for (e, part), found, is_whole in zip(parts, packed.by_part(log_probs.cpu().numpy()), whole, strict=True):
        weighed = weighed_by(e, path_sums(e.trie, {part: found})) if is_whole else e
        masses.append(weighed.trie.masses[edges_of(e.trie, part)[1]])
    return packed.with_masses(masses)
