"""What a report shows: its prompts, and the charts of each and of all. The HTML report and the pictures draw the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusecli.evaluation.evaluation import Difference, Evaluation
from diffusecli.evaluation.groups import Group, are_many, groups, has_groups, worst
from diffusecli.evaluation.sample_set import RunFacts
from diffusecli.prompts.groups import Folder
from diffusecli.prompts.prompt import Prompt
from diffusecli.report.asked import Asked, asked, general_system
from diffusecli.report.curves import cumulative, training
from diffusecli.report.key_figures import Figure, key_figures
from diffusecli.report.line_charts import LineChart, of_cumulative, of_training
from diffusecli.report.matrix_chart import MatrixChart, of_matrix
from diffusecli.report.overview_chart import Overview, of_prompts
from diffusecli.report.prompt_charts import of_differences, of_folders
from diffusecli.report.row_charts import RowChart
from diffusecli.report.scores import Score, in_folders
from diffusecli.report.target_charts import of_outcomes, of_targets
from diffusecli.report.views import Pair, Sampler, Section, pairs, samplers, sections

if TYPE_CHECKING:
    from diffusecli.report.histogram import Sort


@dataclass(frozen=True)
class Drawn:
    """What is shown of one prompt."""

    asked: Asked
    figures: dict[str, list[Figure]]  # below each sampler's verdict
    rows: tuple[RowChart, ...]
    lines: tuple[LineChart, ...]


@dataclass(frozen=True)
class Changed:
    """What changed between two samplers."""

    pair: Pair
    rows: tuple[tuple[str, Difference], ...]  # by the names of prompts
    chart: RowChart | None


@dataclass(frozen=True)
class Content:
    """Everything that a report shows in charts."""

    every: list[Section]
    sections: list[tuple[Section, Drawn]]  # those shown in detail
    overview: Overview | None
    by_folder: list[tuple[Folder, list[Group]]]
    follow: dict[tuple[Folder, Sampler], Score]
    folder_chart: RowChart | None
    changes: list[Changed]
    matrices: list[MatrixChart]
    training: list[tuple[RunFacts, list[LineChart]]]


def content(evaluation: Evaluation, sort: Sort | None = None) -> Content:
    """All prompts in detail; if there are many, those furthest from their targets."""
    every = sections(evaluation, sort)
    found = _furthest(every, evaluation) if are_many(evaluation.rows) else every
    prompts, shown = [section.prompt for section in every], {section.prompt.key for section in found}
    drawings = [(section, drawn(section, prompts, evaluation)) for section in found]
    folders = groups(evaluation.rows) if has_groups(evaluation.rows) else []
    named = samplers(evaluation.rows)
    follow = in_folders(evaluation.rows, (folder for folder, _ in folders), named)
    recorded = [(facts, training(facts)) for facts in evaluation.runs]
    return Content(
        every, drawings, of_prompts([(section, some.asked) for section, some in drawings]) if len(found) > 1 else None,
        folders, follow, of_folders(folders, named, follow),
        [Changed(pair, tuple(zip(names, some, strict=True)), of_differences(pair, some, names)) for pair, some, names in pairs(evaluation, shown)],
        [of_matrix(matrix) for matrix in evaluation.matrices],
        [(facts, list(of_training(curves))) for facts, curves in recorded if curves is not None],
    )  # fmt: skip


def drawn(section: Section, others: Sequence[Prompt], evaluation: Evaluation) -> Drawn:
    """The charts of one prompt."""
    rows = [of_targets(section)] if section.sampled else []
    rows += [chart for sampler, row in section.pairs if (chart := of_outcomes(row, sampler)) is not None]
    summed = section.sampled and (section.values is not None or section.folded)
    lines = [of_cumulative(cumulative(section, evaluation.seed), [sampler for sampler, _ in section.sampled])] if summed else []
    figures = {sampler.label: key_figures(row) for sampler, row in section.pairs}
    general = general_system(evaluation.runs, section.rows)
    return Drawn(asked(section.prompt, others, general), figures, tuple(rows), tuple(lines))


def _furthest(every: Sequence[Section], evaluation: Evaluation) -> list[Section]:
    of_prompt = {section.prompt.key: section for section in every}
    return [of_prompt[key] for key in dict.fromkeys(row.prompt.key for row in worst(evaluation.rows))]
