"""Progress of a training: lines of `metrics.jsonl`, one per iteration, and single steps for live progress."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Iteration:
    """A line of `metrics.jsonl`: one pass over the training prompts, with figures from before each prompt's step."""

    iteration: int  # from 1
    of: int
    step: int  # optimiser steps so far
    loss: float  # summed over prompts, nats
    optimal: float  # the lowest possible loss: the summed entropy of the paths' weights
    kl: dict[str, float]  # alias, or folder of many prompts -> exact KL(target || model), nats
    on_target: dict[str, float]  # same keys -> exact probability of all targets
    retention_kl: float | None  # mean KL(base || tuned) over the trained instructions, nats per token
    learning_rate: float  # of the first step
    gradient_norm: float  # mean over steps, before clipping
    tokens: int  # tokens fed since training began
    seconds: float  # since training began
    memory_mb: int  # peak memory of the process
    test_kl: dict[str, float] = field(default_factory=dict)  # like kl, for untrained test prompts, every eval_every iterations
    test_on_target: dict[str, float] = field(default_factory=dict)
    mean_kl: float = math.nan  # over all training prompts
    mean_on_target: float = math.nan
    mean_test_kl: float | None = None  # over all test prompts; None if none was measured
    mean_test_on_target: float | None = None
    kl_error: dict[str, float] = field(default_factory=dict)  # same keys as kl: its standard error, if steps sample targets
    mean_kl_error: float = 0.0
    loss_error: float = 0.0
    exact_kl: dict[str, float] = field(default_factory=dict)  # for prompts whose steps sample targets, every exact_every iterations


@dataclass(frozen=True)
class Step:
    """One optimiser step, with figures from before it."""

    step: int  # from 1
    of: int
    kl: float  # mean over its prompts, nats
    on_target: float  # mean over its prompts
    seconds: float  # since training began
    earlier: float = 0.0  # of these, in earlier commands
