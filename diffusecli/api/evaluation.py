"""Python API: evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.api.arguments import flag, function, optional, pairs_or_items, several, shown, text, texts, whole, wrong
from diffusecli.api.inputs import AnyPath, Prompts, are_prompts, listed, named, path_of
from diffusecli.api.notices import calling
from diffusecli.api.sampling import Samples, require_kinds
from diffusecli.api.training import Trained
from diffusecli.evaluation.metrics import AT_N, Cell
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.files.paths import exists
from diffusecli.files.tables import Layout
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.data import Document, document, flat_rows
from diffusecli.sampling.connection import Service
from diffusecli.sampling.measured_service import measured_service
from diffusecli.system.errors import InputError, printable
from diffusecli.system.notebook import Columns, frame, html_table
from diffusecli.system.notices import Notice

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = ("run", "mode", "prompt", "n", "valid", "tvd", "excess_tvd", "p_value", "verdict")
"""Columns of the table in a notebook, which has room for a few."""

Source = Trained | Samples | AnyPath
"""A run, samples that were drawn, a folder of runs, or a file of samples."""


@dataclass(frozen=True)
class Evaluation:
    """Samples compared with the target weights."""

    document: Document = field(repr=False)  # everything, in the schema of `diffuse evaluate --json`

    def to_frame(self) -> DataFrame:
        """A data frame with one row per prompt and sampler. The columns are those of `diffuse evaluate --csv`."""
        return frame(_by_name(flat_rows(self.document)))

    def targets_to_frame(self) -> DataFrame:
        """A data frame with one row per prompt, sampler and target.

        The columns are `run`, `mode` and `prompt`, `share` (of the valid answers), and the fields of Cell in `diffuse evaluate --json`.
        """
        rows = []
        for row in self.document.rows:
            valid = sum(cell.count for cell in row.targets)
            for cell in row.targets:
                share = cell.count / valid if valid else None
                rows.append({"run": row.run, "mode": row.mode, "prompt": row.prompt, "share": share, **asdict(cell)})
        return frame(_by_name(rows) or dict.fromkeys(("run", "mode", "prompt", "share", *(of.name for of in fields(Cell))), ()))

    def __str__(self) -> str:
        """One line per prompt and sampler with the verdict."""
        return printable("\n".join(f"{row.prompt} ({row.mode}): {row.verdict}" for row in self.document.rows))

    def _repr_html_(self) -> str:
        """The table shown in notebooks."""
        found = _by_name(flat_rows(self.document))
        return html_table({name: found[name] for name in _SHOWN if name in found})


def _by_name(rows: Sequence[Mapping[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def evaluate(
    source: Source | Iterable[Source] = (), *, answers: Mapping[str, int] | Iterable[str] | None = None,
    prompt: Prompt | AnyPath | None = None, prompts: Prompts | None = None, match: str = "strip", only: str | Iterable[str] = (),
    exact: bool = False, model: str | None = None, trust_remote_code: bool = False, at_n: int = AT_N, sdmetrics: bool = False, seed: int = 0, column: str | None = None,
    count_column: str | None = None, layout: Layout | None = None, engine: str | None = None, notice: Notice | None = None, **options: Any,
) -> Evaluation:  # fmt: skip
    """Compare samples with the target weights.

    - `source`: a result of `train` or `sample`, a run directory, a folder of runs, or a sample file; or several of these.
      Samples must still be in their file, and a run must still have its adapter.
    - `answers`: answers in memory, without a source: a list of texts, a Series or an array of texts, or a mapping of text to
      count, such as the result of `value_counts()`. They are answers to `prompt`.
    - `prompt`: with `answers`, a prompt or its file. With files of raw answers, the file of their prompt.
    - `prompts`: prompt files that replace the ones named by samples; with `exact` also held-out prompts to measure.
    - `match`: when an answer matches a target: `exact`, `strip`, `casefold` or `regex:…`.
    - `only`: only prompts with this text in their path.
    - `exact`: load the model and compute exact KL, TVD and coverage of every prompt, and the drift. `model` is then the path or name of
      its base model if that has moved, and `trust_remote_code` allows code of the model to run.
    - `engine`, `options`: with `exact`, a server whose model `model` is measured instead: `engine="openai", base_url=…`, and `concurrency`,
      `requests_per_minute`, `tries`, `timeout` as in `sample`. `prompts` alone is then enough. If the server lists only the most likely
      tokens, there are limits (`bounds`) instead of exact figures.
    - `at_n`: draws for the excess TVD of exact figures.
    - `sdmetrics`: also compute SDMetrics' quality score of records (extra `records`).
    - `seed`: random seed for Monte Carlo and bootstrap.
    - `column`, `count_column`, `layout`: format of a file of raw answers.
    - `notice`: called with the notices of the command line. By default they are logged.

    To apply limits, check the data frame in your program. Raises `InputError` if there are no samples, or if they do not belong to
    their run or prompt.
    """
    from diffusecli.verbs.evaluate import Question
    from diffusecli.verbs.evaluate import evaluate as judge

    text("match", match)
    for name, value in {"model": model, "column": column, "count_column": count_column}.items():
        optional(text, name, value)
    for name, switch in {"exact": exact, "trust_remote_code": trust_remote_code}.items():
        flag(name, switch)
    if layout is not None and not isinstance(layout, Layout):
        raise wrong("layout", "a Layout", layout)
    optional(function, "notice", notice)
    seed, at_n = whole("seed", seed, 0), whole("at_n", at_n, 1)
    service = _service(engine, model, options, exact=exact, sources=bool(_sources(source)))
    if service is not None and trust_remote_code:
        raise InputError("trust_remote_code has no effect with engine 'openai'. Remove it")
    with calling(notice) as say:
        sources = _sources(source)
        if not sources and answers is None and (service is None or prompts is None):
            raise InputError("nothing to evaluate. Name a run or samples, or pass answers= with prompt=")
        paths = [one.place if isinstance(one, Trained | Samples) else path_of(one, "source") for one in sources]
        for one in sources:
            if isinstance(one, Trained | Samples):
                one.require_unchanged()
        if not isinstance(source, str | PathLike) and paths and all(isinstance(one, str) and not exists(one) for one in sources):
            raise InputError(f"{paths[0]}: does not exist. For answers in memory write evaluate(answers=…, prompt=…)")
        if prompt is not None and not isinstance(prompt, Prompt | str | PathLike):
            raise wrong("prompt", "a prompt or the path of its file", prompt)
        if (model is not None or trust_remote_code) and not exact:
            raise InputError(f"{'trust_remote_code' if model is None else 'model'} has no effect without exact=True. Remove it")
        of_files = {"column": column, "count_column": count_column, "layout": layout}
        described = [name for name, value in of_files.items() if value is not None]
        if described and (prompt is None or answers is not None):
            raise InputError(f"{described[0]}: describes a file of raw answers. Name that file, and its prompt with prompt=")
        given = _given(answers, prompt, paths)
        held_out = listed(prompts)
        if in_memory := [one for one in held_out if isinstance(one, Prompt)]:
            raise InputError(f"prompts: {in_memory[0].question[:40]!r} is in memory. Name prompt files")
        question = Question(
            Matching(match), tuple(Path(str(one)) for one in held_out), _file_of(prompt, paths), column, texts("only", only), exact,
            seed, trust_remote_code, model, count_column, layout or Layout(), given, at_n, flag("sdmetrics", sdmetrics), service,
        )  # fmt: skip
        return Evaluation(document(judge(paths, question, say)))


_OF_SERVERS = ("base_url", "concurrency", "requests_per_minute", "tries", "timeout")
"""Options of the engine `openai` that also apply when its model is measured."""


def _service(engine: str | None, model: str | None, options: Mapping[str, Any], *, exact: bool, sources: bool) -> Service | None:
    """The server to measure; None without its options. Raises `InputError` for options that are unknown, missing or without effect."""
    if foreign := [option for option in options if option not in _OF_SERVERS]:
        raise InputError(f"{foreign[0]}: not an option of evaluate. Remove it")
    require_kinds("openai", options)
    named = {} if optional(text, "engine", engine) is None else {"engine": engine}
    return measured_service({**named, **options}, model, _written, exact=exact, sources=sources)


def _written(option: str, value: Any) -> str:
    return option if value is None else f"{option}={value!r}"


def _sources(source: Any) -> list[Source]:
    """One source or several as a list; raises `InputError` for anything that is not a source of samples."""
    must = "a run, samples, a path, or a list of these"
    if are_prompts(source):
        raise InputError("source: these are prompts. Write evaluate(answers=…, prompt=…) or evaluate(samples)")
    some: list[Any] = [source] if isinstance(source, Trained | Samples | str | PathLike) else several("source", source, must)
    if foreign := [one for one in some if not isinstance(one, Trained | Samples | str | PathLike)]:
        raise wrong("source", must, foreign[0])
    return some


def _given(answers: Any, prompt: Prompt | AnyPath | None, paths: Sequence[Path]) -> tuple[SampleSet, ...]:
    """Answers in memory as a sample set."""
    if answers is None:
        return ()
    if prompt is None or paths:
        raise InputError(
            "answers: " + ("remove the source, or write them to a file" if paths else "prompt= is missing. Name their prompt")
        )
    counted = _counted(answers)
    if isinstance(prompt, Prompt):
        (asked,) = named([prompt], None)
    else:
        from diffusecli.prompts.prompt_files import read_prompt

        asked = read_prompt(path_of(prompt, "prompt"))
    return (SampleSet("answers", "answers", asked, counted),)


def _counted(answers: Any) -> Answers:
    """Answers with their counts; raises `InputError` for the first one that is not a text or has a wrong count."""
    pairs, items = pairs_or_items("answers", answers, "a list of texts, or a mapping of text to count")
    for one in items if pairs is None else [key for key, _ in pairs]:
        if not isinstance(one, str):
            raise InputError(f"answers: {shown(one)} is not a text. Every answer must be a text")
    found = Answers()
    for one, count in [(one, 1) for one in items] if pairs is None else pairs:
        found[str(one)] += whole(f"answers: the count of {shown(one)}", count, 0)
    if isinstance(answers, Answers):
        found.unfinished.update(answers.unfinished)
    if found.total() == 0:
        raise InputError("answers: is empty. There is nothing to evaluate")
    return found


def _file_of(prompt: Prompt | AnyPath | None, paths: Sequence[Path]) -> Path | None:
    """The prompt file for files of raw answers."""
    if prompt is None or not paths:
        return None
    if isinstance(prompt, Prompt):
        raise InputError("prompt: is in memory, but the answers are in files. Name the prompt's file")
    return path_of(prompt, "prompt")
