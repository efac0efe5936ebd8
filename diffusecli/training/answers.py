"""What the base model answered to an instruction, and what it thought of each token: what the tuned model is held to.

Axis names: T tokens of an answer, K likeliest tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """What the base model said to one instruction, and what it thought while saying it (natural logarithms)."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # T, terminator included if it came
    likeliest: Tensor  # [T, K] token ids
    log_probs: Tensor  # [T, K] of the likeliest
    log_rest: Tensor  # [T] of all other tokens together

    @property
    def tokens(self) -> int:
        """How many tokens a pass over it is fed."""
        return len(self.prompt_ids) + len(self.answer_ids) - 1

    def beginning(self, tokens: int) -> Answer:
        """Its first tokens only."""
        some = slice(tokens)
        return Answer(self.prompt_ids, self.answer_ids[some], self.likeliest[some], self.log_probs[some], self.log_rest[some])


@dataclass(frozen=True)
class Held:
    """The tokens of several answers, one after the other, as a pass scores them."""

    likeliest: Tensor  # [T, K]
    log_probs: Tensor  # [T, K]
    log_rest: Tensor  # [T]
    weights: Tensor  # [T] of each token's KL in the loss: one over the tokens of its answer

    @classmethod
    def of(cls, answers: Sequence[Answer], device: torch.device) -> Held:
        """On a device."""
        lengths = [len(a.answer_ids) for a in answers]
        weights = torch.cat([torch.full((length,), 1 / length) for length in lengths])
        columns = (torch.cat([getattr(a, name) for a in answers]) for name in ("likeliest", "log_probs", "log_rest"))
        likeliest, log_probs, log_rest = (column.to(device) for column in columns)
        return cls(likeliest.long(), log_probs, log_rest, weights.to(device))

    def __getitem__(self, rows: slice) -> Held:
        """Some of the tokens."""
        return Held(self.likeliest[rows], self.log_probs[rows], self.log_rest[rows], self.weights[rows])


def summary(logits: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [T, K] of the given tokens and [T] of all others together, from logits [T, V]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = logits.logsumexp(-1)
    rest = logits.scatter(1, likeliest, float("-inf")).logsumexp(-1) - normaliser
    return logits.gather(1, likeliest) - normaliser[:, None], rest


def divergence(held: Held, log_q: Tensor, log_rest: Tensor) -> Tensor:
    """KL(base || tuned) at each token in nats [T], from the tuned model's `summary`.

    All but the likeliest tokens count as one, which can only make it smaller (data processing inequality).
    """
    of_likeliest = (held.log_probs.exp() * (held.log_probs - log_q)).sum(-1)
    return of_likeliest + held.log_rest.exp() * (held.log_rest - log_rest)
