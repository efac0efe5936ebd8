"""The state of a model after reading rows (recurrent states, convolution states, keys and values), row by row, with a gradient.

A row can continue in several ways: `select` copies rows, `feed` reads their next tokens. The gradient of later tokens flows
through the states to everything fed before. transformers overwrites states in place, which autograd does not allow if the old
values are needed for a gradient; here a new tensor replaces the old state instead.
Callers must compare with whole rows, because some models compute something else when they continue from a state.

Axis names: R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from diffusecli.models.architecture import without_wrapper

_NAMES = ("past_key_values", "cache_params", "state")
"""Names of the cache in models' arguments and outputs."""


class States:
    """The rows read so far, all of the same length."""

    def __init__(self, model: Any) -> None:
        """Any causal model that returns a transformers `Cache`."""
        self._model = model
        self._takes = inspect.signature(without_wrapper(model).forward).parameters
        self._steps = _steps(without_wrapper(model))
        self._length = 0
        self._kept: dict[str, Any] = {}

    def feed(self, input_ids: Tensor) -> Tensor:
        """Read more tokens [R, T] and return the logits after the last [R, V]."""
        rows, count = input_ids.shape
        places = torch.arange(self._length, self._length + count, device=input_ids.device).expand(rows, -1)
        more = {"position_ids": places, "logits_to_keep": 1}
        with _in_place_of(self._steps):
            out = self._model(
                input_ids=input_ids, use_cache=True, **self._kept, **{k: v for k, v in more.items() if k in self._takes}
            )
        self._length += count
        self._keep(out)
        scores: Tensor = out.logits[:, -1]
        return scores

    def select(self, rows: Tensor) -> None:
        """Continue with these rows; a row may occur several times."""
        for cache in self._kept.values():
            for layer in cache.layers:
                layer.reorder_cache(rows)
            for place, state in enumerate(getattr(cache, "linear_cache", [])):  # MiniMax has separate states
                if isinstance(state, Tensor):
                    cache.linear_cache[place] = _chosen(state, rows)
            _replaceable(cache)

    def tensors(self) -> Iterator[Tensor]:
        """All stored tensors."""
        for cache in self._kept.values():
            for layer in cache.layers:
                held = [*_states_of(layer), vars(layer)]
                yield from (value for box in held for value in box.values() if isinstance(value, Tensor) and value.ndim > 1)
            yield from (state for state in getattr(cache, "linear_cache", []) if isinstance(state, Tensor))

    def forget(self) -> None:
        """Free all states."""
        self._kept = {}

    def _keep(self, out: Any) -> None:
        name = next(name for name in _NAMES if out.get(name) is not None)
        self._kept = {name: out[name]}
        _replaceable(out[name])


class StatesInModules(States):
    """States for RecurrentGemma, which stores them in its modules. Its cache, which it does not return, has only keys and values."""

    _ATTRIBUTES = ("conv1d_state", "recurrent_states")

    def __init__(self, model: Any) -> None:
        """Clears states in the modules."""
        from transformers import DynamicCache

        super().__init__(model)
        self.forget()
        self._kept = {"past_key_values": DynamicCache(config=without_wrapper(model).config)}

    def select(self, rows: Tensor) -> None:
        """See `States`."""
        for layer in self._kept["past_key_values"].layers:
            layer.reorder_cache(rows)
        for module, name in self._places():
            setattr(module, name, _chosen(getattr(module, name), rows))

    def tensors(self) -> Iterator[Tensor]:
        """See `States`."""
        yield from super().tensors()
        yield from (getattr(module, name) for module, name in self._places())

    def forget(self) -> None:
        """See `States`."""
        super().forget()
        for module, name in self._places():
            setattr(module, name, None)

    def _keep(self, out: Any) -> None:
        """Nothing to do: the modules store the states."""

    def _places(self) -> Iterator[tuple[nn.Module, str]]:
        for module in without_wrapper(self._model).modules():
            yield from ((module, name) for name in self._ATTRIBUTES if name in vars(module))


class StatesOfXLSTM(States):
    """States for xLSTM, which has its own cache class: three tensors per layer, also as the initial state."""

    def __init__(self, model: Any) -> None:
        """Starts with zeros, like the model."""
        from transformers.models.xlstm.modeling_xlstm import xLSTMCache

        super().__init__(model)
        self._kept = {"cache_params": xLSTMCache(without_wrapper(model).config, 1, dtype=model.dtype, device=model.device)}
        self._put(lambda state: state)

    def select(self, rows: Tensor) -> None:
        """See `States`."""
        self._put(lambda state: _chosen(state, rows))

    def tensors(self) -> Iterator[Tensor]:
        """See `States`."""
        yield from (state for layer in self._kept["cache_params"].rnn_state.values() for state in layer)

    def _keep(self, out: Any) -> None:
        """Nothing to do: the cache stores the states."""

    def _put(self, changed: Callable[[Tensor], Tensor]) -> None:
        layers = self._kept["cache_params"].rnn_state
        for name, layer in layers.items():
            layers[name] = [changed(state) for state in layer]
            for place, state in enumerate(layers[name]):
                _Replaceable.put(state, layers[name], place)


class StatesByLayer(States):
    """States for RWKV, which uses a list of tensors for all layers and writes each layer's part. Here each layer has a separate tensor."""

    def __init__(self, model: Any) -> None:
        """Starts with zeros and very small exponents, like the model."""
        super().__init__(model)
        config = without_wrapper(model).config
        widths = [config.hidden_size] * 2 + [config.attention_hidden_size] * 3
        dtypes = [model.dtype] * 2 + [torch.float32] * 3
        zeros = [
            [torch.zeros(1, width, dtype=dtype, device=model.device)] * config.num_hidden_layers
            for width, dtype in zip(widths, dtypes, strict=True)
        ]
        zeros[4] = [layer - 1e30 for layer in zeros[4]]
        self._kept = {"state": [_ByLayer(layers, last_token=place < 2) for place, layers in enumerate(zeros)]}

    def select(self, rows: Tensor) -> None:
        """See `States`."""
        for kept in self._kept["state"]:
            kept.layers = [_chosen(layer, rows) for layer in kept.layers]

    def tensors(self) -> Iterator[Tensor]:
        """See `States`."""
        yield from (layer for kept in self._kept["state"] for layer in kept.layers)

    def _keep(self, out: Any) -> None:
        """Nothing to do: the list stores the states."""


class _ByLayer:
    """Behaves like a tensor [R, width, layers] that is read and written one layer at a time.

    The state of the `last_token` gets a token axis when it is read; without one, the model would broadcast it over rows.
    """

    def __init__(self, layers: list[Tensor], *, last_token: bool) -> None:
        self.layers, self._last_token = layers, last_token

    def __getitem__(self, place: tuple[slice, slice, int]) -> Tensor:
        layer = self.layers[place[-1]]
        return layer[:, None] if self._last_token else layer

    def __setitem__(self, place: tuple[slice, slice, int], value: Tensor) -> None:
        self.layers[place[-1]] = value


class _Replaceable(Tensor):
    """A tensor in a container. `copy_` replaces it in the container and does not change this tensor."""

    _box: MutableMapping[int, Tensor] | list[Tensor]
    _key: int

    @classmethod
    def put(cls, value: Tensor, box: MutableMapping[int, Tensor] | list[Tensor], key: int) -> _Replaceable:
        """Store it in the container."""
        new: _Replaceable = _plain(value).as_subclass(cls)
        new._box, new._key = box, key
        box[key] = new
        return new

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Results of operations are plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            if function is Tensor.copy_ and isinstance(args[0], cls):
                old, new = args[0], _plain(args[1])
                return cls.put(new.to(old.device, old.dtype).expand(old.shape), old._box, old._key)
            return function(*tree_map(_plain, args), **tree_map(_plain, kwargs or {}))


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, _Replaceable) else value


def _chosen(state: Tensor, rows: Tensor) -> Tensor:
    """Select rows, on the state's own device."""
    return state.index_select(0, rows.to(state.device))


def _states_of(layer: Any) -> list[MutableMapping[int, Any]]:
    """The containers of recurrent and convolution states in a cache layer."""
    return [getattr(layer, name) for name in ("conv_states", "recurrent_states") if hasattr(layer, name)]


def _replaceable(cache: Any) -> None:
    for layer in cache.layers:
        for box in _states_of(layer):
            for key, state in list(box.items()):
                if isinstance(state, Tensor):
                    _Replaceable.put(state, box, key)


@dataclass(frozen=True)
class _Step:
    """A one-token step function in a transformers module, and its replacement."""

    file: ModuleType
    name: str
    function: Callable[..., Any]
    instead: Callable[..., Any]


def _steps(model: nn.Module) -> list[_Step]:
    """Use transformers' own functions for one-token steps, with the limits of whole rows.

    Installed compiled functions have no gradient. Their `__wrapped__` is the function of transformers.
    """
    names = {type(module).__module__ for module in model.modules()}
    files = [sys.modules[name] for name in names if name in sys.modules]
    limits = {tuple(module.time_step_limit) for module in model.modules() if hasattr(module, "time_step_limit")}
    bounded = partial(_bounded, limits.pop()) if len(limits) == 1 else lambda step: step
    return [
        _Step(file, name, function, bounded(function.__wrapped__) if name.endswith("state_update") else function.__wrapped__)
        for file in files
        for name, function in vars(file).items()
        if ("_update" in name or "recurrent" in name) and hasattr(function, "__wrapped__") and function.__module__ == file.__name__
    ]


def _bounded(limit: tuple[float, float], step: Callable[..., Any]) -> Callable[..., Any]:
    """Clamp time steps. Mamba 2 and similar models do that for whole rows, but not when they continue from a state."""

    def within(
        state: Tensor,
        hidden: Tensor,
        dt: Tensor,
        *rest: Any,
        dt_bias: Tensor | None = None,
        dt_softplus: bool = False,
        **named: Any,
    ) -> Any:
        dt = dt if dt_bias is None else dt + dt_bias.to(dt.dtype)
        dt = nn.functional.softplus(dt) if dt_softplus else dt
        return step(state, hidden, dt.clamp(*limit), *rest, **named)

    return within


@contextmanager
def _in_place_of(steps: Sequence[_Step]) -> Iterator[None]:
    """Inside this context, the step functions are replaced."""
    for step in steps:
        setattr(step.file, step.name, step.instead)
    try:
        yield
    finally:
        for step in steps:
            setattr(step.file, step.name, step.function)


def states_of(model: Any) -> States:
    """Empty states for this model. `feed` raises an error if the model's states are not supported."""
    inner = without_wrapper(model)
    if "state" in inspect.signature(inner.forward).parameters:
        return StatesByLayer(model)
    if any("conv1d_state" in vars(module) for module in inner.modules()):
        return StatesInModules(model)
    return StatesOfXLSTM(model) if inner.config.model_type == "xlstm" else States(model)
