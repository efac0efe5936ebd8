"""What `--exact` measured of one model, loaded or served. Independent of how it was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diffusecli.evaluation.bounds import BoundedFigures
from diffusecli.evaluation.metrics import ExactFigures, Worded, exact_figures
from diffusecli.prompts.prompt import Prompt

if TYPE_CHECKING:
    from diffusecli.training.rounding import Rounding  # needs torch

Kind = Literal["trained", "held-out", "context"]

_Key = tuple[str, str]
"""Mode and digest of the prompt."""


@dataclass(frozen=True)
class Measured:
    """Probabilities and figures of one model."""

    log_q: dict[_Key, np.ndarray] = field(default_factory=dict)  # [K], nats; the mean over wordings
    wordings: dict[_Key, tuple[Worded, ...]] = field(default_factory=dict)  # of prompts that have several, or contexts
    chat: dict[str, Any] = field(default_factory=dict)  # how the prompts were rendered: system prompt, template, variables
    drift: float | None = None  # of the adapter on held-out instructions, nats per token
    draws: dict[_Key, ExactFigures] = field(default_factory=dict)  # of prompts whose answers are in parts: estimates
    bounds: dict[_Key, BoundedFigures] = field(default_factory=dict)  # where only limits are known
    rounding: dict[_Key, Rounding] = field(default_factory=dict)  # of the figures of a 16-bit model
    mode: str | None = None  # of a served model: its figures are those of all samples from it
    prompts: tuple[Prompt, ...] = ()  # of a served model: those that were to be measured

    def _key(self, mode: str, prompt: Prompt) -> _Key:
        return self.mode or mode, prompt.digest

    def knows(self, mode: str, prompt: Prompt) -> bool:
        """Whether the prompt was measured in this mode."""
        return any(self._key(mode, prompt) in known for known in (self.log_q, self.draws, self.bounds))

    def limits(self, mode: str, prompt: Prompt) -> BoundedFigures | None:
        """The limits of a prompt's exact figures, where only these are known."""
        return self.bounds.get(self._key(mode, prompt))

    def figures(self, mode: str, prompt: Prompt, n: int, at_n: int) -> ExactFigures | None:
        """The exact figures of a prompt, with the targets expected in `n` answers. Estimates where answers are in parts."""
        key = self._key(mode, prompt)
        limit = self.rounding.get(key)
        rounding, tvd_rounding = (0.0, 0.0) if limit is None else (limit.kl, limit.tvd)
        if key in self.draws:
            return replace(self.draws[key], rounding=rounding, tvd_rounding=tvd_rounding)
        if key not in self.log_q:
            return None
        found, worded = exact_figures(prompt, self.log_q[key], n, at_n), self.wordings.get(key, ())
        own = [one for one in worded if one.kind == "trained"]
        kl, tvd = (
            math.fsum(getattr(one, name) for one in own) / len(own) if own else getattr(found, name) for name in ("kl", "tvd")
        )
        pooled = found.tvd if len(own) > 1 else math.nan
        return replace(found, kl=kl, tvd=tvd, wordings=worded, pooled_tvd=pooled, rounding=rounding, tvd_rounding=tvd_rounding)


def kinds_of(prompt: Prompt) -> list[tuple[Kind, str]]:
    """Kind and name of each wording, the trained ones first."""
    trained: list[tuple[Kind, str]] = [("trained", wording.question) for wording in prompt.wordings]
    return trained + [("held-out", wording.question) for wording in prompt.held_out]


def pooled(of_wordings: Sequence[np.ndarray]) -> np.ndarray:
    """Ln of the mean probability of each target [K] over the wordings, nats."""
    return np.asarray(np.logaddexp.reduce(np.array(of_wordings)) - math.log(len(of_wordings)))


def worded(kinds: Sequence[tuple[Kind, str]], figures: Iterable[tuple[float, float, float]]) -> tuple[Worded, ...]:
    """Figures of each variant (KL, mass on target, TVD); () if there is only one."""
    return tuple(Worded(*kind, *found) for kind, found in zip(kinds, figures, strict=True)) if len(kinds) > 1 else ()
