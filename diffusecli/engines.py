"""Where answers come from: the protocol that all engines keep, and the engine that samples a loaded model.

An engine draws answers to one prompt at a time and hands over what it has as it comes. See
`served.py` for models behind a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from diffusecli.batched import generate_rows
from diffusecli.encoding import EncodedPrompt, encode_prompt
from diffusecli.models import LoadedModel
from diffusecli.prompt import Prompt
from diffusecli.rows import choose_rows
from diffusecli.sampling import CountingSampler, SamplingSettings, Standing, Watch, cut_at_stop, rows_at_once, stream_seed

Arrived = Callable[[Counter[str], int], None]
"""Takes answers that are final, counted, and the tokens they cost."""

_BATCH_ROWS = 64  # of plain `generate`


class Engine(Protocol):
    """Draws answers. The law of what it draws is the model's own, bent by the settings alone."""

    @property
    def about(self) -> dict[str, Any]:
        """Engine, model and whatever else its samples depend on, for the file beside them."""

    def draw(self, prompt: Prompt, have: Counter[str], arrived: Arrived, watch: Watch) -> None:
        """Draw what is missing of `n_generations` answers when `have` are there already."""


def drawn(engine: Engine, prompt: Prompt) -> tuple[Counter[str], int]:
    """All answers to one prompt, counted, and the tokens fed for them."""
    counts: Counter[str] = Counter()
    fed = 0

    def arrived(some: Counter[str], tokens: int) -> None:
        nonlocal fed
        counts.update(some)
        fed += tokens

    engine.draw(prompt, Counter(), arrived, lambda _: None)
    return counts, fed


class LocalEngine:
    """The loaded model: counting rows where its memory can be kept by rows, batches of `generate` where not.

    An adapter should be folded in before (`models.merged`).
    """

    def __init__(self, base: LoadedModel, settings: SamplingSettings, max_rows: int | None = None) -> None:
        """Probes the model; `max_rows` None takes what fits into free memory."""
        self._base, self._settings = base, settings
        self._kind = choose_rows(base.model)
        self._max_rows = max_rows or rows_at_once(base.model, settings.max_new_tokens)

    @property
    def counting(self) -> bool:
        """Whether the cost follows the distinct prefixes."""
        return self._kind is not None

    @property
    def about(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": "counting" if self.counting else "generate",
            "model": self._base.name, "model_revision": self._base.revision,
            "device": str(self._base.device), "dtype": str(self._base.model.dtype).removeprefix("torch."),
        }  # fmt: skip

    def draw(self, prompt: Prompt, have: Counter[str], arrived: Arrived, watch: Watch) -> None:
        """See `Engine`."""
        encoded = encode_prompt(prompt, self._base.tokenizer, self._base.eos_ids)
        if self._kind is None:
            self._draw_batches(encoded, have, arrived, watch)
            return
        rows = self._kind.rows(self._base.model, encoded.prompt_ids, self._settings.max_new_tokens)
        sampler = CountingSampler(rows, self._base.tokenizer, encoded, self._settings, self._max_rows, watch)
        counts = sampler.draw()
        self._max_rows = sampler.max_rows  # as it was halved
        arrived(counts, sampler.tokens_fed)

    def _draw_batches(self, encoded: EncodedPrompt, have: Counter[str], arrived: Arrived, watch: Watch) -> None:
        settings, finished, fed = self._settings, have.copy(), 0
        while missing := settings.n_generations - finished.total():
            size = min(missing, _BATCH_ROWS, self._max_rows)
            seed = stream_seed(settings.seed, encoded.prompt_ids, finished.total())
            rows = generate_rows(self._base.model, [encoded.prompt_ids] * size, encoded.stop_ids, settings=settings, seed=seed)
            bare = [row[:-1] if row and row[-1] in encoded.stop_ids else row for row in rows]
            batch = Counter(cut_at_stop(self._base.tokenizer, ids, settings.stop)[0] for ids in bare)
            tokens = size * len(encoded.prompt_ids) + sum(map(len, rows))
            finished += batch
            fed += tokens
            arrived(batch, tokens)
            watch(Standing(finished, settings.n_generations, size, fed))
