"""The trained weights and their gradients as one vector a device: a norm, a step, a sum over processes are one operation each.

Adapters have hundreds of small matrices; as many calls a step cost more than what they compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlatWeights:
    """Vectors of which the model's own weights and gradients are views."""

    vectors: tuple[torch.nn.Parameter, ...]  # one for each device and number format
    held: tuple[tuple[tuple[int, torch.Size], ...], ...]  # which weights each vector holds, by their number, and their shapes

    @classmethod
    def of(cls, weights: Sequence[torch.nn.Parameter]) -> FlatWeights:
        """Move the weights into vectors, in their order; their gradients are zero."""
        alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for number, weight in enumerate(weights):
            alike.setdefault((weight.device, weight.dtype), []).append(number)
        held = tuple(tuple((number, weights[number].shape) for number in some) for some in alike.values())
        return cls(tuple(_joined([weights[number] for number in some]) for some in alike.values()), held)

    @property
    def gradients(self) -> list[Tensor]:
        """One for each vector."""
        return [vector.grad for vector in self.vectors if vector.grad is not None]

    def split(self, state: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """What an optimiser keeps of each vector, as that of each weight: on whatever devices they lie next time."""
        found: dict[int, dict[str, Tensor]] = {}
        for vector, kept in state.items():
            sizes = [shape.numel() for _, shape in self.held[vector]]
            for name, value in kept.items():
                parts = value.split(sizes) if value.ndim else [value] * len(sizes)
                for (number, shape), part in zip(self.held[vector], parts, strict=True):
                    found.setdefault(number, {})[name] = part.view(shape).clone() if value.ndim else part.clone()
        return found

    def joined(self, state: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """The other way round."""
        return {
            vector: {
                name: torch.cat([state[number][name].flatten() for number, _ in held]) if first.ndim else first
                for name, first in state[held[0][0]].items()
            }
            for vector, held in enumerate(self.held)
        }

    def clear(self) -> None:
        """Set all gradients to zero; they stay the views that they are."""
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
