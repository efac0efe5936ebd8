"""Which rows a model gets: the first kind that a probe of the loaded model shows to give what whole rows give.

Axis names: R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from diffusecli.models.architecture import attention_windows, keeps_more_than_attention, shape_of
from diffusecli.models.attention import enable
from diffusecli.models.overflow import require_numbers
from diffusecli.sampling.rows import GatheredCache, Rows, SharedPrompt
from diffusecli.system.memory import out_of_memory

_STEPS = 3  # of rows that are grown to see whether they are kept well


def tolerance(dtype: torch.dtype) -> float:
    """How much rows that should be the same may differ in total variation, being rounded otherwise.

    A token that is looked at or not makes ten times as much. Narrower numbers round more.
    """
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.05


Kind = type[SharedPrompt] | type[GatheredCache]


class RowsKind:
    """How rows of a model are kept: those within its attention windows, and those that outgrow one."""

    def __init__(self, model: Any, make: Kind) -> None:
        """`make` has agreed with whole rows within the windows."""
        self.make, self._model = make, model
        self._windows = tuple(attention_windows(model.config).values())

    def of(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Kind | None:
        """For one prompt; None where no kind keeps rows as long as these may get."""
        outgrown = bool(self._windows) and len(prompt_ids) + max_new_tokens > min(self._windows)
        return self._beyond if outgrown else self.make

    def rows(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Rows | None:
        """Rows of one prompt; None where no kind keeps them."""
        make = self.of(prompt_ids, max_new_tokens)
        return None if make is None else make(self._model, prompt_ids)

    @functools.cached_property
    def joins(self) -> bool:
        """Whether rows of several prompts may go together: the model must take each row at a position of its own."""
        return self.make is SharedPrompt and _fixed_frequencies(self._model) and _is_close(self._model, _joint_gap)

    @functools.cached_property
    def _beyond(self) -> Kind | None:
        """The kind for rows that outgrow a window as they grow, and for those whose prompt has already."""
        lengths = {length for window in self._windows for length in (window - 1, window + window // 2)}
        room = (shape_of(self._model.config, 0).context or max(lengths) + _STEPS) - _STEPS
        return _agreeing(self._model, sorted({max(1, min(length, room)) for length in lengths}))


def choose_rows(model: Any) -> RowsKind | None:
    """Probe the loaded model: the first kind that gives what whole rows give, fed without a cache; None when none does.

    Raises `NotNumbersError` when the logits of whole rows are not numbers, so that nothing could agree with them.
    """
    make = _agreeing(model, [3])
    return None if make is None else RowsKind(model, make)


@torch.inference_mode()
def _agreeing(model: Any, lengths: Sequence[int]) -> Kind | None:
    """The first kind that gives what whole rows give after prompts of these lengths."""
    by_layout = not keeps_more_than_attention(model) and enable(model)
    kinds: list[Kind] = [*([SharedPrompt] if by_layout else []), GatheredCache]
    for make in kinds:
        close = [_is_close(model, _gap, make, length) for length in lengths]
        if all(close):
            return make
    return None


def _is_close(model: Any, gap: Callable[..., float], *given: Any) -> bool:
    """Whether a probe finds no more than rounding; False where the model cannot be used so."""
    try:
        return gap(model, *given) <= tolerance(model.dtype)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        if out_of_memory(error):
            raise
        return False


def _fixed_frequencies(model: Any) -> bool:
    """Whether a token's rotary embedding depends on its own position alone, not on the longest row of the batch."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # one for each type of layer
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _gap(model: Any, make: Kind, length: int) -> float:
    """The largest total variation distance between what follows whole rows and grown ones that branched, ended and moved."""
    vocabulary = model.config.get_text_config().vocab_size
    low = vocabulary // 11  # not the first tokens, which are often special
    prompt_ids = torch.randint(low, vocabulary, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    a, b, c, d = (vocabulary * part // 11 for part in (2, 3, 5, 7))
    rows = make(model, prompt_ids)
    rows.start()
    whole: list[tuple[int, ...]] = [()]
    for parents, tokens in (([0, 0, 0], [a, b, c]), ([0, 2, 2], [d, a, b]), ([1, 2, 2], [c, d, a])):
        order, logits = rows.extend(parents, tokens)
        whole = [(*whole[parents[child]], tokens[child]) for child in order]
    input_ids = torch.tensor([[*prompt_ids, *grown] for grown in whole], device=model.device)
    expected = model(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
    require_numbers(expected)
    return float((expected.float().softmax(-1) - logits.float().softmax(-1)).abs().sum(-1).max() / 2)


@torch.inference_mode()
def _joint_gap(model: Any) -> float:
    """As `_gap`, of rows that continue prompts of different lengths in one batch."""
    vocabulary = model.config.get_text_config().vocab_size
    a, b, c, d = (vocabulary * part // 11 for part in (2, 3, 5, 7))
    prompts = ((c, a), (a, b, c, d, b), (d, d, a))
    rows = SharedPrompt(model, *prompts)
    rows.start()
    whole: list[tuple[int, ...]] = [*prompts]
    for parents, tokens in (([2, 0, 1, 1], [a, b, c, d]), ([0, 1, 2, 3, 3], [d, a, b, c, a])):
        order, logits = rows.extend(parents, tokens)
        whole = [(*whole[parents[child]], tokens[child]) for child in order]
    expected = torch.cat([
        model(input_ids=torch.tensor([grown], device=model.device), use_cache=False, logits_to_keep=1).logits[:, -1] for grown in whole
    ])  # fmt: skip
    require_numbers(expected)
    return float((expected.float().softmax(-1) - logits.float().softmax(-1)).abs().sum(-1).max() / 2)
