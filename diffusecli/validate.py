"""`diffuse validate`: every problem of every prompt and config, before any model is loaded.

Knows files and their problems; prints nothing. With a model's name it also shows what the tokenizer
makes of each target; the weights are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from diffusecli.builtin import unknown_model
from diffusecli.config import Config, Inspection, inspect_config, read_config
from diffusecli.documents import Document, Location
from diffusecli.errors import InputError, Problem, many
from diffusecli.places import exists, find, look_again, visible_files
from diffusecli.prompt import Prompt, files_at, inspect_prompt
from diffusecli.runs import RunDir

CONFIG_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Validation:
    """What was looked at and what is wrong with it."""

    prompts: tuple[Prompt, ...]  # those without errors
    configs: tuple[str, ...]  # those without errors
    problems: tuple[Problem, ...]

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
        told = ", ".join(many(severities.count(severity), severity) for severity in ("error", "warning", "notice"))
        passed = f"{many(len(self.prompts), 'prompt')}, {many(len(self.configs), 'config')}"
        return f"failed: {told}; passed: {passed}" if self.failed else f"sound: {passed}; {told}"

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


@dataclass(frozen=True)
class TokenView:
    """What a tokenizer makes of a prompt."""

    alias: str
    prompt_tokens: tuple[str, ...]
    target_tokens: tuple[tuple[str, tuple[str, ...]], ...]  # (answer text, its tokens with the terminator)
    fed_as_rows: int  # tokens that one row per target feeds
    fed_packed: int  # tokens that the prefix tree feeds


def validate(paths: Iterable[Path], *, strict: bool = False) -> Validation:
    """Check prompts, configs with the prompts they name, and folders of both; `strict` makes warnings errors.

    Raises `InputError` for a path that does not exist or holds nothing to check.
    """
    problems: list[Problem] = []
    configs: list[str] = []
    waiting: dict[Path, None] = {}
    trained: dict[Path, tuple[Document, Location]] = {}  # where a config names each training prompt
    for file in _files(paths):
        if file.suffix not in CONFIG_ENDINGS:
            waiting[file] = None
            continue
        inspected = inspect_config(file)
        found = [*inspected.problems, *_path_problems(inspected, waiting, trained), *_surroundings(inspected)]
        problems.extend(found)
        if not any(_is_error(problem, strict) for problem in found):
            configs.append(str(file))
    prompts: list[Prompt] = []
    for file in waiting:
        prompt, found = inspect_prompt(file)
        if prompt is not None and not prompt.targets and file in trained:
            document, location = trained[file]
            found = [*found, document.problem(location, f"{file} has no targets to train on", "move it to test_prompts")]
        problems.extend(found)
        if prompt is not None and not any(_is_error(problem, strict) for problem in found):
            prompts.append(prompt)
    problems.sort(key=lambda p: (p.path, p.line or 0, p.column or 0))
    return Validation(tuple(prompts), tuple(configs), tuple(dict.fromkeys(_judged(problems, strict))))


def token_views(
    found: Validation, model: str, notice: Callable[[str], None], chat_template: str | None = None, trust_remote_code: bool = False
) -> tuple[list[TokenView], list[Problem]]:
    """What the model's tokenizer makes of each prompt, and which prompts it cannot take; as the config says, if one was checked."""
    from diffusecli.chat import ChatSettings, chat_settings, read_template
    from diffusecli.encoding import encode_prompt
    from diffusecli.models import load_chat

    said = chat_settings(read_config(found.configs[0])) if len(found.configs) == 1 else ChatSettings()
    if chat_template is not None:
        said = replace(said, template=read_template(chat_template))
    chat = load_chat(model, said, notice, trust_remote_code=trust_remote_code)
    tokenizer = chat.tokenizer
    views: list[TokenView] = []
    problems: list[Problem] = []
    for prompt in found.prompts:
        try:
            encoded = encode_prompt(prompt, chat)
        except InputError as error:
            problems.append(Problem(prompt.alias, str(error).removeprefix(f"{prompt.alias}: ")))
            continue
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
    return views, problems


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


def _path_problems(
    inspected: Inspection, prompts: dict[Path, None], trained: dict[Path, tuple[Document, Location]]
) -> Iterator[Problem]:
    """What is wrong with the prompt paths of a config; what they name is added to `prompts` and `trained`."""
    if (document := inspected.document) is None:
        return
    for key, paths in inspected.paths.items():
        named: dict[Path, str] = {}
        for index, path in enumerate(paths):
            _, files, message, remedy = files_at(path)
            if message:
                yield document.problem((*key, index), f"{path} {message}", remedy)
            if twice := [file for file in files if file in named]:
                yield document.problem((*key, index), f"{twice[0]} is named twice", "name it once", severity="warning")
            named.update(dict.fromkeys(files, path))
            prompts.update(dict.fromkeys(files))
            if key == ("train_prompts",):
                trained.update(dict.fromkeys(files, (document, (*key, index))))


def _surroundings(inspected: Inspection) -> Iterator[Problem]:
    """What is wrong with the model and the folders that a config names."""
    config, document = inspected.config, inspected.document
    if config is None or document is None:
        return
    if unknown := unknown_model(config.model):
        yield document.problem(("model",), unknown)
    if config.chat_template is not None:
        from diffusecli.chat import read_template

        try:
            read_template(config.chat_template)
        except InputError as error:
            yield document.problem(("chat_template",), str(error).removeprefix("chat_template "))
    if not config.train_prompts:
        yield document.problem((), "names no train_prompts: it can be sampled, not trained", severity="notice")
    if config.load_model and config.ckpt_dir is not None and not RunDir(Path(config.ckpt_dir)).has_adapter:
        if exists(config.ckpt_dir):
            yield document.problem(("ckpt_dir",), f"{config.ckpt_dir} holds no adapter", "name the folder of a trained run")
        else:
            yield document.problem(
                ("ckpt_dir",), f"{config.ckpt_dir} does not exist yet", "train what makes it first", severity="notice"
            )
    if exists(RunDir(Path(config.output_dir)).manifest):
        yield document.problem(("output_dir",), f"{config.output_dir} holds a finished run already",
                               "train with --force to replace it or name another folder", severity="notice")  # fmt: skip


def _unknown_tokens(prompt: Prompt, tokenizer: Any, answers: list[str], paths: list[tuple[int, ...]]) -> Iterator[Problem]:
    unknown = tokenizer.unk_token_id
    for text, path in zip(answers, paths, strict=True):
        if unknown is not None and unknown in path[:-1]:
            yield Problem(
                prompt.alias, f"the target {text!r} holds characters this tokenizer does not know", "write it without them"
            )


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
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
    return list(dict.fromkeys(files))
