"""The legend of `evaluate --verbose`: half a line for each figure that it shows. The HTML report has some of them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from diffusecli.evaluation.association import CORRELATION, CRAMERS_V
from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.report.all_figures import lines_of
from diffusecli.report.parts import Sentence
from diffusecli.system.terminal import spelled

_LOWEST_P = "p <= "
_MAIN = (
    ("valid", "95 % interval of valid", "exact (Clopper-Pearson)"),
    ("entropy", "entropy", "with Miller and Madow's correction"),
    ("TVD", "TVD", "total variation distance; answers that are no target count as one more outcome"),
    ("TVD", "perfect sampler", "the mean for independent draws from the weights, as many as the samples"),
    ("TVD", "excess", "TVD minus that of a perfect sampler, before rounding"),
    (
        "TVD",
        "true TVD",
        "that of the model, without sampling noise; the interval is conservative and can include 0 although the test rejects",
    ),
    ("exact ", "exact", "from the model's own probabilities, without sampling noise"),
)
"""How the name of a line begins -> the term, and what it means. The HTML report explains these at length."""
_OTHERS = (
    ("  by ", "simulated samples", "of a perfect sampler, as many answers as valid ones"),
    (_LOWEST_P, "p <= ...", "the lowest p that so many simulated samples can show; two-sided twice that"),
    *((name, "G", "likelihood ratio statistic; 0 if shares equal their weights") for name in ("  by G", "G")),
    ("Cohen's w", "Cohen's w", "size of the difference of valid answers from the weights; 0 is none, 0.1 small, 0.5 large"),
    ("detectable TVD", "detectable TVD", "smallest TVD of valid answers that the test of fit detects in 80 % of cases"),
    ("Wasserstein distance", "Wasserstein distance", "how far values would have to move on average"),
    ("  known values", "known values", "every field has a value of some target, in any combination"),
    ("  copies", "copies", "answers that are a whole target, not a new combination of values"),
    (
        "TVD of ",
        "field",
        "differs if p < 0.025 / number of fields, and a pair if p < 0.025 over all pairs (joint level 5 %, Bonferroni)",
    ),
    (
        "  at these shares",
        "with these shares",
        "of a perfect sampler, if each field had the sampled shares: tests the association alone",
    ),
    (CRAMERS_V, "Cramér's V", "association of two fields, from 0 (independent) to 1 (a value of one fixes the other)"),
    (CORRELATION, "correlation", "association of two fields of numbers, from -1 to 1; 0 is none"),
)
"""How the name of a line begins, or the measure of a pair of fields -> the term, and what it means."""
_OF_HISTOGRAMS = (
    ("of valid", "share of valid answers"),
    ("count", "number of answers"),
    ("expected", "expected count among as many valid answers"),
    ("residual", "(count - expected) / its standard deviation"),
)
_MARK = "*", "differs from its weight (exact binomial test, then Benjamini-Hochberg: 5 % of marks false on average)"
_WIDEST_TERM, _GAP = 22, 2


class Legend:
    """The meaning of every figure shown of these prompts: terms, and beside them what they mean."""

    def __init__(self, found: Evaluation) -> None:
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table.grid(padding=(0, _GAP, 0, 0))
        table.add_column(width=min(_WIDEST_TERM, max(len(term) for term, _ in _lines(self.found))))
        table.add_column()
        for term, meaning in _lines(self.found):
            table.add_row(Sentence(term, style="dim"), Sentence(meaning, style="dim"))
        yield table


def glossary(found: Evaluation) -> list[tuple[str, str]]:
    """Terms of the figures shown and their meanings, except those that the HTML report explains at length."""
    return [(term, f"{meaning[0].upper()}{meaning[1:]}.") for term, meaning in _meanings(found, _OTHERS)]


def _meanings(found: Evaluation, wanted: Sequence[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    lines = [line for row in found.rows for line in lines_of(row)]
    shown = {line.name for line in lines} | {_LOWEST_P for line in lines if _LOWEST_P in line.value + line.note}
    shown |= {pair.measure for row in found.rows if row.records is not None for pair in row.records.pairs}
    yield from dict.fromkeys((term, meaning) for name, term, meaning in wanted if any(line.startswith(name) for line in shown))


def _lines(found: Evaluation) -> Iterator[tuple[str, str]]:
    if any(row.prompt.targets for row in found.rows):
        yield "weight, wanted", "share of a target that the prompt asks for"
        yield "valid", spelled(found.match_in_words)
    yield from _meanings(found, (*_MAIN, *_OTHERS))
    if any(row.tally.on_target for row in found.rows):
        yield from _OF_HISTOGRAMS
    if any(cell.differs for row in found.rows for cell in row.cells):
        yield _MARK
    yield "Monte Carlo seed", str(found.seed)
