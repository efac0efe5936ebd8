"""The loss of a pass and its gradient, computed in slices of logits.

The loss is the weighted cross-entropy of the edges that leave scored nodes, plus the divergence on retained answers.

R rows of logits, E edges, T tokens of answers, V vocabulary, h hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusecli.models.wide_output import wide_product
from diffusecli.training.answers import Held, divergence
from diffusecli.training.layout import Packed
from diffusecli.training.loss import Loss


class PackedLoss(torch.autograd.Function):
    """- sum_e mass_e ln softmax(scores[row_e])[token_e] + hold * sum_t weight_t KL_t, in slices of rows.

    `scores` are logits [R, V], or hidden states [R, h] with the output layer `head` [V, h] (and its bias). With a
    `head`, only one slice of logits exists at a time. The gradient is computed together with the loss, while the
    slice is in the processor's cache. The gradient of logits overwrites them.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, head: Tensor | None, bias: Tensor | None, packed: Packed, scale: float, hold: float, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the log-probabilities of edges [E] in float64, and the KL of each token of the answers [T], nats.

        `wanted`: whether a gradient is needed.
        """
        rows, tokens, masses = packed.edge_rows, packed.edge_tokens, packed.edge_masses * scale
        log_probs = torch.zeros_like(masses)
        kl = masses.new_zeros(len(scores) - packed.rows_of_edges)
        gradient = torch.empty_like(scores) if wanted and head is not None else scores
        most = max((part.stop - part.start for part, _ in packed.slices), default=0)
        wide = torch.promote_types(torch.float32, scores.dtype if head is None else head.dtype)  # see `wide_output.py`
        logits = scores[:0] if head is None else head.new_empty(most, len(head), dtype=wide)
        for part, here in packed.slices:
            own = scores[part] if head is None else wide_product(scores[part], head, bias, logits[: part.stop - part.start])
            if packed.held is None or here is not None:
                log_probs[here], difference = _of_edges(own, rows[here], tokens[here], masses[here], wanted)
            else:
                where = slice(part.start - packed.rows_of_edges, part.stop - packed.rows_of_edges)
                kl[where], difference = _of_answers(own, packed.held[where], hold * scale, wanted)
            if wanted and head is not None:
                gradient[part] = difference.to(head.dtype) @ head  # rounded once, after the subtraction
            elif wanted and difference.dtype != scores.dtype:
                gradient[part] = difference
        if wanted:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(log_probs, kl)
        held = (packed.held.weights * kl).sum() * (hold * scale) if packed.held is not None else 0.0
        return held - (masses * log_probs).sum(), log_probs, kl

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradient times the gradient of the loss."""
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), *[None] * 6


def scored(scores: Tensor, head: Any | None, packed: Packed, loss: Loss | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of edges [E] and KL of the answers' tokens [T] from a model's output. With a `loss`, add its gradient."""
    weight, bias = (None, None) if head is None else (head.weight, head.bias)
    of = loss or Loss()
    value, log_probs, kl = PackedLoss.apply(scores, weight, bias, packed, of.scale, of.hold, loss is not None)
    if loss is not None:
        value.backward()
    return log_probs, kl


def _of_edges(logits: Tensor, rows: Tensor, tokens: Tensor, masses: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of edges and d loss / d logits = (mass out of the row) softmax - (mass of the edge at its token).

    The gradient overwrites float32 logits; narrower ones are widened first.
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


def _of_answers(logits: Tensor, held: Held, hold: float, wanted: bool) -> tuple[Tensor, Tensor]:
    """KL(base || tuned) of each token and d loss / d logits, which overwrites float32 logits.

    Let b and q be the probabilities of the base and the tuned model, B and Q those of all but the likeliest tokens.
    Then dKL / d logit is q - b at a likely token, q (1 - B / Q) at any other.
    """
    wide = widened(logits)
    highest = wide.amax(-1, keepdim=True)
    shifted = wide.gather(1, held.likeliest) - highest
    # the rest is scaled by its own maximum, because it could underflow next to the likeliest tokens
    wide.scatter_(1, held.likeliest, -torch.inf)
    most = wide.amax(-1, keepdim=True)
    rest = wide.sub_(most).exp_().sum(-1, keepdim=True)
    log_rest, likely = most - highest + rest.log(), shifted.exp()
    total = likely.sum(-1, keepdim=True) + log_rest.exp()
    kl = divergence(held, shifted - total.log(), (log_rest - total.log())[:, 0])
    if wanted:
        weights = hold * held.weights[:, None]
        wide.mul_(weights * (log_rest.exp() / total - held.log_rest.exp()[:, None]) / rest)
        wide.scatter_(1, held.likeliest, weights * (likely / total - held.log_probs.exp()))
    return kl, wide


def widened(values: Tensor) -> Tensor:
    """At least float32, so that 16-bit logits are normalised accurately."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
