"""Check adapter files before any library uses them. Only plain LoRA is accepted.

PEFT follows adapter_config.json: it may import modules, rewrite the base model, or allocate matrices of any rank. So
the config may only set the adapter's shape; every other field must have PEFT's default.
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

_USUAL_RANK = 256  # up to this rank a wrong value costs little memory, and PEFT reports the mismatch
_TIMEOUT = 5.0  # seconds to match patterns against module names
_Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
_Names = Annotated[list[str], Field(strict=False)] | str | None


class AdapterConfig(BaseModel):
    """The accepted fields of an adapter_config.json. Other fields must have default values."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None
    inference_mode: bool = False
    auto_mapping: dict[str, Any] | None = None  # names of classes, unused here
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
        """All ranks in it."""
        return [self.r, *(self.rank_pattern or {}).values()]

    @property
    def patterns(self) -> Iterator[tuple[str, str]]:
        """Regular expressions in it, with their fields. Entries of a list of modules are plain names."""
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
    """Read and check an adapter_config.json; `defaults` are PEFT's. Raises `InputError` if it is not plain LoRA.

    Without `defaults`, unknown fields are ignored.
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
    """The base model in an adapter's config. Raises `InputError` if there is none."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError(f"{folder}: contains no adapter (adapter_config.json is missing). Use the adapter's folder")
    document, problems = read_document(path)
    if document is None:
        raise InputError.of(problems)
    base = document.data.get("base_model_name_or_path") if isinstance(document.data, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(f"{folder}: does not name its base model. Set it with --model")
    return base


def _strange(document: Document, config: AdapterConfig, defaults: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in (config.model_extra or {}).items():
        if value and value != defaults.get(name):
            yield document.problem(
                (name,), f"'{name}' asks for more than plain LoRA", "only plain LoRA adapters are loaded: train one without it"
            )


def require_quick(patterns: Iterable[tuple[str, str]], names: Sequence[str], place: str) -> None:
    """Raises `InputError` for an invalid pattern, and for one that takes too long on the model's module names."""
    for field, pattern in patterns:
        slow = InputError(
            f"{place}: the pattern of {field} takes too long ({pattern[:60]!r}). Use a simpler one or a list of names"
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
            raise InputError(f"{place}: {field} contains {pattern[:60]!r}, which is not a Python regular expression") from error


def require_sound_weights(path: Path, config: AdapterConfig, largest: int) -> int:
    """The number of matrices in the file. Raises `InputError` unless all are LoRA matrices with the ranks of the config.

    `largest` is the longest side of any base weight; a higher rank would be useless.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except MemoryError as error:
        raise MachineError(f"{path}: does not fit into memory. Free some memory") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}). Fetch or train the adapter again") from error
    if foreign := [key for key in shapes if "lora_" not in key]:
        raise InputError(
            f"{path}: contains {foreign[0][:80]!r}, which is not a LoRA matrix. Only plain LoRA adapters are supported"
        )
    found = max((shape[0] for key, shape in shapes.items() if re.search(r"lora_(embedding_)?A", key) and shape), default=0)
    if max(config.ranks) > min(max(found, _USUAL_RANK), largest):  # a small unused rank in a pattern is harmless
        raise InputError(
            f"{path}: has matrices of rank {found}, but adapter_config.json has rank {max(config.ranks)}. Fetch or train the adapter again"
        )
    return len(shapes)


def recorded_base(adapter: RunDir) -> Mapping[str, Any]:
    """What an adapter's folder or a checkpoint records about its base model; {} if nothing."""
    if adapter.manifest.is_file():
        return adapter.read_manifest()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter.state, framework="pt") as file:
            asked = json.loads(file.metadata()["progress"])["asked"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}
