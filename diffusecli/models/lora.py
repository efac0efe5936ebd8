"""LoRA adapters on a loaded base model: attach, load, save, merge."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from diffusecli.files.paths import exists
from diffusecli.models.adapters import ADAPTER_FILES, read_adapter_config, require_quick, require_sound_weights
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.config import LoraSettings
from diffusecli.system.collector import collector_off
from diffusecli.system.errors import InputError
from diffusecli.system.memory import out_of_memory
from diffusecli.system.notices import Notice


@collector_off()
def attach_lora(base: LoadedModel, shape: LoraSettings) -> None:
    """Wrap `base.model` with a new adapter whose output is zero, so that training starts at the base model.

    `all-linear` excludes layers that PEFT does not adapt, such as Mamba's output projection (its kernels read it without a call),
    and layers that do not process text, such as the vision part of a multimodal model.
    """
    from peft import LoraConfig, get_peft_model

    targets = shape.targets
    config = LoraConfig(
        r=shape.r, lora_alpha=shape.alpha, lora_dropout=shape.dropout, bias="none", task_type="CAUSAL_LM",
        use_rslora=shape.rslora, use_dora=shape.dora,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )  # fmt: skip
    written = [] if targets == "all-linear" else [("lora.targets", targets)] if isinstance(targets, str) else []
    require_quick(written, [path for path, _ in base.model.named_modules()], "the config")
    if targets == "all-linear":
        config.exclude_modules = [*_refused_by_peft(base.model), *_beside_the_text(base.model)] or None
    try:
        base.model = get_peft_model(base.model, config)
    except ValueError as error:
        raise InputError(f"lora.targets {targets}: {str(error).splitlines()[0]}. all-linear works for every model") from error
    inner = base.model.get_base_model()
    if hasattr(inner.get_output_embeddings(), "lora_A") and inner.config.get_text_config().tie_word_embeddings:
        raise InputError(
            f"lora.targets {targets}: this model's output layer is tied to its embedding. Remove the output layer from the targets"
        )
    base.model.peft_config["default"].base_model_name_or_path = base.name


def _beside_the_text(model: Any) -> list[str]:
    """Paths of linear layers outside the text decoder of a multimodal model."""
    if model.config.get_text_config() is model.config:
        return []
    of_text = set(model.get_decoder().modules())
    return [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module not in of_text]


def _refused_by_peft(model: Any) -> list[str]:
    """Names of linear layers that PEFT refuses in this architecture. Tested on a dummy module, because PEFT would fail with half the model wrapped."""
    from peft import LoraConfig, inject_adapter_in_model

    refused = []
    for name in sorted({path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}):
        with torch.device("meta"):
            dummy: Any = torch.nn.Module()
            dummy.config = model.config
            dummy.add_module(name, torch.nn.Linear(1, 1))
            try:
                inject_adapter_in_model(LoraConfig(target_modules=[name]), dummy)
            except ValueError:
                refused.append(name)
    return refused


def require_trained_on(base: LoadedModel, recorded: Mapping[str, Any], place: Path) -> None:
    """Raises `InputError` when the record of the adapter at `place` names other base weights."""
    if not base.has_weights_of(recorded):
        raise InputError(
            f"{place}: was trained on other weights: {recorded.get('model', 'a model')} ({recorded['model_revision']}), but {base.name} has "
            f"{base.revision}. Set the model it was trained on with --model, or train again"
        )


@collector_off()
def load_adapter(
    base: LoadedModel, folder: str | Path, *, trainable: bool = False, recorded: Mapping[str, Any] = MappingProxyType({}),
    named: bool = True, notice: Notice = lambda _: None,
) -> None:  # fmt: skip
    """Wrap `base.model` with the adapter in `folder`. Its shapes and the `recorded` base weights must match.

    The name in its config matters only if the user has not `named` the base. Raises `InputError` when the adapter is missing or
    belongs to another model.
    """
    from peft import LoraConfig, PeftModel
    from safetensors.torch import load_file

    folder = Path(folder)
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder}: contains no adapter ({missing[0]} is missing). Train one with `diffuse train`")
    config = read_adapter_config(folder / ADAPTER_FILES[0], LoraConfig().to_dict())
    require_trained_on(base, recorded, folder)
    made_for, known = config.base_model_name_or_path, recorded.get("model_revision") is not None
    if made_for and not _same_place(made_for, base.name):
        if not named and not known:
            raise InputError(f"{folder}: the adapter was made for {made_for}, not for {base.name}. Set its base model with --model")
        compared = "has the same weights" if known else "has unknown weights, so only shapes are compared"
        notice(f"{folder}: the adapter was made for {made_for}. {base.name} {compared}")
    if not made_for and not known:
        notice(f"{folder}: the adapter does not name its base model. Only its shapes are compared with {base.name}")
    require_quick(config.patterns, [path for path, _ in base.model.named_modules()], str(folder / ADAPTER_FILES[0]))
    largest = max((max(weight.shape, default=1) for weight in base.model.parameters()), default=1)
    matrices = require_sound_weights(folder / ADAPTER_FILES[1], config, largest)
    unfit = f"{folder}: the adapter does not fit {base.name}" + (f" (it was made for {made_for})" if made_for else "")
    remedy = "Set the model that it was trained on with --model, or train again"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT only warns of missing keys
        try:
            base.model = PeftModel.from_pretrained(
                base.model, folder, is_trainable=trainable, low_cpu_mem_usage=base.model.device.type == "meta"
            )
        except Exception as error:  # the config is valid, so the error is about this adapter on this model
            if out_of_memory(error):
                raise
            raise InputError(f"{unfit}: {_reason(error)}. {remedy}") from error
    own = sum("lora_" in name for name, _ in base.model.named_parameters())
    if own < matrices:  # PEFT ignores matrices without a matching layer
        raise InputError(f"{unfit}: {matrices - own} of its {matrices} matrices match no layer. {remedy}")
    if not all(bool(weight.isfinite().all()) for weight in load_file(folder / ADAPTER_FILES[1]).values()):
        raise InputError(f"{folder / ADAPTER_FILES[1]}: contains NaN or infinite numbers. Train the adapter again")
    base.model.peft_config["default"].base_model_name_or_path = base.name  # recorded in adapters trained from here
    base.model.eval()


def _reason(error: Exception) -> str:
    """The most informative line of a library's message: torch lists shapes after the first line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line for line in lines if "size mismatch" in line), lines[0]).strip(" \t.")


def _same_place(name: str, other: str) -> bool:
    """Whether two model names are equal, or paths to the same file."""
    return name == other or (exists(name) and exists(other) and Path(name).samefile(other))


@contextmanager
def merged(model: Any) -> Iterator[Any]:
    """Inside this context, the adapter is merged into the base weights, which saves products per token.

    In float32 this is the same function and can be undone. In 16 or 4 bits the sum would be rounded, so nothing is merged.
    A model without an adapter is not changed.
    """
    if not hasattr(model, "merge_adapter") or not _can_merge(model):
        yield model
        return
    model.merge_adapter()
    try:
        yield model
    finally:
        model.unmerge_adapter()


def _can_merge(model: Any) -> bool:
    """Whether all weights are whole float32 matrices: not 16 bits, not quantised, not sharded."""
    from torch.distributed.tensor import DTensor

    weights = [module.get_base_layer().weight for module in model.modules() if hasattr(module, "get_base_layer")]
    return all(weight.dtype == torch.float32 and not isinstance(weight, DTensor) for weight in weights)


def save_adapter(base: LoadedModel, folder: Path) -> None:
    """Write the adapter as plain PEFT files into `folder`, without contacting a hub.

    Only the adapter's weights are passed, because a state dict of the whole model would break a sharded base.
    """
    weights = {name: weight.detach().cpu() for name, weight in base.model.named_parameters() if "lora_" in name}
    base.model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
