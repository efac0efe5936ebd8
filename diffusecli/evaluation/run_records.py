"""Records that belong to samples: a run's `run.json` and `config.yaml`, and the settings of a sample file.

Reads and checks them; runs of the original have few or none. Does not read samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from diffusecli.files.documents import read_document
from diffusecli.prompts.config import CHAT_FIELDS
from diffusecli.prompts.prompt import Prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import meta_path, read_meta
from diffusecli.sampling.model_names import other_names
from diffusecli.system.errors import InputError

_Kind = TypeVar("_Kind", bound=BaseModel)


class Manifest(BaseModel):
    """The fields used from run.json; {} in runs of the original. Figures are prompt alias -> value."""

    model_config = ConfigDict(frozen=True, extra="allow")

    exact_kl: dict[str, float] = {}
    exact_kl_before: dict[str, float] = {}
    exact_kl_test: dict[str, float] = {}
    exact_on_target: dict[str, float] = {}
    exact_on_target_before: dict[str, float] = {}
    exact_on_target_test: dict[str, float] = {}
    exact_wordings: dict[str, dict[str, list[float]]] = {}  # of each wording of a prompt with several
    kl_errors: dict[str, float] = {}  # standard errors of the KLs that are estimates
    kl_errors_before: dict[str, float] = {}
    kl_rounding: dict[str, float | None] = {}  # of the KLs of 16-bit models; None if unknown
    kl_rounding_before: dict[str, float | None] = {}
    retention_kl: float | None = None
    iterations: NonNegativeInt | None = None
    prompts_trained: NonNegativeInt = 0  # the first entries of `prompt_sha256`
    prompt_sha256: dict[str, str] = {}
    model_revision: str | None = None
    adapter_sha256: str | None = None
    chat: dict[str, Any] | None = None

    @property
    def trained(self) -> tuple[str, ...]:
        """The prompts trained on. If there are very many, only some have figures; runs without a count have figures of all."""
        return tuple(self.prompt_sha256)[: self.prompts_trained] or tuple(self.exact_kl)


class _AlgSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    early_stop: bool = False
    n_iters: int = 50


class Settings(BaseModel):
    """The fields used from config.yaml."""

    model_config = ConfigDict(frozen=True, extra="allow")

    alg_config: _AlgSettings = _AlgSettings()
    load_model: bool = False


class _SamplingSettings(BaseModel):
    model_config = ConfigDict(extra="allow")

    temperature: float = 1.0
    top_k: float = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: list[str] = []


class _Ask(BaseModel):
    """The method of `diffuse sample --ask`."""

    method: str
    version: int = 0


class SampleMeta(BaseModel):
    """The fields used from the settings of a sample file."""

    mode: str | None = None
    engine: str | None = None
    model: str | None = None
    base_url: str | None = None  # of the server that drew the answers
    ask: _Ask | None = None
    settings: _SamplingSettings | None = None
    prompts: dict[str, Any] = {}
    wordings: dict[str, NonNegativeInt] = {}  # number of wordings that share the answers to a prompt
    limits: dict[str, NonNegativeInt] = {}
    unfinished: dict[str, dict[str, NonNegativeInt]] = {}
    model_revision: str | None = None
    adapter_sha256: str | None = None
    system: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    omitted: list[str] = []
    answered_as: list[str] = []  # names of the model in a server's responses
    refused: dict[str, Any] = {}

    @property
    def asked(self) -> dict[str, Any] | None:
        """How the prompts were rendered; None if the file does not record it."""
        return None if self.mode is None else {name: value for name in CHAT_FIELDS if (value := getattr(self, name)) is not None}

    @property
    def served(self) -> str | None:
        """The server's name for the model; None if no server drew the answers, or if the file does not record it."""
        return self.model if self.engine == "openai" else None

    @property
    def served_as(self) -> str:
        """The name of the model in the server's responses, if it is not the one asked for."""
        return other_names(self.served, self.answered_as) if self.served is not None else ""

    def settings_of(self, *aliases: str) -> dict[str, Any]:
        """Sampling settings of one prompt with these aliases."""
        left = sorted({*self.omitted, *self.refused} - {"n"})  # n does not change what is drawn
        kept = self.settings.model_dump(exclude_unset=True) if self.settings is not None else {}
        kept.pop("left_to_server", None)  # only these lists decide
        if wordings := [self.wordings[alias] for alias in aliases if alias in self.wordings]:
            kept["wordings"] = wordings[0]
        if kept and (limits := [self.limits[alias] for alias in aliases if alias in self.limits]):
            kept["max_new_tokens"] = limits[0]
        if self.ask is not None:
            kept["ask"] = f"{self.ask.method}, version {self.ask.version}"
        return {**kept, "left_to_server": left} if left else kept


def read_manifest(run: RunDir) -> Manifest:
    """A run's `run.json`; raises `InputError` if it cannot be read."""
    return _checked(Manifest, run.read_manifest(), run.manifest)


def read_settings(run: RunDir) -> Settings:
    """A run's `config.yaml`; raises `InputError` if it cannot be read."""
    if not run.config.is_file():
        return Settings()
    document, problems = read_document(run.config)
    if document is None:
        raise InputError.of(problems)
    return _checked(Settings, document.data or {}, run.config)


def read_sample_meta(file: Path) -> SampleMeta:
    """The settings of a sample file; raises `InputError` if they cannot be read."""
    return _checked(SampleMeta, read_meta(file), meta_path(file))


def changed_since_training(run: RunDir, prompts: Iterable[Prompt]) -> list[str]:
    """Aliases of prompts whose content differs from the run's record. Raises `InputError` for a manifest that cannot be read."""
    trained = read_manifest(run).prompt_sha256
    return [prompt.alias for prompt in prompts if trained.get(prompt.alias, prompt.digest) != prompt.digest]


def _checked(kind: type[_Kind], data: Any, path: Path) -> _Kind:
    """Validate; raises `InputError` for the first problem."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {place or 'the whole'}: {first['msg'].split(' or instance')[0].lower()}. Fix the file or remove it"
        ) from error
