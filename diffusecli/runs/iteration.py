"""How far a training is: a line of `metrics.jsonl` for each iteration, and single steps for whoever watches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Iteration:
    """A line of `metrics.jsonl`: one pass over the training prompts, figures as seen before each prompt's step."""

    iteration: int  # from 1
    of: int
    step: int  # optimiser steps so far
    loss: float  # summed over prompts, nats
    optimal: float  # the least it can be: the summed entropy of the paths' weights
    kl: dict[str, float]  # alias, or folder of many prompts -> exact KL(target || model), nats
    on_target: dict[str, float]  # likewise -> exact probability of answering with any target
    retention_kl: float | None  # mean KL(base || tuned) over the instructions trained on, nats per token
    learning_rate: float  # of the first step
    gradient_norm: float  # mean over steps, before clipping
    tokens: int  # fed since training began
    seconds: float  # since training began
    memory_mb: int  # the most the process held so far
    test_kl: dict[str, float] = field(default_factory=dict)  # as kl, of test prompts not trained on, every eval_every iterations
    test_on_target: dict[str, float] = field(default_factory=dict)
    mean_kl: float = math.nan  # over all prompts trained on
    mean_on_target: float = math.nan
    mean_test_kl: float | None = None  # over all test prompts; None where none was measured
    mean_test_on_target: float | None = None
    kl_error: dict[str, float] = field(default_factory=dict)  # as kl: its standard error, where steps draw targets
    mean_kl_error: float = 0.0
    loss_error: float = 0.0
    exact_kl: dict[str, float] = field(default_factory=dict)  # of prompts whose steps draw targets, every exact_every iterations


@dataclass(frozen=True)
class Step:
    """One optimiser step, as it was seen before it."""

    step: int  # from 1
    of: int
    kl: float  # mean over its prompts, nats
    on_target: float  # likewise
    seconds: float  # since training began
