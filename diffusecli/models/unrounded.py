"""Compute a 16-bit model in float32, to measure how much the rounding of its own number format changes.

The weights stay in 16 bits, and each is widened for the operation that uses it. So this needs memory for one wide layer, not for a wide
model. The result is that of `model.float()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from diffusecli.models.wide_output import NARROW

_ROWS_OF_WEIGHTS = {torch.nn.functional.embedding, torch.embedding}
"""Functions whose result is widened, because their weights are much larger."""

_VIEWS = {
    "__getitem__", "__get__", "__set__", "t", "transpose", "permute", "view", "reshape", "expand", "expand_as", "squeeze", "unsqueeze", "flatten",
    "split", "chunk", "detach", "size", "dim", "numel", "stride", "is_contiguous", "contiguous", "data_ptr", "new_empty", "new_zeros", "is_floating_point",
    "get_device", "__len__", "requires_grad_", "narrow", "unbind", "select",
}  # fmt: skip
"""Functions that compute nothing. They are not changed, so that no weight is widened for a look at it."""


def can_be_unrounded(model: Any) -> bool:
    """Whether the weights of a 16-bit model are whole and in place.

    Sharded weights are gathered in buffers of 16 bits. Offloaded ones are placeholders (`meta`), which accelerate's hooks copy to the
    device inside the forward pass: widened copies would stay in the model.
    """
    from torch.distributed.tensor import DTensor

    offloads = any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in model.modules())
    return not offloads and not any(isinstance(weight, DTensor) or weight.is_meta for weight in model.parameters())


class Unrounded(torch.overrides.TorchFunctionMode):
    """Inside this context, torch computes in float32 wherever it would compute in 16 bits."""

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = MappingProxyType({}),
    ) -> Any:
        """Widen the tensors and the number formats among the arguments, and call the function."""
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in _VIEWS:
            return function(*args, **kwargs)
        if function in _ROWS_OF_WEIGHTS:
            return _widened(function(*args, **kwargs))
        return function(*tree_map(_widened, args), **tree_map(_widened, dict(kwargs)))


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in NARROW else value
    return torch.float32 if isinstance(value, torch.dtype) and value in NARROW else value
