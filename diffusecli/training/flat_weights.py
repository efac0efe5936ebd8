"""The trained weights and their gradients as one vector per device, so that a norm, a step or a sum over processes is one operation.

Adapters have hundreds of small matrices. One call per matrix would cost more than the computation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlatWeights:
    """Vectors. The model's weights and gradients are views of them."""

    vectors: tuple[torch.nn.Parameter, ...]  # one per device and dtype
    held: tuple[tuple[tuple[int, torch.Size], ...], ...]  # (index, shape) of the weights in each vector

    @classmethod
    def of(cls, weights: Sequence[torch.nn.Parameter]) -> FlatWeights:
        """Move the weights into vectors, in order, with zero gradients."""
        alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for number, weight in enumerate(weights):
            alike.setdefault((weight.device, weight.dtype), []).append(number)
        held = tuple(tuple((number, weights[number].shape) for number in some) for some in alike.values())
        return cls(tuple(_joined([weights[number] for number in some]) for some in alike.values()), held)

    @property
    def gradients(self) -> list[Tensor]:
        """The gradient of each vector."""
        return [vector.grad for vector in self.vectors if vector.grad is not None]

    def split(self, state: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """Split an optimiser's state per vector into a state per weight, on the CPU. It can then be loaded on other devices."""
        found: dict[int, dict[str, Tensor]] = {}
        for vector, kept in state.items():
            sizes = [shape.numel() for _, shape in self.held[vector]]
            for name, value in kept.items():
                parts = value.cpu().split(sizes) if value.ndim else [value.cpu()] * len(sizes)
                for (number, shape), part in zip(self.held[vector], parts, strict=True):
                    found.setdefault(number, {})[name] = part.view(shape).clone() if value.ndim else part.clone()
        return found

    def joined(self, state: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """The inverse of `split`."""
        return {
            vector: {
                name: torch.cat([state[number][name].flatten() for number, _ in held]) if first.ndim else first
                for name, first in state[held[0][0]].items()
            }
            for vector, held in enumerate(self.held)
        }

    def clear(self) -> None:
        """Set all gradients to zero in place; they remain views."""
        for gradient in self.gradients:
            gradient.zero_()


def _joined(weights: Sequence[torch.nn.Parameter]) -> torch.nn.Parameter:
    with torch.no_grad():
        vector = torch.nn.Parameter(torch.cat([weight.flatten() for weight in weights]))
    vector.grad = torch.zeros_like(vector)
    sizes = [weight.numel() for weight in weights]
    for weight, own, gradient in zip(weights, vector.data.split(sizes), vector.grad.split(sizes), strict=True):
        weight.data, weight.grad = own.view_as(weight), gradient.view_as(weight)
    return vector
