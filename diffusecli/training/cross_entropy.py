"""The weighted cross-entropy of the edges that leave scored nodes, and its gradient, a slice of logits at a time.

R rows of logits, E edges, V vocabulary, h hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusecli.training.layout import Packed

_SLICE_ROWS = 192  # of logits that exist at once


class WeightedCrossEntropy(torch.autograd.Function):
    """- sum_e mass_e ln softmax(scores[row_e])[token_e], a slice of rows at a time.

    `scores` are logits [R, V], or hidden states [R, h] with the `head` [V, h] (and its bias) that makes logits
    of them: then no more than a slice of logits ever exists. The gradient is found in the same go, while the
    slice is in the processor's cache; for logits it is written over them.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, head: Tensor | None, bias: Tensor | None, packed: Packed, scale: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss and the log-probabilities [E], float64; `wanted` tells whether a gradient is."""
        rows, tokens, masses = packed.edge_rows, packed.edge_tokens, packed.edge_masses * scale
        log_probs = torch.zeros_like(masses)
        gradient = torch.empty_like(scores) if wanted and head is not None else scores
        logits = None if head is None else head.new_empty(min(_SLICE_ROWS, len(scores)), len(head))
        for start in range(0, len(scores), _SLICE_ROWS):
            part = slice(start, start + _SLICE_ROWS)
            here = ((rows >= start) & (rows < start + _SLICE_ROWS)).nonzero()[:, 0]
            own = scores[part] if head is None else _linear(scores[part].to(head.dtype), head, bias, logits)
            log_probs[here], difference = _slice(own, rows[here] - start, tokens[here], masses[here], wanted)
            if wanted and head is not None:
                gradient[part] = difference.to(head.dtype) @ head  # rounded once, after the subtraction
            elif wanted and difference.dtype != scores.dtype:
                gradient[part] = difference
        if wanted:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(log_probs)
        return -(masses * log_probs).sum(), log_probs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient that was found, times that of the loss."""
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None, None, None, None


def _slice(logits: Tensor, rows: Tensor, tokens: Tensor, masses: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of edges and d loss / d logits = (mass out of the row) softmax - (mass of the edge at its token).

    The gradient takes the place of float32 logits; narrower ones are widened first.
    """
    wide = widened(logits)
    chosen, highest = wide[rows, tokens].to(masses.dtype), wide.amax(-1)
    totals = wide.sub_(highest[:, None]).exp_().sum(-1)
    log_probs = chosen - (highest.to(masses.dtype) + totals.to(masses.dtype).log())[rows]
    if wanted:
        narrow = masses.to(wide.dtype)
        outflow = torch.zeros_like(totals).index_add_(0, rows, narrow)
        wide.mul_((outflow / totals)[:, None]).index_put_((rows, tokens), -narrow, accumulate=True)
    return log_probs, wide


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`hidden weight' + bias`, written into the first rows of `out`: fresh memory for every slice would cost as much again."""
    result = torch.mm(hidden, weight.t(), out=out[: len(hidden)])
    return result if bias is None else result.add_(bias)


def widened(values: Tensor) -> Tensor:
    """At least float32, so that 16-bit logits are normalised with care."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
