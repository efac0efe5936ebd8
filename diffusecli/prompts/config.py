"""The YAML experiment config: what to train on, how, and where results go.

Reads and checks config files; configs of the original format are read unchanged.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from diffusecli.files.documents import Document, Location, read_document, read_value
from diffusecli.files.endings import other_format
from diffusecli.files.paths import at_home, exists, find, spread, wrong_as_written
from diffusecli.files.schema import problems_of
from diffusecli.system.errors import InputError, Problem, printable


def _yaml_number(value: Any) -> Any:
    """YAML 1.1 takes `1e-4` for a word; people mean the number."""
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
    batch_size: int = Field(default=32, ge=1, description="Rows at a time where targets are fed one row each.")
    early_stop: bool = Field(default=False, description="Stop once loss <= optimal loss * (1 + gamma).")
    gamma: Annotated[Number, Field(ge=0)] = Field(default=0.2, description="How near the optimal loss early stopping asks for.")
    target_kl: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="Stop once the mean exact KL over the training prompts is this low (nats)."
    )
    learning_rate: Literal["auto"] | Annotated[Number, Field(gt=0)] = Field(
        default="auto", description="AdamW's step size. auto: from the model's width; 5.0e-5 is the original's."
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="How the learning rate falls over n_iters. constant is the original's."
    )
    warmup: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share of the steps over which the learning rate rises to its full size."
    )
    weight_decay: Annotated[Number, Field(ge=0)] = Field(default=0.01, description="AdamW's decay; 0.01 is the original's.")
    max_tokens_per_pass: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Larger prefix trees are cut into parts of so many tokens; the gradient stays exact. "
        "auto: what is fastest and fits free memory.",
    )
    gradient_checkpointing: bool = Field(default=False, description="Less memory for a third more time.")
    prompts_per_step: int = Field(default=1, ge=1, description="Prompts whose gradients are summed into one optimiser step.")


class LoraSettings(BaseModel):
    """The adapter."""

    model_config = _SHAPE

    r: int = Field(default=4, ge=1, description="Rank.")
    alpha: Annotated[Number, Field(gt=0)] = Field(default=8.0, description="Scale: the update is alpha / r times B A.")
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Dropout before A; the training prompts' figures of an iteration are then those with dropout."
    )
    targets: str | Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default="all-linear",
        description="Module names to adapt, or all-linear: every linear layer but the output and what PEFT refuses.",
    )
    rslora: bool = Field(default=False, description="Rank-stabilised scale: alpha / sqrt(r).")
    dora: bool = Field(default=False, description="Weight-decomposed LoRA.")


class Retain(BaseModel):
    """What else the model should keep doing as it did."""

    model_config = _SHAPE

    weight: Annotated[Number, Field(gt=0)] = Field(
        default=4.0, description="Of KL(base || tuned) in nats per token beside the loss of each prompt."
    )
    prompts: Literal["builtin"] | Annotated[tuple[PathText, ...], Field(strict=False, min_length=1)] = Field(
        default="builtin",
        description="Prompt files or folders whose requests the base model answers; every third is only measured.",
    )


LEAST_INSTRUCTIONS = 3
"""Every third is only measured."""

PLAIN = "plain"
"""The name of the built-in chat template."""

CHAT_FIELDS = ("system", "chat_template", "chat_template_kwargs")
"""The settings that say how a model is talked to."""

_SET_BY_US = {
    "conversation",
    "messages",
    "chat_template",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "return_dict",
}


_FILLED = ("output_dir", "ckpt_dir")
"""The settings in which {model} and {config} are replaced."""


def _off(value: Any) -> Any:
    return False if value == "off" else value  # YAML 1.1 reads the bare word as false already


class Config(BaseModel):
    """A whole experiment."""

    model_config = _SHAPE

    model: str = Field(min_length=1, description="A Hugging Face id, a folder, a .gguf file or a built-in name.")
    train_prompts: Annotated[tuple[PathText, ...], Field(strict=False)] = Field(
        default=(), description="Prompt files, folders searched recursively, or patterns (prompts/*.json), to train on."
    )
    test_prompts: Annotated[tuple[PathText, ...], Field(strict=False)] = Field(
        default=(), description="Prompt files, folders or patterns to sample from afterwards. May be []."
    )
    alg_config: AlgConfig = Field(default=AlgConfig(), description="How to train.")
    output_dir: str = Field(
        min_length=1, description="The run directory. {model} stands for the model's name, {config} for the config file's."
    )
    load_model: bool = Field(default=False, description="Continue from the adapter in ckpt_dir.")
    ckpt_dir: str | None = Field(default=None, description="An adapter to continue from; {model} and {config} as in output_dir.")
    generate: bool = Field(
        default=True,
        description="Sample 1000 answers per test prompt after training, into gen.json: at most 64 tokens, or what the longest target takes.",
    )
    lora: LoraSettings = Field(default=LoraSettings(), description="The adapter.")
    retain: Annotated[Retain | Literal[False], BeforeValidator(_off)] = Field(
        default=Retain(),
        description="Holds the model to its own answers to ordinary instructions; off trains on the targets alone.",
    )
    save_every: int = Field(
        default=5, ge=1, description="Iterations between checkpoints; an interrupted run goes on from the last."
    )
    eval_every: int = Field(default=10, ge=1, description="Iterations between exact figures of the test prompts that have targets.")
    tracker: Literal["tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"] | None = (
        Field(default=None, description="Where figures are sent as well, through accelerate; its package must be installed.")
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Order of prompts, adapter initialisation, samples.")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:0, mps.")
    device_map: Literal["auto"] | None = Field(default=None, description="auto: spread the model over all GPUs of one process.")
    quantize: Literal["nf4"] | None = Field(
        default=None, description="nf4: a 4-bit base model (needs bitsandbytes); the adapter stays fp32."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="Of the base model; the adapter is fp32.")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a model on the hub.")
    system: str | None = Field(
        default=None,
        description="A system text for every prompt that has none; goes before the request where the template takes none.",
    )
    chat_template: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="A Jinja file, or plain (built in, for base models), in place of the model's own chat template."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, description="Variables for the chat template, such as enable_thinking: false."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the model. Only for models you trust. "
        "In the config that a run keeps it does not count: commands that use a run have --trust-remote-code.",
    )

    def to_yaml(self, *, ascii_only: bool = False) -> str:
        """The resolved config, every field written out; in ASCII on demand, and where something in it cannot be printed."""
        fields = self.model_dump(mode="json")
        text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
        return text if printable(text) == text and not ascii_only else yaml.safe_dump(fields, sort_keys=False)


@dataclass(frozen=True)
class Inspection:
    """What is known of a config file: the config when no error hides it, its problems, where its parts stand.

    `paths` are the prompt paths of the file wherever they are readable, even when something else is wrong: of each entry of a list what
    it leads to.
    """

    config: Config | None
    problems: tuple[Problem, ...]
    document: Document | None = None
    paths: dict[Location, tuple[tuple[str, ...], ...]] = field(default_factory=dict)


def inspect_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Inspection:
    """Read one config file, apply `key.sub=value` overrides, and tell everything that is wrong with it.

    In a config that a run `kept` paths are as they were resolved: nothing in them is replaced.
    """
    found = find(path)
    if found.place.is_file() and found.place.suffix not in (".yaml", ".yml"):
        return Inspection(None, (Problem(found.name, "is not a config", "name a .yaml file"),))
    document, problems = read_document(found.place, name=found.name)
    if document is None:
        return Inspection(None, tuple(problems))
    if isinstance(document.data, dict):
        document.data.pop("$schema", None)  # for editors
    return _inspected(document, problems, Path(path), overrides, kept=kept)


def _inspected(document: Document, problems: list[Problem], path: Path, overrides: Sequence[str], *, kept: bool) -> Inspection:
    """What is known of a config once it is read; `path` is that of its file."""
    document, overridden = _override(document, overrides)
    unmeant = [] if kept else [_said_by_option(p, location, overridden) for p, location in _wrong_paths(document, path)]
    try:
        config = Config.model_validate(document.data)
    except ValidationError as error:
        wrong = [_said_by_option(p, location, overridden) for p, location in problems_of(document, error, Config)]
        return Inspection(None, (*wrong, *unmeant, *_words_for_numbers(document)), document, _readable_paths(document, path))
    problems.extend(unmeant)
    config = _resolved(config, path, kept=kept)
    if config.load_model and config.ckpt_dir is None:
        problems.append(document.problem(("load_model",), "load_model needs a ckpt_dir", "name the folder of an adapter"))
    problems.extend(_not_for_the_template(document, config))
    problems.extend(_doubtful(document, config))
    sound = not any(p.severity == "error" for p in problems)
    return Inspection(config if sound else None, tuple(problems), document, _readable_paths(document, path))


def read_config(path: str | Path, overrides: Sequence[str] = (), *, kept: bool = False) -> Config:
    """Read one config file, as `inspect_config` does; raises `InputError` with every mistake in it."""
    inspected = inspect_config(path, overrides, kept=kept)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config


def config_from(fields: Mapping[str, Any]) -> Config:
    """A config of the fields that a program gives, checked and resolved as a file is; raises `InputError` with every mistake in it.

    There is no file, so paths are taken from the working directory, and `{config}` in the name of a folder is an error.

    >>> config_from({"model": "owner/name", "output_dir": "results/{model}", "alg_config": {"n_iters": 3}}).output_dir
    'results/name'
    """
    inspected = _inspected(Document("config", "", dict(fields)), [], Path("{config}"), (), kept=False)
    if inspected.config is None:
        raise InputError.of(p for p in inspected.problems if p.severity == "error")
    return inspected.config


def short_name(model: str) -> str:
    """The last part of a model's path or id, for names of folders.

    >>> short_name("owner/name"), short_name("models/m.gguf")
    ('name', 'm')
    """
    last = Path(model).name
    return (last if last not in ("", "..") else Path(model).resolve().name).removesuffix(".gguf")


def _filled(text: str, model: str, path: Path) -> str:
    """A folder's name with what stands for the model and the config."""
    return text.replace("{model}", short_name(model)).replace("{config}", path.stem)


def _wrong_paths(document: Document, path: Path) -> Iterator[tuple[Problem, Location]]:
    """Paths and names that would be taken literally where that cannot be meant."""
    data = document.data if isinstance(document.data, dict) else {}
    written: dict[Location, Any] = {(name,): data.get(name) for name in ("model", "revision", "device", "chat_template", *_FILLED)}
    for key, listed in _prompt_lists(document).items():
        written |= {(*key, index): text for index, text in enumerate(listed)} if isinstance(listed, list) else {}
    for location, text in written.items():
        if not isinstance(text, str):
            continue
        message, remedy = wrong_as_written(text)
        left = re.search(r"\{[^{}]*\}", _filled(text, str(data.get("model")), path)) if location[0] in _FILLED else None
        if left and not message and not exists(text):
            message, remedy = f"'{left[0]}' is not replaced by a value", "only {model} and {config} are: write the value itself"
        elif location == ("output_dir",) and not message and not exists(text) and (ending := other_format(Path(text))):
            message, remedy = f"a run is a folder, not a {ending} file", f"name a folder without {ending}"
        if message:
            yield document.problem(location, f"{text}: {message}", remedy), location


def _resolved(config: Config, path: Path, *, kept: bool) -> Config:
    """The config with every path as it is meant; of those that a run `kept` it is only looked up where they are by now."""

    def meant(text: str) -> str:
        return text if kept else at_home(text)

    def found(text: str) -> str:
        return find(meant(text), path.parent).name

    def listed(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(found, texts)) if kept else tuple(name for text in texts for name in spread(meant(text), path.parent))

    model, retain, template = meant(config.model), config.retain, config.chat_template
    if retain and retain.prompts != "builtin":
        retain = retain.model_copy(update={"prompts": listed(retain.prompts)})
    return config.model_copy(update={
        "model": model,
        "retain": retain,
        "train_prompts": listed(config.train_prompts),
        "test_prompts": listed(config.test_prompts),
        "output_dir": _filled(meant(config.output_dir), model, path),
        "chat_template": template if template in (None, PLAIN) else found(template),
        "ckpt_dir": found(_filled(config.ckpt_dir, model, path)) if config.ckpt_dir is not None else None,
    })  # fmt: skip


def _override(document: Document, overrides: Sequence[str]) -> tuple[Document, dict[Location, str]]:
    """The document with `key.sub=value` put in (values read as YAML), and which option said what."""
    if not overrides:
        return document, {}
    data = copy.deepcopy(document.data) if isinstance(document.data, dict) else {}
    said: dict[Location, str] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        way = tuple(key.strip().split("."))
        if not separator or not all(way):
            raise InputError(f"--set {override}: write KEY=VALUE, e.g. --set alg_config.n_iters=10")
        try:
            value = read_value(text)
        except ValueError as error:
            raise InputError(f"--set {override}: the value cannot be read, put quotes around it") from error
        inside = data
        for part in way[:-1]:
            inside = inside.setdefault(part, {})
            if not isinstance(inside, dict):
                raise InputError(f"--set {override}: '{part}' holds no keys")
        inside[way[-1]] = value
        said[way] = override
    return replace(document, data=data), said


def _said_by_option(problem: Problem, location: Location, overridden: dict[Location, str]) -> Problem:
    """A problem of an overridden value stands at the option, not in the file."""
    for way, override in overridden.items():
        if location[: len(way)] == way:
            return replace(problem, path=f"--set {override}", line=None, column=None)
    return problem


def _not_for_the_template(document: Document, config: Config) -> Iterator[Problem]:
    for name, value in config.chat_template_kwargs.items():
        if name in _SET_BY_US:
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is set by diffuse itself", "remove it")
        elif not name.isidentifier():
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is no name of a variable", "correct it")
        elif not _is_json(value):
            yield document.problem(("chat_template_kwargs", name), f"'{name}' is no text, number, truth value, list or mapping",
                                   "put quotes around it")  # fmt: skip


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _doubtful(document: Document, config: Config) -> Iterator[Problem]:
    """Settings that say something other than they seem to."""
    algorithm = document.data.get("alg_config") or {}
    if "gamma" in algorithm and not config.alg_config.early_stop:
        yield document.problem(("alg_config", "gamma"), "gamma has no effect without early_stop", "add early_stop: true or remove it",
                               severity="warning")  # fmt: skip
    if config.ckpt_dir is not None and not config.load_model:
        yield document.problem(("ckpt_dir",), "ckpt_dir has no effect without load_model", "add load_model: true or remove it",
                               severity="warning")  # fmt: skip
    yield from _words_for_numbers(document)


def _words_for_numbers(document: Document) -> Iterator[Problem]:
    for location, value in _numbers_in_words(document.data):
        yield document.problem(location, f"YAML reads {value} as a word, it is taken as the number", f"write {float(value):.1e}",
                               severity="notice")  # fmt: skip


def _readable_paths(document: Document, path: Path) -> dict[Location, tuple[tuple[str, ...], ...]]:
    """The lists of prompt paths that are lists of words, resolved, by where they stand; entries that are wrong as they are written lead nowhere."""
    return {
        key: tuple(() if wrong_as_written(p)[0] else tuple(spread(at_home(p), path.parent)) for p in listed)
        for key, listed in _prompt_lists(document).items()
        if isinstance(listed, list) and all(isinstance(p, str) and p for p in listed)
    }


def _prompt_lists(document: Document) -> dict[Location, Any]:
    """What stands where lists of prompt paths are meant to."""
    data = document.data if isinstance(document.data, dict) else {}
    retain = data.get("retain")
    lists: dict[Location, Any] = {(key,): data.get(key) for key in ("train_prompts", "test_prompts")}
    lists["retain", "prompts"] = retain.get("prompts") if isinstance(retain, dict) else None
    return lists


def _numbers_in_words(data: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Texts like `1e-4` where a number stands, which YAML 1.1 does not take for one."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _numbers_in_words(value, (*location, str(key)))
    elif isinstance(data, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", data):
        yield location, data
