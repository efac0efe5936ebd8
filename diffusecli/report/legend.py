"""The legend of `evaluate --verbose`: half a line for each figure that it shows."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.report.all_figures import lines_of
from diffusecli.report.parts import Sentence
from diffusecli.system.terminal import spelled

_MEANINGS = (
    ("valid", "95 % interval of valid", "exact (Clopper-Pearson)"),
    ("entropy", "entropy", "with Miller and Madow's correction"),
    ("TVD", "TVD", "total variation distance; answers that are no target count as one more outcome"),
    ("TVD", "perfect sampler", "the mean for independent draws from the weights, as many as the samples"),
    ("TVD", "excess", "TVD minus that of a perfect sampler"),
    ("test of fit", "simulated samples", "of a perfect sampler, as many answers as valid ones"),
    ("test of fit", "p <= ...", "the lowest p that so many simulated samples can show; two-sided twice that"),
    ("  by G", "G", "likelihood ratio statistic; 0 if shares equal their weights"),
    ("Cohen's w", "Cohen's w", "about 0.1 is a small effect, 0.5 a large one"),
    ("detectable TVD", "detectable TVD", "smallest TVD that the test of fit detects in 80 % of cases"),
    ("exact ", "exact", "from the model's own probabilities, without sampling noise"),
    ("Wasserstein distance", "Wasserstein distance", "how far values would have to move on average"),
    ("  known values", "known values", "every field has a value of some target, in any combination"),
    ("  copies", "copies", "answers that are one of the targets"),
    ("Cramér's V", "Cramér's V", "association of two fields, from 0 (none) to 1 (each value of one fixes the other)"),
    ("correlation", "correlation", "association of two fields of numbers, from -1 to 1"),
)
"""How the name of a line begins, or its note; the term, and what it means."""
_OF_HISTOGRAMS = (
    ("of valid", "share of valid answers"),
    ("count", "number of answers"),
    ("expected", "expected count among as many valid answers"),
    ("residual", "(count - expected) / its standard deviation"),
    ("*", "differs from its weight (Benjamini-Hochberg; 5 % of marks false on average)"),
)
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


def _lines(found: Evaluation) -> Iterator[tuple[str, str]]:
    shown = [line for row in found.rows for line in lines_of(row)]
    if any(row.prompt.targets for row in found.rows):
        yield "weight, wanted", "share of a target that the prompt asks for"
        yield "valid", spelled(found.match_in_words)
    for name, term, meaning in _MEANINGS:
        if any(line.name.startswith(name) or line.note.startswith(name) for line in shown):
            yield term, meaning
    if any(row.tally.on_target for row in found.rows):
        yield from _OF_HISTOGRAMS
    yield "Monte Carlo seed", str(found.seed)
