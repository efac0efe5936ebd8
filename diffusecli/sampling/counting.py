"""The counting sampler: N draws for the cost of their distinct prefixes.

All N samples of a prompt share prefixes, so rows of (prefix, count) represent them. The next-token
distribution of a prefix is computed once, `count` tokens are drawn from it, and each distinct token
drawn becomes a child row with its own count. Splitting a multinomial this way gives the distribution of
N independent draws. It uses tensors and token ids, no files. Rows are in `rows.py`.

Axis names: R live rows, V vocabulary, B blocks of the vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffusecli.models.architecture import shape_of
from diffusecli.models.devices import free_memory, uploaded
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.prompts.answers import Answers
from diffusecli.sampling.draws import Live, draw_tokens
from diffusecli.sampling.engine import Arrived
from diffusecli.sampling.rows import Rows
from diffusecli.sampling.settings import SamplingSettings, Standing, Watch
from diffusecli.system.errors import MachineError
from diffusecli.system.memory import out_of_memory

_PASSES = 4  # whose answers give the estimate of the tokens left
_MULTIPLY = 1.25  # times as many rows after a pass as before: too early for an estimate
_MOST_ROWS = 1024  # more rows are not faster, and each needs logits of the whole vocabulary


def rows_at_once(model: Any, max_new_tokens: int) -> int:
    """The maximum rows of this model whose keys, values, logits and activations fit into half of the free memory."""
    text, shape, size = model.config.get_text_config(), shape_of(model.config, 0), model.dtype.itemsize
    queries = getattr(text, "num_attention_heads", None) or 1
    heads = getattr(text, "num_key_value_heads", None) or queries
    width = getattr(text, "head_dim", None) or shape.hidden_size // queries
    keys = shape.layers * heads * width  # per token; values take as much
    layers = 8 * shape.hidden_size + 4 * shape.intermediate_size
    a_row = size * (2 * keys * max_new_tokens + layers) + shape.vocabulary * (4 + size)
    return max(1, min(_MOST_ROWS, int(0.5 * free_memory(model.device) / a_row)))


@dataclass
class Drawing:
    """The draws of one prompt: settings and progress."""

    encoded: EncodedPrompt
    settings: SamplingSettings
    watch: Watch = lambda _: None
    arrived: Arrived = lambda *_: None  # receives all answers at once, after the last
    pool: str = ""  # see `Wanted`
    counts: Answers = field(default_factory=Answers)
    tokens_fed: int = 0
    drawn: int = 0
    passes: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=_PASSES)
    )  # rows before and after each of the last passes

    def tokens_left(self, groups: Iterable[tuple[Sequence[int], int]]) -> float:
        """The tokens that rows still need, if answers go on ending as often as in the last passes. NaN while rows multiply.

        `groups` are the sample counts of rows with the length of their prefixes. A row of c samples is expected to end as sqrt(c)
        different answers.
        """
        before, after = (sum(numbers) for numbers in zip(*self.passes, strict=True)) if self.passes else (0, 0)
        if not before or after > _MULTIPLY * before:
            return math.nan
        stays = min(after / before, 1.0)
        return sum(
            sum(map(math.sqrt, counts)) * sum(stays**step for step in range(self.settings.max_new_tokens - length))
            for counts, length in groups
        )

    def add(self, text: str, count: int, *, unfinished: bool = False) -> None:
        """Count a complete answer, `count` times."""
        self.counts.add(text, count, unfinished=unfinished)
        self.drawn += count

    @property
    def over(self) -> bool:
        """Whether all answers are drawn."""
        return self.drawn == self.settings.n_generations


class CountingSampler:
    """Draw answers to one prompt, or to several whose rows share forward passes.

    The random stream of a prefix is keyed by (seed, prompt tokens, prefix), so the result does not depend on the
    number of rows per pass or on the other prompts.

    Prefixes beyond `max_rows` wait as tokens and are fed again later, so memory is bounded by `max_rows` rows of
    `max_new_tokens`. If that does not fit, `max_rows` is halved.
    """

    def __init__(self, rows: Rows, tokenizer: Any, drawings: Sequence[Drawing], max_rows: int) -> None:
        """`rows` continue the prompts of `drawings`, in this order. All drawings have the same sampling settings."""
        self._rows, self._tokenizer, self._drawings, self.max_rows = rows, tokenizer, drawings, max_rows
        self._prompts = [drawing.encoded.prompt_ids for drawing in drawings]
        self._open = [*range(len(drawings))]  # indices of drawings that are not finished

    @torch.inference_mode()
    def draw(self) -> list[Answers]:
        """`n_generations` answers to each prompt, counted.

        Raises `MachineError` when a single row does not fit into memory, `NotNumbersError` when probabilities are NaN.
        """
        n = len(self._drawings)
        waiting = [Live([*range(n)], [()] * n, [drawing.settings.n_generations for drawing in self._drawings])]
        while waiting:
            group = waiting.pop()
            if len(group) > self.max_rows:
                waiting += [group.of(rows) for rows in reversed(group.in_groups(self.max_rows))]
                continue
            try:
                self._grow(group, waiting)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)
                waiting.append(group)
        return [drawing.counts for drawing in self._drawings]

    def _grow(self, group: Live, waiting: list[Live]) -> None:
        """Feed a group until its answers end. When memory runs out, `group` has the rows that are not drawn yet."""
        logits = self._replay(group)
        while True:
            parents, children = self._split(group, logits)
            del logits
            after = Counter(children.prompts)
            for prompt, before in Counter(group.prompts).items():
                drawing = self._drawings[prompt]
                if len(group.prefixes[0]) + 1 < drawing.settings.max_new_tokens:  # at the limit all answers end
                    drawing.passes.append((before, after[prompt]))
            if not len(group.prefixes[0]):  # one row per prompt
                parents = [group.prompts[row] for row in parents]
            kept, *later = children.in_groups(self.max_rows) or [[]]
            waiting += [children.of(rows) for rows in reversed(later)]
            self._become(group, children.of(kept))
            self._show(group, waiting)
            if not len(group):
                return
            logits = self._extend(group, [parents[row] for row in kept])

    def _replay(self, group: Live) -> Tensor:
        """Logits [R, V] after every prefix of a group, fed from the prompts, each distinct prefix once."""
        logits = self._rows.start()
        for drawing in self._drawings:
            drawing.tokens_fed = drawing.tokens_fed or len(drawing.encoded.prompt_ids)
        places: dict[tuple[int, tuple[int, ...]], int] = {(prompt, ()): prompt for prompt in range(len(self._drawings))}
        length = len(group.prefixes[0])
        if not length:
            whole = group.prompts == [*range(len(self._drawings))]
            return logits if whole else logits[uploaded([torch.tensor(group.prompts)], logits.device)[0]]
        for grown in range(1, length + 1):
            level = dict.fromkeys((prompt, prefix[:grown]) for prompt, prefix in zip(group.prompts, group.prefixes, strict=True))
            step = group if grown == length else Live([p for p, _ in level], [prefix for _, prefix in level], [0] * len(level))
            parents = [places[prompt, prefix[:-1]] for prompt, prefix in zip(step.prompts, step.prefixes, strict=True)]
            logits = self._extend(step, parents)
            places = {(prompt, prefix): row for row, (prompt, prefix) in enumerate(zip(step.prompts, step.prefixes, strict=True))}
        return logits

    def _extend(self, live: Live, parents: Sequence[int]) -> Tensor:
        """Feed the last token of each prefix. `live` is reordered like the rows."""
        order, logits = self._rows.extend(parents, [prefix[-1] for prefix in live.prefixes])
        self._become(live, live.of(order))
        for prompt in live.prompts:
            self._drawings[prompt].tokens_fed += 1
        return logits

    def _become(self, live: Live, other: Live) -> None:
        live.prompts, live.prefixes, live.counts = other.prompts, other.prefixes, other.counts

    def _split(self, live: Live, logits: Tensor) -> tuple[list[int], Live]:
        """Draw each row's next tokens and count the answers that end. Returns the others as children, and their parent rows."""
        parents: list[int] = []
        children = Live([], [], [])
        drawn = draw_tokens(self._prompts, self._drawings[0].settings, live, logits)
        for row, (prompt, prefix, tokens) in enumerate(zip(live.prompts, live.prefixes, drawn, strict=True)):
            drawing = self._drawings[prompt]
            for token, count in tokens:
                grown = (*prefix, token)
                if token in drawing.encoded.stop_ids:
                    drawing.add(drawing.encoded.text(self._tokenizer, prefix), count)
                elif (end := self._ended(drawing, grown)) is not None:
                    text, finished = end
                    drawing.add(text, count, unfinished=not finished)
                else:
                    parents.append(row)
                    children.prompts.append(prompt)
                    children.prefixes.append(grown)
                    children.counts.append(count)
        return parents, children

    def _ended(self, drawing: Drawing, prefix: tuple[int, ...]) -> tuple[str, bool] | None:
        """The text of an answer that contains a stop string or has reached the limit, and whether it is finished (the former); otherwise None."""
        settings = drawing.settings
        whole = len(prefix) == settings.max_new_tokens
        if not (whole or settings.stop):
            return None
        text, stopped = cut_at_stop(drawing.encoded.text(self._tokenizer, prefix), settings.stop)
        return (text, stopped) if whole or stopped else None

    def _show(self, group: Live, waiting: Sequence[Live]) -> None:
        """Pass on complete answers, and report the progress of the first unfinished prompt, with the others of its pool."""
        for prompt in [*self._open]:
            drawing = self._drawings[prompt]
            if drawing.over:
                if not drawing.pool:  # a part of a pool would be less than its total
                    drawing.watch(Standing(drawing.counts, drawing.settings.n_generations, 0, drawing.tokens_fed, lambda: 0.0))
                drawing.arrived(drawing.counts, drawing.tokens_fed)
                self._open.remove(prompt)
        if not self._open:
            return
        first = self._drawings[self._open[0]]
        together = [prompt for prompt in self._open if first.pool and self._drawings[prompt].pool == first.pool] or self._open[:1]
        drawings, own = [self._drawings[prompt] for prompt in together], set(together)
        counts = Answers()
        for drawing in drawings:
            counts.update(drawing.counts)
        first.watch(
            Standing(
                counts,
                sum(drawing.settings.n_generations for drawing in drawings),
                sum(prompt in own for prompt in group.prompts),
                sum(drawing.tokens_fed for drawing in drawings),
                lambda: sum(self._tokens_left(prompt, group, waiting) for prompt in together),
            )
        )

    def _tokens_left(self, prompt: int, group: Live, waiting: Sequence[Live]) -> float:
        """An estimate for a prompt: the tokens of its rows, and the prefixes of waiting rows, which are fed again."""
        own = [(live.of_prompt(prompt), len(live.prefixes[0])) for live in (group, *waiting) if len(live)]
        again = sum(len(counts) * (length - 1) for counts, length in own[1 if len(group) else 0 :] if length)
        return self._drawings[prompt].tokens_left(own) + again

    def _halve(self, error: Exception) -> None:
        if self.max_rows == 1:
            raise MachineError("not enough memory for one answer. Set a smaller --max-new-tokens or precision bf16") from error
        self.max_rows = -(-self.max_rows // 2)
        self._rows.start()  # frees the rows


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A text cut at the first stop string, and whether there was one."""
    found = [at for word in stop if (at := text.find(word)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
