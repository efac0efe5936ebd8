"""The model's cache for many answers to a prompt: rows that share prefixes and grow by one token per step.

Two classes give the same numbers. `SharedPrompt` stores the keys and values of one or several prompts once for all rows and
writes new ones in place; a row is copied only when it branches. `GatheredCache` uses the cache of transformers and
gathers it at every step. It is slower, and for models with recurrent states, custom attention, or windows that their
layers do not pass on.
It uses tensors and token ids, no samples.

Axis names: N prompts, R live rows, V vocabulary, P prompt tokens, T tokens so far, H query heads, K key heads, d head width.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusecli.models.attention import banded, causal, over
from diffusecli.models.devices import is_spread, uploaded

_FIRST_ROWS, _FIRST_TOKENS = 16, 8  # initial capacity; doubled when full


class Rows(Protocol):
    """Rows that continue one of the prompts, all by the same number of tokens."""

    def start(self) -> Tensor:
        """Drop all rows and return the prompts' next-token logits [N, V]. The prompts are fed only once."""

    def extend(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """Feed a token to a child of each given row. Rows without a child are dropped.

        Returns the new order of the children, and their logits [R, V], which the caller may overwrite.
        """


class SharedPrompt:
    """Keys and values of each prompt once, and of each row's own tokens, in place."""

    def __init__(self, model: Any, *prompts: Sequence[int]) -> None:
        """`attention.enable(model)` must have returned True."""
        self._model, self._prompts = model, prompts
        self._longest = max(map(len, prompts))
        self._padding = [self._longest - len(prompt_ids) for prompt_ids in prompts]
        self._layers: dict[int, _LayerRows] = {}
        self._first: Tensor | None = None
        self._length = 0
        self._owners = [*range(len(prompts))]  # the prompt of each row
        self._lanes: dict[torch.device, _Lanes] = {}

    def start(self) -> Tensor:
        """See `Rows`: a row for each prompt, [prompts, V]."""
        if self._first is None:
            self._first = self._feed_prompts()
        self._length, self._owners = 0, [*range(len(self._prompts))]
        for kept in self._layers.values():
            kept.free()
        return self._first.clone()

    def extend(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Rows`."""
        order, moves = arrange(parents)
        if self._length:
            self._move(moves, len(order))
        self._owners, self._lanes = [self._owners[parents[child]] for child in order], {}
        positions = [[len(self._prompts[owner]) + self._length] for owner in self._owners]
        logits = self._logits([[tokens[child]] for child in order], positions, 1)[:, -1]
        self._length += 1
        return order, logits

    def _feed_prompts(self) -> Tensor:
        """Logits after each prompt [N, V]. All prompts are fed as one sequence; they do not attend to each other."""
        positions = [at for prompt_ids in self._prompts for at in range(len(prompt_ids))]
        ends = [*accumulate(map(len, self._prompts))]
        keep = 1 if len(ends) == 1 else [end - 1 for end in ends]
        return self._logits([list(chain.from_iterable(self._prompts))], [positions], keep)[0]

    def _logits(self, tokens: list[list[int]], positions: list[list[int]], keep: int | list[int]) -> Tensor:
        device = self._model.device
        mask = torch.zeros(1, 1, 1, 1, device=device)  # any mask with four axes is passed on; it is not used here
        input_ids, position_ids = uploaded([torch.tensor(tokens), torch.tensor(positions)], device)
        with over(self):
            out = self._model(
                input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False, logits_to_keep=keep
            )
        logits: Tensor = out.logits
        return logits

    def _move(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Copy rows in every layer. The indices are created once per device."""
        indices: dict[torch.device, list[Tensor]] = {}
        for kept in self._layers.values():
            if moves and kept.device not in indices:
                indices[kept.device] = uploaded([torch.tensor(side) for side in zip(*moves, strict=True)], kept.device)
            kept.move(indices.get(kept.device, ()), rows, self._length)

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Query [R, H, 1, d], key and value [R, K, 1, d] -> [R, 1, H, d]; of the prompts as one sequence [1, H, S, d] and so on."""
        if self._first is None:
            return self._attend_prompts(layer, query, key, value, scale, window)
        lanes = self._lanes_on(key.device) if len(self._prompts) > 1 else None
        return self._layers[layer.layer_idx].attend(query, key, value, self._length, scale, window, lanes)

    def _attend_prompts(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Each prompt attends to itself; its keys and values are stored."""
        lengths = [*map(len, self._prompts)]
        parts = [[*whole.split(lengths, dim=2)] for whole in (query, key, value)]
        self._layers[layer.layer_idx] = _LayerRows(
            *(torch.cat([_padded(part, self._longest) for part in kept]) for kept in parts[1:])
        )
        return torch.cat(
            [causal(layer, q, k, v, scale, banded(q.shape[2], window, q.device)) for q, k, v in zip(*parts, strict=True)], dim=1
        )

    def _lanes_on(self, device: torch.device) -> _Lanes:
        if device not in self._lanes:
            self._lanes[device] = _Lanes.of(self._owners, self._padding, device)
        return self._lanes[device]


def _padded(kept: Tensor, length: int) -> Tensor:
    """Keys or values [1, K, P, d], padded at the front, so that all prompts end at the same position."""
    return torch.nn.functional.pad(kept, (0, 0, length - kept.shape[2], 0))


@dataclass(frozen=True)
class _Lanes:
    """Rows of several prompts in lanes of equal width, one prompt per lane, so that one matrix product covers all prompts.

    L lanes of width S; at most three times as many positions as rows.
    """

    prompts: Tensor  # [L] the prompt of each lane
    places: Tensor  # [R] the position of each row among the L S positions
    width: int  # S
    padding: Tensor  # [L] padding at the front of the prompt

    @classmethod
    def of(cls, owners: Sequence[int], padding: Sequence[int], device: torch.device) -> _Lanes:
        """Lanes for rows of these prompts."""
        sizes = Counter(owners)
        width = min(max(sizes.values()), -(-2 * len(owners) // len(sizes)))
        lanes: list[int] = []
        last: dict[int, int] = {}  # the last used position, by prompt
        places = []
        for owner in owners:
            place = last.get(owner, -1) + 1
            if place % width == 0:
                place = len(lanes) * width
                lanes.append(owner)
            last[owner] = place
            places.append(place)
        padded = torch.tensor([padding[owner] for owner in lanes])
        prompts, own, padded = uploaded([torch.tensor(lanes), torch.tensor(places), padded], device)
        return cls(prompts, own, width, padded)

    def spread(self, rows: Tensor) -> Tensor:
        """[R, K, G, n] -> [L K, S G, n]; positions without a row are zero."""
        among = rows.new_zeros(len(self.prompts) * self.width, *rows.shape[1:]).index_copy_(0, self.places, rows)
        return among.view(-1, self.width, *rows.shape[1:]).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    def gather(self, lanes: Tensor, heads: int) -> Tensor:
        """[L K, S G, n] -> [R, K, G, n]."""
        among = lanes.view(len(self.prompts), heads, self.width, -1, lanes.shape[-1]).transpose(1, 2)
        return among.flatten(0, 1).index_select(0, self.places)

    def per_lane(self, kept: Tensor) -> Tensor:
        """Keys or values of the prompts [N, K, P, d] -> [L K, P, d]."""
        return kept.index_select(0, self.prompts).flatten(0, 1)

    def hide_padding(self, scores: Tensor, first: int) -> Tensor:
        """Scores [L K, S G, P] of the prompts' positions from `first` on, with padding masked, in place."""
        absent = torch.arange(first, first + scores.shape[-1], device=scores.device) < self.padding[:, None]
        scores.view(len(self.prompts), -1, scores.shape[-1]).masked_fill_(absent[:, None], -torch.inf)
        return scores


class _LayerRows:
    """Keys and values of one layer: [N, K, P, d] for the prompts, [row capacity, K, token capacity, d] for the rows."""

    def __init__(self, prompt_keys: Tensor, prompt_values: Tensor) -> None:
        self._prompt = prompt_keys, prompt_values
        self.free()

    @property
    def device(self) -> torch.device:
        """The layer's device: a model may use several devices."""
        return self._prompt[0].device

    def free(self) -> None:
        """Drop the rows."""
        self._own = tuple(p.new_empty(0, p.shape[1], 0, p.shape[3]) for p in self._prompt)

    def move(self, indices: Sequence[Tensor], rows: int, length: int) -> None:
        """Copy rows (two index tensors, or none), so that the first `rows` are the ones that continue."""
        self._make_room(rows, length, length)
        if indices:
            sources, places = indices
            for own in self._own:
                kept = own[:, :, :length]
                kept.index_copy_(0, places, kept.index_select(0, sources))

    def _make_room(self, rows: int, tokens: int, length: int) -> None:
        """Double the capacity if it is full. The first `length` tokens of every row are kept.

        If only tokens grow, capacity of unused rows beyond `rows` is freed.
        """
        had_rows, _, had_tokens, _ = self._own[0].shape
        if rows <= had_rows and tokens <= had_tokens:
            return
        row_room = max(rows, 2 * had_rows if rows > had_rows else 0, _FIRST_ROWS)
        token_room = had_tokens if tokens <= had_tokens else max(tokens, 2 * had_tokens, _FIRST_TOKENS)
        kept = min(had_rows, row_room)
        larger = []
        for own, prompt in zip(self._own, self._prompt, strict=True):
            new = prompt.new_empty(row_room, prompt.shape[1], token_room, prompt.shape[3])
            new[:kept, :, :length] = own[:kept, :, :length]
            larger.append(new)
        self._own = tuple(larger)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, length: int, scale: float, window: int | None, lanes: _Lanes | None
    ) -> Tensor:
        """Store the new token of every row, and attend to the prompt and the row's own tokens within the window."""
        rows, width = len(query), query.shape[-1]
        heads = key.shape[1]
        groups = query.shape[1] // heads
        self._make_room(rows, length + 1, length)
        for own, new in zip(self._own, (key, value), strict=True):
            own[:rows, :, length] = new[:, :, 0]
        longest = self._prompt[0].shape[2]
        hidden = 0 if window is None else max(0, longest + length + 1 - window)
        of_own = slice(max(0, hidden - longest), length + 1)
        keys, values = (own[:rows, :, of_own].flatten(0, 1) for own in self._own)  # [R K, T, d]
        scaled = (query * scale).view(rows, heads, groups, width)
        to_prompt = self._to_prompt(scaled, hidden, lanes)
        split = to_prompt.shape[-1]
        to_own = torch.bmm(scaled.flatten(0, 1), keys.transpose(1, 2)).view(rows, heads, groups, -1)
        wide = torch.promote_types(value.dtype, torch.float32)
        weights = torch.cat([to_prompt, to_own.transpose(0, 1)], dim=-1).softmax(dim=-1, dtype=wide).to(value.dtype)
        out = torch.bmm(weights[..., split:].transpose(0, 1).flatten(0, 1), values).view(rows, heads, groups, -1)
        out += self._of_prompt(weights[..., :split], hidden, lanes)
        return out.view(rows, 1, heads * groups, -1)

    def _to_prompt(self, scaled: Tensor, hidden: int, lanes: _Lanes | None) -> Tensor:
        """Scores [K, R, G, P]. Keys that rows share are read once."""
        rows, heads, groups, _ = scaled.shape
        keys = self._prompt[0][:, :, hidden:]
        if lanes is None:
            return torch.bmm(scaled.transpose(0, 1).flatten(1, 2), keys[0].transpose(1, 2)).view(heads, rows, groups, -1)
        if not keys.shape[2]:  # outside the window
            return scaled.new_empty(heads, rows, groups, 0)
        scores = torch.bmm(lanes.spread(scaled), lanes.per_lane(keys).transpose(1, 2))
        return lanes.gather(lanes.hide_padding(scores, hidden), heads).transpose(0, 1)

    def _of_prompt(self, weights: Tensor, hidden: int, lanes: _Lanes | None) -> Tensor:
        """The prompts' values [R, K, G, d], weighted by [K, R, G, P]."""
        heads, rows, groups, _ = weights.shape
        values = self._prompt[1][:, :, hidden:]
        if lanes is None:
            return torch.bmm(weights.flatten(1, 2), values[0]).view(heads, rows, groups, -1).transpose(0, 1)
        if not values.shape[2]:
            return values.new_zeros(())
        return lanes.gather(torch.bmm(lanes.spread(weights.transpose(0, 1)), lanes.per_lane(values)), heads)


def arrange(parents: Sequence[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Positions of children with few copies: their order, and (from, to) for those that must be copied.

    A row's first child takes its position. The others get positions of ended rows, then new ones. No position is
    both copied from and copied to.

    >>> arrange([0, 2, 2])
    ([0, 2, 1], [(2, 1)])
    >>> arrange([3])
    ([0], [(3, 0)])
    """
    places: list[int | None] = [None] * len(parents)
    unplaced, seen = [], set()
    for child, parent in enumerate(parents):
        if parent < len(parents) and parent not in seen:
            places[parent] = child
        else:
            unplaced.append(child)
        seen.add(parent)
    moves = []
    free = (place for place, child in enumerate(places) if child is None)
    for child, place in zip(unplaced, list(free), strict=True):
        places[place] = child
        moves.append((parents[child], place))
    return [child for child in places if child is not None], moves


class GatheredCache:
    """The cache of transformers, gathered at every step."""

    def __init__(self, model: Any, prompt_ids: Sequence[int]) -> None:
        """Any causal model whose cache can select rows."""
        self._model, self._prompt_ids = model, prompt_ids
        self._prompt: tuple[Any, Tensor] | None = None
        self._cache: Any = None
        self._length = 0

    def start(self) -> Tensor:
        """See `Rows`."""
        if self._prompt is None:
            self._prompt = self._feed([list(self._prompt_ids)], None)
        self._cache, logits = self._prompt
        self._length = 0
        return logits.clone()

    def extend(self, parents: Sequence[int], tokens: Sequence[int]) -> tuple[list[int], Tensor]:
        """See `Rows`."""
        chosen = copy.copy(self._cache)
        vars(chosen).update({name: list(kept) for name, kept in vars(chosen).items() if isinstance(kept, list)})  # MiniMax's states
        chosen.layers = [copy.copy(layer) for layer in self._cache.layers]
        rows = torch.tensor(parents)  # on the CPU it selects rows of layers on any device
        chosen.batch_select_indices(rows if is_spread(self._model) else uploaded([rows], self._model.device)[0])
        self._cache = chosen  # frees the previous rows
        self._cache, logits = self._feed([[token] for token in tokens], chosen)
        self._length += 1
        return list(range(len(parents))), logits

    def _feed(self, rows: list[list[int]], cache: Any) -> tuple[Any, Tensor]:
        input_ids, positions = inputs(self._model, rows, 0 if cache is None else len(self._prompt_ids) + self._length)
        out = self._model(input_ids=input_ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.past_key_values, out.logits[:, -1]


def inputs(model: Any, rows: list[list[int]], start: int) -> tuple[Tensor, Tensor]:
    """Ids and positions [R, T] of rows that start at a position."""
    (input_ids,) = uploaded([torch.tensor(rows)], model.device)
    return input_ids, torch.arange(start, start + input_ids.shape[1], device=model.device).expand_as(input_ids)
