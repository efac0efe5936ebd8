"""Base models and LoRA adapters: load, attach, save; device and dtype.

Knows nothing of prompts, losses or samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from diffusecli.files.paths import exists, look_again
from diffusecli.models.adapters import read_adapter_config, require_quick, require_sound_weights
from diffusecli.models.builtin import BUILTIN_MODELS, ensure_builtin, unknown_model
from diffusecli.models.chat import Chat, ChatSettings, chat_settings
from diffusecli.models.ggufs import made_plain, mended, parsed_once, require_sound
from diffusecli.models.hub import answers, cached_folder, told_apart
from diffusecli.models.identity import Identity, identify
from diffusecli.prompts.config import Config
from diffusecli.system.errors import DiffuseError, InputError
from diffusecli.system.memory import out_of_memory
from diffusecli.system.notices import Notice

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass
class LoadedModel:
    """A causal language model, its tokenizer, and where it came from."""

    name: str  # as the user wrote it
    model: Any
    tokenizer: Any
    revision: str  # what pins the weights: a hub commit or a hash
    chat_settings: ChatSettings = field(default_factory=ChatSettings)
    identity: Identity | None = None  # None for a model that was not loaded from files

    @property
    def fingerprint(self) -> str:
        """Of its weights' content, wherever they lie; empty where it is not known."""
        return self.identity.fingerprint if self.identity else ""

    @property
    def recorded(self) -> dict[str, str]:
        """What files say about it, so that its weights are recognised wherever they lie by then."""
        return {"model": self.name, "model_revision": self.revision, "model_fingerprint": self.fingerprint}

    def has_weights_of(self, recorded: Mapping[str, Any]) -> bool:
        """Whether its weights are those that a run's manifest or a checkpoint recorded, or none are recorded."""
        return (self.identity or Identity(self.revision)).matches(recorded)

    def call_as(self, recorded: Mapping[str, Any]) -> None:
        """Go by the revision that a run recorded of these very weights, so that what is written now stands beside what was."""
        if recorded.get("model_revision") is not None and self.has_weights_of(recorded):
            self.revision = str(recorded["model_revision"])

    @cached_property
    def chat(self) -> Chat:
        """How it is talked to; one for all prompts, so that its template is looked at once."""
        return Chat(self.tokenizer, self.eos_ids, self.chat_settings, self.rows)

    @property
    def rows(self) -> int:
        """How many tokens the model can read and say; its tokenizer may have more, or fewer."""
        inner = without_wrapper(self.model)
        layers = (inner.get_input_embeddings(), inner.get_output_embeddings())
        return min(layer.weight.shape[0] for layer in layers if layer is not None)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        device: torch.device = self.model.device
        return device

    @property
    def eos_ids(self) -> frozenset[int]:
        """The stop tokens of the checkpoint's generation config; nothing else of it is ever used."""
        eos = getattr(self.model.generation_config, "eos_token_id", None)
        return frozenset([] if eos is None else [eos] if isinstance(eos, int) else eos)

    @property
    def parameters(self) -> int:
        """How many weights the base model has, adapters not counted."""
        return sum(p.numel() for name, p in self.model.named_parameters() if "lora_" not in name)


def load_configured(config: Config, notice: Notice, *, device: str | None = None, named: bool = True) -> LoadedModel:
    """The base model that a config names, on its device or another; `named` by the user, or by a run. Raises as `load_model` does."""
    try:
        return load_model(
            config.model, device=device or config.device, precision=config.precision, notice=notice, revision=config.revision,
            trust_remote_code=config.trust_remote_code, device_map=config.device_map, quantize=config.quantize,
            chat=chat_settings(config),
        )  # fmt: skip
    except DiffuseError as error:
        if named or config.model in BUILTIN_MODELS or exists(config.model):
            raise
        raise type(error)(f"{error}; if the run's base model is in another place now, name it with --model") from error


def load_model(
    name: str, *, device: str = "auto", precision: str = "fp32", notice: Notice, revision: str | None = None,
    trust_remote_code: bool = False, device_map: str | None = None, quantize: str | None = None, chat: ChatSettings | None = None,
) -> LoadedModel:  # fmt: skip
    """Load a built-in model, a local folder, a `.gguf` file or a Hugging Face id.

    Raises `InputError` when no such model is found, `MachineError` when it cannot be reached.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source, options = _source(name, notice, revision, trust_remote_code)
    placed: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if quantize:
        placed = {"quantization_config": _four_bits(precision), "device_map": device_map or {"": choose_device(device)}}
    with _reading(name, options):
        tokenizer, doubt = _tokenizer(source, options)
        model, found = AutoModelForCausalLM.from_pretrained(
            source, dtype=PRECISIONS[precision], use_safetensors=True, output_loading_info=True, **placed, **options,
            adapter_kwargs={"local_files_only": options["local_files_only"]},  # it would look for an adapter, patiently
        )  # fmt: skip
        identity = identify(name, _place(source, options), model.config)
    if doubt:
        notice(doubt)
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random ones
        raise InputError(f"the model {name} lacks {len(missing)} of its weights ({missing[0]}, …), fetch it again")
    if "gguf_file" in options:
        made_plain(model)
    if not placed:
        model.to(choose_device(device))
    model.eval()
    return LoadedModel(name, model, tokenizer, identity.revision, chat or ChatSettings(), identity)


def _four_bits(precision: str) -> Any:
    """NF4 weights (Dettmers and others, "QLoRA", 2023) that compute in `precision`."""
    from transformers import BitsAndBytesConfig

    require_bitsandbytes()
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=PRECISIONS[precision])


def require_bitsandbytes() -> None:
    """Raises `InputError` where 4-bit weights cannot be had."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("quantize nf4 needs bitsandbytes: run `pip install 'diffuse-lm[nf4]'` or remove the setting")


def load_chat(
    name: str, chat: ChatSettings, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False
) -> Chat:
    """The tokenizer, and how many tokens the model knows; no weights read. Raises as `load_model` does."""
    source, options = _source(name, notice, revision, trust_remote_code)
    with _reading(name, options):
        tokenizer, doubt = _tokenizer(source, options)
        rows = _rows(source, options)
    if doubt:
        notice(doubt)
    return Chat(tokenizer, settings=chat, rows=rows)


def _rows(source: str, options: dict[str, Any]) -> int | None:
    """The rows of the embedding, as the model's config says; None for a folder that holds no more than a tokenizer."""
    from transformers import AutoConfig

    try:
        rows = getattr(AutoConfig.from_pretrained(source, **options).get_text_config(), "vocab_size", None)
    except (OSError, ValueError, KeyError):
        return None
    return rows if isinstance(rows, int) else None


def _tokenizer(source: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The tokenizer, and what is doubtful about it; not told in here, where stderr is closed to progress bars."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    doubt = ""
    tokenizer("a")  # some files are read, and fail when they are used
    if "gguf_file" in options and (way := mended(tokenizer, Path(source) / options["gguf_file"])):
        doubt = (
            f"{options['gguf_file']}: how its tokenizer splits text ({way}) is not known here, tokens may not be those it was trained with; "
            "the model's Hugging Face folder has them"
        )
    return tokenizer, doubt


@contextmanager
def _reading(name: str, options: dict[str, Any]) -> Iterator[None]:
    """What goes wrong while files of a model are read is told in a sentence; a GGUF file is parsed once."""
    with told_apart(name), parsed_once() if "gguf_file" in options else nullcontext():
        yield


@dataclass(frozen=True)
class ModelShape:
    """What a model's config tells of its size."""

    parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    context: int | None  # the most tokens of a row, None when it has no bound


def load_shape(name: str, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False) -> ModelShape:
    """The size of a model from its config alone, no weights read. Raises as `load_model` does."""
    hollow = load_hollow(name, notice, revision=revision, trust_remote_code=trust_remote_code)
    return shape_of(hollow.model.config, hollow.parameters)


def load_hollow(name: str, notice: Notice, *, revision: str | None = None, trust_remote_code: bool = False) -> LoadedModel:
    """A model whose weights have shapes and no values: adapters can be put on it, nothing can be computed. Raises as `load_model` does."""
    from transformers import AutoConfig, AutoModelForCausalLM

    source, options = _source(name, notice, revision, trust_remote_code)
    with _reading(name, options), torch.device("meta"):
        config = AutoConfig.from_pretrained(source, **options)
        hollow = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        identity = identify(name, _place(source, options), config)
    return LoadedModel(name, hollow, None, identity.revision, identity=identity)


def shape_of(config: Any, parameters: int) -> ModelShape:
    """The size of a model from its transformers config."""
    text = config.get_text_config()
    return ModelShape(
        parameters, text.num_hidden_layers, text.hidden_size,
        _widest(getattr(text, "intermediate_size", None)) or 4 * text.hidden_size, text.vocab_size,
        getattr(text, "max_position_embeddings", None),
    )  # fmt: skip


def _widest(size: Any) -> int | None:
    """Some models name a size for each layer."""
    return max(size) if isinstance(size, list | tuple) else size


def attention_windows(config: Any) -> dict[str, int]:
    """How far a model's attention looks back, in tokens, by the names that its transformers config has for it."""
    text = config.get_text_config()
    names = ["window_size", "attention_chunk_size", "attention_window_size", "sliding_window_size"]
    if getattr(text, "use_sliding_window", True):
        names.append("sliding_window")
    found = {name: getattr(text, name, None) for name in names}
    return {name: window for name, window in found.items() if isinstance(window, int) and window > 0}


_ATTENDS_ONLY = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers, as transformers names them, in which all that a token knows of others is what a mask shows it."""


def keeps_more_than_attention(model: Any) -> str:
    """What a model has besides attention that a mask can steer: recurrent states, convolutions, chosen keys; empty when nothing."""
    inner = without_wrapper(model)
    others = set(getattr(inner.config.get_text_config(), "layer_types", None) or ()) - _ATTENDS_ONLY
    if others:
        return f"layers of the kind {min(others)}"
    return "a recurrent state" if getattr(inner, "_is_stateful", False) else ""


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU."""
    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"the device '{wanted}' is not there or unknown: use auto, cpu, cuda, cuda:0, … or mps") from error
        return device
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def attach_lora(
    base: LoadedModel, *, rank: int, alpha: float, targets: str | Sequence[str],
    dropout: float = 0.0, rslora: bool = False, dora: bool = False,
) -> None:  # fmt: skip
    """Wrap `base.model` with a fresh adapter whose output is zero, so that the wrapped model starts as the base.

    `all-linear` leaves out what PEFT does not adapt, such as Mamba's output projection, which its kernels read without calling it,
    and what does not work on text, such as the eyes of a model that takes pictures too.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", task_type="CAUSAL_LM",
        use_rslora=rslora, use_dora=dora,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )  # fmt: skip
    written = [] if targets == "all-linear" else [("lora.targets", targets)] if isinstance(targets, str) else []
    require_quick(written, [path for path, _ in base.model.named_modules()], "the config")
    if targets == "all-linear":
        config.exclude_modules = [*_refused_by_peft(base.model), *_beside_the_text(base.model)] or None
    try:
        base.model = get_peft_model(base.model, config)
    except ValueError as error:
        raise InputError(f"lora.targets {targets}: {str(error).splitlines()[0]}; all-linear fits every model") from error
    inner = base.model.get_base_model()
    if hasattr(inner.get_output_embeddings(), "lora_A") and inner.config.get_text_config().tie_word_embeddings:
        raise InputError(f"lora.targets {targets}: this model's output layer is its embedding, leave the output layer out")
    base.model.peft_config["default"].base_model_name_or_path = base.name


def _beside_the_text(model: Any) -> list[str]:
    """Paths of linear layers outside the decoder of a model that takes more than text."""
    if model.config.get_text_config() is model.config:
        return []
    of_text = set(model.get_decoder().modules())
    return [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module not in of_text]


def _refused_by_peft(model: Any) -> list[str]:
    """Names of linear layers that PEFT refuses in this architecture. A stand-in is asked: PEFT would refuse with half the model wrapped."""
    from peft import LoraConfig, inject_adapter_in_model

    refused = []
    for name in sorted({path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}):
        with torch.device("meta"):
            stand_in: Any = torch.nn.Module()
            stand_in.config = model.config
            stand_in.add_module(name, torch.nn.Linear(1, 1))
            try:
                inject_adapter_in_model(LoraConfig(target_modules=[name]), stand_in)
            except ValueError:
                refused.append(name)
    return refused


def require_trained_on(base: LoadedModel, recorded: Mapping[str, Any], place: Path) -> None:
    """Raises `InputError` when what is recorded of the adapter at `place` says that it was trained on other weights."""
    if not base.has_weights_of(recorded):
        raise InputError(
            f"{place}: was trained on other weights: {recorded.get('model', 'a model')} ({recorded['model_revision']}), and {base.name} is "
            f"{base.revision}. Name the model it was trained on with --model, or train again"
        )


def load_adapter(
    base: LoadedModel, folder: str | Path, *, trainable: bool = False, recorded: Mapping[str, Any] = MappingProxyType({}),
    named: bool = True, notice: Notice = lambda _: None,
) -> None:  # fmt: skip
    """Wrap `base.model` with the adapter in `folder`; its shapes and what is `recorded` of its base decide whether it fits.

    The name in its config decides only where the user has not `named` the base. Raises `InputError` when the adapter is missing or
    was made for another model.
    """
    from peft import LoraConfig, PeftModel
    from safetensors.torch import load_file

    folder = Path(folder)
    if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder}: no adapter there ({missing[0]} is missing), train first with `diffuse train`")
    config = read_adapter_config(folder / ADAPTER_FILES[0], LoraConfig().to_dict())
    require_trained_on(base, recorded, folder)
    made_for, known = config.base_model_name_or_path, recorded.get("model_revision") is not None
    if made_for and not _same_place(made_for, base.name):
        if not named and not known:
            raise InputError(
                f"{folder}: the adapter was made for {made_for}, not for {base.name}; name its base model with --model"
            )
        compared = "has the same weights" if known else "has weights that cannot be compared, only their shapes are"
        notice(f"{folder}: the adapter was made for {made_for}; {base.name} {compared}")
    if not made_for and not known:
        notice(f"{folder}: the adapter does not say which model it was trained on. Only its shapes are compared with {base.name}")
    require_quick(config.patterns, [path for path, _ in base.model.named_modules()], str(folder / ADAPTER_FILES[0]))
    largest = max((max(weight.shape, default=1) for weight in base.model.parameters()), default=1)
    matrices = require_sound_weights(folder / ADAPTER_FILES[1], config, largest)
    unfit = f"{folder}: the adapter does not fit {base.name}" + (f" (it was made for {made_for})" if made_for else "")
    remedy = "name the model that it was trained on with --model, or train again"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT only warns of missing keys
        try:
            base.model = PeftModel.from_pretrained(
                base.model, folder, is_trainable=trainable, low_cpu_mem_usage=base.model.device.type == "meta"
            )
        except Exception as error:  # the config passed, so what PEFT says is of this adapter on this model
            if out_of_memory(error):
                raise
            raise InputError(f"{unfit}: {_reason(error)}; {remedy}") from error
    own = sum("lora_" in name for name, _ in base.model.named_parameters())
    if own < matrices:  # PEFT passes over those that it finds no place for
        raise InputError(f"{unfit}: {matrices - own} of its {matrices} matrices have no place there; {remedy}")
    if not all(bool(weight.isfinite().all()) for weight in load_file(folder / ADAPTER_FILES[1]).values()):
        raise InputError(f"{folder / ADAPTER_FILES[1]}: holds numbers that are not finite, train it again")
    base.model.peft_config["default"].base_model_name_or_path = base.name  # of what is trained on from here
    base.model.eval()


def _reason(error: Exception) -> str:
    """The line of a library's message that says most: torch lists shapes below its first."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line for line in lines if "size mismatch" in line), lines[0]).strip(" \t.")


def _same_place(name: str, other: str) -> bool:
    """Whether two names of models are the same, or paths that lead to the same place."""
    return name == other or (exists(name) and exists(other) and Path(name).samefile(other))


@contextmanager
def merged(model: Any) -> Iterator[Any]:
    """The model with its adapter folded into the base weights while inside: fewer products a token.

    In float32 that is the same function and can be undone; in 16 or 4 bits the sum would be rounded, so there nothing is folded.
    A model without an adapter stays as it is.
    """
    if not hasattr(model, "merge_adapter") or not _can_fold(model):
        yield model
        return
    model.merge_adapter()
    try:
        yield model
    finally:
        model.unmerge_adapter()


def _can_fold(model: Any) -> bool:
    """Only where weights are whole float32 matrices: not 16 bits, not quantised, not spread over processes."""
    from torch.distributed.tensor import DTensor

    weights = [module.get_base_layer().weight for module in model.modules() if hasattr(module, "get_base_layer")]
    return all(weight.dtype == torch.float32 and not isinstance(weight, DTensor) for weight in weights)


def without_wrapper(model: Any) -> Any:
    """The transformers model itself, its adapter's layers in place, whether or not PEFT is wrapped around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trainable(model: Any) -> list[torch.nn.Parameter]:
    """The weights that training changes."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def save_adapter(base: LoadedModel, folder: Path) -> None:
    """Write the adapter as plain PEFT files into `folder`; asks no hub for anything.

    The weights are handed over: a state dict of the whole model would disturb a base that is spread over processes.
    """
    weights = {name: weight for name, weight in base.model.named_parameters() if "lora_" in name}
    base.model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)


def _tell_of_code(name: str, notice: Notice, trusted: bool) -> None:
    if trusted:
        notice(f"running Python code that comes with {name}, because trust_remote_code is set")


def _source(name: str, notice: Notice, revision: str | None, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Where transformers finds the model, and with which options."""
    if name in BUILTIN_MODELS:
        return str(ensure_builtin(name, notice)), {"local_files_only": True, "trust_remote_code": False}
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise InputError(f"the model file {name} does not exist: {look_again(name, 'check the path')}")
        require_sound(Path(name))
        return str(Path(name).parent), {"gguf_file": Path(name).name, "local_files_only": True, "trust_remote_code": False}
    if Path(name).is_dir():
        if (Path(name) / ADAPTER_FILES[0]).is_file():  # transformers would load it, and whatever model it names
            raise InputError(f"the model {name} is an adapter: name it with --adapter, or the model that it was made for")
        if not (Path(name) / "config.json").is_file() and (files := sorted(Path(name).glob("*.gguf"))):
            raise InputError(f"the model {name} is a folder of .gguf files. Name the file, e.g. {files[0]}")
        _tell_of_code(name, notice, trust_remote_code)
        return name, {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if Path(name).is_file():
        how = (
            f". If it is one of several parts, join them: `cat {Path(name).with_suffix('')}* > model.gguf`"
            if ".gguf" in name
            else ""
        )
        raise InputError(f"the model {name} is a file, but not a .gguf file. Name a .gguf file, or the folder of a model{how}")
    if unknown := unknown_model(name):
        raise InputError(unknown)
    _tell_of_code(name, notice, trust_remote_code)
    return name, {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "local_files_only": not answers(name, revision),
    }


def _place(source: str, options: dict[str, Any]) -> Path | None:
    """The folder, or the .gguf file, that the model was read from; None where it is not known."""
    if "gguf_file" in options:
        return Path(source) / options["gguf_file"]
    return Path(source) if Path(source).is_dir() else cached_folder(source, options["revision"])
