"""Which adapters are let in: plain LoRA, found out from its two files before any library acts on them.

PEFT does what an adapter_config.json says: import modules, rewrite the base model, allocate matrices of any rank. What is
asked for here is the adapter's shape; everything else must stand as PEFT has it by default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusecli.files.documents import Document, read_document
from diffusecli.files.schema import problems_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError, Problem
from diffusecli.system.timeouts import at_most

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_USUAL_RANK = 256  # up to here the memory that a false rank takes is bearable, and PEFT says what does not fit
_TIMEOUT = 5.0  # seconds for patterns to find their modules
_Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
_Names = Annotated[list[str], Field(strict=False)] | str | None


class AdapterConfig(BaseModel):
    """What an adapter_config.json may say. Other fields may stand in it as far as they ask for nothing."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    inference_mode: bool = False
    auto_mapping: dict[str, Any] | None = None  # names of classes, for those who load without knowing what for
    peft_version: str | None = None
    r: Annotated[int, Field(ge=1)] = 8
    lora_alpha: _Number = 8
    lora_dropout: Annotated[float, Field(ge=0, le=1, strict=False)] | None = 0.0
    target_modules: _Names = None
    exclude_modules: _Names = None
    target_parameters: Annotated[list[str], Field(strict=False)] | None = None  # fused experts
    fan_in_fan_out: bool = False
    use_rslora: bool | None = False
    use_dora: bool | None = False
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] | None = True
    layers_to_transform: Annotated[list[int], Field(strict=False)] | int | None = None
    layers_pattern: _Names = None
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] | None = {}
    alpha_pattern: dict[str, _Number] | None = {}

    @property
    def ranks(self) -> list[int]:
        """Every rank it asks for."""
        return [self.r, *(self.rank_pattern or {}).values()]

    @property
    def patterns(self) -> Iterator[tuple[str, str]]:
        """Regular expressions in it, with the names of their fields; entries of a list of modules are plain names."""
        for name in ("target_modules", "exclude_modules"):
            if isinstance(value := getattr(self, name), str) and value != "all-linear":
                yield name, value
        yield from (
            ("layers_pattern", text)
            for text in ([self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern or ())
        )
        for name in ("rank_pattern", "alpha_pattern"):
            yield from ((name, text) for text in getattr(self, name) or {})


def read_adapter_config(path: Path, defaults: Mapping[str, Any] | None = None) -> AdapterConfig:
    """Read and check an adapter_config.json; `defaults` are PEFT's. Raises `InputError` for what is no plain LoRA.

    Without `defaults` fields that this project does not know are passed over.
    """
    document, problems = read_document(path)
    if document is None:
        raise InputError.of(problems)
    try:
        config = AdapterConfig.model_validate(document.data)
    except ValidationError as error:
        raise InputError.of(problem for problem, _ in problems_of(document, error, AdapterConfig)) from error
    if defaults is not None and (strange := list(_strange(document, config, defaults))):
        raise InputError.of(strange)
    return config


def base_of(folder: Path) -> str:
    """The base model that an adapter's config names; raises `InputError` where it names none."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no adapter there (adapter_config.json is missing), name its folder")
    document, problems = read_document(path)
    if document is None:
        raise InputError.of(problems)
    base = document.data.get("base_model_name_or_path") if isinstance(document.data, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(f"{folder}: does not say which base model it is for, name it with --model")
    return base


def _strange(document: Document, config: AdapterConfig, defaults: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in (config.model_extra or {}).items():
        if value and value != defaults.get(name):
            yield document.problem(
                (name,), f"'{name}' asks for more than plain LoRA", "only plain LoRA adapters are loaded: train one without it"
            )


def require_quick(patterns: Iterable[tuple[str, str]], names: Sequence[str], place: str) -> None:
    """Raises `InputError` for a pattern that is none, and for one that takes forever over the names of a model's modules."""
    for field, pattern in patterns:
        slow = InputError(
            f"{place}: the pattern of {field} takes too long ({pattern[:60]!r}), write a simpler one or a list of names"
        )
        try:
            with at_most(_TIMEOUT, slow):
                expressions = [
                    re.compile(pattern),
                    re.compile(rf"(.*\.)?({pattern})$"),
                    re.compile(rf".*\.[^.]*\.{pattern}\.(\d+)\."),
                ]
                for name in names:
                    for expression in expressions:
                        expression.fullmatch(name)
                        expression.match(name)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"{place}: {field} holds {pattern[:60]!r}, which is no pattern of Python's re, correct it") from error


def require_sound_weights(path: Path, config: AdapterConfig, largest: int) -> int:
    """How many matrices the file holds; raises `InputError` unless all are LoRA's, of the ranks that the config asks for.

    `largest` is the longest side of any of the base model's weights: a higher rank could do no more.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except MemoryError as error:
        raise MachineError(f"{path}: does not fit into memory, free some") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}), fetch or train the adapter again") from error
    if foreign := [key for key in shapes if "lora_" not in key]:
        raise InputError(f"{path}: holds {foreign[0][:80]!r}, which is no matrix of LoRA; only plain LoRA adapters are loaded")
    found = max((shape[0] for key, shape in shapes.items() if re.search(r"lora_(embedding_)?A", key) and shape), default=0)
    if max(config.ranks) > min(max(found, _USUAL_RANK), largest):  # a rank that patterns hide may stand there for nothing
        raise InputError(
            f"{path}: has matrices of rank {found}, and adapter_config.json asks for {max(config.ranks)}; fetch or train it again"
        )
    return len(shapes)


def recorded_base(adapter: RunDir) -> Mapping[str, Any]:
    """What the folder of an adapter, a checkpoint too, says about the base model it was trained on; {} where it says nothing."""
    if adapter.manifest.is_file():
        return adapter.read_manifest()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter.state, framework="pt") as file:
            asked = json.loads(file.metadata()["progress"])["asked"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}
