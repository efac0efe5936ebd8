"""The run directory: names and contents of its files. How they are created is elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusecli.files.documents import read_json_mapping
from diffusecli.files.paths import exists
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.sample_files import ASK_METHODS, MODES, SAMPLE_ENDINGS, existing, journal_path, meta_path, sampler_name

STATE_FORMAT = "5"
"""Version of `state.safetensors`: no other one can be resumed."""


@dataclass(frozen=True)
class RunDir:
    """A folder with the file names of the original project (`gen.json`, `config.yaml`, …) and of this one."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config of the run."""
        return self.path / "config.yaml"

    @property
    def prompts(self) -> Path:
        """`{alias: prompt}` of every train and test prompt."""
        return self.path / "prompts.json"

    @property
    def chat_template(self) -> Path:
        """A copy of the config's chat template, if it is not the model's own."""
        return self.path / "chat_template.jinja"

    @property
    def manifest(self) -> Path:
        """The manifest: versions, seed, hashes, figures."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """A JSON line per iteration."""
        return self.path / "metrics.jsonl"

    @property
    def lock(self) -> Path:
        """The lock of a running training."""
        return self.path / ".lock"

    @property
    def card(self) -> Path:
        """The model card, Markdown."""
        return self.path / "README.md"

    @property
    def state(self) -> Path:
        """The optimiser's state and the progress, of a checkpoint or of the finished training."""
        return self.path / "state.safetensors"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of an interrupted training, newest first. Folders with other names are ignored."""
        there = (folder for folder in self.path.glob("checkpoint-*") if folder.is_dir())
        return sorted((folder for folder in there if re.fullmatch(r"checkpoint-\d+", folder.name)), key=step_of, reverse=True)

    @property
    def owner(self) -> RunDir:
        """The run of a checkpoint; otherwise the folder itself."""
        return RunDir(self.path.parent) if self.path.name.startswith("checkpoint-") else self

    @property
    def has_adapter(self) -> bool:
        """Whether it has an adapter."""
        return exists(self.path / "adapter_config.json") and exists(self.path / "adapter_model.safetensors")

    @property
    def adapter_sha256(self) -> str:
        """Hash of the adapter's weights."""
        with (self.path / "adapter_model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def served_name(self) -> str:
        """The adapter's name for a server: with its hash, because the server could answer with an older adapter of the same name."""
        return f"{self.path.resolve().name}-{self.adapter_sha256[:8]}"

    def samples(self, mode: str, ending: str = ".json", ask: str | None = None) -> Path:
        """Where `diffuse sample` writes by default, with a method of `--ask` or without."""
        return self.path / f"gen.{mode}{f'.ask-{ask}' if ask else ''}{ending}"

    def asked(self, mode: str, ending: str = ".json") -> Path:
        """Path for answers to `diffuse sample --request`, which `evaluate` ignores."""
        return self.path / f"asked.{mode}{ending}"

    def series(self, mode: str, ask: str | None = None) -> list[Path]:
        """The files that `diffuse sample` wrote by default, with a method of `--ask` or without."""
        return [path for ending in SAMPLE_ENDINGS for path in existing(self.samples(mode, ending, ask))]

    def all_sample_files(self) -> dict[str, list[Path]]:
        """The sample files of each sampler (`sampler_name`), newest first; lora last. `gen.json` from training counts as lora."""
        files = {}
        for mode, ask in [
            *((mode, ask) for mode in MODES for ask in (None, *ASK_METHODS) if (mode, ask) != ("lora", None)),
            ("lora", None),
        ]:
            there = self.series(mode, ask)
            if mode == "lora" and ask is None and (self.path / "gen.json").is_file():
                there.append(self.path / "gen.json")
            if there:
                files[sampler_name(mode, ask)] = sorted(there, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return files

    def sample_files(self) -> dict[str, Path]:
        """The newest sample file of each sampler."""
        return {name: files[0] for name, files in self.all_sample_files().items()}

    def discard_trained(self) -> None:
        """Delete the adapter, files about it, and the tuned model's samples, before another training replaces them."""
        adapter = [self.path / "adapter_config.json", self.path / "adapter_model.safetensors"]
        for path in (self.manifest, self.card, self.metrics, self.chat_template, self.state, *adapter):
            path.unlink(missing_ok=True)
        self.discard_samples()

    def discard_samples(self) -> None:
        """Delete the tuned model's samples."""
        asks = (None, *ASK_METHODS)
        first = [self.samples("lora", ending, ask) for ending in SAMPLE_ENDINGS for ask in asks]  # or their journals
        own = dict.fromkeys([*first, *(path for ask in asks for path in self.series("lora", ask))])
        for samples in (self.path / "gen.json", *own):
            for path in (samples, meta_path(samples), journal_path(samples)):
                path.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any]:
        """The manifest, or {} if there is none, as in runs of the original."""
        return read_json_mapping(self.manifest) if self.manifest.is_file() else {}

    def read_prompts(self) -> dict[str, Any]:
        """The content of `prompts.json`, or {} if there is none. Runs of the original stored tokens."""
        return read_json_mapping(self.prompts) if self.prompts.is_file() else {}


def step_of(checkpoint: Path) -> int:
    """The number of optimiser steps before a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def prompts_as_json(prompts: Iterable[Prompt]) -> dict[str, Any]:
    """`{alias: prompt}`, as stored in `prompts.json` and in the metadata of samples."""
    return {prompt.alias: {"alias": prompt.alias, **json.loads(prompt.to_json())} for prompt in prompts}
