"""Choose the pass for a model: the packed pass if a probe of the loaded model shows that it agrees with rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from diffusecli.models.architecture import attention_windows, counted_window, counted_windows, keeps_more_than_attention, shape_of
from diffusecli.models.attention import enable
from diffusecli.models.devices import free_memory
from diffusecli.models.encoding import EncodedPrompt
from diffusecli.models.loading import LoadedModel
from diffusecli.models.overflow import NotNumbersError, blamed
from diffusecli.models.probing import UNSUPPORTED
from diffusecli.models.source import ModelSource
from diffusecli.models.trie import TokenTrie
from diffusecli.prompts.config import AlgConfig
from diffusecli.system.memory import SMALLER, enough_memory, out_of_memory
from diffusecli.training.answers import Answer
from diffusecli.training.budget import fastest_part, fitting_part
from diffusecli.training.comparison import compared
from diffusecli.training.loss import Pass, longest, row_length, score
from diffusecli.training.output_layer import is_all_of_the_logits
from diffusecli.training.packed_pass import PackedPass
from diffusecli.training.processes import Processes
from diffusecli.training.rows_pass import RowsPass
from diffusecli.training.state_pass import StatePass, choose_state_pass

_PROBE_PROMPT = 32  # tokens, unless a window slides


def choose_pass(model: Any, encoded: EncodedPrompt, *, batch_size: int = 32, max_tokens: int | None = None) -> tuple[Pass, str]:
    """Probe the loaded model: the packed or the state pass if it agrees with rows on a few paths, otherwise rows. Returns the pass and the reason.

    `encoded` is the prompt with the longest rows. The probe is short, unless a window slides over those rows.
    Rows run `batch_size` at a time; packed parts have up to `max_tokens`. Raises `NotNumbersError` if the rows' figures are NaN.
    """
    in_rows = RowsPass(batch_size)
    window = attention_windows(model.config).get("sliding_window")
    if more := keeps_more_than_attention(model):
        return choose_state_pass(model, encoded, _probe_prompt(encoded, window), in_rows, max_tokens, more)
    if why := _hidden_by_window(model.config, encoded, max_tokens):
        return in_rows, f"rows: {why}"
    if (counted := counted_window(model.config)) is not None:
        max_tokens = min(counted, max_tokens or counted)  # limit of a whole packed sequence
    probe = _probe_prompt(encoded, window)
    at_once = len(probe.trie.leaves) if len(probe.prompt_ids) <= _PROBE_PROMPT else 1  # all logits of a row are in memory
    ways, by_rows = compared(model, partial(_log_probs, model, probe, in_rows.sized(at_once)))
    if np.isnan(by_rows).any():
        raise NotNumbersError
    trees, heads = (True, False) if enable(model) else (False,), (True, False) if is_all_of_the_logits(model, probe) else (False,)
    for tree, sliced_head in product(trees, heads):
        try:
            strategy = PackedPass(None, tree, sliced_head)
            packed = [way.measured(partial(_log_probs, model, probe, strategy)) for way in ways]
        except UNSUPPORTED as error:
            if out_of_memory(error):
                raise
            reason = f"rows: the model does not accept packed input ({type(error).__name__})"
            continue
        gaps = [float(np.abs(own - rows).max()) for own, rows in zip(packed, by_rows, strict=True)]
        if all(gap <= way.gap for gap, way in zip(gaps, ways, strict=True)):
            short = [word for word, missing in (("dense attention", not tree), ("whole logits", not sliced_head)) if missing]
            how = ", ".join(["packed", *short])
            return PackedPass(max_tokens, tree, sliced_head), f"{how}: log-probabilities agree with rows to {gaps[0]:.1e} nats"
        reason = f"rows: packed log-probabilities differ by {max(gaps):.1e} nats"
    return in_rows, reason


def _log_probs(model: Any, probe: EncodedPrompt, strategy: Pass) -> np.ndarray:
    return score(model, probe, strategy).log_probs


def _hidden_by_window(config: Any, encoded: EncodedPrompt, max_tokens: int | None) -> str:
    """Why attention windows prevent packing, "" if they do not. Windows that do not slide by position may count places in the packed sequence."""
    whole = len(encoded.prompt_ids) + len(encoded.trie.internal)
    fed = whole if max_tokens is None else min(whole, max_tokens)
    for name, window in counted_windows(config).items():
        if window < fed:
            return f"the model's {name} ({window}) is shorter than a packed part ({fed} tokens)"
    return ""


def checked_up_to(config: Any, encoded: Sequence[EncodedPrompt]) -> int | None:
    """The maximum row length for the pass chosen with these prompts: the shortest window that they fit into. None: no limit."""
    fitting = row_length(longest(encoded))
    return min((window for window in attention_windows(config).values() if window >= fitting), default=None)


def fitting_answers(strategy: Pass, why: str, config: Any, answers: Sequence[Answer], batch_size: int) -> tuple[Pass, str]:
    """The pass and the reason; rows if an answer is longer than a window that counts places."""
    window, longest_answer = counted_window(config), max(answer.tokens for answer in answers)
    if window is None or longest_answer <= window or not isinstance(strategy, PackedPass):
        return strategy, why
    return RowsPass(batch_size), f"rows: a retention answer ({longest_answer} tokens) is longer than a window ({window})"


def _probe_prompt(encoded: EncodedPrompt, window: int | None) -> EncodedPrompt:
    """Four three-token paths that branch at the first and the second token, after the end of the real prompt.

    If the window slides over rows (their last tokens are not fed), the probe follows the longest row without its end.
    Then the window hides as much as in that row.
    """
    a, b, c, d = (*dict.fromkeys([*encoded.prompt_ids[-8:], 0, 1, 2, 3]),)[:4]
    trie = TokenTrie.build([(a, b, c), (a, c, d), (b, a, d), (b, d, a)], [0.25] * 4)
    prompt_ids, length = encoded.prompt_ids[-_PROBE_PROMPT:], row_length(encoded)
    if window is not None and length - 1 > window:
        longest_path = encoded.trie.path(int(encoded.trie.depths[encoded.trie.leaves].argmax()))
        prompt_ids = (*encoded.prompt_ids, *longest_path)[: max(1, length - 3)]
    return EncodedPrompt(encoded.prompt, prompt_ids, trie, (0,) * 4, encoded.stop_ids)


def choose_strategy(
    base: LoadedModel, encoded: Sequence[EncodedPrompt], source: ModelSource, settings: AlgConfig, processes: Processes,
    size: int | None = None,
) -> tuple[Pass, str]:  # fmt: skip
    """The pass for the model and the reason. The size of its parts is the configured one, the previous one (`size`), or the fastest that fits.

    All processes get the same pass. Raises `MachineError` when the probe does not fit into memory.
    """
    shape, chosen = shape_of(base.model.config, base.parameters), settings.max_tokens_per_pass
    length = max(len(e.prompt_ids) for e in encoded)
    if chosen == "auto":
        fitting = int(min(processes.everyones(fitting_part(shape, source, settings, free_memory(base.device)))))
        most = min(fastest_part(shape, length), fitting)
    else:
        most = fitting = chosen
    most = min(most, shape.context or most)  # some models count places in the packed sequence
    with enough_memory(base.name, SMALLER), blamed(base.model, base.name):
        found = choose_pass(base.model, longest(encoded), batch_size=settings.batch_size, max_tokens=most)
    strategy, why = min(processes.everyones(found), key=lambda found: _assumptions(found[0]))  # the same for all
    # a level of a trie would be a collective pass, and tries differ in depth
    if processes.sharded and isinstance(strategy, StatePass):
        strategy, why = RowsPass(settings.batch_size), "rows: the model has recurrent states and is sharded over processes"
    if chosen == "auto" and isinstance(strategy, PackedPass) and not strategy.tree:
        strategy = strategy.sized(min(strategy.max_tokens or most, fastest_part(shape, length, tree=False)))
    if isinstance(strategy, StatePass):  # its parts are never longer than rows
        fastest = round(strategy.node_tokens * fastest_part(shape, length))
        strategy = strategy.sized(min(fitting, fastest) if chosen == "auto" else fitting)
    return strategy if size is None or chosen != "auto" else strategy.sized(size), why


def _assumptions(strategy: Pass) -> tuple[bool, ...]:
    """The assumptions that a pass makes about the model."""
    if isinstance(strategy, StatePass):
        return (True, strategy.sliced_head)
    return (True, strategy.tree, strategy.sliced_head) if isinstance(strategy, PackedPass) else (False,)
