"""Settings and progress of sampling, for all engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusecli.prompts.answers import Answers
from diffusecli.system.errors import InputError


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling settings. The defaults sample the model's own softmax."""

    n_generations: int = 1000
    max_new_tokens: int = 50
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    seed: int = 0
    stop: tuple[str, ...] = ()  # an answer ends before the first of these
    whole_targets: bool = False  # raise the token limit for prompts with longer targets

    def __post_init__(self) -> None:
        """Raises `InputError` for invalid values."""
        for good, message in (
            (self.n_generations >= 1, f"-n {self.n_generations}: must be 1 or more"),
            (self.max_new_tokens >= 1, f"--max-new-tokens {self.max_new_tokens}: must be 1 or more"),
            (
                0 < self.temperature < math.inf,
                f"--temperature {self.temperature:g}: must be above 0 (1 is the model's own distribution)",
            ),
            (self.top_k >= 0, f"--top-k {self.top_k}: must be 0 (off) or more"),
            (0 < self.top_p <= 1, f"--top-p {self.top_p:g}: must be above 0 and at most 1 (off)"),
            (0 <= self.min_p < 1, f"--min-p {self.min_p:g}: must be 0 (off) or more and below 1"),
            (0 <= self.seed < 2**63, f"--seed {self.seed}: must be 0 or more and below 2**63"),
            (all(self.stop), "--stop: must not be empty"),
        ):
            if not good:
                raise InputError(message)

    def limit(self, longest: int) -> int:
        """The maximum tokens of an answer to a prompt whose longest target has `longest` tokens, including the terminator.

        >>> SamplingSettings(whole_targets=True).limit(86), SamplingSettings(whole_targets=True).limit(3), SamplingSettings().limit(86)
        (86, 50, 50)
        """
        return max(self.max_new_tokens, longest) if self.whole_targets else self.max_new_tokens


_NEUTRAL = {name: getattr(SamplingSettings, name) for name in ("temperature", "top_k", "top_p", "min_p")} | {
    "repetition_penalty": 1.0
}
"""Numbers that leave the model's own distribution unchanged. A penalty is a setting of other programs only."""


def changed_from_neutral(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded numbers that change the model's own distribution. A setting that is not recorded is neutral.

    >>> changed_from_neutral({"temperature": 1, "top_k": 0, "min_p": 0.1, "repetition_penalty": 1.2, "seed": 3})
    {'min_p': 0.1, 'repetition_penalty': 1.2}
    """
    return {name: settings[name] for name, neutral in _NEUTRAL.items() if settings.get(name, neutral) != neutral}


@dataclass(frozen=True)
class Standing:
    """Progress of one prompt."""

    answers: Answers  # so far; grows during sampling
    wanted: int
    rows: int  # prefixes (or requests) in progress
    tokens_fed: int
    tokens_left: Callable[[], float] = lambda: math.nan  # estimates the tokens still to feed; NaN: no estimate yet


Watch = Callable[[Standing], None]
