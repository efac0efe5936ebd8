"""The engine that samples a loaded model: counting rows, or batches of `generate` where the model's memory cannot be kept by rows."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

from diffusecli.models.architecture import shape_of
from diffusecli.models.encoding import EncodedPrompt, encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import blamed
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.batched import choose_cache, generate_rows
from diffusecli.sampling.counting import CountingSampler, cut_at_stop, rows_at_once
from diffusecli.sampling.draws import stream_seed
from diffusecli.sampling.engine import Arrived
from diffusecli.sampling.rows import choose_rows
from diffusecli.sampling.settings import SamplingSettings, Standing, Watch
from diffusecli.system.errors import InputError, many
from diffusecli.system.memory import SMALLER, enough_memory, out_of_memory
from diffusecli.system.notices import Notice

_BATCH_ROWS = 64  # of plain `generate`


class LocalEngine:
    """The loaded model: counting rows where its memory can be kept by rows, batches of `generate` where not.

    An adapter should be folded in before (`models.lora.merged`).
    """

    def __init__(
        self, base: LoadedModel, settings: SamplingSettings, max_rows: int | None = None, notice: Notice = lambda _: None
    ) -> None:
        """Probes the model; `max_rows` None takes what fits into free memory."""
        self._base, self._settings, self._notice = base, settings, notice
        self._told: set[str] = set()
        self._encoded: EncodedPrompt | None = None
        self._context = shape_of(base.model.config, 0).context
        with self._enough_memory(), blamed(base.model, base.name):
            self._kind = choose_rows(base.model)
        self._batch_rows = max_rows or _BATCH_ROWS
        if self._kind is None:
            notice("this model's memory cannot be kept by rows: sampling in batches of plain `generate`")
        else:
            self._max_rows, self._rows_asked = max_rows or rows_at_once(base.model, settings.max_new_tokens), max_rows is not None

    @property
    def counting(self) -> bool:
        """Whether the cost follows the distinct prefixes."""
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
        """See `Engine`: what was asked for, no more than the prompt leaves of the model's context."""
        encoded = self._encode(prompt)
        wanted, room = self._settings.limit(encoded.longest), self._room(encoded)
        if room < 1:
            raise InputError(
                f"{encoded.alias}: is {len(encoded.prompt_ids)} tokens long, the model takes {self._context}; shorten it"
            )
        return min(wanted, room)

    def draw(self, prompt: Prompt, have: Answers, arrived: Arrived, watch: Watch) -> None:
        """See `Engine`."""
        encoded, limit = self._encode(prompt), self.limit(prompt)
        for remark in encoded.remarks:
            if remark not in self._told:
                self._notice(remark)
            self._told.add(remark)
        self._warn(encoded, limit)
        settings = replace(self._settings, max_new_tokens=limit)
        if encoded.stop_text:
            settings = replace(settings, stop=(*settings.stop, encoded.stop_text))
        rows = None
        if self._kind is not None:
            with self._enough_memory(), blamed(self._base.model, self._base.name):
                rows = self._kind.rows(encoded.prompt_ids, settings.max_new_tokens)
            if rows is None:
                self._notice(
                    f"{encoded.alias}: answers may outgrow what can be kept by rows: sampling in batches of plain `generate`"
                )
        if rows is None:
            with self._enough_memory(), blamed(self._base.model, self._base.name):
                self._draw_batches(encoded, settings, have, arrived, watch)
            return
        most = self._max_rows
        if settings.max_new_tokens > self._settings.max_new_tokens and not self._rows_asked:
            most = min(most, rows_at_once(self._base.model, settings.max_new_tokens))
        sampler = CountingSampler(rows, self._base.tokenizer, encoded, settings, most, watch)
        with blamed(self._base.model, self._base.name):
            counts = sampler.draw()
        if sampler.max_rows < most:  # it was halved
            self._max_rows = sampler.max_rows
        arrived(counts, sampler.tokens_fed)

    def _enough_memory(self) -> AbstractContextManager[None]:
        """Probes of a few rows may already be too much."""
        return enough_memory(self._base.name, SMALLER)

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt in tokens; the last one is kept."""
        if self._encoded is None or self._encoded.prompt is not prompt:
            self._encoded = encode_prompt(prompt, self._base.chat)
        return self._encoded

    def _room(self, encoded: EncodedPrompt) -> int:
        """The tokens that the prompt leaves of the model's context."""
        return sys.maxsize if self._context is None else self._context - len(encoded.prompt_ids)

    def _warn(self, encoded: EncodedPrompt, limit: int) -> None:
        """Say where the context cuts answers, and how many targets the limit cuts."""
        if limit < self._settings.limit(encoded.longest):
            self._notice(f"{encoded.alias}: answers end after {many(limit, 'token')}, where the model's context ends")
        if longer := encoded.longer_than(limit):
            fits = encoded.longest <= self._room(encoded)
            self._notice(
                f"{encoded.alias}: {longer} of {many(len(encoded.prompt.targets), 'target')} "
                f"{'is' if longer == 1 else 'are'} longer than {many(limit, 'token')}: such answers stay unfinished. "
                + (f"Use --max-new-tokens {encoded.longest} or more" if fits else "Shorten the request")
            )

    @cached_property
    def _use_cache(self) -> bool:
        """How `generate` is used. Raises `InputError` where it does not give the model's own distribution."""
        with blamed(self._base.model, self._base.name):
            chosen = choose_cache(self._base.model)
        if chosen is None:
            raise InputError(
                f"{self._base.name}: `generate` does not draw from this model's own distribution in this version of transformers, use another"
            )
        if not chosen:
            self._notice("what this model keeps between tokens is not right in `generate`: every token feeds the whole answer anew")
        return chosen

    def _draw_batches(
        self, encoded: EncodedPrompt, settings: SamplingSettings, have: Answers, arrived: Arrived, watch: Watch
    ) -> None:
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
            arrived(batch, tokens)
            watch(Standing(answers, settings.n_generations, size, fed))
