"""Evaluation, for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusecli.api.arguments import flag, function, optional, pairs_or_items, several, shown, text, texts, whole, wrong
from diffusecli.api.inputs import AnyPath, Prompts, are_prompts, listed, named, path_of
from diffusecli.api.notices import calling
from diffusecli.api.sampling import Samples
from diffusecli.api.training import Trained
from diffusecli.evaluation.metrics import AT_N, Cell
from diffusecli.evaluation.sample_set import SampleSet
from diffusecli.files.paths import exists
from diffusecli.files.tables import Layout
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.matching import Matching
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.data import Document, document, flat_rows
from diffusecli.system.errors import InputError, printable
from diffusecli.system.notebook import Columns, frame, html_table
from diffusecli.system.notices import Notice

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN = ("run", "mode", "prompt", "n", "valid", "tvd", "excess_tvd", "p_value", "verdict")
"""Columns of the table in a notebook, where a screen has room for a few."""

Source = Trained | Samples | AnyPath
"""A run, samples that were drawn, a folder of runs, or a file of samples."""


@dataclass(frozen=True)
class Evaluation:
    """Samples compared with the target weights."""

    document: Document = field(repr=False)  # everything, in the shape of `diffuse evaluate --json`

    def to_frame(self) -> DataFrame:
        """A data frame with a row per prompt and sampler. Its columns are those of `diffuse evaluate --csv`."""
        return frame(_by_name(flat_rows(self.document)))

    def targets_to_frame(self) -> DataFrame:
        """A data frame with a row per prompt, sampler and target.

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
        """A line with the verdict per prompt and sampler."""
        return printable("\n".join(f"{row.prompt} ({row.mode}): {row.verdict}" for row in self.document.rows))

    def _repr_html_(self) -> str:
        """What notebooks show."""
        found = _by_name(flat_rows(self.document))
        return html_table({name: found[name] for name in _SHOWN if name in found})


def _by_name(rows: Sequence[Mapping[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def evaluate(
    source: Source | Iterable[Source] = (), *, answers: Mapping[str, int] | Iterable[str] | None = None,
    prompt: Prompt | AnyPath | None = None, prompts: Prompts | None = None, match: str = "strip", only: str | Iterable[str] = (),
    exact: bool = False, model: str | None = None, trust_remote_code: bool = False, at_n: int = AT_N, sdmetrics: bool = False, seed: int = 0, column: str | None = None,
    count_column: str | None = None, layout: Layout | None = None, notice: Notice | None = None,
) -> Evaluation:  # fmt: skip
    """Compare samples with the target weights.

    - `source`: what `train` or `sample` returned, a run directory, a folder of them, or a file of samples; or several of these.
      Samples must still be in their file, and a run must still have its adapter.
    - `answers`: answers that the program has, in place of a source: a list of texts, a column or an array of them, or a mapping of text to
      count, such as that of `value_counts()`. They answer `prompt`.
    - `prompt`: with `answers` a prompt or its file. With files of raw answers the file of the prompt that they answer.
    - `prompts`: prompt files in place of those that samples name; with `exact` also held-out ones to measure.
    - `match`: when an answer is a target: `exact`, `strip`, `casefold` or `regex:…`.
    - `only`: only prompts with this in their path.
    - `exact`: load the model, and compute exact KL, TVD and coverage of every prompt, and the drift. `model` is then its base model where
      that is in another place, and `trust_remote_code` lets code of the model run.
    - `at_n`: draws for the excess TVD of exact figures.
    - `sdmetrics`: SDMetrics' quality score of records, too (extra `records`).
    - `seed`: of Monte Carlo and bootstrap.
    - `column`, `count_column`, `layout`: how a file of raw answers is written.
    - `notice`: takes what the command line prints on the way. By default it is logged.

    Limits are for the program to check, in the data frame. Raises `InputError` when there are no samples, or when they do not belong to
    the run or the prompt that they name.
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
    with calling(notice) as say:
        sources = _sources(source)
        if not sources and answers is None:
            raise InputError("nothing to evaluate: name a run or samples, or pass answers= with prompt=")
        paths = [one.place if isinstance(one, Trained | Samples) else path_of(one, "source") for one in sources]
        for one in sources:
            if isinstance(one, Trained | Samples):
                one.require_unchanged()
        if not isinstance(source, str | PathLike) and paths and all(isinstance(one, str) and not exists(one) for one in sources):
            raise InputError(f"{paths[0]}: no such file or folder. For answers in memory write evaluate(answers=…, prompt=…)")
        if prompt is not None and not isinstance(prompt, Prompt | str | PathLike):
            raise wrong("prompt", "a prompt or the path of its file", prompt)
        if (model is not None or trust_remote_code) and not exact:
            raise InputError(f"{'trust_remote_code' if model is None else 'model'} has no effect without exact=True. Leave it out")
        of_files = {"column": column, "count_column": count_column, "layout": layout}
        described = [name for name, value in of_files.items() if value is not None]
        if described and (prompt is None or answers is not None):
            raise InputError(
                f"{described[0]}: describes a file of raw answers. Name that file, and with prompt= the prompt that it answers"
            )
        given = _given(answers, prompt, paths)
        held_out = listed(prompts)
        if in_memory := [one for one in held_out if isinstance(one, Prompt)]:
            raise InputError(f"prompts: {in_memory[0].question[:40]!r} is in memory, name prompt files")
        question = Question(
            Matching(match), tuple(Path(str(one)) for one in held_out), _file_of(prompt, paths), column, texts("only", only), exact,
            seed, trust_remote_code, model, count_column, layout or Layout(), given, at_n, flag("sdmetrics", sdmetrics),
        )  # fmt: skip
        return Evaluation(document(judge(paths, question, say)))


def _sources(source: Any) -> list[Source]:
    """One or several as a list; raises `InputError` for what is no source of samples."""
    must = "a run, samples, a path, or a list of these"
    if are_prompts(source):
        raise InputError("source: these are prompts. Write evaluate(answers=…, prompt=…) or evaluate(samples)")
    some: list[Any] = [source] if isinstance(source, Trained | Samples | str | PathLike) else several("source", source, must)
    if foreign := [one for one in some if not isinstance(one, Trained | Samples | str | PathLike)]:
        raise wrong("source", must, foreign[0])
    return some


def _given(answers: Any, prompt: Prompt | AnyPath | None, paths: Sequence[Path]) -> tuple[SampleSet, ...]:
    """Answers in memory as what an evaluation starts from."""
    if answers is None:
        return ()
    if prompt is None or paths:
        raise InputError(
            "answers: " + ("leave the source out, or write them to a file" if paths else "name the prompt that they answer")
        )
    counted = _counted(answers)
    if isinstance(prompt, Prompt):
        (asked,) = named([prompt], None)
    else:
        from diffusecli.prompts.prompt_files import read_prompt

        asked = read_prompt(path_of(prompt, "prompt"))
    return (SampleSet("answers", "answers", asked, counted),)


def _counted(answers: Any) -> Answers:
    """Answers with their counts; raises `InputError` that names the first that is no text, or whose count is none."""
    pairs, items = pairs_or_items("answers", answers, "a list of texts, or a mapping of text to count")
    for one in items if pairs is None else [key for key, _ in pairs]:
        if not isinstance(one, str):
            raise InputError(f"answers: {shown(one)} is no text. Every answer must be a text")
    found = Answers()
    for one, count in [(one, 1) for one in items] if pairs is None else pairs:
        found[str(one)] += whole(f"answers: the count of {shown(one)}", count, 0)
    if isinstance(answers, Answers):
        found.unfinished.update(answers.unfinished)
    if found.total() == 0:
        raise InputError("answers: is empty, there are no answers to evaluate")
    return found


def _file_of(prompt: Prompt | AnyPath | None, paths: Sequence[Path]) -> Path | None:
    """The file of the prompt that files of raw answers answer."""
    if prompt is None or not paths:
        return None
    if isinstance(prompt, Prompt):
        raise InputError("prompt: name the prompt's file where answers are in files")
    return path_of(prompt, "prompt")
