"""The legend of `evaluate --verbose`: half a line for each figure that it shows. The HTML report has some of them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diffusecli.evaluation.evaluation import Evaluation
from diffusecli.evaluation.records import CORRELATION, CRAMERS_V
from diffusecli.report.all_figures import lines_of
from diffusecli.system.terminal import spelled

_MAIN = (
    ("valid", "95 % interval of valid: exact (Clopper-Pearson)"),
    ("entropy", "entropy: with Miller and Madow's correction"),
    ("TVD", "TVD: total variation distance; answers that are no target count as one more outcome"),
    ("TVD", "perfect sampler: the mean for independent draws from the weights, as many as the samples"),
    ("TVD", "excess: TVD minus that of a perfect sampler"),
    ("exact ", "exact: from the model's own probabilities, without sampling noise"),
)
"""How the name of a line begins -> what it means. The HTML report explains these at length."""
_OTHERS = (
    ("test of fit", "simulated samples: of a perfect sampler, as many answers as valid ones"),
    ("test of fit", "p <= ...: the lowest p that B simulated samples can show, 1 / (B + 1); two-sided twice that"),
    ("  by G", "G: likelihood ratio statistic; 0 if shares equal their weights"),
    ("Cohen's w", "Cohen's w: size of the difference of valid answers from the weights; 0 is none, 0.1 small, 0.5 large"),
    ("detectable TVD", "detectable TVD: smallest TVD of valid answers that the test of fit detects in 80 % of cases"),
    ("Wasserstein distance", "Wasserstein distance: how far values would have to move on average"),
    ("  known values", "known values: every field has a value of some target, in any combination"),
    ("  copies", "copies: answers that are a whole target, not a new combination of values"),
    (
        "TVD of ",
        "field: differs if p < 0.025 / number of fields, and a pair if p < 0.025 over all pairs (joint level 5 %, Bonferroni)",
    ),
    (CRAMERS_V, "Cramér's V: association of two fields, from 0 (independent) to 1 (a value of one fixes the other)"),
    (CORRELATION, "correlation: association of two fields of numbers, from -1 to 1; 0 is none"),
)
"""How the name of a line begins, or the measure of a pair of fields -> what it means."""
_OF_HISTOGRAMS = """\
of valid: share of valid answers
expected: expected count among as many valid answers
residual: (count - expected) / its standard deviation
*: differs from its weight (Benjamini-Hochberg; 5 % of marks false on average)"""


def legend(found: Evaluation) -> str:
    """The meaning of every figure shown of these prompts."""
    return "\n".join(_lines(found))


def glossary(found: Evaluation) -> list[tuple[str, str]]:
    """Terms of the figures shown and their meanings, except those that the HTML report explains at length."""
    parts = (meaning.partition(": ") for meaning in _meanings(found, _OTHERS))
    return [(term, f"{meaning[0].upper()}{meaning[1:]}.") for term, _, meaning in parts]


def _meanings(found: Evaluation, wanted: Sequence[tuple[str, str]]) -> Iterator[str]:
    shown = {line.name for row in found.rows for line in lines_of(row)}
    shown |= {pair.measure for row in found.rows if row.records is not None for pair in row.records.pairs}
    yield from (meaning for name, meaning in wanted if any(line.startswith(name) for line in shown))


def _lines(found: Evaluation) -> Iterator[str]:
    if any(row.prompt.targets for row in found.rows):
        yield f"valid: {spelled(found.match_in_words)}"
    yield from _meanings(found, (*_MAIN, *_OTHERS))
    if any(row.tally.on_target for row in found.rows):
        yield _OF_HISTOGRAMS
    yield f"Monte Carlo seed: {found.seed}"
