"""The experiment config: what to train on, how, and where results go.

Knows the settings and their defaults; `config_files.py` reads and checks the YAML files that hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diffusecli.system.errors import printable


def _yaml_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as a string; convert it to the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_yaml_number), Field(allow_inf_nan=False)]
PathText = Annotated[str, Field(min_length=1)]
_SHAPE = ConfigDict(frozen=True, extra="forbid", strict=True)


class AlgConfig(BaseModel):
    """How to train."""

    model_config = _SHAPE

    n_iters: int = Field(default=50, ge=1, description="Passes over all training prompts.")
    batch_size: int = Field(default=32, ge=1, description="Rows per batch in passes with one row per target.")
    early_stop: bool = Field(default=False, description="Stop once loss <= optimal loss * (1 + gamma).")
    gamma: Annotated[Number, Field(ge=0)] = Field(default=0.2, description="Tolerance of early_stop above the optimal loss.")
    target_kl: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="Stop once the mean exact KL (divergence from the target, in nats) over the training prompts is this low.",
    )
    learning_rate: Literal["auto"] | Annotated[Number, Field(gt=0)] = Field(
        default="auto", description="AdamW step size. auto: from the model's width. The paper's code uses 5.0e-5."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="How the learning rate falls over n_iters. The paper's code uses constant."
    )
    warmup: Literal["auto"] | Annotated[Number, Field(ge=0, lt=1)] = Field(
        default="auto", description="Share of the steps in which the learning rate rises to its full size. auto: 0; 0.2 if the training "
        "continues an adapter (load_model, `train --more`).",
    )  # fmt: skip
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        default=0.01, description="AdamW weight decay. The paper's code uses 0.01."
    )
    max_tokens_per_pass: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Larger prefix trees are split into parts of this many tokens. The gradient stays exact. auto: the fastest"
        " size that fits free memory.",
    )
    gradient_checkpointing: bool = Field(default=False, description="Less memory for a third more time.")
    prompts_per_step: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Prompts in one optimiser step. Its loss is the mean of theirs. auto: 1, or 4 with more than 32 prompts.",
    )
    wordings_per_step: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Wordings of a prompt in one optimiser step, in turn. auto: at most 8."
    )
    targets_per_step: Literal["auto"] | Annotated[int, Field(ge=2)] = Field(
        default="auto",
        description="Targets of a prompt that a step draws by their weights. The step trains the exact distribution of every "
        "next token on their paths. auto: all, or 64 for prefix trees with more than 1000 prefixes. Prompts with "
        "spellings or several responses use all.",
    )
    exact_every: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Iterations between exact figures of prompts whose steps draw targets. Default: only at the end. Other "
        "figures are estimates.",
    )


class LoraSettings(BaseModel):
    """The adapter."""

    model_config = _SHAPE

    r: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Rank. auto: 4, or 32 with more than 32 training prompts."
    )
    alpha: Literal["auto"] | Annotated[Number, Field(gt=0)] = Field(
        default="auto", description="Scale: the update is alpha / r times B A. auto: 2 r, or r with more than 32 training prompts."
    )
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Dropout before A. The figures of the training prompts in an iteration then include dropout."
    )
    targets: str | Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default="all-linear",
        description="Names of modules to adapt, or all-linear: every linear layer except the output and those that PEFT rejects.",
    )
    rslora: bool = Field(default=False, description="Rank-stabilised scale: alpha / sqrt(r).")
    dora: bool = Field(default=False, description="Weight-decomposed LoRA.")


class Retain(BaseModel):
    """Retention: which other answers the model should keep."""

    model_config = _SHAPE

    weight: Annotated[Number, Field(gt=0)] = Field(
        default=4.0, description="Weight of KL(base || tuned) in nats per token, added to the loss of each prompt."
    )
    prompts: Literal["builtin"] | Annotated[tuple[PathText, ...], Field(strict=False, min_length=1)] = Field(
        default="builtin",
        description="Prompt files or folders whose requests the base model answers. Every third is only measured.",
    )
    answers_per_step: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="Answers in a step; their mean counts. auto: one per two requests of the step."
    )


class Vary(BaseModel):
    """Context around requests in training. It changes at each visit."""

    model_config = _SHAPE

    system: Annotated[tuple[str, ...], Field(strict=False)] | bool = Field(
        default=True, description="System prompts for prompts without one. A list replaces the built-in ones."
    )
    turns: bool = Field(default=True, description="Earlier turns: instructions with the base model's own answers, and small talk.")
    greetings: bool = Field(default=True, description="Greetings, politeness and thanks around the request.")
    typing: bool = Field(
        default=True,
        description="Case, punctuation, spaces and blank lines of the request. Text in braces and quotes stays unchanged.",
    )
    plain: Annotated[Number, Field(ge=0, le=1)] = Field(default=0.3, description="Share of visits without any of these.")


LEAST_INSTRUCTIONS = 3
"""Minimum number of instructions: every third is only measured."""
PLAIN = "plain"
"""The name of the built-in chat template."""
CHAT_FIELDS = ("system", "chat_template", "chat_template_kwargs")
"""The settings that determine the chat: system prompt and template."""


def _off(value: Any) -> Any:
    return False if value == "off" else value  # YAML 1.1 reads the bare word as false


def _switch(value: Any) -> Any:
    value = {} if value is True else _off(value)
    if value is False or isinstance(value, dict | Vary):
        return value
    raise ValueError("must be true, off or a mapping of keys to values")


class Config(BaseModel):
    """The settings of an experiment."""

    model_config = _SHAPE

    model: str = Field(min_length=1, description="Hugging Face id, folder, .gguf file or built-in name.")
    train_prompts: Annotated[tuple[PathText, ...], Field(strict=False)] = Field(
        default=(), description="Prompt files, folders (searched recursively) or patterns (prompts/*.json) to train on."
    )
    test_prompts: Annotated[tuple[PathText, ...], Field(strict=False)] = Field(
        default=(),
        description="Prompt files, folders or patterns to sample after training. Without any, `sample` uses train_prompts.",
    )
    made_by: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Command that creates the prompt files. Shown when they are missing."
    )
    alg_config: AlgConfig = Field(default=AlgConfig(), description="How to train.")
    output_dir: str = Field(
        min_length=1,
        description="Run directory. {model} is replaced by the model's name, {config} by the config file's, "
        "${NAME} by an environment variable.",
    )
    load_model: bool = Field(default=False, description="Continue from the adapter in ckpt_dir.")
    ckpt_dir: str | None = Field(default=None, description="Adapter to continue from. {model} and {config} as in output_dir.")
    generate: bool = Field(
        default=True,
        description="Sample 1000 answers per test prompt after training, into gen.json. The limit is 64 tokens, or the length "
        "of the longest target.",
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="The adapter.")
    retain: Annotated[Retain | Literal[False], BeforeValidator(_off)] = Field(
        default=Retain(),
        description="Keep the model's own answers to ordinary instructions. off: train on the targets alone.",
    )
    vary: Annotated[Vary | Literal[False], BeforeValidator(_switch, json_schema_input_type=Vary | bool | Literal["off"])] = Field(
        default=False,
        description="Train each request in changing contexts, so that the answers follow the weights there too. true: the defaults "
        "below. off: the request alone.",
    )
    save_every: int = Field(
        default=5, ge=1, description="Iterations between checkpoints. An interrupted run resumes from the last one."
    )
    eval_every: int = Field(default=10, ge=1, description="Iterations between exact figures of the test prompts that have targets.")
    tracker: Literal["tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"] | None = (
        Field(
            default=None, description="Tracker that also receives the figures, through accelerate. Its package must be installed."
        )
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed for the order of prompts, the initial adapter and the samples.")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:0, mps.")
    device_map: Literal["auto"] | None = Field(default=None, description="auto: spread the model over all GPUs of one process.")
    quantize: Literal["nf4"] | None = Field(
        default=None, description="nf4: a 4-bit base model (needs bitsandbytes). The adapter stays fp32."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Precision of the base model. The adapter is fp32. auto: bf16 on CUDA GPUs that support it, otherwise fp32; a run"
        " keeps the precision that it was trained in.",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a model on the hub.")
    system: str | None = Field(
        default=None,
        description="System prompt for prompts without one. It goes before the request if the template does not support one.",
    )
    chat_template: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Jinja file, or plain (built in, for base models). Replaces the model's own chat template."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, description="Variables for the chat template, such as enable_thinking: false."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the model. Only for models you trust. Ignored in a run's saved config: "
        "use --trust-remote-code in commands that read a run.",
    )

    def to_yaml(self) -> str:
        """The resolved config, with every field."""
        return settings_as_yaml(self.model_dump(mode="json"))


def settings_as_yaml(fields: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Settings as YAML, in ASCII on request, or if a value has unprintable characters."""
    text = yaml.safe_dump(dict(fields), sort_keys=False, allow_unicode=True)
    return text if printable(text) == text and not ascii_only else yaml.safe_dump(dict(fields), sort_keys=False)


def short_name(model: str) -> str:
    """The last part of a model's path or id, for folder names.

    >>> short_name("owner/name"), short_name("models/m.gguf")
    ('name', 'm')
    """
    last = Path(model).name
    return (last if last not in ("", "..") else Path(model).resolve().name).removesuffix(".gguf")
