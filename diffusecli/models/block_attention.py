"""Attention over a tree of tokens in depth-first order, in blocks of consecutive tokens.

For consecutive tokens a, a + 1, … in depth-first order, everything they attend to before a is an ancestor of a. So a block
attends densely to the path to its first token and to itself; a mask hides tokens that are not ancestors. A node costs
its path and its block, not the whole sequence, and any number of trees takes a few products. Blocks with paths of similar length
share one product; shorter ones are padded.

Axis names: S tokens, H query heads, G key heads, g = H / G, B blocks, n tokens of a block, K keys of a block, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusecli.models.devices import uploaded
from diffusecli.models.forest import Forest

BLOCK = 64  # tokens
_CELLS = 2**21  # maximum B n K of one product, to limit its memory
_KEPT = 512  # maximum keys per block for which the backward pass keeps the weights instead of recomputing them


class Places(NamedTuple):
    """The index in memory of the row of a head and a token: `first + head * by_head + token * by_token`."""

    by_head: int
    by_token: int
    first: int = 0


@dataclass(frozen=True)
class Group:
    """Blocks that share one product."""

    queries: np.ndarray  # [B, n] indices of tokens; -1 is padding
    keys: np.ndarray  # [B, K] indices; -1 is padding
    hidden: np.ndarray  # [B, n, K] keys that a token does not attend to
    distance: np.ndarray  # [B, n, K] positions between token and key


@dataclass(frozen=True)
class _Rows:
    """A group as row indices for layers of one shape."""

    queries: Tensor  # [B G g n] rows; padding refers to row 0
    keys: Tensor  # [B G K]
    values: Tensor  # [B G K]
    outputs: Tensor  # [B G g n] rows of the output, without padding, see `filled`
    shape: tuple[int, int, int, int, int]  # B, G, g, n, K
    mask: Tensor  # [B, 1, n, K] 0, or the lowest float where hidden
    filled: Tensor | None  # [B, 1, n, 1] which rows of queries are padding


@dataclass(frozen=True)
class Rows:
    """All groups as row indices for a layer."""

    groups: tuple[_Rows, ...]
    outputs: Tensor  # [S H] index of each (token, head) row in the concatenated outputs
    queries: Tensor  # [H S] index there of each row of queries
    scale: float


@dataclass(frozen=True)
class Blocks:
    """The layout of a sequence that is a tree; a `Layout` of `attention.py`."""

    groups: tuple[Group, ...]
    size: int  # S
    _found: dict[Any, Any] = field(default_factory=dict)  # computed once for all layers of a pass

    @classmethod
    def of(cls, forest: Forest) -> Blocks:
        """Split the sequence into blocks of equal length."""
        size = len(forest)
        count = -(-size // BLOCK)
        width = -(-size // count)
        starts = range(0, size, width)
        paths = [forest.ancestors(start) for start in starts]
        groups = []
        for chosen in _alike([len(path) for path in paths], width):
            longest = max(len(paths[i]) for i in chosen)
            queries = np.full((len(chosen), width), -1)
            keys = np.full((len(chosen), longest + width), -1)
            for row, i in enumerate(chosen):
                own = np.arange(starts[i], min(starts[i] + width, size))
                queries[row, : len(own)] = keys[row, longest : longest + len(own)] = own
                keys[row, : len(paths[i])] = paths[i]
            of, others = queries[:, :, None], keys[:, None, :]
            hidden = ~forest.sees(of, others) | (of < 0) | (others < 0)
            groups.append(Group(queries, keys, hidden, forest.positions[of] - forest.positions[others]))
        return cls(tuple(groups), size)

    def attend(self, _layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Query [1, H, S, d], key and value [1, G, S, d] -> [1, S, H, d]."""
        heads, groups = query.shape[1], key.shape[1]
        size = self.size
        rows = self.rows(heads, groups, (Places(size, 1), Places(size, 1), Places(size, 1)), scale, window, key.device, key.dtype)
        out: Tensor = _BlockAttention.apply(
            query.reshape(-1, query.shape[-1]), key.reshape(-1, key.shape[-1]), value.reshape(-1, value.shape[-1]), rows
        )
        return out.view(1, size, heads, value.shape[-1])

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result of `make`, computed once for all layers of a pass."""
        if key not in self._found:
            self._found[key] = make()
        return self._found[key]

    def rows(
        self, heads: int, key_heads: int, places: tuple[Places, Places, Places], scale: float, window: int | None,
        device: torch.device, dtype: torch.dtype,
    ) -> Rows:  # fmt: skip
        """The groups for layers whose queries, keys and values lie at `places`; found once for all that are alike."""

        def make() -> Rows:
            made = [_Indices.of(group, heads, key_heads, places, window) for group in self.groups]
            real = torch.cat([torch.from_numpy(_for_heads(group.queries, heads) >= 0).reshape(-1) for group in self.groups])
            by_row = [torch.empty(self.size * heads, dtype=torch.int64) for _ in range(2)]
            for back, rows in zip(by_row, ([own.outputs for own in made], [own.queries for own in made]), strict=True):
                back[torch.cat(rows)[real]] = real.nonzero()[:, 0]
            outputs, queries, *moved = uploaded([*by_row, *chain.from_iterable(made)], device)
            width = len(_Indices._fields)
            of_groups = [_Indices(*moved[start : start + width]) for start in range(0, len(moved), width)]
            rows = [
                own.rows(group, key_heads, heads // key_heads, dtype) for own, group in zip(of_groups, self.groups, strict=True)
            ]
            return Rows(tuple(rows), outputs, queries, scale)

        found: Rows = self.once((heads, key_heads, places, scale, window, device, dtype), make)
        return found


class _Indices(NamedTuple):
    """The tensors of a group, which are computed on the host."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    outputs: Tensor
    hidden: Tensor  # [B, 1, n, K]
    padding: Tensor  # [B, 1, n, 1]

    @classmethod
    def of(cls, group: Group, heads: int, key_heads: int, places: tuple[Places, Places, Places], window: int | None) -> _Indices:
        """Of layers of one shape, see `_Rows`."""
        hidden = group.hidden if window is None else group.hidden | (group.distance >= window)
        # padding may attend to all: a row without keys gives NaN in fp16
        hidden = hidden & (group.queries >= 0)[:, :, None]
        queries, keys, values = (
            _rows_at(tokens, number, where)
            for tokens, number, where in zip(
                (group.queries, group.keys, group.keys), (heads, key_heads, key_heads), places, strict=True
            )
        )
        padding = torch.from_numpy(group.queries < 0)[:, None, :, None]
        return cls(
            queries, keys, values, _rows_at(group.queries, heads, Places(1, heads)), torch.from_numpy(hidden)[:, None], padding
        )

    def rows(self, group: Group, key_heads: int, each: int, dtype: torch.dtype) -> _Rows:
        """The rows of a group with its mask."""
        mask = torch.zeros(self.hidden.shape, dtype=dtype, device=self.hidden.device)
        mask.masked_fill_(self.hidden, torch.finfo(dtype).min)
        filled = self.padding if (group.queries < 0).any() else None
        shape = (len(group.keys), key_heads, each, group.queries.shape[1], group.keys.shape[1])
        return _Rows(self.queries, self.keys, self.values, self.outputs, shape, mask, filled)


def _alike(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices in groups: paths in a group are padded to less than twice the shortest (below 128 to any length), within `_CELLS`.

    >>> _alike([0, 64, 90, 400, 90], 64)
    [[0, 1, 2, 4], [3]]
    """
    by_size: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_size.setdefault(max(length, 127).bit_length(), []).append(index)
    found = []
    for size, indices in sorted(by_size.items()):
        at_once = max(1, _CELLS // (width * (2**size + width)))
        found += [indices[start : start + at_once] for start in range(0, len(indices), at_once)]
    return found


def _for_heads(tokens: np.ndarray, heads: int) -> np.ndarray:
    """Tokens [B, n] in the order block, head, token: [B, heads, n]."""
    return np.broadcast_to(tokens[:, None, :], (len(tokens), heads, tokens.shape[1]))


def _rows_at(tokens: np.ndarray, heads: int, where: Places) -> Tensor:
    """The rows of tokens [B heads n]; 0 for padding."""
    each = _for_heads(tokens, heads)
    rows = where.first + where.by_head * np.arange(heads)[:, None] + where.by_token * each
    return torch.from_numpy(np.where(each < 0, 0, rows).reshape(-1))


def forward(queries: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> tuple[Tensor, list[Tensor | None]]:
    """Outputs [S H, d] in the order token, head, and the weights that the backward pass keeps of each group."""
    outs, kept = [], []
    for group in rows.groups:
        weights = _weights(*_gathered(queries, keys, group), rows.scale, group)
        value = values.index_select(0, group.values).view(-1, group.shape[4], values.shape[-1])
        outs.append(torch.bmm(weights, value).view(-1, values.shape[-1]))
        kept.append(weights if group.shape[4] <= _KEPT else None)
    return (outs[0] if len(outs) == 1 else torch.cat(outs)).index_select(0, rows.outputs), kept


def backward(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, rows: Rows, kept: Sequence[Tensor | None],
    of_queries: Tensor, of_keys: Tensor, of_values: Tensor,
) -> None:  # fmt: skip
    """Write the gradient of the queries to `of_queries`, and add those of keys and values to `of_keys` and `of_values`, row by row.

    `gradient` [S H, d] is of the outputs.
    """
    found = []
    for group, known in zip(rows.groups, kept, strict=True):
        count, key_heads, each, width, size = group.shape
        query, key = _gathered(queries, keys, group)
        weights = _weights(query, key, rows.scale, group) if known is None else known
        value = values.index_select(0, group.values).view(count * key_heads, size, -1)
        out = gradient.index_select(0, group.outputs)
        if group.filled is not None:
            out.view(count, key_heads * each, width, -1).masked_fill_(group.filled, 0)
        out = out.view(count * key_heads, each * width, -1)
        of_weights = torch.bmm(out, value.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        found.append(_product(of_scores, key, rows.scale).view(-1, queries.shape[-1]))
        of_keys.index_add_(0, group.keys, _product(of_scores.transpose(1, 2), query, rows.scale).view(-1, keys.shape[-1]))
        of_values.index_add_(0, group.values, torch.bmm(weights.transpose(1, 2), out).view(-1, values.shape[-1]))
    torch.index_select(found[0] if len(found) == 1 else torch.cat(found), 0, rows.queries, out=of_queries)


def _gathered(queries: Tensor, keys: Tensor, group: _Rows) -> tuple[Tensor, Tensor]:
    """Queries [B G, g n, d] and keys [B G, K, d] of a group."""
    count, key_heads, each, width, size = group.shape
    query = queries.index_select(0, group.queries).view(count * key_heads, each * width, -1)
    return query, keys.index_select(0, group.keys).view(count * key_heads, size, -1)


def _weights(query: Tensor, key: Tensor, scale: float, group: _Rows) -> Tensor:
    """softmax(q k' scale + mask) [B G, g n, K]."""
    count, key_heads, each, width, size = group.shape
    scores = _product(query, key.transpose(1, 2), scale)
    scores.view(count, key_heads * each, width, size).add_(group.mask)
    wide = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=wide).to(scores.dtype)


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`scale` times the batched product."""
    unused = left.new_empty(()).expand(left.shape[0], left.shape[1], right.shape[2])
    return torch.baddbmm(unused, left, right, beta=0, alpha=scale)


class _BlockAttention(torch.autograd.Function):
    """`forward` above, for queries in the order head, token [H S, d]."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        """Outputs [S H, d]."""
        out, kept = forward(queries, keys, values, rows)
        ctx.save_for_backward(queries, keys, values, *kept)
        ctx.rows = rows
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of queries, keys and values."""
        queries, keys, values, *kept = ctx.saved_tensors
        of_queries, of_keys, of_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        backward(gradient, queries, keys, values, ctx.rows, kept, of_queries, of_keys, of_values)
        return of_queries, of_keys, of_values, None
