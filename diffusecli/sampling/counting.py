"""The counting sampler: N draws for the price of the distinct prefixes.

All N samples of a prompt start alike, so rows of (prefix, count) stand for them: the next-token
distribution of a prefix is computed once, `count` tokens are drawn from it, and each distinct token
drawn becomes a child row with its own count. Splitting a multinomial this way leaves the law of N
independent draws unchanged. Knows tensors and token ids; no files. How rows are kept is `rows.py`.

Axis names: R live rows, V vocabulary, B blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusecli.models.architecture import shape_of
from diffusecli.models.devices import free_memory
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.prompts.answers import Answers
from diffusecli.sampling.draws import Live, draw_tokens
from diffusecli.sampling.rows import Rows
from diffusecli.sampling.settings import SamplingSettings, Standing, Watch
from diffusecli.system.errors import MachineError
from diffusecli.system.memory import out_of_memory

_MOST_ROWS = 1024  # more are not faster, and logits of the whole vocabulary are kept for each


def rows_at_once(model: Any, max_new_tokens: int) -> int:
    """The most rows of this model whose keys, values, logits and layers take half of the memory that is free now."""
    text, shape, size = model.config.get_text_config(), shape_of(model.config, 0), model.dtype.itemsize
    queries = getattr(text, "num_attention_heads", None) or 1
    heads = getattr(text, "num_key_value_heads", None) or queries
    width = getattr(text, "head_dim", None) or shape.hidden_size // queries
    keys = shape.layers * heads * width  # of a token; values take as much
    layers = 8 * shape.hidden_size + 4 * shape.intermediate_size
    a_row = size * (2 * keys * max_new_tokens + layers) + shape.vocabulary * (4 + size)
    return max(1, min(_MOST_ROWS, int(0.5 * free_memory(model.device) / a_row)))


class CountingSampler:
    """Draws answers to one prompt.

    The random stream of a prefix is keyed by (seed, prompt tokens, prefix), so the result depends neither on how many
    rows go at once nor on the order of prompts.

    What does not fit among the rows waits as bare tokens and is fed anew later, so that memory is bounded by
    `max_rows` rows of `max_new_tokens`; when even that is too much, half as many go on.
    """

    def __init__(
        self, rows: Rows, tokenizer: Any, encoded: EncodedPrompt, settings: SamplingSettings, max_rows: int, watch: Watch = lambda _: None
    ) -> None:  # fmt: skip
        """`rows` continue the prompt `encoded`."""
        self._rows, self._tokenizer, self._encoded, self._settings = rows, tokenizer, encoded, settings
        self.max_rows, self._watch = max_rows, watch
        self.counts = Answers()
        self.tokens_fed = 0

    @torch.inference_mode()
    def draw(self) -> Answers:
        """`n_generations` answers, counted.

        Raises `MachineError` when memory does not suffice for a single row, `NotNumbersError` when probabilities are not numbers.
        """
        waiting = [Live([()], [self._settings.n_generations])]
        while waiting:
            group = waiting.pop()
            if len(group.prefixes) > self.max_rows:
                waiting += group.in_groups(self.max_rows)
                continue
            try:
                self._grow(group, waiting)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                waiting.append(group)
        return self.counts

    def _grow(self, group: Live, waiting: list[Live]) -> None:
        """Feed a group to the ends of its answers. When memory runs out `group` holds what is yet to be drawn from."""
        logits = self._replay(group)
        while True:
            parents, children = self._split(group, logits)
            del logits
            overflow = children.part(self.max_rows, len(children.prefixes))
            waiting += overflow.in_groups(self.max_rows)
            group.prefixes, group.counts = children.prefixes[: self.max_rows], children.counts[: self.max_rows]
            self._watch(Standing(self.counts, self._settings.n_generations, len(group.prefixes), self.tokens_fed))
            if not group.prefixes:
                return
            logits = self._extend(group, parents[: self.max_rows])

    def _replay(self, group: Live) -> Tensor:
        """Logits [R, V] after every prefix of a group, fed from the prompt on, each distinct prefix once."""
        before: list[tuple[int, ...]] = [()]
        logits = self._rows.start()
        self.tokens_fed += len(self._encoded.prompt_ids) if not self.tokens_fed else 0
        for length in range(1, len(group.prefixes[0]) + 1):
            level = [*dict.fromkeys(prefix[:length] for prefix in group.prefixes)]
            places = {prefix: row for row, prefix in enumerate(before)}
            step = Live(level, [0] * len(level)) if length < len(group.prefixes[0]) else group
            logits = self._extend(step, [places[prefix[:-1]] for prefix in step.prefixes])
            before = step.prefixes
        return logits

    def _extend(self, live: Live, parents: Sequence[int]) -> Tensor:
        """Feed the last token of each prefix; `live` is put in the order of the rows."""
        order, logits = self._rows.extend(parents, [prefix[-1] for prefix in live.prefixes])
        live.prefixes, live.counts = [live.prefixes[i] for i in order], [live.counts[i] for i in order]
        self.tokens_fed += len(order)
        return logits

    def _split(self, live: Live, logits: Tensor) -> tuple[list[int], Live]:
        """Draw each row's next tokens: ended answers are counted, the others are children, with the rows they continue."""
        parents: list[int] = []
        children = Live([], [])
        drawn = draw_tokens(self._encoded.prompt_ids, self._settings, live, logits)
        for row, (prefix, tokens) in enumerate(zip(live.prefixes, drawn, strict=True)):
            for token, count in tokens:
                grown = (*prefix, token)
                if token in self._encoded.stop_ids:
                    self.counts.add(self._encoded.text(self._tokenizer, prefix), count)
                elif (end := self._ended(grown)) is not None:
                    text, finished = end
                    self.counts.add(text, count, unfinished=not finished)
                else:
                    parents.append(row)
                    children.prefixes.append(grown)
                    children.counts.append(count)
        return parents, children

    def _ended(self, prefix: tuple[int, ...]) -> tuple[str, bool] | None:
        """The text of an answer that holds a stop string or has reached the limit, and whether it is finished: the former."""
        whole = len(prefix) == self._settings.max_new_tokens
        if not (whole or self._settings.stop):
            return None
        text, stopped = cut_at_stop(self._encoded.text(self._tokenizer, prefix), self._settings.stop)
        return (text, stopped) if whole or stopped else None

    def _halve(self, error: Exception) -> None:
        if self.max_rows == 1:
            raise MachineError(
                "memory does not suffice for one answer, set a smaller --max-new-tokens or precision bf16"
            ) from error
        self.max_rows = -(-self.max_rows // 2)
        self._rows.start()  # lets go of the rows


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text up to the first stop string in it, and whether there was one."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
