"""The trained weights and their gradients as one vector a device: a norm, a step, a sum over processes are one operation each.

Adapters have hundreds of small matrices; as many calls a step cost more than what they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlatWeights:
    """Vectors of which the model's own weights and gradients are views."""

    vectors: tuple[torch.nn.Parameter, ...]  # one for each device and number format

    @classmethod
    def of(cls, weights: Sequence[torch.nn.Parameter]) -> FlatWeights:
        """Move the weights into vectors, in their order; their gradients are zero."""
        alike: dict[tuple[torch.device, torch.dtype], list[torch.nn.Parameter]] = {}
        for weight in weights:
            alike.setdefault((weight.device, weight.dtype), []).append(weight)
        return cls(tuple(_joined(some) for some in alike.values()))

    @property
    def gradients(self) -> list[Tensor]:
        """One for each vector."""
        return [vector.grad for vector in self.vectors if vector.grad is not None]

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
