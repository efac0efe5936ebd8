"""Learning rate and stopping."""

from __future__ import annotations

import math

from diffusecli.prompts.config import AlgConfig
from diffusecli.runs.iteration import Iteration


def auto_learning_rate(hidden_size: int) -> float:
    """10 x 5e-5 x (2000 / hidden size)^0.78: 1.3e-3 at 576, 2.4e-4 at 5120.

    A rule of thumb fitted to LoRA fine-tunes of Llama-like models (Thinking Machines Lab, "LoRA
    Without Regret", 2025); wider models want smaller steps.
    """
    return float(10 * 5e-5 * (2000 / hidden_size) ** 0.78)


_SURELY = 1.645
"""One-sided 95 % quantile of the normal distribution, in standard errors."""


def reason_to_stop(settings: AlgConfig, seen: Iteration) -> str | None:
    """Why training stops: early stop as in the original, or `target_kl` reached; None to continue. Estimates must be below the limit with 95 % confidence."""
    loss, kl = seen.loss + _SURELY * seen.loss_error, seen.mean_kl + _SURELY * seen.mean_kl_error
    if settings.early_stop and loss <= seen.optimal * (1 + settings.gamma):
        return f"early stop: loss {seen.loss:.3f}{_at_most(loss, seen.loss)} <= {seen.optimal:.3f} x (1 + {settings.gamma:g})"
    if settings.target_kl is not None and kl <= settings.target_kl:
        return f"target reached: mean KL {seen.mean_kl:.4f}{_at_most(kl, seen.mean_kl)} <= {settings.target_kl:g}"
    return None


def _at_most(highest: float, estimate: float) -> str:
    """The upper bound of an estimate, as text."""
    return f" (at most {highest:.4f})" if highest > estimate else ""


def learning_rate(settings: AlgConfig, hidden_size: int) -> float:
    """The configured learning rate, or the default for the model's width."""
    return auto_learning_rate(hidden_size) if settings.learning_rate == "auto" else settings.learning_rate


WARM_UP = 0.2
"""Default share of the steps with a rising learning rate if the weights are trained already.

The first steps of AdamW move every weight by the learning rate, however small its gradient: a trained adapter would lose what it learned."""


def rate_share(settings: AlgConfig, step: int, steps: int, *, trained: bool = False) -> float:
    """The learning rate of a step as a share of the full rate: linear warm-up, then the schedule over the remaining steps.

    `trained`: the weights come from an earlier training.
    """
    share = (WARM_UP if trained else 0.0) if settings.warmup == "auto" else settings.warmup
    warm = share * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return _decay(settings.schedule, (step - warm) / (steps - warm))


def _decay(schedule: str, share_done: float) -> float:
    """The learning rate as a share of the initial rate. Cosine and linear end at 5 %."""
    if schedule == "constant":
        return 1.0
    falling = 0.5 * (1 + math.cos(math.pi * share_done)) if schedule == "cosine" else 1 - share_done
    return float(0.05 + 0.95 * falling)
