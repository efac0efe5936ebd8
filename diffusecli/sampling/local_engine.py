"""The engine for a loaded model: counting rows, or batches of `generate` if the model's cache cannot be kept by rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from diffusecli.models.architecture import shape_of
from diffusecli.models.encoding import EncodedPrompt, encode_like, encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import blamed
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.batched import choose_cache, generate_rows
from diffusecli.sampling.counting import CountingSampler, Drawing, cut_at_stop, rows_at_once
from diffusecli.sampling.draws import seed_of_stream, stream_seed
from diffusecli.sampling.engine import Wanted
from diffusecli.sampling.row_choice import Kind, choose_rows
from diffusecli.sampling.rows import SharedPrompt
from diffusecli.sampling.settings import SamplingSettings, Standing
from diffusecli.system.errors import InputError, many
from diffusecli.system.memory import SMALLER, enough_memory, out_of_memory
from diffusecli.system.notices import Notice

_BATCH_ROWS = 64  # batch size of plain `generate`
_PROMPTS_TOGETHER = 32  # limits what an interruption loses, and the memory for keys and values
_PROMPT_TOKENS_TOGETHER = 4096  # with prompts padded to the longest


class LocalEngine:
    """The loaded model: counting rows if its cache can be kept by rows, otherwise batches of `generate`.

    Merge an adapter first (`models.lora.merged`).
    """

    def __init__(
        self, base: LoadedModel, settings: SamplingSettings, max_rows: int | None = None, notice: Notice = lambda _: None
    ) -> None:
        """Probe the model. `max_rows` None: as many as fit into free memory."""
        self._base, self.settings, self._notice = base, settings, notice
        self._shown_remarks: set[str] = set()
        self._last: EncodedPrompt | None = None
        self._limits: dict[tuple[str, str], int] = {}  # by `Prompt.key`
        self._context = shape_of(base.model.config, 0).context
        with self._enough_memory(), blamed(base.model, base.name):
            self._kind = choose_rows(base.model)
        self._batch_rows = max_rows or _BATCH_ROWS
        if self._kind is None:
            notice("this model's cache cannot be kept by rows. Sampling in batches with plain `generate`")
        else:
            self._max_rows, self._rows_asked = max_rows or rows_at_once(base.model, settings.max_new_tokens), max_rows is not None

    @property
    def counting(self) -> bool:
        """Whether it uses the counting sampler."""
        return self._kind is not None

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": "counting" if self.counting else "generate",
            **self._base.recorded,
            "device": str(self._base.device), "dtype": str(self._base.model.dtype).removeprefix("torch."),
            **self._base.chat_settings.recorded,
        }  # fmt: skip

    def limit(self, prompt: Prompt) -> int:
        """See `Engine`: the configured limit, at most the context that the prompt leaves."""
        if prompt.key not in self._limits:
            self._limits[prompt.key] = self._limit(self._encode(prompt))
        return self._limits[prompt.key]

    def draw(self, wanted: Wanted) -> None:
        """See `Engine`."""
        self.draw_all([wanted])

    def draw_all(self, wanted: Sequence[Wanted]) -> None:
        """See `JointEngine`: rows of consecutive prompts share forward passes if the model allows it."""
        together: list[Drawing] = []
        for one in wanted:
            try:
                drawing = self._drawing(one)
            except InputError:  # the prompts before it are still drawn
                self._draw_rows(together, SharedPrompt)
                raise
            kind = self._kind_for(drawing)
            joins = kind is SharedPrompt and len(wanted) > 1 and self._joins
            if not (joins and _fit(together, drawing)):
                self._draw_rows(together, SharedPrompt)
                together = []
            if joins:
                together.append(drawing)
            elif kind is not None:
                self._draw_rows([drawing], kind)
            else:
                with self._enough_memory(), blamed(self._base.model, self._base.name):
                    self._draw_batches(drawing, one.have)
        self._draw_rows(together, SharedPrompt)

    def _drawing(self, wanted: Wanted) -> Drawing:
        """The prompt in tokens with its settings. Shows notices about it."""
        encoded = self._encode(wanted.prompt)
        limit = self._limits[wanted.prompt.key] = self._limit(encoded)
        for remark in encoded.remarks:
            self._notice_once(remark)
        self._warn(encoded, limit)
        seed = seed_of_stream(self.settings.seed, wanted.stream)
        settings = replace(self.settings, n_generations=wanted.count, max_new_tokens=limit, seed=seed)
        if encoded.stop_text:
            settings = replace(settings, stop=(*settings.stop, encoded.stop_text))
        return Drawing(encoded, settings, wanted.watch, wanted.arrived, wanted.pool)

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt in tokens. Another wording of the previous prompt shares its targets."""
        last = self._last
        if last is not None and _same_question(prompt, last.prompt):
            self._last = encode_like(prompt, self._base.chat, last)
        else:
            self._last = encode_prompt(prompt, self._base.chat)
        return self._last

    def _notice_once(self, remark: str) -> None:
        if remark not in self._shown_remarks:
            self._notice(remark)
        self._shown_remarks.add(remark)

    def _kind_for(self, drawing: Drawing) -> Kind | None:
        """The kind of rows for this prompt; None for batches of `generate`."""
        if self._kind is None:
            return None
        with self._enough_memory(), blamed(self._base.model, self._base.name):
            kind = self._kind.of(drawing.encoded.prompt_ids, drawing.settings.max_new_tokens)
        if kind is None:
            self._notice(
                f"{drawing.encoded.alias}: answers may become too long to be kept by rows. Sampling in batches with plain `generate`"
            )
        return kind

    @property
    def _joins(self) -> bool:
        """Whether rows of several prompts may share a pass."""
        with self._enough_memory(), blamed(self._base.model, self._base.name):
            return self._kind is not None and self._kind.joins

    def _draw_rows(self, drawings: Sequence[Drawing], kind: Kind) -> None:
        """Draw with counting rows. The rows of all prompts share passes."""
        if not drawings:
            return
        most, longest = self._max_rows, max(drawing.settings.max_new_tokens for drawing in drawings)
        if longest > self.settings.max_new_tokens and not self._rows_asked:
            most = min(most, rows_at_once(self._base.model, longest))
        rows = kind(self._base.model, *(drawing.encoded.prompt_ids for drawing in drawings))
        sampler = CountingSampler(rows, self._base.tokenizer, drawings, most)
        with blamed(self._base.model, self._base.name):
            sampler.draw()
        if sampler.max_rows < most:  # it was halved
            self._max_rows = sampler.max_rows

    def _enough_memory(self) -> AbstractContextManager[None]:
        """Even probes of a few rows may exceed the memory."""
        return enough_memory(self._base.name, SMALLER)

    def _limit(self, encoded: EncodedPrompt) -> int:
        wanted, room = self.settings.limit(encoded.longest), self._room(encoded)
        if room < 1:
            raise InputError(
                f"{encoded.alias}: has {len(encoded.prompt_ids)} tokens, but the model's context is {self._context}. Shorten the prompt"
            )
        return min(wanted, room)

    def _room(self, encoded: EncodedPrompt) -> int:
        """The number of tokens that the prompt leaves of the model's context."""
        return sys.maxsize if self._context is None else self._context - len(encoded.prompt_ids)

    def _warn(self, encoded: EncodedPrompt, limit: int) -> None:
        """Show a notice if the context cuts answers or the limit cuts targets."""
        if limit < self.settings.limit(encoded.longest):
            self._notice(f"{encoded.alias}: answers are cut after {many(limit, 'token')}, at the end of the model's context")
        if longer := encoded.longer_than(limit):
            fits = encoded.longest <= self._room(encoded)
            self._notice_once(
                f"{encoded.prompt.whole}: {longer} of {many(len(encoded.prompt.targets), 'target')} "
                f"{'is' if longer == 1 else 'are'} longer than {many(limit, 'token')}: such answers stay unfinished. "
                + (f"Use --max-new-tokens {encoded.longest} or more" if fits else "Shorten the request")
            )

    @cached_property
    def _use_cache(self) -> bool:
        """Whether `generate` uses the cache. Raises `InputError` if it does not sample the model's own distribution."""
        with blamed(self._base.model, self._base.name):
            chosen = choose_cache(self._base.model)
        if chosen is None:
            raise InputError(
                f"{self._base.name}: `generate` does not sample this model's own distribution in this version of transformers. Use another version"
            )
        if not chosen:
            self._notice("this model's cache is wrong in `generate`. Sampling without a cache, which is slower")
        return chosen

    def _draw_batches(self, drawing: Drawing, have: Answers) -> None:
        encoded, settings = drawing.encoded, drawing.settings
        answers, fed = Answers(have), 0
        use_cache = self._use_cache
        while missing := settings.n_generations - answers.total():
            size = min(missing, self._batch_rows)
            seed = stream_seed(settings.seed, encoded.prompt_ids, 0, answers.total())
            try:
                rows = generate_rows(
                    self._base.model,
                    [encoded.prompt_ids] * size,
                    encoded.stop_ids,
                    settings=settings,
                    seed=seed,
                    use_cache=use_cache,
                )
            except Exception as error:
                if not out_of_memory(error) or size == 1:
                    raise
                self._batch_rows = size // 2
                continue
            batch = Answers()
            for row in rows:
                ended = bool(row) and row[-1] in encoded.stop_ids
                text, stopped = cut_at_stop(encoded.text(self._base.tokenizer, row[:-1] if ended else row), settings.stop)
                batch.add(text, unfinished=not (ended or stopped))
            tokens = size * len(encoded.prompt_ids) + sum(map(len, rows))
            answers.update(batch)
            fed += tokens
            drawing.arrived(batch, tokens)
            left = fed * (settings.n_generations - answers.total()) / (answers.total() - have.total())
            drawing.watch(Standing(answers, settings.n_generations, size, fed, partial(float, left)))


def _same_question(one: Prompt, other: Prompt) -> bool:
    """Whether these are two wordings of the same prompt."""
    if one.whole == one.alias or one.whole != other.whole:
        return False
    return one.model_copy(update={"request": other.request}).digest == other.digest


def _fit(together: Sequence[Drawing], drawing: Drawing) -> bool:
    """Whether one more prompt fits with these: rows of a pass draw with the same seed."""
    if together and together[0].settings.seed != drawing.settings.seed:
        return False
    number = len(together) + 1
    longest = max(len(one.encoded.prompt_ids) for one in (*together, drawing))
    return number <= _PROMPTS_TOGETHER and number * longest <= _PROMPT_TOKENS_TOGETHER
