"""Choose the kind of rows for a model: the first kind that agrees with whole rows in a probe of the loaded model.

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
from diffusecli.models.probing import UNSUPPORTED
from diffusecli.sampling.rows import GatheredCache, Rows, SharedPrompt
from diffusecli.system.memory import out_of_memory

_STEPS = 3  # steps of the probe


def tolerance(dtype: torch.dtype) -> float:
    """The total variation that rounding may cause between equal rows.

    Ignoring a token has ten times that effect. Narrower dtypes round more.
    """
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.05


Kind = type[SharedPrompt] | type[GatheredCache]


class RowsKind:
    """The kinds of rows for a model: within its attention windows, and beyond one."""

    def __init__(self, model: Any, make: Kind) -> None:
        """`make`: the kind that agreed with whole rows within the windows."""
        self.make, self._model = make, model
        self._windows = tuple(attention_windows(model.config).values())

    def of(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Kind | None:
        """The kind for one prompt; None if no kind supports rows of this length."""
        outgrown = bool(self._windows) and len(prompt_ids) + max_new_tokens > min(self._windows)
        return self._beyond if outgrown else self.make

    def rows(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Rows | None:
        """Rows of one prompt; None if no kind supports them."""
        make = self.of(prompt_ids, max_new_tokens)
        return None if make is None else make(self._model, prompt_ids)

    @functools.cached_property
    def joins(self) -> bool:
        """Whether rows of several prompts may share a pass: the model must support a separate position per row."""
        return self.make is SharedPrompt and _fixed_frequencies(self._model) and _is_close(self._model, _joint_gap)

    @functools.cached_property
    def _beyond(self) -> Kind | None:
        """The kind for rows that become longer than a window, or whose prompt already is."""
        lengths = {length for window in self._windows for length in (window - 1, window + window // 2)}
        room = (shape_of(self._model.config, 0).context or max(lengths) + _STEPS) - _STEPS
        return _agreeing(self._model, sorted({max(1, min(length, room)) for length in lengths}))


def choose_rows(model: Any) -> RowsKind | None:
    """Probe the loaded model: the first kind that agrees with whole rows fed without a cache; None if none does.

    Raises `NotNumbersError` when the logits of whole rows are NaN.
    """
    make = _agreeing(model, [3])
    return None if make is None else RowsKind(model, make)


@torch.inference_mode()
def _agreeing(model: Any, lengths: Sequence[int]) -> Kind | None:
    """The first kind that agrees with whole rows after prompts of these lengths."""
    by_layout = not keeps_more_than_attention(model) and enable(model)
    kinds: list[Kind] = [*([SharedPrompt] if by_layout else []), GatheredCache]
    for make in kinds:
        close = [_is_close(model, _gap, make, length) for length in lengths]
        if all(close):
            return make
    return None


def _is_close(model: Any, gap: Callable[..., float], *given: Any) -> bool:
    """Whether a probe finds only rounding differences; False if the model does not support this kind."""
    try:
        return gap(model, *given) <= tolerance(model.dtype)
    except UNSUPPORTED as error:
        if out_of_memory(error):
            raise
        return False


def _fixed_frequencies(model: Any) -> bool:
    """Whether a token's rotary embedding depends on its own position alone, not on the longest row of the batch."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # one per layer type
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)


def _gap(model: Any, make: Kind, length: int) -> float:
    """The largest total variation distance between next-token distributions of whole rows and of rows that branched, ended and moved."""
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
    """Like `_gap`, for rows that continue prompts of different lengths in one batch."""
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
