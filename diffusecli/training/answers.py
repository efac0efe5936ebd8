"""Answers of the base model with its token probabilities, and the divergence of the tuned model from them.

Axis names: T tokens of an answer, K likeliest tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusecli.models.devices import uploaded


@dataclass(frozen=True)
class Answer:
    """The base model's answer to one instruction, with its log-probabilities (natural logarithms)."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # T, with the terminator if the answer ended
    likeliest: Tensor  # [T, K] token ids
    log_probs: Tensor  # [T, K] of the likeliest tokens
    log_rest: Tensor  # [T] of all other tokens, summed

    @property
    def tokens(self) -> int:
        """Number of tokens that a pass feeds for it."""
        return len(self.prompt_ids) + len(self.answer_ids) - 1

    def beginning(self, tokens: int) -> Answer:
        """The answer cut to its first tokens."""
        some = slice(tokens)
        return Answer(self.prompt_ids, self.answer_ids[some], self.likeliest[some], self.log_probs[some], self.log_rest[some])


@dataclass(frozen=True)
class Held:
    """The tokens of several answers, concatenated, as a pass scores them."""

    likeliest: Tensor  # [T, K]
    log_probs: Tensor  # [T, K]
    log_rest: Tensor  # [T]
    weights: Tensor  # [T] of each token's KL in the loss: 1 / tokens of its answer

    @classmethod
    def of(cls, answers: Sequence[Answer], device: torch.device) -> Held:
        """Concatenate answers on a device."""
        return cls(*uploaded(cls.columns(answers), device))

    @staticmethod
    def columns(answers: Sequence[Answer]) -> list[Tensor]:
        """The fields, on the CPU."""
        lengths = [len(a.answer_ids) for a in answers]
        likeliest, *others = (torch.cat([getattr(a, name) for a in answers]) for name in ("likeliest", "log_probs", "log_rest"))
        return [likeliest.long(), *others, torch.cat([torch.full((length,), 1 / length) for length in lengths])]

    def __getitem__(self, rows: slice) -> Held:
        """A slice of the tokens."""
        return Held(self.likeliest[rows], self.log_probs[rows], self.log_rest[rows], self.weights[rows])


def summary(logits: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [T, K] of the given tokens and [T] of all others, summed, from logits [T, V]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    normaliser = logits.logsumexp(-1)
    rest = logits.scatter(1, likeliest, float("-inf")).logsumexp(-1) - normaliser
    return logits.gather(1, likeliest) - normaliser[:, None], rest


def divergence(held: Held, log_q: Tensor, log_rest: Tensor) -> Tensor:
    """KL(base || tuned) at each token in nats [T], from the tuned model's `summary`.

    All but the likeliest tokens count as one outcome. This can only lower the KL (data processing inequality).
    """
    of_likeliest = (held.log_probs.exp() * (held.log_probs - log_q)).sum(-1)
    return of_likeliest + held.log_rest.exp() * (held.log_rest - log_rest)
