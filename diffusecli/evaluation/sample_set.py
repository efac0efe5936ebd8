"""Inputs of an evaluation: all answers to one prompt from one sampler, and the records of a run.

`sources.py` finds and reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusecli.evaluation.prompt_book import kept_prompt
from diffusecli.evaluation.run_records import Manifest, Settings
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.wording_names import split_alias, wording_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.settings import changed_from_neutral

SERVED = "served"
"""The mode of a model that only its name at a server identifies: the server does not say whether it is tuned."""


@dataclass(frozen=True)
class SampleSet:
    """All answers to one prompt from one sampler."""

    run: str
    mode: str  # untuned, lora, these asked by a method (`ask direct`), served, or the name of a file
    prompt: Prompt
    counts: Answers
    settings: Mapping[str, Any] = field(default_factory=dict)  # as sampled; {} if unknown
    examples: bool = False  # the targets are only examples of what is wanted (early_stop)
    asked: Mapping[str, Any] | None = None  # system prompt, chat template and its variables; None if unknown
    trained_on: Prompt | None = None  # for a prompt without targets: the training prompt with the same request
    file: str = ""  # its name, if the run has several sample files of this sampler
    adapter: str | None = None  # SHA-256 of the adapter that drew the answers, if recorded
    served: str | None = None  # the server's name for the model, if a server drew the answers
    served_as: str = ""  # its name in the server's responses, if it is another one
    served_at: str | None = None  # its address, if it is recorded

    @property
    def bent(self) -> bool:
        """Whether the settings change the model's own distribution: exact figures of the model are not those of the sampler."""
        if self.settings.get("ask") or self.settings.get("left_open"):  # settings that a generation config or a server decides
            return True
        left = set(self.settings.get("left_to_server", ())) - {"seed"}  # a server's defaults are unknown
        return bool(left or self.settings.get("stop") or changed_from_neutral(self.settings))


@dataclass(frozen=True)
class RunFacts:
    """The records of a run directory, except its samples."""

    run: str
    folder: RunDir
    manifest: Manifest
    settings: Settings
    prompts: Mapping[str, Any]  # its prompts.json
    left_out: Mapping[Path, Path] = field(default_factory=dict)  # sample file -> the newer one with the same prompts that is used

    def digest_of(self, alias: str) -> str | None:
        """Digest of the prompt with this alias in the run's figures; None if the run does not record it. Raises `InputError`."""
        if (recorded := self.manifest.prompt_sha256.get(alias)) is not None:
            return recorded
        kept = kept_prompt(alias, self.prompts.get(alias), self.folder.prompts)
        return kept.digest if kept is not None else None

    def of_wording(self, prompt: Prompt) -> tuple[float, float] | None:
        """KL and mass on target of this wording of a prompt, if training recorded them. Raises `InputError`."""
        whole, name = split_alias(prompt.alias)
        kept = kept_prompt(whole, self.prompts.get(whole), self.folder.prompts) if name else None
        asked = wording_of(kept, name) if kept is not None and kept.digest == self.digest_of(whole) else None
        if asked is None or asked.digest != prompt.digest:
            return None
        place, manifest = int(name.removeprefix("held-out-")) - 1, self.manifest
        group = f"{whole}#held-out" if name.startswith("held-out") else whole
        each = manifest.exact_wordings.get(group, {})
        kl, on_target = each.get("kl", []), each.get("on_target", [])
        everything = len(kept.held_out_requests if group != whole else kept.requests) if kept else 0
        if everything == len(kl) == len(on_target):  # with very many wordings, training measures some and does not record which
            return kl[place], on_target[place]
        alone = {**manifest.exact_kl_test, **manifest.exact_kl}.get(group) if everything == 1 else None
        mass = {**manifest.exact_on_target_test, **manifest.exact_on_target}.get(group, math.nan)
        return None if alone is None else (alone, mass)

    def names_of(self, prompt: Prompt) -> list[str]:
        """The aliases of exactly this prompt in the run's figures, its own first. Raises `InputError`."""
        own = [prompt.alias] if self.digest_of(prompt.alias) in (None, prompt.digest) else []
        return own + [alias for alias in self._aliases.get(prompt.digest, ()) if alias not in own]

    def holds(self, prompt: Prompt) -> bool:
        """Whether exactly this prompt was trained on or measured in training."""
        return prompt.digest in self._aliases

    @cached_property
    def _aliases(self) -> dict[str, list[str]]:
        """Digest -> its aliases in the run's figures."""
        found: dict[str, list[str]] = {}
        for alias, digest in self.manifest.prompt_sha256.items():
            found.setdefault(digest, []).append(alias)
        return found
