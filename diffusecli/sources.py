"""Where samples come from: run directories, folders of them, files of ours, of the original's and of anybody else's.

Finds the samples, the prompt each was drawn for and how it was drawn; computes nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from diffusecli.builtin import Notice
from diffusecli.config import CHAT_FIELDS
from diffusecli.documents import TooLargeError, read_document, read_text
from diffusecli.errors import InputError, did_you_mean
from diffusecli.places import exists, find
from diffusecli.prompt import Prompt, canonical, checked, prompt_files, read_prompt
from diffusecli.runs import RunDir, find_runs, meta_path, read_meta
from diffusecli.samples import MOST_BYTES, MOST_COUNT, distinct_lines, is_count, read_samples, unreadable

_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "stop": []}
_ANSWERS = ("text", "response", "answer", "output", "completion", "generation", "generated_text")
"""Columns that hold answers where none is named; a plural holds a list of them."""
_NO_COUNTS = ("n", "count", "counts", "freq", "frequency", "weight", "probability", "prob", "share")
"""Columns beside the answers that might be taken for counts and are not read, `Count` and the like among them."""
_Kind = TypeVar("_Kind", bound=BaseModel)


@dataclass(frozen=True)
class SampleSet:
    """All answers to one prompt from one sampler."""

    run: str
    mode: str  # untuned, lora, or the name of a file
    prompt: Prompt
    counts: Counter[str]
    settings: Mapping[str, Any] = field(default_factory=dict)  # as sampled; {} when unknown
    examples: bool = False  # the targets are only examples of what is wanted (early_stop)
    asked_otherwise: bool = False  # with another system text or chat template than in training
    trained_on: Prompt | None = None  # for a prompt without targets: the one with the same request that was trained on

    @property
    def bent(self) -> bool:
        """Whether another distribution than the model's own was sampled."""
        return any(self.settings.get(name, neutral) != neutral for name, neutral in _NEUTRAL.items())


class Manifest(BaseModel):
    """What is read of run.json; {} in runs of the original. Figures are prompt alias -> value."""

    model_config = ConfigDict(frozen=True, extra="allow")

    exact_kl: dict[str, float] = {}
    exact_kl_before: dict[str, float] = {}
    exact_kl_test: dict[str, float] = {}
    exact_on_target: dict[str, float] = {}
    exact_on_target_before: dict[str, float] = {}
    exact_on_target_test: dict[str, float] = {}
    retention_kl: float | None = None
    prompt_sha256: dict[str, str] = {}
    model_revision: str | None = None
    adapter_sha256: str | None = None
    chat: dict[str, Any] | None = None


class _AlgSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    early_stop: bool = False


class Settings(BaseModel):
    """What is read of config.yaml."""

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


class _Meta(BaseModel):
    """What is read of a samples file's settings."""

    mode: str | None = None
    settings: _SamplingSettings | None = None
    prompts: dict[str, Any] = {}
    model_revision: str | None = None
    adapter_sha256: str | None = None
    system: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def asked_otherwise(self, manifest: Manifest) -> bool:
        """Whether the prompts were put to the model in another way than in training."""
        told = {name: value for name in CHAT_FIELDS if (value := getattr(self, name)) is not None}
        return self.mode is not None and manifest.chat is not None and told != manifest.chat


@dataclass(frozen=True)
class RunFacts:
    """What a run directory tells beside its samples."""

    run: str
    folder: RunDir
    manifest: Manifest
    settings: Settings
    prompts: Mapping[str, Any]  # its prompts.json


def kept_prompt(alias: str, kept: Any, place: Path) -> Prompt | None:
    """A prompt as a run keeps it; None for what is none (runs of the original kept tokens). Raises `InputError`."""
    if not isinstance(kept, dict) or "request" not in kept:
        return None
    try:
        return checked(Prompt.model_validate({**kept, "alias": alias}))
    except (ValidationError, InputError) as error:
        raise InputError(f"{place}: the prompt {alias} that it keeps is not valid, sample again") from error


class PromptBook:
    """Finds the prompt that an alias means."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """`paths`: files and folders that stand in for those that are gone. Raises `InputError`."""
        self._files = prompt_files(paths)
        self._stands_for: dict[Path, str] = {}

    def find(self, alias: str, kept: Iterable[Any], place: Path) -> Prompt:
        """The prompt as it was sampled, else as the run kept it, else from the book, else from the alias as a path.

        Runs of the original kept tokens only. Raises `InputError`.
        """
        for candidate in kept:
            if (prompt := kept_prompt(alias, candidate, place)) is not None:
                return prompt
        near = self._nearest(alias)
        if len(near) > 1:
            raise InputError(f"{place}: {alias} may be {near[0]} or {near[1]}, name one of them with --prompts")
        if near and self._stands_for.setdefault(near[0], alias) != alias:
            raise InputError(
                f"{place}: {near[0]} cannot stand for both {alias} and {self._stands_for[near[0]]}, name both with --prompts"
            )
        if near or exists(find(alias).place):
            return read_prompt(near[0] if near else alias).model_copy(update={"alias": alias})
        raise InputError(f"{place}: its samples name the prompt {alias}, which is not there; name it with --prompts")

    def _nearest(self, alias: str) -> list[Path]:
        """The files whose paths end most like the alias; the name at least."""
        wanted = Path(alias).parts[::-1]
        alike = {file: _common(file.parts[::-1], wanted) for file in self._files}
        most = max(alike.values(), default=0)
        return [file for file, parts in alike.items() if parts == most] if most else []


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def read_run(run: RunDir, book: PromptBook) -> tuple[RunFacts, list[SampleSet]]:
    """A run's facts and all its samples, untuned before lora.

    Raises `InputError` when a prompt that samples name is gone, or when samples come from another adapter or base
    model than the run now holds.
    """
    manifest = _checked(Manifest, run.read_manifest(), run.manifest)
    facts = RunFacts(str(run.path), run, manifest, _checked(Settings, _config(run), run.config), run.read_prompts())
    found = [s for mode, file in run.sample_files().items() for s in _of_file(facts.run, mode, file, facts, book)]
    return facts, found


def read_file(file: Path, book: PromptBook) -> list[SampleSet]:
    """A file in one of our formats or the original's; what stands beside it tells of prompts and settings."""
    run = RunDir(file.parent)
    named = "untuned" if file.stem.endswith("untuned") else file.stem
    mode = _meta(file).mode or ("lora" if meta_path(file).is_file() else named)
    return _of_file(str(file), mode, file, RunFacts(str(file), run, Manifest(), Settings(), run.read_prompts()), book)


def read_answers(file: Path, prompt: Path, column: str | None, notice: Notice = lambda _: None) -> SampleSet:
    """Answers to one prompt from anywhere: a list in JSON, a table (CSV, TSV, JSON lines, Parquet), or else a line each.

    Without `column` it is the only one, or one of those usually called so; a column `count` beside it counts; a list in
    JSON is several answers. `notice` is called where a column beside them looks like counts and is not read. Raises `InputError`.
    """
    asked = read_prompt(prompt)
    readers = {".json": _listed, ".jsonl": _of_lines, ".csv": _tabled, ".tsv": _tabled, ".parquet": _tabled}
    counts = readers.get(file.suffix.lower(), _plain)(file, column, asked, notice)
    return SampleSet(str(file), file.stem, asked, counts, _settings(_meta(file)))


def find_samples(path: Path, book: PromptBook) -> tuple[list[RunFacts], list[SampleSet]]:
    """A file, a run or a folder of runs. Raises `InputError` when it is none of them."""
    if exists(path) and path.is_file():
        return [], read_file(path, book)
    runs = [read_run(run, book) for run in find_runs(path)]
    return [facts for facts, _ in runs], [s for _, found in runs for s in found]


def _of_file(name: str, mode: str, file: Path, facts: RunFacts, book: PromptBook) -> list[SampleSet]:
    meta = _meta(file)
    _require_same_model(file, meta, facts.manifest)
    trained = {p["request"]: (alias, p) for alias, p in facts.prompts.items() if isinstance(p, dict) and p.get("targets")
               and isinstance(p.get("request"), str)}  # fmt: skip
    found = []
    for alias, counts in read_samples(file).items():
        prompt = book.find(alias, [meta.prompts.get(alias), facts.prompts.get(alias)], file)
        known = trained.get(prompt.request) if not prompt.targets else None
        trained_on = book.find(known[0], [known[1]], file) if known else None
        found.append(SampleSet(
            name, mode, prompt, counts, _settings(meta), facts.settings.alg_config.early_stop, meta.asked_otherwise(facts.manifest),
            trained_on,
        ))  # fmt: skip
    return found


def _require_same_model(file: Path, meta: _Meta, manifest: Manifest) -> None:
    """Samples of an adapter or a base that has since been replaced would stand beside figures of the new one."""
    for key, what in (("model_revision", "another base model"), ("adapter_sha256", "an adapter that was replaced since")):
        drawn_from, now = getattr(meta, key), getattr(manifest, key)
        if drawn_from is not None and now is not None and drawn_from != now:
            raise InputError(f"{file}: was sampled from {what}, sample again")


def _config(run: RunDir) -> Any:
    """The config as it stands there."""
    if not run.config.is_file():
        return {}
    document, problems = read_document(run.config)
    if document is None:
        raise InputError.of(problems)
    return document.data or {}


def _meta(file: Path) -> _Meta:
    return _checked(_Meta, read_meta(file), meta_path(file))


def _settings(meta: _Meta) -> dict[str, Any]:
    return meta.settings.model_dump(exclude_unset=True) if meta.settings is not None else {}


def _checked(kind: type[_Kind], data: Any, path: Path) -> _Kind:
    """Raises `InputError` with the first thing that is not what it must be."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {place or 'the whole'}: {first['msg'].split(' or instance')[0].lower()}, correct the file or remove it"
        ) from error


def _column(names: Sequence[str], column: str | None, place: str) -> str:
    """The column of the answers; spaces around its name do not count."""
    bare = {name.strip(): name for name in reversed(names)}
    usual = (name for singular in _ANSWERS for name in (singular, f"{singular}s") if name in bare)
    chosen = column or next(usual, names[0] if len(names) == 1 else None)
    if chosen is None:
        raise InputError(f"{place}: name the column of the answers with --column, there are {', '.join(names)}")
    if chosen not in names and chosen.strip() not in bare:
        raise InputError(f"{place}: has no column '{chosen}', {did_you_mean(chosen, names)}")
    return chosen if chosen in names else bare[chosen.strip()]


def _told_apart(names: Sequence[str], chosen: str, file: Path, notice: Notice) -> None:
    """Says which column is not taken for counts."""
    if "count" not in names and (other := next((name for name in names if name.strip().lower() in _NO_COUNTS), None)) not in (
        None,
        chosen,
    ):
        notice(f"{file}: the column '{other}' is not read, every row is one answer; if it counts answers, call it count")


def _tabled(file: Path, column: str | None, prompt: Prompt, notice: Notice) -> Counter[str]:
    """A table whose first line names its columns."""
    from diffusecli.observations import read_table

    table = read_table(file)
    names = [str(name) for name in table.columns]
    if answers := [name for name in names if canonical(name) in map(canonical, prompt.targets)]:
        raise InputError(
            f"{file}:1: the first line names the columns, and {answers[0]!r} is a target; put a line of names above it"
        )
    chosen = _column(names, column, str(file))
    _told_apart(names, chosen, file, notice)
    told = [name for name in dict.fromkeys((chosen, "count", "prompt")) if name in names]
    if told == [chosen]:
        return Counter(table[chosen])
    return _counted(((str(file), row, 1) for row in table[told].to_dict("records")), chosen, file, notice)


def _plain(file: Path, _column: str | None, _prompt: Prompt, _notice: Notice) -> Counter[str]:
    """A line each; an empty line is an empty answer."""
    try:
        text = read_text(file, MOST_BYTES)
    except TooLargeError as error:
        raise InputError(f"{file}: {error}, take it apart or count the answers") from error
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    return Counter(text.removesuffix("\n").split("\n") if text else [])


def _of_lines(file: Path, column: str | None, _prompt: Prompt, notice: Notice) -> Counter[str]:
    """JSON lines: strings, lists of them, or mappings with a column of answers."""
    return _counted(distinct_lines(file), column, file, notice)


def _listed(file: Path, column: str | None, _prompt: Prompt, notice: Notice) -> Counter[str]:
    """JSON: a list of strings or of mappings, answers with their counts, or one prompt's samples."""
    document, problems = read_document(file, MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    data = document.data
    if isinstance(data, dict) and len(data) == 1 and not isinstance(next(iter(data.values())), int):
        data = next(iter(data.values()))
    if isinstance(data, list):
        return _counted(((f"{file}: item {number}", row, 1) for number, row in enumerate(data, 1)), column, file, notice)
    if isinstance(data, dict) and all(map(is_count, data.values())):
        return Counter(data)
    if isinstance(data, dict) and {"request", "targets"} <= data.keys():
        raise InputError(f"{file}: is a prompt and holds no answers, name a file of answers")
    if isinstance(data, dict) and data and all(isinstance(value, int | float) for value in data.values()):
        wrong = next(text for text, value in data.items() if not is_count(value))
        raise InputError(f"{file}: {data[wrong]!r} of {wrong!r} is no whole number, write how often each answer came")
    raise InputError(f"{file}: must be a list of answers, or answers with counts; with several prompts in it leave --prompt out")


def _counted(rows: Iterable[tuple[str, Any, int]], column: str | None, file: Path, notice: Notice) -> Counter[str]:
    """Answers by text from places, values and how often each came; mappings name the same column throughout."""
    counts: Counter[str] = Counter()
    prompts: set[str] = set()
    for place, row, number in rows:
        answer, times = row, number
        if isinstance(row, dict):
            names = [str(name) for name in row]
            column = _column(names, column, place)
            if not prompts:
                _told_apart(names, column, file, notice)
            prompts.add(str(row.get("prompt")))
            answer = row[column]
            times *= _times(row["count"], place) if "count" in row and column != "count" else 1
        for text in _texts(answer, place, f"the column '{column}'" if isinstance(row, dict) else "the answer"):
            counts[text] += times
    if len(prompts) > 1:
        raise InputError(f"{file}: holds answers to several prompts, leave --prompt out")
    return counts


def _texts(value: Any, place: str, where: str) -> Iterator[str]:
    """The answers that a value holds: a text or a number is one, a list as many as its items."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, place, where)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    else:
        kind = {dict: "a mapping", bool: "true or false", type(None): "nothing"}.get(type(value), type(value).__name__)
        raise InputError(
            f"{place}: {where} holds {kind} where the text of an answer must be, name another with --column or write the text"
        )


def _times(count: Any, place: str) -> int:
    """A whole number, however it is written: 3, "3" or 3.0."""
    try:
        number = float(count)
    except (TypeError, ValueError):
        number = math.nan
    if not (0 <= number <= MOST_COUNT and number.is_integer()):
        raise InputError(f"{place}: the count {count!r} is no whole number, correct it")
    return int(number)
