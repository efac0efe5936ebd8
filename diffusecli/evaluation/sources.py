"""Where samples come from: run directories, folders of them, files of ours, of the original's and of other tools.

Finds the samples, the prompt each was drawn for and how it was drawn; computes nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from diffusecli.files.delimited import even_delimiters
from diffusecli.files.documents import TooLargeError, read_document, read_text
from diffusecli.files.numerals import UnclearNumberError, numbers_in
from diffusecli.files.paths import exists, find
from diffusecli.files.table_files import TABULAR, holds_plain_text, read_table
from diffusecli.files.tables import Layout
from diffusecli.files.text import canonical
from diffusecli.prompts.answers import Answers, is_cut
from diffusecli.prompts.config import CHAT_FIELDS
from diffusecli.prompts.prompt import Prompt, checked, prompt_files, read_prompt
from diffusecli.prompts.weighing import NONE
from diffusecli.runs.finding import find_runs
from diffusecli.runs.run_dir import RunDir
from diffusecli.runs.sample_files import MOST_BYTES, meta_path, read_meta
from diffusecli.runs.samples import MOST_COUNT, distinct_lines, is_count, read_samples, unreadable
from diffusecli.system.errors import InputError, did_you_mean, many
from diffusecli.system.notices import Notice

_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "stop": []}
_ANSWERS = ("text", "response", "answer", "output", "completion", "generation", "generated_text")
"""Columns that hold answers where none is named; a plural holds a list of them."""
_ENDS = ("finish_reason", "stop_reason", "done_reason", "unfinished", "truncated")
"""Columns beside them that say how an answer ended."""
_MANY_ENDS = tuple(f"{name}s" for name in _ENDS[:3])
_SHARES = ("weight", "probability", "prob", "share")
"""Columns beside them that might be taken for counts and are not read."""
_Kind = TypeVar("_Kind", bound=BaseModel)


@dataclass(frozen=True)
class SampleSet:
    """All answers to one prompt from one sampler."""

    run: str
    mode: str  # untuned, lora, or the name of a file
    prompt: Prompt
    counts: Answers
    settings: Mapping[str, Any] = field(default_factory=dict)  # as sampled; {} when unknown
    examples: bool = False  # the targets are only examples of what is wanted (early_stop)
    asked: Mapping[str, Any] | None = None  # system text, chat template and its variables; None when unknown
    trained_on: Prompt | None = None  # for a prompt without targets: the one with the same request that was trained on

    @property
    def bent(self) -> bool:
        """Whether another distribution than the model's own was sampled."""
        left = set(self.settings.get("left_to_server", ())) - {"seed"}  # a server's own defaults may be any
        return bool(left) or any(self.settings.get(name, neutral) != neutral for name, neutral in _NEUTRAL.items())


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
    limits: dict[str, NonNegativeInt] = {}
    unfinished: dict[str, dict[str, NonNegativeInt]] = {}
    model_revision: str | None = None
    adapter_sha256: str | None = None
    system: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    omitted: list[str] = []
    refused: dict[str, Any] = {}

    @property
    def asked(self) -> dict[str, Any] | None:
        """How the prompts were put to the model; None when the file does not say."""
        return None if self.mode is None else {name: value for name in CHAT_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class _Columns:
    """Where raw answers stand in a file, and how it is written."""

    column: str | None = None
    count_column: str | None = None
    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class RunFacts:
    """What a run directory tells beside its samples."""

    run: str
    folder: RunDir
    manifest: Manifest
    settings: Settings
    prompts: Mapping[str, Any]  # its prompts.json
    left_out: tuple[Path, ...] = ()  # files of samples of which newer ones hold the same prompts

    def digest_of(self, alias: str) -> str | None:
        """Of the prompt that this alias means in the run's figures; None when the run does not say. Raises `InputError`."""
        if (recorded := self.manifest.prompt_sha256.get(alias)) is not None:
            return recorded
        kept = kept_prompt(alias, self.prompts.get(alias), self.folder.prompts)
        return kept.digest if kept is not None else None

    def names_of(self, prompt: Prompt) -> list[str]:
        """The aliases that mean this very prompt in the run's figures, its own first. Raises `InputError`."""
        own = [prompt.alias] if self.digest_of(prompt.alias) in (None, prompt.digest) else []
        return own + [
            alias for alias, digest in self.manifest.prompt_sha256.items() if digest == prompt.digest and alias not in own
        ]


def changed_since_training(run: RunDir, prompts: Iterable[Prompt]) -> list[str]:
    """Aliases of prompts that the run knows with another content. Raises `InputError` for a manifest that cannot be read."""
    trained = _checked(Manifest, run.read_manifest(), run.manifest).prompt_sha256
    return [prompt.alias for prompt in prompts if trained.get(prompt.alias, prompt.digest) != prompt.digest]


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
    """A run's facts and all its samples, untuned before lora; of each prompt those of the newest file that has any.

    Raises `InputError` when a prompt that samples name is gone, or when samples come from another adapter or base
    model than the run now holds.
    """
    manifest = _checked(Manifest, run.read_manifest(), run.manifest)
    facts = RunFacts(str(run.path), run, manifest, _checked(Settings, _config(run), run.config), run.read_prompts())
    found: list[SampleSet] = []
    left_out = []
    for mode, (newest, *older) in run.all_sample_files().items():
        found += (of_mode := _of_file(facts.run, mode, newest, facts, book))
        for file in older:
            there = {s.prompt.alias for s in of_mode}
            try:
                named = _meta(file).prompts.keys()
                superseded = bool(named) and named <= there  # then its answers, a million perhaps, need no reading
                sets = [] if superseded else _of_file(facts.run, mode, file, facts, book)
            except InputError:  # of another adapter, or of prompts that are gone: the newer file is the run's
                sets = []
            more = [s for s in sets if s.prompt.alias not in there]
            of_mode += more
            found += more
            if len(more) < len(sets) or not sets:
                left_out.append(file)
    return replace(facts, left_out=tuple(left_out)), found


def read_file(file: Path, book: PromptBook) -> list[SampleSet]:
    """A file in one of our formats or the original's; what stands beside it tells of prompts and settings."""
    run = RunDir(file.parent)
    named = "untuned" if file.stem.endswith("untuned") else file.stem
    mode = _meta(file).mode or ("lora" if meta_path(file).is_file() else named)
    return _of_file(str(file), mode, file, RunFacts(str(file), run, Manifest(), Settings(), run.read_prompts()), book)


def read_answers(
    file: Path, prompt: Path, column: str | None, count_column: str | None = None, layout: Layout | None = None,
    notice: Notice = lambda _: None,
) -> SampleSet:  # fmt: skip
    """Answers to one prompt from anywhere: a list in JSON, a table (CSV, JSON lines, Parquet, Excel), or else a line each.

    Without a column it is the only one, or one of those usually called so; a column `count` beside it counts; a list in JSON is several answers.
    `notice` takes what was found out about a table, and a column that looks like counts and is not read. Raises `InputError`.
    """
    asked, wanted = read_prompt(prompt), _Columns(column, count_column, layout or Layout())
    ending, as_lines = file.suffix.lower(), wanted.layout == Layout(delimiter="none")
    if ending in (".json", ".jsonl") and wanted.layout == Layout():
        counts = (_listed if ending == ".json" else _of_lines)(file, wanted, notice)
    elif ending in TABULAR or not (wanted.column is None and (as_lines or wanted.layout == Layout())) or not _is_plain(file):
        counts = _tabled(file, wanted, asked, notice)
    else:
        counts = _plain(file, () if as_lines else asked.targets)
    meta = _meta(file)
    (cut,) = meta.unfinished.values() if len(meta.unfinished) == 1 else ({},)
    return SampleSet(str(file), file.stem, asked, _marked(counts, cut), _settings(meta, *meta.prompts))


def find_samples(path: Path, book: PromptBook) -> tuple[list[RunFacts], list[SampleSet]]:
    """A file, a run or a folder of runs. Raises `InputError` when it is none of them."""
    if exists(path) and path.is_file():
        return [], read_file(path, book)
    runs = [read_run(run, book) for run in find_runs(path)]
    return [facts for facts, _ in runs], [s for _, found in runs for s in found]


def _of_file(name: str, mode: str, file: Path, facts: RunFacts, book: PromptBook) -> list[SampleSet]:
    meta = _meta(file)
    _require_same_model(file, meta, facts.manifest)
    trained: dict[tuple[str, str], tuple[str, Any]] = {}  # by conversation; training prompts come first in the file
    for alias, p in facts.prompts.items():
        known = not facts.manifest.exact_kl or alias in facts.manifest.exact_kl
        if known and isinstance(p, dict) and p.get("targets") and isinstance(p.get("request"), str):
            trained.setdefault((p["request"], repr(p.get("system"))), (alias, p))
    found = []
    for alias, counts in read_samples(file).items():
        prompt = book.find(alias, [meta.prompts.get(alias), facts.prompts.get(alias)], file)
        same = trained.get((prompt.request, repr(prompt.system))) if not prompt.targets else None
        trained_on = book.find(same[0], [same[1]], file) if same else None
        found.append(SampleSet(
            name, mode, prompt, _marked(counts, meta.unfinished.get(alias, {})), _settings(meta, alias),
            facts.settings.alg_config.early_stop, meta.asked, trained_on,
        ))  # fmt: skip
    return found


def _marked(counts: Counter[str], unfinished: Mapping[str, int]) -> Answers:
    """With those that were cut, as the settings beside a file say; not more of them than the file, which may have been cut itself, has."""
    found = Answers(counts)
    found.unfinished |= Counter({text: min(cut, counts[text]) for text, cut in unfinished.items() if text in counts})
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


def _settings(meta: _Meta, *aliases: str) -> dict[str, Any]:
    """As prompts of these names, which are one, were sampled."""
    left = sorted({*meta.omitted, *meta.refused} - {"n"})  # n does not change what is drawn
    kept = meta.settings.model_dump(exclude_unset=True) if meta.settings is not None else {}
    kept.pop("left_to_server", None)  # the word of these lists alone
    if kept and (limits := [meta.limits[alias] for alias in aliases if alias in meta.limits]):
        kept["max_new_tokens"] = limits[0]
    return {**kept, "left_to_server": left} if left else kept


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


def _is_plain(file: Path) -> bool:
    try:
        return holds_plain_text(file)
    except OSError as error:
        raise unreadable(file, error) from error


def _tabled(file: Path, wanted: _Columns, prompt: Prompt, notice: Notice) -> Answers:
    """A table whose first line names its columns, unless the layout says otherwise."""
    named = [name for name in (wanted.column, wanted.count_column) if name not in (None, NONE)]
    table = read_table(file, wanted.layout, [str(name) for name in named])
    targets = set(map(canonical, prompt.targets))
    if wanted.layout.header_rows is None and (answers := [name for name in table.names if name in targets]):
        raise InputError(
            f"{file}:1: the first line names the columns, and {answers[0]!r} is a target. Add --no-header if it is an answer, "
            "or --header-rows 1 if it is a name"
        )
    for found in table.notices:
        notice(found)
    names = dict.fromkeys(table.names)
    answer = table.find(_column(table.names, wanted.column, str(file)) if table.counts is None else "target", "--column")
    others = {name: table.find(name, "--count-column") for name in names if _is_count_like(name) and table.names.count(name) == 1}
    if wanted.count_column not in (None, NONE):
        others[str(wanted.count_column)] = table.find(str(wanted.count_column), "--count-column")
    if table.counts is not None:
        others["count"] = table.find(table.counts, "--count-column")
    others |= {name: table.names.index(name) for name in ("prompt", *_ENDS, *_MANY_ENDS, *_SHARES) if table.names.count(name) == 1}
    kept = {name: table.columns[index] for name, index in others.items() if index != answer}
    rows = zip(table.columns[answer], *kept.values(), strict=True)
    places = (
        (f"{file}: row {number}", {"\0": cells[0], **dict(zip(kept, cells[1:], strict=True))}, 1)
        for number, cells in enumerate(rows, 1)
    )
    return _counted(places, replace(wanted, column="\0"), file, notice)


def _plain(file: Path, targets: Sequence[str]) -> Answers:
    """A line each; an empty line is an empty answer. Raises `InputError` for lines with fields of which one is a target."""
    try:
        text = read_text(file, MOST_BYTES)
    except TooLargeError as error:
        raise InputError(f"{file}: {error}, take it apart or count the answers") from error
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
    counts = Answers(text.removesuffix("\n").split("\n") if text else [])
    known = set(map(canonical, targets))
    if known and known.isdisjoint(map(canonical, counts)):
        for sign in even_delimiters(text):
            if any(field in known for line in counts for field in line.rstrip("\r").split(sign)):
                raise InputError(
                    f"{file}: no line is a target, but a field between {sign!r} is. Read a table with --delimiter '{sign}' and --column, "
                    "or lines with --delimiter none"
                )
    return counts


def _of_lines(file: Path, wanted: _Columns, notice: Notice) -> Answers:
    """JSON lines: strings, lists of them, or mappings with a column of answers."""
    return _counted(distinct_lines(file), wanted, file, notice)


def _listed(file: Path, wanted: _Columns, notice: Notice) -> Answers:
    """JSON: a list of strings or of mappings, answers with their counts, or one prompt's samples."""
    document, problems = read_document(file, MOST_BYTES)
    if document is None:
        raise InputError.of(problems)
    data = document.data
    if isinstance(data, dict) and len(data) == 1 and not isinstance(next(iter(data.values())), int):
        data = next(iter(data.values()))
    if isinstance(data, list):
        return _counted(((f"{file}: item {number}", row, 1) for number, row in enumerate(data, 1)), wanted, file, notice)
    if isinstance(data, dict) and all(map(is_count, data.values())):
        return Answers(data)
    if isinstance(data, dict) and {"request", "targets"} <= data.keys():
        raise InputError(f"{file}: is a prompt and holds no answers. Name a file of answers")
    if isinstance(data, dict) and data and all(isinstance(value, int | float) for value in data.values()):
        raise InputError(
            f"{file}: holds shares, not counts. Multiply them by the number of answers: its size decides what can be seen"
        )
    raise InputError(f"{file}: must be a list of answers, or answers with counts; with several prompts in it leave --prompt out")


def _counted(rows: Iterable[tuple[str, Any, int]], wanted: _Columns, file: Path, notice: Notice) -> Answers:
    """Answers by text from places, values and how often each came; mappings name the same column throughout, and may say how they ended."""
    counts = Answers()
    prompts: set[str] = set()
    column, counting = wanted.column, wanted.count_column or "count"
    likely: set[str] | None = None  # columns that may count, as long as they hold whole numbers
    number_of_rows = 0
    unread: str | None = None  # the first column that looks like counts or shares
    for place, row, number in rows:
        answer, times, ends = row, number, list[Any]()
        number_of_rows += number
        if isinstance(row, dict):
            column = _column([str(name) for name in row], column, place)
            prompts.add(str(row.get("prompt")))
            answer = row[column]
            ends = [row[name] for name in (*_ENDS, *_MANY_ENDS) if name in row and name != column]
            if counting in row and column != counting:
                times *= _times(row[counting], place)
            elif wanted.count_column not in (None, NONE):
                raise InputError(
                    f"{place}: has no column '{counting}' (--count-column), {did_you_mean(counting, list(map(str, row)))}"
                )
            else:
                here = {
                    name for name, value in row.items() if name != column and _is_count_like(name) and _whole(value) is not None
                }
                likely = here if likely is None else likely & here
                unread = unread or next((n for n in row if n != column and (_is_count_like(n) or n in _SHARES)), None)
        texts = [*_texts(answer, place, "the answer" if column is None or column == "\0" else f"the column '{column}'")]
        for text, cut in zip(texts, _cuts(ends, len(texts), place), strict=True):
            counts.add(text, times, unfinished=cut)
    if len(prompts) > 1:
        raise InputError(f"{file}: holds answers to several prompts, leave --prompt out")
    if likely and wanted.count_column is None and number_of_rows == len(counts) > 1:
        name = min(likely)
        raise InputError(
            f"{file}: each answer comes once, and the column '{name}' looks like counts. Add --count-column {name}, "
            f"or --count-column {NONE} if each row is one answer"
        )
    if unread and wanted.count_column is None:
        notice(
            f"{file}: the column '{unread}' is not read, every row is one answer. If it counts answers, add --count-column '{unread}'"
        )
    return counts


def _cuts(ends: Sequence[Any], answers: int, place: str) -> list[bool]:
    """Whether each answer of a row was cut: what says so is one value for all, or a list with one for each."""
    cut = [False] * answers
    for value in ends:
        each = value if isinstance(value, list) else [value] * answers
        if len(each) != answers:
            raise InputError(f"{place}: has {many(answers, 'answer')} and {len(each)} reasons why they ended. Write one for each")
        cut = [before or _ends_early(reason) for before, reason in zip(cut, each, strict=True)]
    return cut


def _ends_early(value: Any) -> bool:
    """Whether a value of `_ENDS` says that the answer was cut: a server's reason, or yes, as JSON or a table writes it."""
    return is_cut(value) or str(value).lower() == "true"


_COUNT_LIKE = re.compile(r"(?i)counts?|n|freq|frequency|frequencies|size|times|occurrences|anzahl|häufigkeit")


def _is_count_like(name: object) -> bool:
    return isinstance(name, str) and bool(_COUNT_LIKE.fullmatch(name))


def _texts(answer: Any, place: str, where: str) -> Iterator[str]:
    """The answers that a value holds: one, or those of a list."""
    waiting = [answer]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(reversed(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
        elif isinstance(value, str):
            yield value
        else:
            kind = {dict: "a mapping", bool: "true or false", type(None): "nothing"}.get(type(value), type(value).__name__)
            raise InputError(
                f"{place}: {where} holds {kind} where the text of an answer must be. Name another column with --column, or write the text"
            )


def _times(count: Any, place: str) -> int:
    """A whole number, however it is written: 3, "3", 3.0 or "1,234"."""
    if (number := _whole(count)) is None:
        raise InputError(f"{place}: the count {count!r} is no whole number, correct it")
    return number


def _whole(count: Any) -> int | None:
    try:
        number = (
            numbers_in([str(count)], ".")[0] if isinstance(count, str | int | float) and not isinstance(count, bool) else math.nan
        )
    except UnclearNumberError:
        return None
    return int(number) if 0 <= number <= MOST_COUNT and number.is_integer() else None
