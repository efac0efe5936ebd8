"""`diffuse validate`: find all problems of prompts and configs without loading a model.

Takes files and returns their problems; prints nothing. With a model's name it also shows the tokens of each target;
the weights are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusecli.files.paths import exists, find, in_a_file, look_again, real, spread, visible_files
from diffusecli.models.token_view import TokenView, view_tokens
from diffusecli.prompts.config_files import inspect_config, read_config
from diffusecli.prompts.conflicts import clashes, conversation
from diffusecli.prompts.experiment import Experiment
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import each_once, files_at, inspect_prompt, prompts_of
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import meta_path
from diffusecli.system.errors import InputError, Problem, many, sentence
from diffusecli.training.preflight import has_finished_run, instruction_problems, surrounding_problems

CONFIG_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Validation:
    """The files checked and their problems."""

    prompts: tuple[Prompt, ...]  # those without errors
    configs: tuple[str, ...]  # those without errors
    problems: tuple[Problem, ...]
    together: tuple[tuple[Prompt, ...], ...] = ()  # the training prompts of each config
    finished: bool = False  # whether a config's output folder contains a finished run

    @property
    def failed(self) -> bool:
        """Whether any problem is an error."""
        return any(problem.severity == "error" for problem in self.problems)

    def with_more(self, problems: Iterable[Problem], *, strict: bool) -> Validation:
        """Add problems found by a tokenizer; a prompt with an error is removed from the prompts."""
        more = _judged(problems, strict)
        wrong = {problem.path for problem in more if problem.severity == "error"}
        prompts = tuple(prompt for prompt in self.prompts if prompt.alias not in wrong)
        return replace(self, prompts=prompts, problems=(*self.problems, *more))

    def __str__(self) -> str:
        """The last line of the command: what passed, and the number of problems."""
        severities = [problem.severity for problem in self.problems]
        counts = ", ".join(many(severities.count(severity), severity) for severity in ("error", "warning", "notice"))
        wordings, held_out = sum(p.trained_wordings for p in self.prompts), sum(len(p.held_out_requests) for p in self.prompts)
        worded = f" in {many(wordings, 'wording')}" if wordings > len(self.prompts) else ""
        worded += f" and {held_out} held out" if held_out else ""
        passed = f"{many(len(self.prompts), 'prompt')}{worded}, {many(len(self.configs), 'config')}"
        return f"failed: {counts}; passed: {passed}" if self.failed else f"sound: {passed}; {counts}"

    def as_json(self) -> dict[str, Any]:
        """Machine-readable: `valid`, `problems` with position, severity and remedy, and a summary of each prompt."""
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
            "prompts": [
                {
                    "file": p.alias,
                    "targets": len(p.targets),
                    "entropy": p.entropy,
                    "eos": p.eos,
                    "wordings": p.trained_wordings,
                    "held_out_wordings": len(p.held_out_requests),
                }
                for p in self.prompts
            ],
            "configs": list(self.configs),
        }


def validate(paths: Iterable[Path], *, strict: bool = False) -> Validation:
    """Check prompts, configs with their prompts, and folders of both; `strict` turns warnings into errors.

    Raises `InputError` for a path that does not exist or has nothing to check.
    """
    files = _files(paths)
    named = [file for file in files if file.suffix not in CONFIG_ENDINGS]
    experiments = [Experiment.of(file, inspect_config(file)) for file in files if file.suffix in CONFIG_ENDINGS]
    inspected = {real(file): inspect_prompt(file) for file in each_once([*named, *(f for e in experiments for f in e.prompts)])}
    there = {place: prompt for place, (prompt, _) in inspected.items() if prompt is not None}
    # problems of single files, of configs with their prompts, and of files with each other
    of_configs = [
        [*e.inspection.problems, *surrounding_problems(e.inspection), *e.problems, *e.of_training(there)] for e in experiments
    ]
    problems = [problem for some in of_configs for problem in some]
    problems += [problem for _, some in inspected.values() for problem in some]
    known = {(clash.first.alias, clash.second.alias) for experiment in experiments for clash in experiment.clashes(there)}
    beside = [wording for file in named if real(file) in there for wording in there[real(file)].wordings]
    problems += [
        clash.problem(beside=True)
        for clash in clashes(beside, map(conversation, beside))
        if (clash.first.alias, clash.second.alias) not in known
    ]
    problems.sort(key=lambda p: (p.path, p.line or 0, p.column or 0))
    judged = tuple(dict.fromkeys(_judged(problems, strict)))
    bad = {problem.path for problem in judged if problem.severity == "error"} | {
        p.alias for e in experiments for p in e.untargeted(there)
    }
    configs = [str(e.file) for e, some in zip(experiments, of_configs, strict=True) if not any(_is_error(p, strict) for p in some)]
    sound = tuple(prompt for prompt in there.values() if not {prompt.alias, str(Path(prompt.alias).parent)} & bad)
    finished = any(has_finished_run(e.inspection.config) for e in experiments if e.inspection.config is not None)
    return Validation(sound, tuple(configs), judged, tuple(tuple(e.training(there)) for e in experiments), finished)


def token_views(
    found: Validation, model: str, notice: Callable[[str], None], chat_template: str | None = None, trust_remote_code: bool = False
) -> tuple[list[TokenView], list[Problem]]:
    """The tokens of each prompt, and problems of prompts with this tokenizer; uses the config's settings if one was checked."""
    from diffusecli.models.chat import ChatSettings, read_template
    from diffusecli.models.loading import load_chat
    from diffusecli.models.source import ModelSource, chat_settings

    config = read_config(found.configs[0]) if len(found.configs) == 1 else None
    settings = chat_settings(config) if config is not None else ChatSettings()
    if chat_template is not None:
        settings = replace(settings, template=read_template(chat_template))
    chat = load_chat(ModelSource(model, trust_remote_code=trust_remote_code, chat=settings), notice)
    of_instructions = list(instruction_problems(found.configs[0], config, chat)) if config is not None else []
    views, problems = view_tokens(found.prompts, found.together, chat)
    return views, [*of_instructions, *problems]


def _judged(problems: Iterable[Problem], strict: bool) -> list[Problem]:
    return [replace(problem, severity="error") if _is_error(problem, strict) else problem for problem in problems]


def _is_error(problem: Problem, strict: bool) -> bool:
    return problem.severity == "error" or (strict and problem.severity == "warning")


def _is_run(folder: Path) -> bool:
    """Whether this is the folder of a finished run."""
    return RunDir(folder).manifest.is_file() and RunDir(folder).config.is_file()


def _is_of_samples(file: Path) -> bool:
    """Whether this is a file of samples with metadata beside it, or that metadata."""
    return file.name.endswith(".meta.json") or meta_path(file).is_file()


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in (Path(name) for named in paths for name in spread(named, endings=(".json", *CONFIG_ENDINGS))):
        place = find(path).place
        if not exists(place) and not prompts_of(path):
            if message := files_at(path)[2:] if in_a_file(place) else ():
                raise InputError(f"{path}: {message[0]}. {sentence(message[1])}")
            remedy = look_again(path, "name a prompt (.json), a config (.yaml) or a folder of them")
            raise InputError(f"{path}: does not exist. {sentence(remedy)}")
        if _is_run(place):
            raise InputError(f"{path}: is a run. Name its config: {RunDir(path).config}")
        if place.is_file() and path.suffix not in (".json", *CONFIG_ENDINGS):
            raise InputError(f"{path}: is neither a prompt (.json) nor a config (.yaml). Name one of these")
        found = visible_files(path, (".json", *CONFIG_ENDINGS)) if place.is_dir() else [path]
        runs = sorted({folder for file in found for folder in file.parents if _is_run(folder)})
        inside = (
            [file for file in found if not set(runs) & set(file.parents) and not _is_of_samples(file)] if place.is_dir() else found
        )
        if runs and not inside:
            raise InputError(
                f"{path}: contains runs, and no prompt or config of its own. Name the config of a run: {RunDir(runs[0]).config}"
            )
        if not inside:
            raise InputError(f"{path}: contains no prompt (.json) and no config (.yaml). Name another folder")
        files += [prompt for file in inside for prompt in (prompts_of(file) or [file] if file.suffix == ".json" else [file])]
    return each_once(files)
