"""`diffuse validate`: every problem of every prompt and config, before any model is loaded.

Knows files and their problems; prints nothing. With a model's name it also shows what the tokenizer
makes of each target; the weights are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffusecli.files.documents import Document
from diffusecli.files.paths import exists, find, look_again, real, spread, visible_files
from diffusecli.files.positions import Location
from diffusecli.files.writing import require_place
from diffusecli.models.adapters import read_adapter_config
from diffusecli.models.builtin import unknown_model
from diffusecli.models.token_view import TokenView
from diffusecli.prompts.config import LEAST_INSTRUCTIONS, Config, Inspection, inspect_config, read_config
from diffusecli.prompts.conflicts import Clash, clashes, conversation
from diffusecli.prompts.prompt import Prompt, each_once, files_at, inspect_prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.system.errors import InputError, MachineError, Problem, many

if TYPE_CHECKING:
    from diffusecli.models.chat import Chat

CONFIG_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Validation:
    """What was looked at and what is wrong with it."""

    prompts: tuple[Prompt, ...]  # those without errors
    configs: tuple[str, ...]  # those without errors
    problems: tuple[Problem, ...]
    together: tuple[tuple[Prompt, ...], ...] = ()  # the training prompts of each config

    @property
    def failed(self) -> bool:
        """Whether any problem is an error."""
        return any(problem.severity == "error" for problem in self.problems)

    def with_more(self, problems: Iterable[Problem], *, strict: bool) -> Validation:
        """With what a tokenizer finds; a prompt with an error is not among the prompts any more."""
        more = _judged(problems, strict)
        wrong = {problem.path for problem in more if problem.severity == "error"}
        prompts = tuple(prompt for prompt in self.prompts if prompt.alias not in wrong)
        return replace(self, prompts=prompts, problems=(*self.problems, *more))

    def __str__(self) -> str:
        """The last line of the command: what passed, or how much is wrong."""
        severities = [problem.severity for problem in self.problems]
        counts = ", ".join(many(severities.count(severity), severity) for severity in ("error", "warning", "notice"))
        passed = f"{many(len(self.prompts), 'prompt')}, {many(len(self.configs), 'config')}"
        return f"failed: {counts}; passed: {passed}" if self.failed else f"sound: {passed}; {counts}"

    def as_json(self) -> dict[str, Any]:
        """For machines: `valid`, `problems` with place, severity and remedy, and what the prompts amount to."""
        return {
            "valid": not self.failed,
            "problems": [
                {
                    "file": p.path,
                    "line": p.line,
                    "column": p.column,
                    "severity": p.severity,
                    "message": p.message,
                    "remedy": p.remedy,
                }
                for p in self.problems
            ],
            "prompts": [{"file": p.alias, "targets": len(p.targets), "entropy": p.entropy, "eos": p.eos} for p in self.prompts],
            "configs": list(self.configs),
        }


def validate(paths: Iterable[Path], *, strict: bool = False) -> Validation:
    """Check prompts, configs with the prompts they name, and folders of both; `strict` makes warnings errors.

    Raises `InputError` for a path that does not exist or holds nothing to check.
    """
    files = _files(paths)
    named = [file for file in files if file.suffix not in CONFIG_ENDINGS]
    experiments = [_Experiment.of(file, inspect_config(file)) for file in files if file.suffix in CONFIG_ENDINGS]
    inspected = {real(file): inspect_prompt(file) for file in each_once([*named, *(f for e in experiments for f in e.prompts)])}
    there = {place: prompt for place, (prompt, _) in inspected.items() if prompt is not None}
    # what is wrong with files, with what configs ask of them, and with files beside each other
    of_configs = [[*experiment.problems, *experiment.of_training(there)] for experiment in experiments]
    problems = [problem for some in of_configs for problem in some]
    problems += [problem for _, some in inspected.values() for problem in some]
    clashing = {(clash.first.alias, clash.second.alias) for experiment in experiments for clash in experiment.clashes(there)}
    beside = [there[real(file)] for file in named if real(file) in there]
    problems += [
        clash.problem("warning")
        for clash in clashes(beside, map(conversation, beside))
        if (clash.first.alias, clash.second.alias) not in clashing
    ]
    problems.sort(key=lambda p: (p.path, p.line or 0, p.column or 0))
    judged = tuple(dict.fromkeys(_judged(problems, strict)))
    bad = {problem.path for problem in judged if problem.severity == "error"} | {
        p.alias for e in experiments for p in e.untargeted(there)
    }
    configs = [str(e.file) for e, some in zip(experiments, of_configs, strict=True) if not any(_is_error(p, strict) for p in some)]
    sound = tuple(prompt for prompt in there.values() if prompt.alias not in bad)
    return Validation(sound, tuple(configs), judged, tuple(tuple(e.training(there)) for e in experiments))


def token_views(
    found: Validation, model: str, notice: Callable[[str], None], chat_template: str | None = None, trust_remote_code: bool = False
) -> tuple[list[TokenView], list[Problem]]:
    """What the model's tokenizer makes of each prompt, and which prompts it cannot take; as the config says, if one was checked."""
    from diffusecli.models.chat import ChatSettings, read_template
    from diffusecli.models.encoding import encode_prompt
    from diffusecli.models.loading import load_chat
    from diffusecli.models.source import ModelSource, chat_settings

    config = read_config(found.configs[0]) if len(found.configs) == 1 else None
    said = chat_settings(config) if config is not None else ChatSettings()
    if chat_template is not None:
        said = replace(said, template=read_template(chat_template))
    chat = load_chat(ModelSource(model, trust_remote_code=trust_remote_code, chat=said), notice)
    tokenizer = chat.tokenizer
    views: list[TokenView] = []
    problems = list(_instructions(found.configs[0], config, chat)) if config is not None else []
    ids: dict[tuple[str, str], tuple[int, ...]] = {}
    for prompt in found.prompts:
        try:
            encoded = encode_prompt(prompt, chat)
        except InputError as error:
            problems.append(Problem(prompt.alias, str(error).removeprefix(f"{prompt.alias}: ")))
            continue
        ids[prompt.key] = encoded.prompt_ids
        problems.extend(
            Problem(prompt.alias, remark.removeprefix(f"{prompt.alias}: "), severity="warning") for remark in encoded.remarks
        )
        paths = [encoded.trie.path(index) for index in range(len(encoded.trie.leaves))]
        answers = [variant + target for target in prompt.targets for variant in prompt.variants]
        problems.extend(_unknown_tokens(prompt, tokenizer, answers, paths))
        views.append(TokenView(
            prompt.alias,
            tuple(tokenizer.convert_ids_to_tokens(list(encoded.prompt_ids))),
            tuple((text, tuple(tokenizer.convert_ids_to_tokens(list(path)))) for text, path in zip(answers, paths, strict=True)),
            sum(len(encoded.prompt_ids) + len(path) for path in paths),
            len(encoded.prompt_ids) + len(encoded.trie.internal),
        ))  # fmt: skip
    for together in found.together:
        trained = [prompt for prompt in together if prompt.key in ids]
        problems.extend(
            clash.problem()
            for clash in clashes(trained, (ids[prompt.key] for prompt in trained))
            if conversation(clash.first, said.system) != conversation(clash.second, said.system)  # else told already
        )
    return views, problems


def _instructions(path: str, config: Config, chat: Chat) -> Iterator[Problem]:
    """What is wrong with the built-in instructions that a config holds the model to; those in files are prompts like others."""
    from diffusecli.models.encoding import encode_prompt
    from diffusecli.training.retention import read_instructions

    if not config.retain or config.retain.prompts != "builtin":
        return
    for instruction in read_instructions(config.retain):
        try:
            encode_prompt(instruction, chat)
        except InputError as error:
            yield Problem(path, f"retain: {error}")
            return


def json_schema(kind: Literal["prompt", "config"]) -> dict[str, Any]:
    """The JSON Schema (draft 7) of prompt files or configs, for editors."""
    schema = _draft_7((Prompt if kind == "prompt" else Config).model_json_schema(mode="validation"))
    properties = {"$schema": {"type": "string", "description": "Where this schema is, for editors."}, **schema.pop("properties")}
    properties.pop("alias", None)
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "title": f"diffuse {kind}", "properties": properties}


def _draft_7(node: Any) -> Any:
    """Pydantic writes draft 2020-12; what it uses of it differs in where definitions stand."""
    if isinstance(node, dict):
        return {"definitions" if key == "$defs" else key: _draft_7(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_draft_7(value) for value in node]
    return node.replace("#/$defs/", "#/definitions/") if isinstance(node, str) else node


def _judged(problems: Iterable[Problem], strict: bool) -> list[Problem]:
    return [replace(problem, severity="error") if _is_error(problem, strict) else problem for problem in problems]


def _is_error(problem: Problem, strict: bool) -> bool:
    return problem.severity == "error" or (strict and problem.severity == "warning")


@dataclass(frozen=True)
class _Experiment:
    """A config with the prompt files that it names."""

    file: Path
    inspection: Inspection
    problems: tuple[Problem, ...]  # of the config alone
    prompts: tuple[Path, ...]
    trained: Mapping[Path, Location]  # the file itself -> where the config names it in train_prompts

    @classmethod
    def of(cls, file: Path, inspected: Inspection) -> _Experiment:
        """Look at every path that it names."""
        problems, prompts = [*inspected.problems, *_surroundings(inspected)], []
        places: dict[Location, dict[Path, Location]] = {}
        if (document := inspected.document) is None:
            return cls(file, inspected, tuple(problems), (), {})
        for key, paths in inspected.paths.items():
            named = places.setdefault(key, {})
            for index, path in ((index, path) for index, names in enumerate(paths) for path in names):
                _, files, message, remedy = files_at(path)
                if message:
                    problems.append(document.problem((*key, index), f"{path} {message}", remedy))
                if twice := [prompt for prompt in files if real(prompt) in named]:
                    remedy = "name it once"
                    problems.append(document.problem((*key, index), f"{twice[0]} is named twice", remedy, severity="warning"))
                for prompt in files:
                    named.setdefault(real(prompt), (*key, index))
                prompts += files
            if (
                key == ("retain", "prompts")
                and len(named) < LEAST_INSTRUCTIONS
                and not any(files_at(path)[2] for names in paths for path in names)
            ):
                problems.append(document.problem(
                    key, f"names {many(len(named), 'instruction')}, at least {LEAST_INSTRUCTIONS} are needed",
                    "name more (every third is only measured)",
                ))  # fmt: skip
        return cls(file, inspected, tuple(problems), tuple(prompts), places.get(("train_prompts",), {}))

    def clashes(self, there: Mapping[Path, Prompt]) -> list[Clash]:
        """Training prompts with one conversation."""
        prompts = self.training(there)
        return list(clashes(prompts, (conversation(prompt, self._system) for prompt in prompts)))

    def training(self, there: Mapping[Path, Prompt]) -> list[Prompt]:
        """Its training prompts, as far as they can be read."""
        return [there[place] for place in self.trained if place in there]

    def untargeted(self, there: Mapping[Path, Prompt]) -> list[Prompt]:
        """Training prompts with nothing to train on."""
        return [prompt for prompt in self.training(there) if not prompt.targets]

    def of_training(self, there: Mapping[Path, Prompt]) -> Iterator[Problem]:
        """What is wrong with its prompts as those of one training."""
        if (document := self.inspection.document) is None:
            return
        for prompt in self.untargeted(there):
            location = self.trained[real(prompt.alias)]
            yield document.problem(location, f"{prompt.alias} has no targets to train on", "move it to test_prompts")
        for clash in self.clashes(there):
            location = self.trained[real(clash.second.alias)]
            yield document.problem(location, f"{clash.second.alias} {clash.message}", clash.remedy, severity=clash.severity)

    @property
    def _system(self) -> str | None:
        return self.inspection.config.system if self.inspection.config is not None else None


def _surroundings(inspected: Inspection) -> Iterator[Problem]:
    """What is wrong with the model and the folders that a config names."""
    config, document = inspected.config, inspected.document
    if config is None or document is None:
        return
    if unknown := unknown_model(config.model):
        yield document.problem(("model",), unknown)
    if config.chat_template is not None:
        from diffusecli.models.chat import read_template

        try:
            read_template(config.chat_template)
        except InputError as error:
            yield document.problem(("chat_template",), str(error).removeprefix("chat_template "))
    if not config.train_prompts:
        yield document.problem((), "names no train_prompts: it can be sampled, not trained", severity="notice")
    if config.device.partition(":")[0] not in _DEVICES:
        yield document.problem(("device",), f"the device '{config.device}' is unknown", "use auto, cpu, cuda, cuda:0, … or mps")
    for key, package in (("tracker", config.tracker), ("quantize", config.quantize and "bitsandbytes")):
        if package and find_spec(package) is None:
            yield document.problem((key,), f"{package} is not installed here", f"run `pip install {package.replace('_ml', '-ml')}` "
                                   "where you train, or remove the setting", severity="notice")  # fmt: skip
    try:
        require_place(Path(config.output_dir))
    except MachineError as error:
        yield document.problem(("output_dir",), str(error))
    yield from _start(config, document)
    if exists(RunDir(Path(config.output_dir)).manifest):
        yield document.problem(("output_dir",), f"{config.output_dir} holds a finished run already",
                               "train with --force to replace it or name another folder", severity="notice")  # fmt: skip


_DEVICES = frozenset((
    "auto", "cpu", "cuda", "fpga", "hip", "hpu", "ideep", "ipu", "lazy", "maia", "meta", "mkldnn", "mlu", "mps", "mtia", "musa", "npu", "opencl",
    "opengl", "privateuseone", "ve", "vulkan", "xla", "xpu",
))  # fmt: skip
"""What torch and its extensions call devices, and ours; whether one is there is found out where training runs."""


def _start(config: Config, document: Document) -> Iterator[Problem]:
    """What is wrong with the adapter that a config continues from."""
    if not config.load_model or config.ckpt_dir is None:
        return
    start = Path(config.ckpt_dir)
    if real(start).is_relative_to(real(config.output_dir)):
        yield document.problem(("ckpt_dir",), f"{start} is in the output_dir, which is emptied first", "name another output_dir")
    elif RunDir(start).has_adapter:
        try:
            read_adapter_config(start / "adapter_config.json")
        except InputError as error:
            yield document.problem(("ckpt_dir",), str(error))
    elif exists(start):
        yield document.problem(("ckpt_dir",), f"{start} holds no adapter", "name the folder of a trained run")
    else:
        yield document.problem(("ckpt_dir",), f"{start} does not exist yet", "train what makes it first", severity="notice")


def _unknown_tokens(prompt: Prompt, tokenizer: Any, answers: list[str], paths: list[tuple[int, ...]]) -> Iterator[Problem]:
    unknown = tokenizer.unk_token_id
    for text, path in zip(answers, paths, strict=True):
        if unknown is not None and unknown in path[:-1]:
            yield Problem(
                prompt.alias, f"the target {text!r} holds characters this tokenizer does not know", "write it without them"
            )


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in (Path(name) for named in paths for name in spread(named, endings=(".json", *CONFIG_ENDINGS))):
        place = find(path).place
        if not exists(place):
            remedy = look_again(path, "name a prompt (.json), a config (.yaml) or a folder of them")
            raise InputError(f"{path}: does not exist, {remedy}")
        if place.is_file() and path.suffix not in (".json", *CONFIG_ENDINGS):
            raise InputError(f"{path}: is neither a prompt (.json) nor a config (.yaml), name one of those")
        inside = visible_files(path, (".json", *CONFIG_ENDINGS)) if place.is_dir() else [path]
        if not inside:
            raise InputError(f"{path}: holds no prompt (.json) and no config (.yaml), name another folder")
        files.extend(inside)
    return each_once(files)
